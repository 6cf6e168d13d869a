package sim

import (
	"strings"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// loseDirectory ends the agent and takes its directory away: what it knew of its
// tasks, whom it had obeyed, and the facts that nobody had taken in. What runs
// runs on; the next agent finds it in its cgroup, and knows what it holds.
func (n *node) loseDirectory() {
	if !n.on {
		return
	}
	n.kill()
	n.dirs++
	n.seen, n.since, n.journal, n.facts, n.bound = agent.Seen{}, agent.Seen{}, nil, 0, nil // nobody renews a lease any more whose supervisor is not reached
	for id, p := range n.procs {
		if !p.alive() {
			delete(n.procs, id)
			continue
		}
		p.sighting = task.Sighting{ID: id, State: task.Running, Resources: p.sighting.Resources, Orphan: true, Reason: "it lives in its cgroup, and its directory was lost"}
		p.cut = n.w.now // what it used until then was in the journal, or is told by nobody
	}
	n.w.after(n.w.jitter(20*Second), n.spawn)
	n.w.after(2*Minute+n.w.jitter(10*Minute), n.w.endOrphans)
}

// wipe is somebody who sets a machine up anew, with all that it runs, while
// nothing that it says gets through: what has just begun is gone before the
// leader has heard that it began.
func (n *node) wipe() {
	n.mute = true
	n.w.after(1+n.w.jitter(3*Second), func() {
		if n.on {
			for _, p := range n.procs {
				if p.alive() {
					p.sighting.State, p.ended = task.Lost, n.w.now
					n.w.stats.Ends++
				}
			}
			n.loseDirectory()
			n.w.after(1, n.spawn)
		}
		n.mute = false
	})
}

// source names the journal that the agent keeps: a new directory has a new one.
func (n *node) source() string {
	return string(n.id) + strings.Repeat("+", n.dirs)
}

// endOrphans is an operator who has what is held stopped, having looked at it.
func (w *World) endOrphans() {
	w.leader.ask(control.EndRecovery{By: "operator"}, func(error) {
		for _, n := range w.nodes {
			for _, p := range n.procs {
				if p.alive() && p.sighting.Orphan { // it was not shown yet, or nobody led
					w.after(Minute, w.endOrphans)
					return
				}
			}
		}
	})
}

// endsAs is what the end of a task looks like. How an orphan ended nobody knows,
// unless it was told to stop.
func (p *proc) endsAs(to task.State, why string) (task.State, string) {
	if p.sighting.Orphan && to.Terminal() && !p.stopping {
		return task.Lost, "it has ended, and its directory was lost: nobody knows how"
	}
	return to, why
}

// unwatched holds for every order to stop an orphan: a user or an operator has
// asked for it. That its agent lost its directory is no reason.
func (w *World) unwatched(n *node, d agent.Deed, live bool) {
	p := n.procs[d.ID]
	if p == nil || !p.alive() || !p.sighting.Orphan || live || d.ID.Attempt <= w.truth.over[slotOf(d.ID)] {
		return
	}
	if d.Reason != "its agent lost its directory, and an operator had it stopped" {
		w.fail("orphan %v on %s is told to stop, and nobody asked for it: %s", d.ID, n.id, d.Reason)
	}
}

// fits holds for every start: beside all that lives on the machine, whoever
// knows of it, there is room.
func (w *World) fits(n *node, s task.Sighting) {
	sum := s.Resources
	for id, p := range n.procs {
		if p.alive() && id != s.ID {
			sum = sum.Add(p.sighting.Resources)
		}
	}
	if left := n.spec.Capacity.Sub(sum); !(unit.Resources{}).Fits(left) && !w.truth.restored {
		w.fail("task %v was started on %s, which has %v left with it", s.ID, n.id, left)
	}
}
