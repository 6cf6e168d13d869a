package sched

import (
	"cmp"
	"slices"

	"github.com/google/btree"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// Tasks that insist on a value of an attribute can go to its machines alone.
// Those with GPUs are what is left to them when all others are full, and tasks
// that may go anywhere had better leave them alone then. So that a search need
// not look at machines that it is to leave alone, however many there are, each
// board is parted into groves: a grove is the machines that the same claimants
// insist on, one bit each.
type grove uint8

const (
	claimantsAtMost = 4
	groves          = 1 << claimantsAtMost
)

// An ask is what a job asks for.
type ask struct {
	amount
	tasks int64
	on    string // what it insists on, as demands name it; empty: nothing
}

// A demand is what all jobs ask for that insist on the same.
type demand struct {
	ask
	shape *shape // that insists on it and on nothing else
}

// demands are those of a cluster, what most is asked of first.
type demands struct {
	by   map[string]*demand
	most *btree.BTreeG[*demand]
}

func newDemands() demands {
	return demands{map[string]*demand{}, btree.NewG(8, func(a, b *demand) bool {
		return cmp.Or(cmp.Compare(b.cpu, a.cpu), cmp.Compare(b.ram, a.ram), cmp.Compare(a.on, b.on)) < 0
	})}
}

// add counts a job's ask, of a shape that insists, by times.
func (d *demands) add(a ask, w *shape, by int64) {
	if a.on == "" {
		return
	}
	sum, ok := d.by[a.on]
	if ok {
		d.most.Delete(sum)
	} else {
		sum = &demand{ask: ask{on: a.on}, shape: w}
		d.by[a.on] = sum
	}
	sum.amount, sum.tasks = sum.plus(a.times(by)), sum.tasks+a.tasks*by
	if sum.tasks == 0 {
		delete(d.by, a.on)
		return
	}
	d.most.ReplaceOrInsert(sum)
}

// insists returns what of a shape says that few machines will do, nil if nothing
// does. To be dedicated needs no claim: nobody else goes there. A task that asks
// for a GPU has a claim of its own.
func (w *shape) insists() *shape {
	some := false
	for i := range w.values {
		if w.values[i].Attribute == dedicated {
			return nil
		}
		some = some || !w.values[i].Negated
	}
	if !some || w.need.GPU > 0 || w.need.CPU <= 0 && w.need.RAM <= 0 {
		return nil
	}
	return &shape{role: w.role, values: w.values, valueTexts: w.valueTexts}
}

// askOf returns what a job asks for, and what of its shape insists.
func askOf(s *state.Snapshot, k job.Key) (ask, *shape) {
	j, ok := s.Job(k)
	if !ok {
		return ask{}, nil
	}
	c, ok := s.Config(j.Config)
	if !ok {
		return ask{}, nil
	}
	n := int64(j.Instances.Len())
	a := ask{amount: mib(c.Task.Resources).times(n), tasks: n}
	if a.amount == (amount{}) {
		return ask{}, nil
	}
	if len(c.Constraints) == 0 {
		return a, nil
	}
	w := shapeOf(k, c).insists()
	if w != nil {
		a.on = w.classKey()
	}
	return a, w
}

// weigh takes note of what a job asks for now.
func (x *Index) weigh(s *state.Snapshot, k job.Key) {
	is, w := askOf(s, k)
	was := x.asks[k]
	x.tilt.asked = x.tilt.asked.plus(is.amount).minus(was.amount)
	x.insistent.add(is, w, +1)
	x.insistent.add(was, nil, -1)
	if is == (ask{}) {
		delete(x.asks, k)
	} else {
		x.asks[k] = is
	}
}

// A claimant is one of those demands that ask for most.
type claimant struct {
	on    string
	class *class // the machines
	each  amount // what one of its tasks needs, about

	room int64           // for such tasks on the machines, in parts; see roomOn
	has  map[int32]int64 // on each of them
	seen uint64          // of Index.puts; 0: room was never worked out
}

// parts of a task: what is free for less than a whole one counts as well.
const parts = 1 << 10

// reclaim works out anew who the claimants are.
func (x *Index) reclaim() {
	var now []*demand
	if x.policy == Covey {
		x.insistent.most.Ascend(func(d *demand) bool {
			now = append(now, d)
			return len(now) < claimantsAtMost
		})
	}
	slices.SortFunc(now, func(a, b *demand) int { return cmp.Compare(a.on, b.on) })
	if !slices.EqualFunc(now, x.claimants, func(d *demand, c *claimant) bool { return d.on == c.on }) {
		for _, c := range x.claimants {
			c.class.groups--
		}
		x.claimants = nil
		x.parted++
		for _, d := range now {
			c := &claimant{on: d.on, class: x.classOf(d.shape)}
			c.class.groups++
			x.claimants = append(x.claimants, c)
		}
	}
	for i, d := range now {
		c := x.claimants[i]
		if each := (amount{coarse(d.cpu / d.tasks), coarse(d.ram / d.tasks)}); each != c.each {
			c.each, c.seen = each, 0
		}
	}
}

// coarse rounds to four binary digits, so that small changes of what jobs ask
// for make no difference.
func coarse(n int64) int64 {
	step := int64(1)
	for n/step >= 16 {
		step *= 2
	}
	return (n + step/2) / step * step
}

// groveOf says to which grove a host belongs.
func (x *Index) groveOf(n int32) (g grove) {
	for i, c := range x.claimants {
		if c.class.allowed[n] {
			g |= 1 << i
		}
	}
	return g
}

// holds returns for how many of its tasks there is room in what is free, in parts.
func (c *claimant) holds(free unit.Resources) int64 {
	f := mib(free)
	switch {
	case c.each.cpu == 0:
		return f.ram * parts / max(c.each.ram, 1)
	case c.each.ram == 0:
		return f.cpu * parts / c.each.cpu
	default:
		return min(f.cpu*parts/c.each.cpu, f.ram*parts/c.each.ram)
	}
}

// roomOn returns for how many of its tasks a host has room, in parts.
func (c *claimant) roomOn(x *Index, n int32) int64 {
	h := &x.hosts[n]
	if h.attach == nowhere || !c.class.allowed[n] {
		return 0
	}
	return c.holds(h.free)
}

// roomFor returns for how many of a claimant's tasks its machines have room, in
// parts. It is worked out when it is first asked for, and again for what changed.
func (x *Index) roomFor(c *claimant, looked *int) int64 {
	look := func(n int32) {
		*looked++
		now := c.roomOn(x, n)
		c.room += now - c.has[n]
		if now == 0 {
			delete(c.has, n)
		} else {
			c.has[n] = now
		}
	}
	if c.seen == 0 || x.puts-c.seen > putsKept {
		c.room, c.has = 0, map[int32]int64{}
		for n := 1; n < len(x.hosts); n++ {
			look(int32(n))
		}
	} else {
		for i := c.seen; i < x.puts; i++ {
			look(x.log[i%putsKept])
		}
	}
	c.seen = x.puts
	return c.room
}
