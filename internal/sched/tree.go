package sched

import "github.com/covey-platform/covey/internal/unit"

// bitmapBits is how many classes have a bit of their own in a [bitmap]. More
// classes share bits, which makes a search longer and never wrong.
const bitmapBits = 256

// A bitmap is a set of classes.
type bitmap [bitmapBits / 64]uint64

func (b *bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b *bitmap) clear(i int)    { b[i/64] &^= 1 << (i % 64) }
func (b *bitmap) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

// A node is a host's place in its tree: a treap in order of leftover, then of
// machine id. Each node knows the most that any host below it has of each
// measure, so that a search for the best fit passes over what is too full.
type node struct {
	left, right int32 // slots; 0 is none
	rank        uint32
	most        unit.Resources
	ports       int
	mask        bitmap
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
	h.attach = treeOf(h.row.Machine)
	if h.attach == nowhere {
		return
	}
	x.nodes[n].left, x.nodes[n].right = 0, 0
	x.nodes[n].rank = mix(uint32(n))
	x.pull(n)
	x.roots[h.attach] = x.insert(x.roots[h.attach], n)
	x.log[x.puts%logged] = n
	x.puts++
}

// pick takes a host out of its tree. Nothing of it may have changed since put.
func (x *Index) pick(n int32) {
	h := &x.hosts[n]
	if h.attach != nowhere {
		x.roots[h.attach] = x.erase(x.roots[h.attach], n)
		h.attach = nowhere
	}
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
		return x.join(r.left, r.right)
	}
	if x.before(n, root) {
		r.left = x.erase(r.left, n)
	} else {
		r.right = x.erase(r.right, n)
	}
	x.pull(root)
	return root
}

// join makes one tree of two, all of a before all of b.
func (x *Index) join(a, b int32) int32 {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	case x.nodes[a].rank > x.nodes[b].rank:
		x.nodes[a].right = x.join(x.nodes[a].right, b)
		x.pull(a)
		return a
	default:
		x.nodes[b].left = x.join(a, x.nodes[b].left)
		x.pull(b)
		return b
	}
}

// pull works out what a node knows of what is below it.
func (x *Index) pull(n int32) {
	h, r := &x.hosts[n], &x.nodes[n]
	r.most, r.ports, r.mask = h.free, h.portsLeft(), h.mask
	for _, c := range [...]int32{r.left, r.right} {
		if c == 0 {
			continue
		}
		k := &x.nodes[c]
		r.most, r.ports = largestOf(r.most, k.most), max(r.ports, k.ports)
		for i := range r.mask {
			r.mask[i] |= k.mask[i]
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
