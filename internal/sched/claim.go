package sched

import (
	"cmp"
	"slices"

	"github.com/covey-platform/covey/internal/unit"
)

// A claim is what pending tasks will need of GPUs that only the machines of
// their class have. While there is little more free than that, tasks of other
// classes leave those machines alone, if any other takes them: what may go
// anywhere must not take what some cannot do without.
type claim struct {
	class *class
	need  int64 // thousandths of a GPU that the pending tasks of the class ask for
	free  int64 // on its machines; see planner.reckon
}

const (
	claimsAtMost = 64 // one bit each
	claimMargin  = 11 // tenths of the need that are kept: GPUs that are left are not all of use
	claimTasks   = 2  // and so many of the other task
)

// stake notes what the pending tasks of a group need, if only some machines
// will do for them.
func (p *planner) stake(g *group) {
	if p.x.policy != Covey || g.shape == nil || g.shape.need.GPU <= 0 || len(g.shape.values) == 0 {
		return
	}
	c, ok := p.claims[g.class]
	if !ok {
		c = &claim{class: g.class}
		p.claims[g.class] = c
	}
	c.need += g.shape.need.GPU * int64(g.tasks.Len())
}

// settled takes note of a task that waits no longer, on a host that may have
// less free for it.
func (p *planner) settled(g *group, was, is unit.Resources, n int32) {
	p.settledRoom(g, was, is, n)
	if len(p.claims) == 0 || g.shape.need.GPU <= 0 {
		return
	}
	if c, ok := p.claims[g.class]; ok {
		c.need -= g.shape.need.GPU
	}
	if !p.reckoned {
		return
	}
	for _, c := range p.inOrder {
		if c.class.allowed[n] {
			c.free += max(is.GPU, 0) - max(was.GPU, 0)
		}
	}
}

// reckon works out what is free for each claim.
func (p *planner) reckon() {
	if p.reckoned {
		return
	}
	p.reckoned, p.inOrder = true, p.inOrder[:0]
	for _, c := range p.claims {
		p.inOrder = append(p.inOrder, c)
	}
	slices.SortFunc(p.inOrder, func(a, b *claim) int { return cmp.Compare(a.class.key, b.class.key) })
	p.inOrder = p.inOrder[:min(len(p.inOrder), claimsAtMost)]
	for _, c := range p.inOrder {
		c.free = p.x.freeGPUs(c.class, &p.waits.Looked)
	}
}

// An offer is what the machines of a class have free of their GPUs. Like a
// board it is worked out when it is first asked for, and again for what changed.
type offer struct {
	seen uint64 // of Index.changes
	has  map[int32]int64
	sum  int64
}

// freeGPUs returns what the machines of a class that take tasks have free.
func (x *Index) freeGPUs(c *class, looked *int) int64 {
	o := c.offer
	look := func(n int32) {
		*looked++
		h, now := &x.hosts[n], int64(0)
		if h.attach != nowhere && x.boarded(h) && c.allowed[n] {
			now = max(h.free.GPU, 0)
		}
		o.sum += now - o.has[n]
		o.has[n] = now
	}
	if o == nil || x.changes-o.seen > changesKept {
		o = &offer{has: map[int32]int64{}}
		c.offer = o
		for n := range x.withGPU {
			look(n)
		}
	} else {
		for i := o.seen; i < x.changes; i++ {
			look(x.trail[i%changesKept])
		}
	}
	o.seen = x.changes
	return o.sum
}

// spared returns the claims, as bits, whose machines a task of g should leave alone.
func (p *planner) spared(g *group) uint64 {
	if len(p.claims) == 0 || g.shape.need.GPU <= 0 {
		return 0
	}
	p.reckon()
	bits := uint64(0)
	for i, c := range p.inOrder {
		if c.class != g.class && c.need > 0 && 10*(c.free-claimTasks*g.shape.need.GPU) < claimMargin*c.need {
			bits |= 1 << i
		}
	}
	return bits
}

// sparing returns the best host with GPUs in a tree that is none of the
// claims' in bits, 0 if there is none.
func (p *planner) sparing(g *group, tree int8, avoid int32, bits uint64) int32 {
	k := sparingKey{g, bits}
	own, ok := p.sparings[k]
	if !ok {
		own = p.ownBoard(g)
		p.sparings[k] = own
	}
	p.x.catchUpBoard(own, g, &p.waits.Looked)
	return own.top(p.x, tree, 0, func(n int32) (ok, drop bool) {
		for i, c := range p.inOrder {
			if bits&(1<<i) != 0 && c.class.allowed[n] {
				return false, true
			}
		}
		return n != avoid && (g.moving == nil || g.moving.passes(&p.x.hosts[n].row.Machine)), false
	})
}

// A sparingKey names a board of this plan.
type sparingKey struct {
	group *group
	bits  uint64
}
