package sched

import (
	"iter"
	"math"
	"slices"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// A need is all that tells whether a task without limits fits on a machine.
type need struct {
	class *class
	each  unit.Resources
	ports int
}

func (g *group) need() need { return need{g.class, g.shape.need, g.shape.ports} }

// A mark is a place in the order of a tree.
type mark struct {
	left int64
	id   machine.ID
}

var (
	start = mark{left: math.MinInt64}
	end   = mark{left: math.MaxInt64}
)

func (x *Index) markOf(n int32) mark {
	if n == 0 {
		return end
	}
	return x.nodes[n].at
}

// isBefore reports whether host n stands before m in its tree.
func (x *Index) isBefore(n int32, m mark) bool {
	at := &x.nodes[n].at
	return at.left < m.left || at.left == m.left && at.id < m.id
}

// A front remembers how far the search for one need has come in a tree, so
// that the next search does not look at the same full machines again: no host
// before from takes a task, but for some and for those that were put anew
// since seen. A front that has fallen behind starts again.
type front struct {
	from mark
	some []int32
	seen uint64 // of Index.puts
}

const (
	putsKept    = 1 << 14 // puts remembered
	logged      = 1 << 6  // puts with which a front catches up; after more it starts again
	someAtMost  = 16      // hosts kept aside by a front before it goes back
	frontsAtOne = 1 << 10 // fronts kept in all
)

// A search looks for hosts that take one more task of a group.
type search struct {
	x      *Index
	group  *group
	limits bool  // holds hosts to the group's limits as well
	avoid  int32 // never found
	spread bool  // finds only hosts with so many tasks of the group's job
	own    int32 // so many
	past   int32 // finds only hosts that stand after it; 0: all
	until  int32 // and before it
	looked *int
}

func (q search) takes(n int32) bool {
	*q.looked++
	h, g := &q.x.hosts[n], q.group
	return g.class.allowed[n] && h.fits(g.shape) && (!q.limits || g.moving.passes(&h.row.Machine)) &&
		(!q.spread || q.x.ofOwn(g, n) == q.own)
}

// first returns the first host below root, from a mark on, that takes the
// task, or 0.
func (q search) first(root int32, from mark) int32 {
	if root == 0 {
		return 0
	}
	*q.looked++
	r := &q.x.nodes[root]
	if !r.mayHold(q.group) {
		return 0
	}
	if q.until != 0 && !q.x.before(root, q.until) {
		return q.first(r.left, from)
	}
	if !q.x.isBefore(root, from) {
		if n := q.first(r.left, from); n != 0 {
			return n
		}
		if root != q.avoid && q.takes(root) {
			return root
		}
	}
	return q.first(r.right, from)
}

// catchUp takes note of the hosts that were put into a place since the front
// was last used.
func (q search) catchUp(f *front, at place) {
	x := q.x
	if x.puts-f.seen > logged {
		f.from, f.some = start, f.some[:0]
	} else {
		for ; f.seen < x.puts; f.seen++ {
			if n := x.log[f.seen%putsKept]; x.isBefore(n, f.from) {
				f.add(n)
			}
		}
	}
	f.seen = x.puts
	kept := f.some[:0]
	for _, n := range f.some {
		if x.hosts[n].place() == at && x.isBefore(n, f.from) && q.takes(n) {
			kept = append(kept, n)
		}
	}
	f.some = kept
	if len(f.some) > someAtMost {
		for _, n := range f.some {
			if x.isBefore(n, f.from) {
				f.from = x.markOf(n)
			}
		}
		f.some = f.some[:0]
	}
}

func (f *front) add(n int32) {
	if !slices.Contains(f.some, n) {
		f.some = append(f.some, n)
	}
}

// next returns the best fit in a place, or 0, and moves the front up to it.
func (q search) next(f *front, at place) int32 {
	q.catchUp(f, at)
	best := int32(0)
	for _, n := range f.some {
		if n != q.avoid && (best == 0 || q.x.before(n, best)) {
			best = n
		}
	}
	if best != 0 {
		return best
	}
	n := q.first(q.x.roots[at.tree][at.shelf], f.from)
	f.from = q.x.markOf(n)
	if q.avoid != 0 && q.x.isBefore(q.avoid, f.from) {
		f.add(q.avoid) // it was passed over, and others may get it
	}
	return n
}

// A frontSet is the fronts of one need, one for each place.
type frontSet [trees][shelves]front

// all yields them in order.
func (fs *frontSet) all() iter.Seq2[place, *front] {
	return func(yield func(place, *front) bool) {
		for tree := range trees {
			for shelf := range shelves {
				if !yield(place{tree, shelf}, &fs[tree][shelf]) {
					return
				}
			}
		}
	}
}

// frontsOf returns the fronts of a need.
func (x *Index) frontsOf(k need) *frontSet {
	fs, ok := x.fronts[k]
	if !ok {
		if len(x.fronts) >= frontsAtOne {
			clear(x.fronts)
		}
		fs = &frontSet{}
		for _, f := range fs.all() {
			*f = front{from: start, seen: x.puts}
		}
		x.fronts[k] = fs
	}
	return fs
}
