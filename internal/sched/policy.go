package sched

import (
	"slices"

	"github.com/covey-platform/covey/internal/fault"
)

// A Policy says which of the machines that fit is best, where a job does not
// say so itself.
type Policy uint8

// The policies. Clusters run by Covey; the others are there to compare with.
const (
	Covey   Policy = iota // best fit; where there are GPUs, the least of them wasted
	FGD                   // best fit; GPUs by fragmentation gradient descent (ATC'23)
	BestFit               // the machine with the least left over, whatever it has
	Spread                // the machine with the most left over
)

var policyNames = [...]string{"covey", "fgd", "best-fit", "spread"}

// String returns the policy's name.
func (p Policy) String() string {
	if int(p) < len(policyNames) {
		return policyNames[p]
	}
	return "policy"
}

// ParsePolicy reads what [Policy.String] wrote.
func ParsePolicy(s string) (Policy, error) {
	if i := slices.Index(policyNames[:], s); i >= 0 {
		return Policy(i), nil
	}
	return 0, fault.Invalid.Errorf("policy %.40q is not known; want covey, fgd, best-fit or spread", s)
}

// boards reports whether hosts with GPUs are ranked on boards.
func (p Policy) boards() bool { return p == Covey || p == FGD }

// boarded reports whether a host is ranked on boards.
func (x *Index) boarded(h *host) bool { return len(h.devs) > 0 && x.policy.boards() }

// bestOnBoard returns the best of the hosts with GPUs in a tree.
func (p *planner) bestOnBoard(g *group, tree int8, avoid int32) int32 {
	if len(p.x.withGPU) == 0 {
		return 0
	}
	if bits := p.spared(g); bits != 0 {
		if n := p.sparing(g, tree, avoid, bits); n != 0 {
			return n
		}
	}
	kept := grove(0)
	if g.shape.need.GPU <= 0 && !g.shape.spreadsOut() {
		kept = p.kept(g)
	}
	if g.moving == nil {
		return p.x.boardOf(g, &p.waits.Looked).top(p.x, tree, kept, func(n int32) (ok, drop bool) { return n != avoid, false })
	}
	own, ok := p.boards[g]
	if !ok {
		own = p.ownBoard(g)
		p.boards[g] = own
	}
	p.x.catchUpBoard(own, g, &p.waits.Looked)
	return own.top(p.x, tree, kept, func(n int32) (ok, drop bool) {
		below := g.moving.passes(&p.x.hosts[n].row.Machine)
		return below && n != avoid, !below
	})
}

// ownBoard returns a board for this group and plan alone.
func (p *planner) ownBoard(g *group) *board {
	if g.shape.spreadsOut() {
		return &board{parts: p.x.parted} // it ranks by more than the need
	}
	b := p.x.boardOf(g, &p.waits.Looked)
	own := &board{seen: b.seen, taste: b.taste, parts: b.parts}
	for i := range b.heaps {
		own.heaps[i] = slices.Clone(b.heaps[i])
	}
	return own
}

// pickGPUs returns the numbers of the GPUs that a task of a shape gets on a host.
func (x *Index) pickGPUs(n int32, w *shape) []uint16 {
	h := &x.hosts[n]
	switch {
	case w.need.GPU <= 0:
		return nil
	case w.need.GPU >= oneGPU:
		return wholeGPUs(h.devs, w.need.GPU)
	case !x.boarded(h):
		return bestGPUs(h.devs, w.need.GPU)
	}
	_, _, gpu := x.spoil(n, w)
	return []uint16{uint16(gpu)}
}
