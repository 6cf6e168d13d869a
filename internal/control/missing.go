package control

import (
	"fmt"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

func seen(all []task.Sighting) map[task.ID]bool {
	there := make(map[task.ID]bool, len(all))
	for _, s := range all {
		there[s.ID] = true
	}
	return there
}

// missing takes tasks that should be on a machine, and are not, as lost. What
// the machine shows is as of the orders that it had obeyed: those of a later
// revision were on their way. Should they be lost, they are given again when
// they have shown no effect for a while.
func (t *Turn) missing(from machine.ID, there map[task.ID]bool, obeyed state.Rev) {
	var odd []state.Task // those that are as they should be are many
	for x := range t.draft.Snapshot().TasksOn(from) {
		if !there[x.ID] || x.State.Stopping() {
			odd = append(odd, x)
		}
	}
	for _, x := range odd {
		switch {
		case crosses(obeyed, x) && (x.State == task.Assigned && t.mayRun(x) || there[x.ID]):
			t.retryIn(from, t.loop.cfg.Retry)
		case there[x.ID]:
			t.send(from, task.Order{ID: x.ID, Verb: task.Stop, Reason: x.Reason})
		case x.State == task.Assigned && t.mayRun(x) && !t.leaving(from):
			t.run(x)
		case x.State == task.Assigned && t.forgot(x) && !t.lingers(x):
			e := task.Event{To: task.Lost, Reason: fmt.Sprintf("machine %s has lost its memory: it may have run there, and ended", from)}
			_ = t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: e, Gone: true})
		case t.lingers(x), x.State == task.Partitioned && !fault.Planted("rival-believed"):
			// It was given up for a while, by its job's policy: who is in reach now may
			// be another computer, or have lost its memory, and the task may run on.
		default:
			e := task.Event{To: task.Lost, Reason: fmt.Sprintf("machine %s does not have it any more", from)}
			_ = t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: e, Gone: true}) // a refusal means that it has just ended
		}
	}
}

// crosses reports whether what a machine says was said before it could have
// obeyed the order that x is in its state for.
func crosses(obeyed state.Rev, x state.Task) bool { return obeyed != 0 && obeyed < x.Rev }

// leaving reports whether a machine's agent takes no more tasks.
func (t *Turn) leaving(id machine.ID) bool {
	m, _ := t.draft.Snapshot().Machine(id)
	return m.Leaving
}

// lingers keeps an exclusive task that its machine does not show from being
// replaced for as long as its lease may last: a machine whose data directory
// was lost does not show what it runs.
func (t *Turn) lingers(x state.Task) bool {
	cfg, ok := t.draft.Snapshot().Config(x.Config)
	if !ok || !cfg.Exclusive || fault.Planted("exclusive-given-up") {
		return false
	}
	switch x.State {
	case task.Partitioned:
		return t.draft.Snapshot().At-x.Since <= t.loop.cfg.AgentLease
	case task.Starting, task.Running:
		e := task.Event{To: task.Partitioned, Reason: fmt.Sprintf("machine %s does not have it any more; its lease may last a little", x.Machine)}
		return t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: e}) == nil
	case task.Assigned: // it may have begun before its agent forgot it, under a lease of the time before
		return t.forgot(x) && t.steady-t.loop.agents[x.Machine].opened <= t.loop.cfg.AgentLease
	default:
		return false
	}
}

// mayRun reports whether a machine may be told to run x. After a restore, it
// may not run what was numbered before: it may have run, and ended, since the
// copy was taken; nor may a machine run again what it may have forgotten. Such
// a task is there when its machine says so, or lost.
func (t *Turn) mayRun(x state.Task) bool {
	return x.ID.Attempt >= t.draft.Snapshot().Cluster.FirstAttempt() && !t.forgot(x)
}

// forgot reports whether the machine of x may have been told to run it before
// its memory began: then it may have run, and ended, and an id runs once.
func (t *Turn) forgot(x state.Task) bool {
	a := t.loop.agents[x.Machine]
	return a != nil && x.Rev <= a.since && !fault.Planted("run-again")
}
