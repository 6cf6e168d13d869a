package tenant

import (
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/unit"
)

// EveryRole stands for the roles that have no quota of their own. No role can
// have that name.
const EveryRole = "*"

// A Class says how a quota looks at what is reserved, in Aurora's words
// (GetQuotaResult): prod is the tier preferred, dedicated is what only machines
// kept for some may run.
type Class uint8

// The classes. A quota bounds the first one alone.
const (
	ProdShared Class = iota
	ProdDedicated
	NonProdShared
	NonProdDedicated
	Classes
)

// ClassOf returns the class of a job.
func ClassOf(preferred, dedicated bool) Class {
	c := NonProdShared
	if preferred {
		c = ProdShared
	}
	if dedicated {
		c++
	}
	return c
}

// A Claim is what one instance reserves.
type Claim struct {
	Class     Class
	Resources unit.Resources
}

// A Consumption is what a role reserves, by class.
type Consumption [Classes]unit.Resources

// Add returns c + o.
func (c Consumption) Add(o Consumption) Consumption {
	for i := range c {
		c[i] = c[i].Add(o[i])
	}
	return c
}

// Sub returns c - o.
func (c Consumption) Sub(o Consumption) Consumption {
	for i := range c {
		c[i] = c[i].Sub(o[i])
	}
	return c
}

// Take adds what one instance reserves, of which there are two views: what its
// job wants for it, and what its task holds still. It counts as the larger of the
// two in every measure, so that neither a change of the job nor the end of a
// task can bring a role above what it was admitted to.
func (c *Consumption) Take(wanted, held Claim) {
	if wanted.Class != held.Class {
		c[held.Class] = c[held.Class].Add(held.Resources)
		c[wanted.Class] = c[wanted.Class].Add(wanted.Resources)
		return
	}
	c[wanted.Class] = c[wanted.Class].Add(larger(wanted.Resources, held.Resources))
}

func larger(a, b unit.Resources) unit.Resources {
	return unit.Resources{CPU: max(a.CPU, b.CPU), RAM: max(a.RAM, b.RAM), Disk: max(a.Disk, b.Disk), GPU: max(a.GPU, b.GPU), Net: max(a.Net, b.Net)}
}

// A Quota is what a role may reserve in the tier preferred on machines that are
// for everybody: cpu, memory, disk and GPUs. Network bandwidth has none.
type Quota struct{ unit.Resources }

// counted lists what a quota bounds, in the order in which a lack is told.
var counted = [...]unit.Measure{unit.CPU, unit.RAM, unit.Disk, unit.GPU}

// maxReserved bounds what a role may reserve of any measure, quota or not: sums
// that pass 64 bits would begin again at nothing.
const maxReserved = 1 << 61

// Counts reports why a role that reserves c cannot reserve more besides, or
// nothing if the sum can be counted. more is at most half of 64 bits.
func (c Consumption) Counts(role string, more unit.Resources) error {
	for _, class := range c {
		for _, m := range unit.Measures() {
			if class.Of(m) > maxReserved-more.Of(m) {
				return fault.Exhausted.Errorf("role %s would reserve more %v than can be counted; end something of the role's, or ask for less", role, m)
			}
		}
	}
	return nil
}

// Each number of a quota is bounded, far from the end of what 64 bits hold.
const (
	maxMilli = 1_000_000_000 * 1000 // thousandths of a core or of a GPU
	maxBytes = 1 << 56
)

// Validate reports what is wrong with the quota, if anything.
func (q Quota) Validate() error {
	if q.Net != 0 {
		return fault.Invalid.Errorf("a quota has no network bandwidth; want cpu, ram, disk and gpu")
	}
	for _, m := range counted {
		n, most := q.Of(m), int64(maxMilli)
		if m == unit.RAM || m == unit.Disk {
			most = maxBytes
			if n%unit.MiB != 0 {
				return fault.Invalid.Errorf("%v of a quota is %d bytes; want whole MiB", m, n)
			}
		}
		if n < 0 || n > most {
			return fault.Invalid.Errorf("%v of a quota is %s; want 0 to %s", m, m.Format(n), m.Format(most))
		}
	}
	return nil
}

// ValidOwner reports what is wrong with the name of whom a quota is for, if
// anything: a role, or [EveryRole].
func ValidOwner(role string) error {
	if role == EveryRole {
		return nil
	}
	if err := name.Valid("role", role); err != nil {
		return fault.Invalid.Errorf("%w", err)
	}
	return nil
}

// Admit reports why a role that reserves before may not reserve after under q:
// an error of kind Exhausted that tells every measure that is over. What is over
// already and does not grow is no reason.
func (q Quota) Admit(role string, before, after Consumption) error {
	was, is := before[ProdShared], after[ProdShared]
	var over []string
	for _, m := range counted {
		if is.Of(m) > q.Of(m) && is.Of(m) > was.Of(m) {
			over = append(over, m.String()+" by "+m.Format(is.Of(m)-q.Of(m))+
				" (quota "+m.Format(q.Of(m))+", in use "+m.Format(was.Of(m))+", more wanted "+m.Format(is.Of(m)-was.Of(m))+")")
		}
	}
	if over == nil {
		return nil
	}
	return fault.Exhausted.Errorf("role %s would be over its quota for the tier preferred: %s; ask an administrator for more (covey quota set), end something of the role's, or choose the tier preemptible",
		role, strings.Join(over, ", "))
}

// Cover reports why q may not become the quota of a role that reserves now: an
// error of kind Conflict that tells every measure of which it gives less.
func (q Quota) Cover(role string, now Consumption) error {
	var less []string
	for _, m := range q.over(now) {
		less = append(less, m.String()+" "+m.Format(q.Of(m))+" (in use "+m.Format(now[ProdShared].Of(m))+")")
	}
	if less == nil {
		return nil
	}
	return fault.Conflict.Errorf("role %s reserves more than that in the tier preferred: %s; give at least what is in use, or end something of the role's first",
		role, strings.Join(less, ", "))
}

// over returns the measures of which c has more than q gives.
func (q Quota) over(c Consumption) (out []unit.Measure) {
	for _, m := range counted {
		if c[ProdShared].Of(m) > q.Of(m) {
			out = append(out, m)
		}
	}
	return out
}
