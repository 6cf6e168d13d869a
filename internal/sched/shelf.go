package sched

import (
	"math/bits"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// A machine whose memory is gone while half of its cores are free is of no use
// to anybody, and the other way round. So each tree stands on shelves: machines
// that are much shorter of memory than of cpu, those of cpu than of memory, and
// all others. A task goes to the best fit of the first shelf where it fits, and
// shapes differ in the order of shelves.
const (
	even int8 = iota
	shortOfRAM
	shortOfCPU
	shelves
)

// shelfOf says on which shelf a machine stands with so much free of all that
// it may give: half as great a part of the one measure as of the other.
func shelfOf(free, all unit.Resources) int8 {
	cpu, ram := mib(free).scaled(mib(all))
	switch {
	case 2*ram < cpu:
		return shortOfRAM
	case 2*cpu < ram:
		return shortOfCPU
	default:
		return even
	}
}

// An amount is milli-cores and memory in MiB.
type amount struct{ cpu, ram int64 }

// mib returns the amount of r, neither below nothing nor so great that a
// product of two would not be a number.
func mib(r unit.Resources) amount {
	const most = 1 << 30
	return amount{min(max(r.CPU, 0), most), min(max(r.RAM/unit.MiB, 0), most)}
}

// scaled returns a's parts of b, both multiplied by the same.
func (a amount) scaled(b amount) (cpu, ram int64) { return a.cpu * b.ram, a.ram * b.cpu }

func (a amount) plus(b amount) amount  { return amount{a.cpu + b.cpu, a.ram + b.ram} }
func (a amount) minus(b amount) amount { return amount{a.cpu - b.cpu, a.ram - b.ram} }
func (a amount) times(n int64) amount  { return amount{a.cpu * n, a.ram * n} }

// leans reports whether a has more memory for each core than b.
func (a amount) leans(b amount) bool {
	hi, lo := bits.Mul64(uint64(a.ram), uint64(b.cpu))
	high, low := bits.Mul64(uint64(b.ram), uint64(a.cpu))
	return hi > high || hi == high && lo > low
}

// A tilt is what all jobs of a cluster ask for and what its machines have.
type tilt struct{ asked, has amount }

// order returns the shelves in the order in which a task of a shape tries them.
// What jobs ask for more of, measured by what there is, is what must not be
// stranded: tasks that want more than their share of the other go last to
// the machines that are short of it, and all others go there first.
func (t tilt) order(w *shape) [shelves]int8 {
	need := mib(w.need)
	if t.asked.leans(t.has) { // memory runs out first
		if t.asked.leans(need) {
			return [...]int8{shortOfRAM, even, shortOfCPU}
		}
		return [...]int8{shortOfCPU, shortOfRAM, even}
	}
	if need.leans(t.asked) {
		return [...]int8{shortOfCPU, even, shortOfRAM}
	}
	return [...]int8{shortOfRAM, shortOfCPU, even}
}

// shelfOf says on which shelf a host stands.
func (x *Index) shelfOf(h *host) int8 {
	if x.policy != Covey {
		return even
	}
	return shelfOf(h.free, h.all)
}

// tiltOf looks at all of a snapshot.
func tiltOf(s *state.Snapshot) (t tilt) {
	for j := range s.Jobs("") {
		a, _ := askOf(s, j.Key)
		t.asked = t.asked.plus(a.amount)
	}
	for row := range s.Machines() {
		t.has = t.has.plus(mib(row.Allocatable()))
	}
	return t
}

// inTree returns the best of the hosts in a tree, 0 if none takes a task of g.
func (p *planner) inTree(g *group, q search, tree int8) int32 {
	if g.shape.spreadsOut() {
		return p.emptiest(g, tree, q.avoid)
	}
	order, used := [shelves]int8{even}, 1
	if p.x.policy == Covey {
		order, used = p.x.tilt.order(g.shape), len(order)
	}
	for _, shelf := range order[:used] {
		at := place{tree, shelf}
		if n := q.next(p.front(g, at), at); n != 0 {
			p.hand.next, p.hand.avoid = n, q.avoid
			return n
		}
	}
	return 0
}
