package sched

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
)

// Audit compares x with an index made of s alone, and returns the first
// difference in words, or nothing. Its cost is that of [NewIndex].
func (x *Index) Audit(s *state.Snapshot) string { return x.Compare(x.Fresh(s)) }

// Fresh returns an index like x that is made of s alone. Of x it looks only at
// what never changes.
func (x *Index) Fresh(s *state.Snapshot) *Index { return NewIndexFor(s, x.policy) }

// Compare returns the first difference between x and y, which is at the same
// snapshot, in words, or nothing.
func (x *Index) Compare(y *Index) string {
	if x.largest != y.largest {
		return fmt.Sprintf("the largest machine has %v; want %v", x.largest, y.largest)
	}
	if d := x.auditHosts(y); d != "" {
		return d
	}
	if x.tilt != y.tilt || !maps.Equal(x.asks, y.asks) {
		return fmt.Sprintf("asked for and there are %v; want %v", x.tilt, y.tilt)
	}
	for tree := range x.roots {
		for shelf := range x.roots[tree] {
			if got, want := x.inOrder(x.roots[tree][shelf]), y.inOrder(y.roots[tree][shelf]); !slices.Equal(got, want) {
				return fmt.Sprintf("shelf %d of tree %d holds %v; want %v", shelf, tree, got, want)
			}
		}
	}
	if d := cmp.Or(x.auditTrees(), x.auditClaimants(y), x.auditFronts(), x.auditLadders(), x.auditDomains()); d != "" {
		return d
	}
	if !maps.EqualFunc(x.ranks, y.ranks, maps.Equal) {
		return fmt.Sprintf("hosts with tasks of each standing and priority are %v; want %v", x.ranks, y.ranks)
	}
	if len(x.tenants) != len(y.tenants) {
		return fmt.Sprintf("it knows %d tasks with room of their own; want %d", len(x.tenants), len(y.tenants))
	}
	for id, want := range y.tenants {
		if have := x.tenants[id]; have == nil || have.machine != want.machine {
			return fmt.Sprintf("task %s has room on %s, and the index does not know", id, want.machine)
		}
	}
	for id, want := range y.waiting {
		if have, ok := x.waiting[id]; !ok || have.created != want.created || have.group.groupKey != want.group.groupKey {
			return fmt.Sprintf("task %s waits, and the index does not know", id)
		}
	}
	for id := range x.waiting {
		if _, ok := y.waiting[id]; !ok {
			return fmt.Sprintf("task %s does not wait, and the index does not know", id)
		}
	}
	return x.auditGroups(y)
}

// auditClaimants compares who the claimants are, and the room for their tasks.
func (x *Index) auditClaimants(y *Index) string {
	if !maps.EqualFunc(x.insistent.by, y.insistent.by, func(a, b *demand) bool { return a.ask == b.ask }) || x.insistent.most.Len() != len(x.insistent.by) {
		return "what jobs ask for that insist on machines differs"
	}
	if !slices.EqualFunc(x.claimants, y.claimants, func(a, b *claimant) bool { return a.on == b.on && a.each == b.each }) {
		return fmt.Sprintf("%d claimants differ; want %d", len(x.claimants), len(y.claimants))
	}
	for _, c := range x.claimants {
		if c.seen == 0 || x.puts-c.seen > putsKept {
			continue // it is worked out anew
		}
		looked, want := 0, int64(0)
		for n := range x.hosts[1:] {
			want += c.roomOn(x, int32(n+1))
		}
		if got := x.roomFor(c, &looked); got != want {
			return fmt.Sprintf("for tasks on %s there is room for %d/%d; want %d", c.on, got, parts, want)
		}
	}
	return ""
}

func (x *Index) auditHosts(y *Index) string {
	if len(x.slots) != len(y.slots) {
		return fmt.Sprintf("it knows %d machines; want %d", len(x.slots), len(y.slots))
	}
	for id, n := range y.slots {
		h, want := x.hosts[x.slots[id]], y.hosts[n]
		if h.row.ID != id || h.row.Rev != want.row.Rev || h.free != want.free || h.left != want.left || h.place() != want.place() || h.waste != want.waste || h.ending != want.ending || h.weak != want.weak || h.all != want.all || h.stops != want.stops {
			return fmt.Sprintf("machine %s has %v left at revision %d; want %v at %d", id, h.free, h.row.Rev, want.free, want.row.Rev)
		}
		if !slices.Equal(h.jobs, want.jobs) || !slices.Equal(h.ports, want.ports) || !slices.Equal(h.devs, want.devs) {
			return fmt.Sprintf("machine %s holds %v with ports %v and gpus %v free; want %v, %v, %v",
				id, h.jobs, h.ports, h.devs, want.jobs, want.ports, want.devs)
		}
		if !slices.Equal(h.ranks, want.ranks) {
			return fmt.Sprintf("machine %s has tasks that may be stopped %v; want %v", id, h.ranks, want.ranks)
		}
		for _, c := range x.classes {
			if ok := c.shape.allows(&want.row.Machine); c.allowed[x.slots[id]] != ok || ok && !h.mask.has(c.bit) {
				return fmt.Sprintf("machine %s is allowed to class %s: %t; want %t", id, c.key, !ok, ok)
			}
		}
	}
	return ""
}

func (x *Index) auditGroups(y *Index) string {
	if len(x.groups) != len(y.groups) || len(x.tallies) != len(y.tallies) {
		return fmt.Sprintf("it has %d groups and %d tallies; want %d and %d", len(x.groups), len(x.tallies), len(y.groups), len(y.tallies))
	}
	for key, want := range y.groups {
		g, ok := x.groups[key]
		if !ok {
			return fmt.Sprintf("the group of %s is not known", key.job)
		}
		if got, want := g.waiters(), want.waiters(); !slices.Equal(got, want) {
			return fmt.Sprintf("of %s there wait %v; want %v", key.job, got, want)
		}
	}
	for k, want := range y.tallies {
		got, ok := x.tallies[k]
		if !ok || got.groups != want.groups {
			return fmt.Sprintf("the tally of %s is of other groups", k)
		}
		for attribute, n := range want.by {
			if !maps.Equal(got.by[attribute], n) {
				return fmt.Sprintf("tally of %s by %s is %v; want %v", k, attribute, got.by[attribute], n)
			}
		}
	}
	return ""
}

// waiters returns the tasks of a group in order.
func (g *group) waiters() []waiter {
	all := make([]waiter, 0, g.tasks.Len())
	g.tasks.Ascend(func(w waiter) bool {
		all = append(all, w)
		return true
	})
	return all
}

// auditFronts looks for hosts that a front passed over and that take its need.
func (x *Index) auditFronts() string {
	for k, fs := range x.fronts {
		g := &group{class: k.class, shape: &shape{need: k.each, ports: k.ports}}
		for at, f := range fs.all() {
			if x.puts-f.seen > logged {
				continue // it starts again
			}
			aside := map[int32]bool{}
			for _, n := range f.some {
				aside[n] = true
			}
			for i := f.seen; i < x.puts; i++ {
				aside[x.log[i%putsKept]] = true
			}
			for n := range x.hosts {
				n := int32(n)
				looked := 0
				q := search{x: x, group: g, looked: &looked}
				if x.hosts[n].place() == at && n != 0 && !aside[n] && x.isBefore(n, f.from) && q.takes(n) {
					return fmt.Sprintf("the search for %v passed over machine %s", k.each, x.hosts[n].row.ID)
				}
			}
		}
	}
	return ""
}

// auditLadders looks for hosts that are not where they belong on a ladder.
func (x *Index) auditLadders() string {
	for k, l := range x.ladders {
		if x.puts-l.seen > putsKept {
			continue // it is made anew
		}
		stale := map[int32]bool{}
		for i := l.seen; i < x.puts; i++ {
			stale[x.log[i%putsKept]] = true
		}
		on := 0
		for n := range x.hosts {
			h, n := &x.hosts[n], int32(n)
			i, has := l.slots[n]
			if has {
				on++
			}
			would, some := h.below(k)
			some = some && n != 0 && k.class.allowed[n] && h.attach != nowhere && h.attach%trees == preferred
			if !stale[n] && (some != has || some && (l.stairs[i].would != would || l.stairs[i].at != x.markOf(n))) {
				return fmt.Sprintf("machine %s is not where it belongs on the ladder of %s below %d", h.row.ID, k.role, k.prio)
			}
		}
		if got := l.inOrder(nil, l.root); len(got) != on || !slices.IsSortedFunc(got, func(a, b stair) int { return order(&a, &b) }) {
			return fmt.Sprintf("the ladder of %s below %d has %d stairs, %d of them in its tree, or they are in disorder", k.role, k.prio, on, len(got))
		}
	}
	return ""
}

// order is negative if a stands before b.
func order(a, b *stair) int {
	if a.before(b) {
		return -1
	}
	return 1
}

// inOrder appends the stairs of a ladder, best fit first.
func (l *ladder) inOrder(to []stair, root int32) []stair {
	if root == 0 {
		return to
	}
	s := l.stairs[root]
	return l.inOrder(append(l.inOrder(to, s.left), s), s.right)
}

// auditTrees looks for nodes that know something else than what is below them.
func (x *Index) auditTrees() string {
	for n := range x.nodes {
		n := int32(n)
		h, r := &x.hosts[n], &x.nodes[n]
		if n == 0 || h.attach == nowhere {
			continue
		}
		want := x.own(n)
		for _, c := range [...]int32{r.left, r.right} {
			if c != 0 {
				want.add(&x.nodes[c].sum)
			}
		}
		if r.sum != want || r.at != (mark{h.left, h.row.ID}) {
			return fmt.Sprintf("of machine %s at %v and those below it is known %v; want %v at %v", h.row.ID, r.at, r.sum, want, h.left)
		}
	}
	return ""
}

// inOrder returns the machines of a tree, best fit first.
func (x *Index) inOrder(root int32) []machine.ID {
	if root == 0 {
		return nil
	}
	r := x.nodes[root]
	return append(append(x.inOrder(r.left), x.hosts[root].row.ID), x.inOrder(r.right)...)
}
