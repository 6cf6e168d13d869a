// Package rate turns what was metered into money: a price book, and usage
// times price. Everything is exact: a price holds for whole hours, hours are
// metered as integers, and their product is never rounded. Each hour costs
// what the price of that hour says; nothing is averaged.
package rate

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/unit"
)

// Bounds of a price that has none.
const (
	Always  unit.Tick = math.MinInt64 // From: since ever
	Forever unit.Tick = math.MaxInt64 // To: without end
)

// A Price is what an hour of each measure costs from From to To, in 1e-9 units
// of the book's currency.
type Price struct {
	From, To unit.Tick // on the hour, or Always and Forever
	CPU      int64     // per core-hour
	RAM      int64     // per GiB-hour
	Disk     int64     // per GiB-hour
	GPU      int64     // per GPU-hour
}

// A Book is the prices of one currency, in order of time, without overlaps.
// The book that [Parse] returns is valid.
type Book struct {
	Currency string // ISO 4217, such as USD
	Prices   []Price
}

// Default returns the price book for a company that has none of its own: list
// prices of a public cloud for a core, a GiB of memory, a GiB of disk (0.04 a
// month) and a GPU, for an hour, in US dollars, at all times.
func Default() Book {
	return Book{"USD", []Price{{
		From: Always, To: Forever,
		CPU: 31_611_000, RAM: 4_237_000, Disk: 54_795, GPU: 950_000_000,
	}}}
}

// At returns the price at t. The error is of kind NotFound.
func (b Book) At(t unit.Tick) (Price, error) {
	i, exact := slices.BinarySearchFunc(b.Prices, t, func(p Price, t unit.Tick) int {
		switch {
		case p.To <= t:
			return -1
		case p.From > t:
			return 1
		}
		return 0
	})
	if !exact {
		return Price{}, fault.NotFound.Errorf("the price book has no price for %s%s; add an entry that covers it", ledger.Stamp(t), b.around(i))
	}
	return b.Prices[i], nil
}

// around says what is before and after the gap in front of entry i.
func (b Book) around(i int) string {
	var parts []string
	if i > 0 {
		parts = append(parts, "the entry before it ends at "+ledger.Stamp(b.Prices[i-1].To))
	}
	if i < len(b.Prices) {
		parts = append(parts, "the one after it begins at "+ledger.Stamp(b.Prices[i].From))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// Until returns the first moment from t on for which there is no price, or
// Forever.
func (b Book) Until(t unit.Tick) unit.Tick {
	for _, p := range b.Prices {
		if p.From <= t && t < p.To {
			t = p.To
		}
	}
	return t
}

// Cost returns what amounts cost.
func (p Price) Cost(a ledger.Amounts) (unit.Money, error) {
	var sum unit.Money
	for _, x := range []struct {
		m     unit.Measure
		price int64
	}{{unit.CPU, p.CPU}, {unit.RAM, p.RAM}, {unit.Disk, p.Disk}, {unit.GPU, p.GPU}} {
		c, err := unit.Cost(x.m, a[x.m], x.price)
		if err != nil {
			return unit.Money{}, err
		}
		if sum, err = sum.Add(c); err != nil {
			return unit.Money{}, err
		}
	}
	return sum, nil
}

// Charge returns what the jobs of an hour pay to the platform of their
// cluster, named by its UID: a pair of entries for each job.
func Charge(b Book, cluster string, h ledger.Hour) ([]ledger.Entry, error) {
	if len(h.Jobs) == 0 {
		return nil, nil
	}
	p, err := b.At(h.From)
	if err != nil {
		return nil, err
	}
	if h.To > p.To {
		return nil, fault.Internal.Errorf("usage from %s to %s spans a change of price; want it cut at hours", ledger.Stamp(h.From), ledger.Stamp(h.To))
	}
	entries := make([]ledger.Entry, 0, 2*len(h.Jobs))
	for _, j := range h.Jobs {
		owes, err := p.Cost(j.Reserved)
		if err != nil {
			return nil, fault.Internal.Errorf("job %s, hour %s: %w", j.Job, ledger.Stamp(h.From), err)
		}
		owed, err := unit.Money{}.Sub(owes)
		if err != nil {
			return nil, fault.Internal.Errorf("job %s, hour %s: %w", j.Job, ledger.Stamp(h.From), err)
		}
		entries = append(entries,
			ledger.Entry{Hour: h.From, Usage: j.Job, Account: ledger.Account{Cluster: cluster, Job: j.Job}, Amount: owes},
			ledger.Entry{Hour: h.From, Usage: j.Job, Account: ledger.Account{Cluster: cluster}, Amount: owed})
	}
	return entries, nil
}

// hour returns what the accounts of an hour cost, each priced by itself.
func (p Price) hour(h ledger.Hour) (ledger.HourCost, error) {
	total, err := h.Total()
	if err != nil {
		return ledger.HourCost{}, err
	}
	c := ledger.HourCost{From: h.From, To: h.To}
	for _, x := range []struct {
		cost   *unit.Money
		amount ledger.Amounts
	}{
		{&c.Capacity, total.Capacity},
		{&c.Billed, total.Billed},
		{&c.Overhead, total.Overhead},
		{&c.Idle, total.Idle},
		{&c.Down, total.Down},
	} {
		if *x.cost, err = p.Cost(x.amount); err != nil {
			return c, fault.Internal.Errorf("hour %s: %w", ledger.Stamp(h.From), err)
		}
	}
	return c, nil
}

// Format prints b as a file that [Parse] reads.
func (b Book) Format() string {
	var s strings.Builder
	s.WriteString("{\n  \"currency\": \"" + b.Currency + "\",\n  \"prices\": [")
	for i, p := range b.Prices {
		if i > 0 {
			s.WriteString(",")
		}
		s.WriteString("\n    {")
		if p.From != Always {
			s.WriteString(`"from": "` + p.From.Time().Format(time.RFC3339) + `", `)
		}
		if p.To != Forever {
			s.WriteString(`"to": "` + p.To.Time().Format(time.RFC3339) + `", `)
		}
		for j, f := range priceFields {
			if j > 0 {
				s.WriteString(", ")
			}
			s.WriteString(`"` + f.name + `": "` + unit.FormatPrice(*f.of(&p)) + `"`)
		}
		s.WriteString("}")
	}
	s.WriteString("\n  ]\n}\n")
	return s.String()
}

// priceFields lists the prices of an entry by their names in the file.
var priceFields = [...]struct {
	name string
	of   func(*Price) *int64
}{
	{"cpu_core_hour", func(p *Price) *int64 { return &p.CPU }},
	{"ram_gib_hour", func(p *Price) *int64 { return &p.RAM }},
	{"disk_gib_hour", func(p *Price) *int64 { return &p.Disk }},
	{"gpu_hour", func(p *Price) *int64 { return &p.GPU }},
}
