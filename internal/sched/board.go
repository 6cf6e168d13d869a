package sched

import (
	"container/heap"
	"math"
	"slices"

	"github.com/covey-platform/covey/internal/machine"
)

// A board ranks the machines that have GPUs for one need. Which of them is
// best depends on the need, so one order cannot serve all of them. A board is
// worked out when it is first asked for, and again for each machine that
// changes: the index numbers what is put into it, and a board goes through the
// numbers since it last did. One that has fallen behind starts again.
type board struct {
	heaps [groves]rungs
	seen  uint64         // of Index.changes
	taste *taste         // by which it ranks
	parts uint64         // of Index.parted, by which it is parted
	set   map[int32]bool // scratch
}

// A rung is a machine's place on a board. It holds while the machine is as it was.
type rung struct {
	tree int8
	own  int32 // tasks of the job there, if it spreads them
	cost int64 // steps of what it would waste
	rest int64 // thousandths of its GPUs left then
	id   machine.ID
	slot int32
	at   uint64 // the number under which the host was put
}

func (a *rung) before(b *rung) bool {
	switch {
	case a.tree != b.tree:
		return a.tree < b.tree
	case a.own != b.own:
		return a.own < b.own
	case a.cost != b.cost:
		return a.cost < b.cost
	case a.rest != b.rest:
		return a.rest < b.rest
	default:
		return a.id < b.id
	}
}

// rungs is a heap of them, the best on top.
type rungs []rung

func (b rungs) Len() int           { return len(b) }
func (b rungs) Less(i, j int) bool { return b[i].before(&b[j]) }
func (b rungs) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *rungs) Push(r any)        { *b = append(*b, r.(rung)) }

// Pop implements heap.Interface.
func (b *rungs) Pop() any {
	last := len(*b) - 1
	r := (*b)[last]
	*b = (*b)[:last]
	return r
}

// size is how many rungs there are, also of machines that have changed since.
func (b *board) size() (n int) {
	for i := range b.heaps {
		n += len(b.heaps[i])
	}
	return n
}

const (
	changesKept = 1 << 14 // for boards to catch up
	boardsAtOne = 1 << 10 // boards kept in all
)

// changed numbers a change of a host with GPUs.
func (x *Index) changed(n int32) {
	if x.trail == nil {
		x.trail = make([]int32, changesKept)
	}
	x.trail[x.changes%changesKept] = n
	x.changes++
	x.hosts[n].at = x.changes
}

// unboard takes note that a host has no GPUs any more.
func (x *Index) unboard(n int32) {
	if x.withGPU[n] {
		delete(x.withGPU, n)
		x.changed(n)
	}
}

// boardOf returns the board of a need, caught up.
func (x *Index) boardOf(g *group, looked *int) *board {
	k := g.need()
	b, ok := x.boards[k]
	if !ok {
		if len(x.boards) >= boardsAtOne {
			clear(x.boards)
		}
		b = &board{}
		x.boards[k] = b
	}
	x.catchUpBoard(b, g, looked)
	return b
}

// catchUpBoard ranks the hosts anew that have changed.
func (x *Index) catchUpBoard(b *board, g *group, looked *int) {
	if b.taste != x.taste || b.parts != x.parted || x.changes-b.seen > changesKept || b.size() > 4*len(x.withGPU)+64 {
		b.taste, b.parts = x.taste, x.parted
		for i := range b.heaps {
			b.heaps[i] = b.heaps[i][:0]
		}
		for n := range x.withGPU {
			if r, ok := x.rung(n, g, looked); ok {
				h := &b.heaps[x.groveOf(n)]
				*h = append(*h, r)
			}
		}
		for i := range b.heaps {
			heap.Init(&b.heaps[i])
		}
		b.seen = x.changes
		return
	}
	if x.changes == b.seen {
		return
	}
	if b.set == nil {
		b.set = map[int32]bool{}
	}
	for i := b.seen; i < x.changes; i++ {
		n := x.trail[i%changesKept]
		if b.set[n] {
			continue
		}
		b.set[n] = true
		if r, ok := x.rung(n, g, looked); ok {
			heap.Push(&b.heaps[x.groveOf(n)], r)
		}
	}
	clear(b.set)
	b.seen = x.changes
}

// rung ranks one host for a need, if it takes the task.
func (x *Index) rung(n int32, g *group, looked *int) (rung, bool) {
	*looked++
	h := &x.hosts[n]
	if h.attach < trees || !g.class.allowed[n] || !h.fits(g.shape) {
		return rung{}, false
	}
	r := rung{tree: h.attach - trees, id: h.row.ID, slot: n, at: h.at}
	r.cost, r.rest, _ = x.spoil(n, g.shape)
	if g.shape.spreadsOut() {
		r.own = x.ofOwn(g, n)
	}
	if x.policy == FGD {
		r.rest = 0 // the paper's ties go to the smallest name
	}
	return r, true
}

// spoil says what a task of a shape that fits would waste on a host, in steps,
// how much of its GPUs would be left, and on which one a share sits best.
func (x *Index) spoil(n int32, w *shape) (cost, rest int64, gpu int16) {
	h := &x.hosts[n]
	free := h.free.Sub(w.need)
	var room [16]int16
	devs := append(room[:0], h.devs...)
	if w.need.GPU <= 0 || w.need.GPU >= oneGPU {
		takeWhole(devs, w.need.GPU)
		return x.steps(h, x.taste.waste(n, free, devs)), totalOf(devs), -1
	}
	share, best := int16(w.need.GPU), int64(math.MaxInt64)
	for i := range devs {
		if devs[i] < share || alike(devs[:i], devs[i]) {
			continue
		}
		devs[i] -= share
		if c := x.steps(h, x.taste.waste(n, free, devs)); c < best {
			best, gpu = c, int16(i)
		}
		devs[i] += share
	}
	return best, totalOf(devs) - w.need.GPU, gpu
}

// alike reports whether one of the GPUs has the same left.
func alike(devs []int16, d int16) bool {
	return slices.Contains(devs, d)
}

// steps is what a host wastes more than it does now, in steps, rounded down.
func (x *Index) steps(h *host, then int64) int64 {
	gain := h.waste - then
	if x.policy == FGD {
		return paperSteps(gain)
	}
	if gain >= 0 {
		return -(gain / wasteStep)
	}
	return (wasteStep - 1 - gain) / wasteStep
}

// top returns the best host of a board in a tree that passes, 0 if there is
// none; one that is kept for others only if no other does.
func (b *board) top(x *Index, tree int8, kept grove, pass func(n int32) (ok, drop bool)) int32 {
	n := b.topOf(x, tree, kept, false, pass)
	if n == 0 && kept != 0 {
		n = b.topOf(x, tree, kept, true, pass)
	}
	return n
}

// topOf does so for those that are kept for others, or for those that are not.
func (b *board) topOf(x *Index, tree int8, kept grove, are bool, pass func(n int32) (ok, drop bool)) int32 {
	var best *rung
	for i := range b.heaps {
		if len(b.heaps[i]) == 0 || (grove(i)&kept != 0) != are {
			continue
		}
		if r := b.heaps[i].top(x, tree, pass); r != nil && (best == nil || r.before(best)) {
			best = r
		}
	}
	if best == nil {
		return 0
	}
	return best.slot
}

// top returns the best rung in a tree whose host passes, nil if there is none.
// What does not pass keeps its place, unless drop says that it never will.
func (b *rungs) top(x *Index, tree int8, pass func(n int32) (ok, drop bool)) (found *rung) {
	var aside []rung
	for len(*b) > 0 {
		r := (*b)[0]
		if x.hosts[r.slot].at != r.at {
			heap.Pop(b)
			continue
		}
		if r.tree > tree {
			break
		}
		ok, drop := pass(r.slot)
		if ok {
			found = &r
			break
		}
		if out := heap.Pop(b).(rung); !drop {
			aside = append(aside, out)
		}
	}
	for _, r := range aside {
		heap.Push(b, r)
	}
	return found
}
