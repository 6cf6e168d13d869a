package control

import (
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// remind gives the orders again that show no effect: of each task every
// [Config.Retry] from when it came into its state. What comes due within the
// next second is told with it.
func (t *Turn) remind() {
	l := t.loop
	var late []lease
	l.retries.Ascend(func(x lease) bool {
		if x.at > t.steady {
			return false
		}
		late = append(late, x)
		return true
	})
	now, every := t.draft.Snapshot().At, l.cfg.Retry
	for _, x := range late {
		l.again(x.id, 0)
		a := l.agents[x.id]
		withheld, seen := a.withheld, a.looked
		a.withheld, a.looked = false, now+second
		for y := range t.snap.TasksOn(x.id) {
			if y.State != task.Assigned && !y.State.Stopping() {
				continue
			}
			times := (a.looked - y.Since) / every
			if times > max(0, seen-y.Since)/every || withheld && t.exclusive(y) {
				t.command(y)
			}
			t.retryIn(x.id, y.Since+(times+1)*every-now)
		}
	}
}

// retryIn has the orders of a machine looked at again after d, or before.
func (t *Turn) retryIn(id machine.ID, d unit.Tick) {
	if a, at := t.loop.agents[id], t.steady+d; a != nil && (a.retry == 0 || a.retry > at) {
		t.loop.again(id, at)
	}
}

func (t *Turn) exclusive(x state.Task) bool {
	cfg, ok := t.draft.Snapshot().Config(x.Config)
	return ok && cfg.Exclusive
}

// command tells a machine what its task's state asks for, and looks again
// later whether it had an effect.
func (t *Turn) command(x state.Task) {
	l := t.loop
	a := l.agents[x.Machine]
	if a == nil || a.session == "" {
		return // its next hello is answered with everything
	}
	switch {
	case x.State == task.Assigned && t.mayRun(x):
		if !t.run(x) {
			return
		}
	case x.State.Stopping():
		t.send(x.Machine, task.Order{ID: x.ID, Verb: task.Stop, Reason: x.Reason})
	default:
		return
	}
	if a.retry == 0 {
		l.again(x.Machine, t.steady+l.cfg.Retry)
	}
}

// run tells a machine to run x. An exclusive task waits for the machine's
// lease: the agent would refuse it, and the task would be lost for nothing.
func (t *Turn) run(x state.Task) bool {
	l := t.loop
	if t.exclusive(x) && !l.covers(x.Machine, t.steady) {
		l.agents[x.Machine].withheld = true
		t.retryIn(x.Machine, second)
		return false
	}
	t.send(x.Machine, runOrder(x))
	return true
}
