// Package unit holds exact quantities: resources, time in ticks and money are
// integers in their smallest unit, so that sums are sums. Nothing in it is a
// float and nothing rounds; what does not fit is an error.
package unit

import (
	"fmt"
	"strings"
)

// MiB is the grain of memory and disk: bills count them in whole MiB.
const MiB = 1 << 20

// Resources is a vector of what a task asks for and what a machine has.
type Resources struct {
	CPU  int64 `json:"cpu_milli"`          // thousandths of a core
	RAM  int64 `json:"ram_bytes"`          // bytes, whole MiB once validated
	Disk int64 `json:"disk_bytes"`         // bytes, whole MiB once validated
	GPU  int64 `json:"gpu_milli,omitzero"` // thousandths of a GPU
	Net  int64 `json:"net_bps,omitzero"`   // network bandwidth, bits per second
}

// A Measure names one dimension of [Resources].
type Measure uint8

// The measures, in the order in which a shortage is reported.
const (
	CPU Measure = iota
	RAM
	Disk
	GPU
	Net
)

// Measures lists every measure in order.
var measures = [...]Measure{CPU, RAM, Disk, GPU, Net}

// Measures returns every measure in order.
func Measures() []Measure { return append([]Measure(nil), measures[:]...) }

var measureNames = [...]string{"cpu", "ram", "disk", "gpu", "net"}

// String returns the measure's name as configuration files spell it.
func (m Measure) String() string {
	if int(m) < len(measureNames) {
		return measureNames[m]
	}
	return fmt.Sprintf("measure(%d)", uint8(m))
}

// Of returns the amount of m in r, in the unit of its field.
func (r Resources) Of(m Measure) int64 {
	switch m {
	case CPU:
		return r.CPU
	case RAM:
		return r.RAM
	case Disk:
		return r.Disk
	case GPU:
		return r.GPU
	case Net:
		return r.Net
	}
	return 0
}

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	return Resources{r.CPU + o.CPU, r.RAM + o.RAM, r.Disk + o.Disk, r.GPU + o.GPU, r.Net + o.Net}
}

// Sub returns r - o; amounts may become negative.
func (r Resources) Sub(o Resources) Resources {
	return Resources{r.CPU - o.CPU, r.RAM - o.RAM, r.Disk - o.Disk, r.GPU - o.GPU, r.Net - o.Net}
}

// Times returns r n times over.
func (r Resources) Times(n int64) Resources {
	return Resources{r.CPU * n, r.RAM * n, r.Disk * n, r.GPU * n, r.Net * n}
}

// Max returns the larger amount of each measure.
func (r Resources) Max(o Resources) Resources {
	return Resources{max(r.CPU, o.CPU), max(r.RAM, o.RAM), max(r.Disk, o.Disk), max(r.GPU, o.GPU), max(r.Net, o.Net)}
}

// Min returns the smaller amount of each measure.
func (r Resources) Min(o Resources) Resources {
	return Resources{min(r.CPU, o.CPU), min(r.RAM, o.RAM), min(r.Disk, o.Disk), min(r.GPU, o.GPU), min(r.Net, o.Net)}
}

// Fits reports whether r fits into free in every measure.
func (r Resources) Fits(free Resources) bool {
	return r.CPU <= free.CPU && r.RAM <= free.RAM && r.Disk <= free.Disk && r.GPU <= free.GPU && r.Net <= free.Net
}

// Short returns the measures in which r does not fit into free, in order.
func (r Resources) Short(free Resources) []Measure {
	var short []Measure
	for _, m := range measures {
		if r.Of(m) > free.Of(m) {
			short = append(short, m)
		}
	}
	return short
}

// Whole returns r with memory and disk cut down to whole MiB.
func (r Resources) Whole() Resources {
	r.RAM -= r.RAM % MiB
	r.Disk -= r.Disk % MiB
	return r
}

// Format prints an amount of m for people: "0.5", "128 MiB", "2.5 GiB", "100 Mbit/s".
func (m Measure) Format(n int64) string {
	switch m {
	case CPU, GPU:
		return decimal(n, 3)
	case RAM, Disk:
		if n%(1<<30) == 0 || n >= 10<<30 {
			return decimal(n*10>>30, 1) + " GiB"
		}
		return fmt.Sprintf("%d MiB", n/MiB)
	case Net:
		return decimal(n/1000, 3) + " Mbit/s"
	}
	return fmt.Sprint(n)
}

// String prints r for people, leaving out what is zero.
func (r Resources) String() string {
	var parts []string
	for _, m := range measures {
		if n := r.Of(m); n != 0 {
			parts = append(parts, m.String()+" "+m.Format(n))
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// decimal prints n / 10^places without trailing zeros.
func decimal(n int64, places int) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	pow := int64(1)
	for range places {
		pow *= 10
	}
	s := fmt.Sprintf("%s%d.%0*d", sign, n/pow, places, n%pow)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
