package sim

import (
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// clock is what the machine's clock shows that nobody sets. Clocks do not run
// alike: some are one percent fast or slow.
func (n *node) clock() time.Duration {
	d := (n.w.now - birth).Duration()
	return d + d/100*time.Duration(n.n%3-1)
}

// in is how long it takes until the machine's clock shows at.
func (n *node) in(at time.Duration) unit.Tick {
	left := at - n.clock()
	return max(1, unit.FromDuration(left-left/100*time.Duration(n.n%3-1))+Millisecond)
}

// renewed is what reaches the agent of an acknowledgement.
func (n *node) renewed(session string, sent time.Duration) {
	if !n.up || session == "" || n.session != session || !n.lease.Renew(n.clock(), sent) {
		return
	}
	g, ok := n.lease.Grant(n.clock())
	if !ok {
		return
	}
	n.bound = slices.DeleteFunc(n.bound, func(p *proc) bool { return !p.alive() })
	for _, p := range n.bound {
		if n.clock() < p.until {
			p.until = g.Until
		}
	}
}

// bind has a task end when its lease does.
func (n *node) bind(id task.ID, p *proc, until time.Duration) {
	p.until = until
	n.bound = append(n.bound, p)
	n.lapse(id, p)
}

// lapse ends a task when its lease has ended, give or take what its supervisor
// and the kernel need.
func (n *node) lapse(id task.ID, p *proc) {
	n.w.after(n.in(p.until)+n.w.jitter(Second/2), func() {
		switch {
		case n.procs[id] != p || !p.alive() || fault.Planted("lease-outlived"):
		case n.clock() < p.until: // it was renewed
			n.lapse(id, p)
		default:
			n.move(id, p, task.Lost, agent.Lapsed)
		}
	})
}

// acknowledge tells a machine that what it sent prolonged its lease.
func (l *leader) acknowledge(n *node, session string, sent time.Duration) {
	l.w.tell(n, func() { n.renewed(session, sent) })
}

// prove asks the store every second whether this leader leads.
func (l *leader) prove() {
	if l.loop == nil {
		return
	}
	if l.w.disk.leads(l.epoch) {
		l.loop.Prove(l.w.now)
	}
	term := l.term
	l.w.after(Second, func() {
		if l.term == term {
			l.prove()
		}
	})
}

// leads reports whether a leader of this term still does.
func (d *disk) leads(e machine.Epoch) bool { return d.w.leader.epoch == e }

// alone holds for every start of an exclusive task: no other task of its
// instance lives, anywhere, that is exclusive too.
func (w *World) alone(n *node, id task.ID, config job.Hash) {
	if !w.exclusive[config] {
		return
	}
	for _, o := range w.nodes {
		for other, p := range o.procs {
			if slotOf(other) == slotOf(id) && other != id && p.alive() && p.until != 0 {
				w.fail("exclusive task %v was started on %s while %v lives on %s", id, n.id, other, o.id)
			}
		}
	}
}
