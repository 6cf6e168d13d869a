package sched

// A hand holds the machine that was given a task last, out of its tree: the
// next task of the group most often goes there too, and then the tree need not
// be told in between.
type hand struct {
	slot  int32
	group *group
	next  int32 // what the last search in a tree found, and for whom it must not be
	avoid int32
}

// again reports whether the next task of g goes to the machine in hand. It was
// the first in the order of best fit that took the one before, has less left
// now, and so stands first still, if it takes one more and stays on its shelf.
// That holds only as long as nothing lets others go that were passed over.
func (p *planner) again(g *group, avoid int32) bool {
	n := p.hand.slot
	if n == 0 || p.hand.group != g || avoid != 0 {
		return false
	}
	h := &p.x.hosts[n]
	if p.x.shelfOf(h) != h.shelf {
		return false
	}
	return h.fits(g.shape) && (g.moving == nil || g.moving.passes(&h.row.Machine))
}

// keep takes a machine that is in no tree into the hand, or puts it back at
// once if there is no use in holding it.
func (p *planner) keep(n int32, g *group) {
	found := p.hand.slot == n || p.hand.next == n && p.hand.avoid == 0
	p.hand.next = 0
	if found && p.x.policy != Spread && !g.shape.spreadsOut() && len(g.shape.spreads)+len(g.shape.nears) == 0 {
		p.hand.slot, p.hand.group = n, g
		return
	}
	p.hand.slot = 0
	p.x.put(n)
}

// drop puts the machine in hand back into its tree.
func (p *planner) drop() {
	if p.hand.slot != 0 {
		p.x.put(p.hand.slot)
	}
	p.hand = hand{}
}
