package sched

import (
	"math/bits"

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
	free := &r.free
	if g.shape.need.GPU > 0 {
		free = &r.freeGPU
	}
	return r.mask.has(g.class.bit) && free.meets(&g.shape.room) && g.shape.ports <= r.ports && g.shape.need.Fits(r.most)
}

// A node is a host's place in its tree: a treap in order of leftover, then of
// machine id. Each node knows the most that any host below it has of each
// measure, so that a search for the best fit passes over what is too full.
type node struct {
	left, right int32 // slots; 0 is none
	rank        uint32
	most        unit.Resources
	ports       int
	mask        bitmap
	free        chart
	freeGPU     chart // of the hosts with a GPU free, if only a part of one
}

// before is the order of the trees: best fit first.
func (x *Index) before(a, b int32) bool {
	p, q := &x.hosts[a], &x.hosts[b]
	return p.left < q.left || p.left == q.left && p.row.ID < q.row.ID
}

// put adds a host to the tree that it belongs to, if any.
func (x *Index) put(n int32) {
	h := &x.hosts[n]
	h.left = leftover(h.free, x.largest)
	if x.policy == Spread {
		h.left = -h.left
	}
	h.attach, h.shelf = treeOf(h.row.Machine), x.shelfOf(h)
	if x.boarded(h) {
		x.withGPU[n] = true
		h.waste = x.taste.waste(n, h.free, h.devs)
		x.changed(n)
		if h.attach != nowhere {
			h.attach += trees
		}
	}
	x.note(n)
	if h.attach == nowhere {
		return
	}
	x.nodes[n].left, x.nodes[n].right = 0, 0
	x.nodes[n].rank = mix(uint32(n))
	x.pull(n)
	root := &x.roots[h.attach][h.shelf]
	*root = x.insert(*root, n)
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
		root := &x.roots[h.attach][h.shelf]
		*root = x.erase(*root, n)
	}
	h.attach = nowhere
}

func (x *Index) insert(root, n int32) int32 {
	if root == 0 {
		return n
	}
	r := &x.nodes[root]
	if x.nodes[n].rank > r.rank {
		x.nodes[n].left, x.nodes[n].right = x.split(root, n)
		x.pull(n)
		return n
	}
	if x.before(n, root) {
		r.left = x.insert(r.left, n)
	} else {
		r.right = x.insert(r.right, n)
	}
	x.pull(root)
	return root
}

// split parts a tree into what stands before n and what stands after it.
func (x *Index) split(root, n int32) (below, above int32) {
	if root == 0 {
		return 0, 0
	}
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

func (x *Index) erase(root, n int32) int32 {
	if root == 0 {
		return 0
	}
	r := &x.nodes[root]
	if root == n {
		return x.merge(r.left, r.right)
	}
	if x.before(n, root) {
		r.left = x.erase(r.left, n)
	} else {
		r.right = x.erase(r.right, n)
	}
	x.pull(root)
	return root
}

// merge makes one tree of two, all of a before all of b.
func (x *Index) merge(a, b int32) int32 {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	case x.nodes[a].rank > x.nodes[b].rank:
		x.nodes[a].right = x.merge(x.nodes[a].right, b)
		x.pull(a)
		return a
	default:
		x.nodes[b].left = x.merge(a, x.nodes[b].left)
		x.pull(b)
		return b
	}
}

// pull works out what a node knows of what is below it.
func (x *Index) pull(n int32) {
	h, r := &x.hosts[n], &x.nodes[n]
	r.most, r.ports, r.mask, r.free, r.freeGPU = h.free, h.portsLeft(), h.mask, chartOf(h.free), chart{}
	if h.free.GPU > 0 {
		r.freeGPU = r.free
	}
	for _, c := range [...]int32{r.left, r.right} {
		if c == 0 {
			continue
		}
		k := &x.nodes[c]
		r.most, r.ports = largestOf(r.most, k.most), max(r.ports, k.ports)
		for i := range r.mask {
			r.mask[i] |= k.mask[i]
			r.free[i] |= k.free[i]
			r.freeGPU[i] |= k.freeGPU[i]
		}
	}
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
