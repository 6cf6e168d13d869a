package sched

import (
	"math/bits"
	"slices"

	"github.com/covey-platform/covey/internal/unit"
)

// bitmapBits is how many classes have a bit of their own in a [bitmap]. More
// classes share bits, which makes a search longer and never wrong.
const bitmapBits = 256

// A bitmap is a set of classes.
type bitmap [bitmapBits / 64]uint64

func (b *bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b *bitmap) clear(i int)    { b[i/64] &^= 1 << (i % 64) }
func (b *bitmap) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

// A chart is the set of pairs (cpu, ram) that hosts have free, in steps of two
// to one: 16 by 16. It tells a host that has enough of both from two hosts of
// which each has enough of one.
type chart [4]uint64

const (
	chartCPU   = 125       // milli-cores of the first step
	chartRAM   = 128 << 20 // bytes
	chartSteps = 16
)

// step is the place of an amount in a chart. Amounts of 1, 2, 4, 8 ... times
// unit, which most tasks ask for, are where a step begins.
func step(amount, unit int64) int {
	return min(bits.Len64(uint64(max(amount, 0)/unit)), chartSteps-1)
}

// chartOf holds the one pair of r.
func chartOf(r unit.Resources) chart {
	var c chart
	i := step(r.CPU, chartCPU)*chartSteps + step(r.RAM, chartRAM)
	c[i/64] |= 1 << (i % 64)
	return c
}

// chartFrom holds every pair that may have room for r.
func chartFrom(r unit.Resources) chart {
	var c chart
	for i := step(r.CPU, chartCPU); i < chartSteps; i++ {
		for j := step(r.RAM, chartRAM); j < chartSteps; j++ {
			c[(i*chartSteps+j)/64] |= 1 << ((i*chartSteps + j) % 64)
		}
	}
	return c
}

// meets reports whether the two have a pair in common.
func (c *chart) meets(o *chart) bool {
	return c[0]&o[0]|c[1]&o[1]|c[2]&o[2]|c[3]&o[3] != 0
}

// mayHold reports whether some host of a tree may take a task of g. It says no
// only if there is none.
func (r *node) mayHold(g *group) bool {
	s := &r.sum
	free := &s.free
	if g.shape.need.GPU > 0 {
		free = &s.freeGPU
	}
	return s.mask.has(g.class.bit) && free.meets(&g.shape.room) && g.shape.ports <= s.ports && g.shape.need.Fits(s.most)
}

// A node is a host's place in its tree: a treap in order of leftover, then of
// machine id. Each node knows the most that any host below it has of each
// measure, so that a search for the best fit passes over what is too full.
type node struct {
	left, right int32 // slots; 0 is none
	rank        uint32
	at          mark // of the host; here, as a search through a tree looks at nothing else of most
	sum         sum  // of the host and of all below
}

// A sum is what some hosts have, each measure for itself.
type sum struct {
	most    unit.Resources
	ports   int
	mask    bitmap
	free    chart
	freeGPU chart // of the hosts with a GPU free, if only a part of one
}

// before is the order of the trees: best fit first.
func (x *Index) before(a, b int32) bool {
	p, q := &x.nodes[a].at, &x.nodes[b].at
	return p.left < q.left || p.left == q.left && p.id < q.id
}

// put adds a host to the tree that it belongs to, if any.
func (x *Index) put(n int32) {
	h := &x.hosts[n]
	h.left = leftover(h.free, x.largest)
	if x.policy == Spread {
		h.left = -h.left
	}
	h.attach, h.shelf = treeOf(&h.row.Machine), x.shelfOf(h)
	if x.boarded(h) {
		x.withGPU[n] = true
		h.waste = x.taste.waste(n, h.free, h.devs)
		x.changed(n)
		if h.attach != nowhere {
			h.attach += trees
		}
	}
	x.note(n)
	x.writeNode(n)
	x.nodes[n].at = mark{h.left, h.row.ID}
	if h.attach == nowhere {
		return
	}
	x.nodes[n].left, x.nodes[n].right, x.nodes[n].rank = 0, 0, mix(uint32(n))
	x.insert(&x.roots[h.attach][h.shelf], n)
}

// note numbers a change of a host, for searches to catch up with.
func (x *Index) note(n int32) {
	x.log[x.puts%putsKept] = n
	x.puts++
}

// pick takes a host out of its tree. Nothing of it may have changed since put.
func (x *Index) pick(n int32) {
	h := &x.hosts[n]
	if h.attach != nowhere {
		x.erase(&x.roots[h.attach][h.shelf], n)
	}
	h.attach = nowhere
}

// insert puts n where its rank says, and tells those above of it.
func (x *Index) insert(root *int32, n int32) {
	own := x.own(n)
	at, above := root, int32(0)
	for *at != 0 && x.nodes[*at].rank >= x.nodes[n].rank {
		above = *at
		x.absorb(above, &own)
		at = &x.nodes[above].right
		if x.before(n, above) {
			at = &x.nodes[above].left
		}
	}
	if above != 0 {
		x.writeNode(above)
	}
	below := *at
	*at = n
	r := &x.nodes[n]
	r.left, r.right = x.split(below, n)
	r.sum = own
	for _, c := range [...]int32{r.left, r.right} {
		if c != 0 {
			r.sum.add(&x.nodes[c].sum)
		}
	}
}

// split parts a tree into what stands before n and what stands after it.
func (x *Index) split(root, n int32) (below, above int32) {
	if root == 0 {
		return 0, 0
	}
	x.writeNode(root)
	r := &x.nodes[root]
	if x.before(root, n) {
		r.right, above = x.split(r.right, n)
		below = root
	} else {
		below, r.left = x.split(r.left, n)
		above = root
	}
	x.pull(root)
	return below, above
}

// deep is as deep as a tree of any size is but by the rarest chance.
const deep = 64

// erase takes n out of its tree, and tells those above as far up as that makes a difference.
func (x *Index) erase(root *int32, n int32) {
	var room [deep]int32
	path, at, own := room[:0], root, x.own(n)
	for *at != n {
		up := *at
		if up == 0 {
			return // it is not there
		}
		path = append(path, up)
		at = &x.nodes[up].right
		if x.before(n, up) {
			at = &x.nodes[up].left
		}
	}
	if len(path) > 0 {
		x.writeNode(path[len(path)-1])
	}
	*at = x.merge(x.nodes[n].left, x.nodes[n].right)
	child := *at
	for _, up := range slices.Backward(path) {
		r := &x.nodes[up]
		other := r.left
		if other == child {
			other = r.right
		}
		if other != 0 && x.nodes[other].sum.covers(&own) || !x.pull(up) {
			return
		}
		child = up
	}
}

// covers reports whether s stays the same when o is added.
func (s *sum) covers(o *sum) bool {
	if o.ports > s.ports || !o.most.Fits(s.most) {
		return false
	}
	more := uint64(0)
	for i := range s.mask {
		more |= o.mask[i]&^s.mask[i] | o.free[i]&^s.free[i] | o.freeGPU[i]&^s.freeGPU[i]
	}
	return more == 0
}

// merge makes one tree of two, all of a before all of b.
func (x *Index) merge(a, b int32) int32 {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	case x.nodes[a].rank > x.nodes[b].rank:
		x.writeNode(a)
		x.nodes[a].right = x.merge(x.nodes[a].right, b)
		x.pull(a)
		return a
	default:
		x.writeNode(b)
		x.nodes[b].left = x.merge(a, x.nodes[b].left)
		x.pull(b)
		return b
	}
}

// own is what a host itself adds to a node's sum.
func (x *Index) own(n int32) sum {
	h := &x.hosts[n]
	s := sum{most: h.free, ports: h.portsLeft(), mask: h.mask, free: chartOf(h.free)}
	if h.free.GPU > 0 {
		s.freeGPU = s.free
	}
	return s
}

// absorb adds o to what a node knows.
func (x *Index) absorb(n int32, o *sum) {
	r := &x.nodes[n]
	if !r.sum.covers(o) {
		x.writeNode(n)
		r.sum.add(o)
	}
}

// add makes s the sum of both.
func (s *sum) add(o *sum) {
	s.most, s.ports = largestOf(s.most, o.most), max(s.ports, o.ports)
	for i := range s.mask {
		s.mask[i] |= o.mask[i]
		s.free[i] |= o.free[i]
		s.freeGPU[i] |= o.freeGPU[i]
	}
}

// pull works out what a node knows of what is below it, and reports whether
// that is something else than before.
func (x *Index) pull(n int32) bool {
	r, now := &x.nodes[n], x.own(n)
	for _, c := range [...]int32{r.left, r.right} {
		if c != 0 {
			now.add(&x.nodes[c].sum)
		}
	}
	if now == r.sum {
		return false
	}
	x.writeNode(n)
	r.sum = now
	return true
}

// pullTrees does so for all nodes.
func (x *Index) pullTrees() {
	for _, tree := range x.roots {
		for _, root := range tree {
			x.pullAll(root)
		}
	}
}

// pullAll works every node out anew, after the masks of hosts have changed.
func (x *Index) pullAll(root int32) {
	if root == 0 {
		return
	}
	x.pullAll(x.nodes[root].left)
	x.pullAll(x.nodes[root].right)
	x.pull(root)
}

// mix scatters slot numbers: it makes the shape of the trees, and decides nothing.
func mix(n uint32) uint32 {
	n ^= n >> 16
	n *= 0x7feb352d
	n ^= n >> 15
	n *= 0x846ca68b
	return n ^ n>>16
}
