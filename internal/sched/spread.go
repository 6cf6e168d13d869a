package sched

import (
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
)

// A job with the placement [job.Spread] gets, of the machines that fit, the one
// with the fewest of its tasks, and of these the one with the most left over.
// What comes last for every task (maintenance, machines with GPUs, claims)
// comes last for these too.
//
// A group keeps for each tree how many tasks of its job the machines have that
// are being filled, and from where on no machine with so few takes another one.
// Both hold for one plan: in it machines only ever fill up.
type level struct {
	tasks int32
	from  mark // nothing farther than it takes a task
	done  bool // no machine of the tree does, whatever it has
}

// onMachine stands for the machine itself in a tally: no attribute has this name.
const onMachine = ""

// ofOwn returns how many tasks of a group's job, which spreads, are on a host.
func (x *Index) ofOwn(g *group, n int32) int32 {
	return g.moving.own.by[onMachine][string(x.hosts[n].row.ID)]
}

// spreadsOut reports whether tasks of this shape go where the fewest of their job are.
func (w *shape) spreadsOut() bool { return w.placement == job.Spread }

// levels returns how far the search of a group that spreads has come.
func (p *planner) levels(g *group) *[trees]level {
	ls, ok := p.leveled[g]
	if !ok {
		ls = &[trees]level{}
		for i := range ls {
			ls[i].from = p.x.far()
		}
		p.leveled[g] = ls
	}
	return ls
}

// far is the end of the trees at which most is left over.
func (x *Index) far() mark {
	if x.policy == Spread {
		return start
	}
	return end
}

// emptiest returns the machine of a tree that a task of a group gets that
// spreads, 0 if none takes it. The one to avoid is passed over for this task alone.
func (p *planner) emptiest(g *group, tree int8, avoid int32) int32 {
	l := &p.levels(g)[tree]
	at := *l
	for !at.done {
		q := search{x: p.x, group: g, avoid: avoid, limits: true, looked: &p.waits.Looked, spread: true, own: at.tasks}
		n := q.farthest(tree, at.from)
		if n != 0 {
			at.from = mark{left: p.x.hosts[n].left}
			break
		}
		at.from = p.x.far()
		at.tasks, at.done = p.nextLevel(q, tree)
	}
	if a := &p.x.hosts[avoid]; avoid == 0 || a.attach != tree {
		*l = at
	}
	if at.done {
		return 0
	}
	q := search{x: p.x, group: g, avoid: avoid, limits: true, looked: &p.waits.Looked, spread: true, own: at.tasks}
	return q.nearest(tree, at.from)
}

// farthest returns a host of the tree that takes a task and that has as much
// left over as any that does, beginning at a mark.
func (q search) farthest(tree int8, at mark) int32 {
	if q.x.policy == Spread {
		return q.nearest(tree, at)
	}
	far := int32(0)
	for _, root := range q.x.roots[tree] {
		q.past = far
		if n := q.last(root, at.left); n != 0 {
			far = n
		}
	}
	return far
}

// nearest returns the first host of a tree, on whatever shelf, from a mark on,
// that takes the task, or 0.
func (q search) nearest(tree int8, at mark) int32 {
	near := int32(0)
	for _, root := range q.x.roots[tree] {
		q.until = near
		if n := q.first(root, at); n != 0 {
			near = n
		}
	}
	return near
}

// last returns the last host below root that takes the task, of those with no
// more left over than most, or 0.
func (q search) last(root int32, most int64) int32 {
	if root == 0 {
		return 0
	}
	*q.looked++
	r := &q.x.nodes[root]
	if !r.mayHold(q.group) {
		return 0
	}
	if q.past != 0 && q.x.before(root, q.past) {
		return q.last(r.right, most)
	}
	if q.x.hosts[root].left <= most {
		if n := q.last(r.right, most); n != 0 {
			return n
		}
		if root != q.avoid && q.takes(root) {
			return root
		}
	}
	return q.last(r.left, most)
}

// nextLevel returns the fewest tasks of the job that a machine of a tree has
// which has more than those looked at, and takes one more.
func (p *planner) nextLevel(q search, tree int8) (tasks int32, done bool) {
	done = true
	for id, have := range q.group.moving.own.by[onMachine] {
		n := p.x.slots[machine.ID(id)]
		if have <= q.own || !done && have >= tasks || n == q.avoid || p.x.hosts[n].attach != tree {
			continue
		}
		at := q
		if at.own = have; at.takes(n) {
			tasks, done = have, false
		}
	}
	return tasks, done
}
