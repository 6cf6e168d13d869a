package sched

import (
	"github.com/covey-platform/covey/internal/unit"
)

// A standing is whose tasks a task that is no stronger than they may have
// stopped: those of its own role, as strong as itself.
type standing struct {
	role   string
	strong bool // of tier preferred
}

func (w *shape) standing() standing { return standing{w.role, w.tier == 0} }

// A rank is what the tasks of one standing and priority hold on a host, as far
// as they may be stopped.
type rank struct {
	standing
	prio  int32
	holds unit.Resources // less what a plan has decided to stop; the rank stays
}

// ranked counts a task that may be stopped.
func (h *host) ranked(role string, k kind, need unit.Resources) {
	r := h.rankOf(role, k)
	if r == nil {
		h.ranks = append(h.ranks, rank{standing: standing{role, k.tier == 0}, prio: k.prio})
		r = &h.ranks[len(h.ranks)-1]
	}
	r.holds = r.holds.Add(need)
}

func (h *host) rankOf(role string, k kind) *rank {
	for i := range h.ranks {
		if r := &h.ranks[i]; r.prio == k.prio && r.strong == (k.tier == 0) && r.role == role {
			return r
		}
	}
	return nil
}

// below returns what a host would have free if every task left that ends, or
// that a ladder is about, and whether it belongs on the ladder.
func (h *host) below(k ladderKey) (free unit.Resources, some bool) {
	if k.strong {
		free = h.yield()
	} else {
		free = h.free.Add(h.ending)
	}
	if k.weaker {
		return free, true // a spread may have let go since the group found no place
	}
	for i := range h.ranks {
		if r := &h.ranks[i]; r.prio < k.prio && r.standing == k.standing {
			free, some = free.Add(r.holds), true
		}
	}
	return free, some
}

// rankHosts counts the hosts that have tasks of a standing and priority.
func (x *Index) rankHosts(h *host, by int32) {
	for i := range h.ranks {
		r := &h.ranks[i]
		n, ok := x.ranks[r.standing]
		if !ok {
			n = map[int32]int32{}
			x.ranks[r.standing] = n
		}
		if n[r.prio] += by; n[r.prio] == 0 {
			delete(n, r.prio)
		}
		if len(n) == 0 {
			delete(x.ranks, r.standing)
		}
	}
}

// outranks reports whether some task is of the standing of w and matters less.
// Most groups that wait have nobody below them, and need no ladder.
func (x *Index) outranks(w *shape) bool {
	for prio := range x.ranks[w.standing()] {
		if prio < w.prio {
			return true
		}
	}
	return false
}

// A ladderKey names whom a group of a class may have stopped: those of the
// weaker tiers, or those of its standing that are below its priority and, if it
// is preferred, of the weaker tiers too.
type ladderKey struct {
	class  *class
	weaker bool // the weaker tiers alone
	standing
	prio int32
}

// weakerKey is the ladder of all that a preferred task of any role may have stopped.
func (g *group) weakerKey() ladderKey {
	return ladderKey{class: g.class, weaker: true, standing: standing{strong: true}}
}

// roleKey is the ladder of those that matter less in the group's own role.
func (g *group) roleKey() ladderKey {
	return ladderKey{class: g.class, standing: g.shape.standing(), prio: g.shape.prio}
}

// A ladder holds the machines of a class that have such tasks, best fit first, in
// a treap like those of the index: each step knows the most that machines below
// it would have if the tasks were gone. It is made when a task first asks for
// it, and brought up to date when it is asked again.
type ladder struct {
	key    ladderKey
	slots  map[int32]int32 // a host's step
	stairs []stair         // step 0 is none
	spare  []int32
	root   int32
	seen   uint64 // of Index.puts
}

type stair struct {
	slot, left, right int32
	attach            int8
	at                mark
	rank              uint32
	would, most       unit.Resources
	fresh             uint64 // of Index.puts, when it was last looked at
}

const (
	laddersAtOne = 1 << 10 // kept in all
	stairsAtOne  = 1 << 19 // of all ladders
)

// ladderOf returns the ladder of a key, up to date.
func (x *Index) ladderOf(k ladderKey, looked *int) *ladder {
	l, ok := x.ladders[k]
	if !ok || x.puts-l.seen > putsKept {
		l = x.newLadder(k, looked)
	}
	for i := x.puts; i > l.seen; i-- {
		l.look(x, x.log[(i-1)%putsKept], looked)
	}
	l.seen = x.puts
	return l
}

// newLadder takes a look at every host.
func (x *Index) newLadder(k ladderKey, looked *int) *ladder {
	delete(x.ladders, k)
	stairs := 0
	for _, l := range x.ladders {
		stairs += len(l.slots)
	}
	if len(x.ladders) >= laddersAtOne || stairs > stairsAtOne {
		clear(x.ladders)
	}
	l := &ladder{key: k, slots: map[int32]int32{}, stairs: make([]stair, 1)}
	x.ladders[k] = l
	for n := 1; n < len(x.hosts); n++ {
		l.look(x, int32(n), looked)
	}
	l.seen = x.puts
	return l
}

// look puts a host on the ladder, moves it or takes it away.
func (l *ladder) look(x *Index, n int32, looked *int) {
	i, on := l.slots[n]
	if on && l.stairs[i].fresh == x.puts {
		return // it was put more than once
	}
	*looked++
	h := &x.hosts[n]
	would, some := h.below(l.key)
	some = some && h.attach != nowhere && h.attach%trees == preferred && l.key.class.allowed[n]
	if s := &l.stairs[i]; on && some && s.attach == h.attach && s.would == would && s.at == x.markOf(n) {
		s.fresh = x.puts
		return
	}
	if on {
		below, rest := l.split(l.root, i, false)
		_, above := l.split(rest, i, true)
		l.root = l.merge(below, above)
	}
	if !some {
		if on {
			delete(l.slots, n)
			l.spare = append(l.spare, i)
		}
		return
	}
	if !on {
		i = l.room()
		l.slots[n] = i
	}
	l.stairs[i] = stair{slot: n, attach: h.attach, at: x.markOf(n), rank: mix(uint32(n)), would: would, fresh: x.puts}
	l.pull(i)
	below, above := l.split(l.root, i, false)
	l.root = l.merge(l.merge(below, i), above)
}

// room returns a stair that is not in use.
func (l *ladder) room() int32 {
	if last := len(l.spare) - 1; last >= 0 {
		i := l.spare[last]
		l.spare = l.spare[:last]
		return i
	}
	l.stairs = append(l.stairs, stair{})
	return int32(len(l.stairs) - 1)
}

// before is the order of the ladder: machines without GPUs, then those with
// some, each as in their tree.
func (s *stair) before(o *stair) bool {
	switch {
	case s.attach != o.attach:
		return s.attach < o.attach
	case s.at.left != o.at.left:
		return s.at.left < o.at.left
	default:
		return s.at.id < o.at.id
	}
}

// split parts what is below root into what stands before stair i, with i itself
// if it belongs there, and the rest.
func (l *ladder) split(root, i int32, with bool) (below, above int32) {
	if root == 0 {
		return 0, 0
	}
	r := &l.stairs[root]
	if r.before(&l.stairs[i]) || with && root == i {
		r.right, above = l.split(r.right, i, with)
		below = root
	} else {
		below, r.left = l.split(r.left, i, with)
		above = root
	}
	l.pull(root)
	return below, above
}

// merge makes one treap of two, all of a before all of b.
func (l *ladder) merge(a, b int32) int32 {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	case l.stairs[a].rank > l.stairs[b].rank:
		l.stairs[a].right = l.merge(l.stairs[a].right, b)
		l.pull(a)
		return a
	default:
		l.stairs[b].left = l.merge(a, l.stairs[b].left)
		l.pull(b)
		return b
	}
}

// pull works out what a step knows of what is below it.
func (l *ladder) pull(i int32) {
	s := &l.stairs[i]
	s.most = s.would
	for _, c := range [...]int32{s.left, s.right} {
		if c != 0 {
			s.most = largestOf(s.most, l.stairs[c].most)
		}
	}
}

// climb calls try for the hosts that would have room for a task of g if all
// were gone that the ladder is about, in order, until it says no.
func (l *ladder) climb(root int32, g *group, looked *int, try func(n int32) bool) bool {
	if root == 0 {
		return true
	}
	*looked++
	s := &l.stairs[root]
	if !g.shape.need.Fits(s.most) {
		return true
	}
	if !l.climb(s.left, g, looked, try) {
		return false
	}
	if g.shape.need.Fits(s.would) && !try(s.slot) {
		return false
	}
	return l.climb(s.right, g, looked, try)
}
