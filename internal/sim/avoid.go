package sim

import (
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// swallow makes a black hole of a machine for a while: it takes every task, and
// starts none. It refuses them, or they fail before they run.
func (n *node) swallow() {
	n.hole = task.Lost
	if n.w.chance(3) {
		n.hole = task.Failed
	}
	n.w.after(5*Minute+n.w.jitter(15*Minute), func() { n.hole = task.Init })
}

// outage makes black holes of most machines at once, as when they cannot reach
// what every start needs.
func (w *World) outage() {
	for _, n := range w.nodes {
		if !w.chance(5) {
			n.swallow()
		}
	}
}

// refuse tells the leader that a task was not started.
func (n *node) refuse(s task.Sighting, as task.State, why string) {
	s.State, s.Reason = as, why
	n.mind.See(s)
	n.w.after(1, func() { n.sayIfUp() })
}

// conduct is what an eye that sees every record makes of how machines start
// tasks, by a simpler account than the leader's: it counts all that a leader of
// one term could know, and is content with more evidence.
type conduct struct {
	epoch   machine.Epoch
	fine    map[job.Hash]unit.Tick
	failed  map[machine.ID][]failedStart
	inRow   map[machine.ID]int // failures in a row, whoever led
	avoided map[machine.ID]unit.Tick
}

type failedStart struct {
	config job.Hash
	at     unit.Tick
	proven bool // with it, it was plain that the machine is to be avoided
}

// plenty is how many failed starts in a row, of which each config started
// elsewhere since the first, must have led to avoid a machine.
const plenty = 6

func newConduct() conduct {
	return conduct{inRow: map[machine.ID]int{}, avoided: map[machine.ID]unit.Tick{}}
}

// most is how many machines may be avoided at once.
func (w *World) most() int { return max(1, len(w.nodes)/2) }

// conducted holds after every commit: who is avoided deserves it, not many are,
// none for longer than was said, and who starts nothing that others start is.
func (w *World) conducted(b *state.Batch) {
	c := &w.truth.conduct
	if b.Epoch != c.epoch { // what a leader saw ends with it
		c.epoch, c.fine, c.failed = b.Epoch, map[job.Hash]unit.Tick{}, map[machine.ID][]failedStart{}
	}
	for i := range b.Records { // decided on what had been committed before
		if r := &b.Records[i]; r.Kind == state.MachineRecord {
			w.shunned(r)
		}
	}
	for i := range b.Records {
		if r := &b.Records[i]; r.Kind == state.TaskRecord {
			w.startedOr(r)
		}
	}
	for id, until := range c.avoided {
		if until <= b.At {
			w.fail("machine %s is avoided, and was to be until %v ago", id, (b.At - until).Duration())
		}
	}
	if len(c.avoided) > w.most() {
		w.fail("%d of %d machines are avoided; want at most %d", len(c.avoided), len(w.nodes), w.most())
	}
}

// shunned holds for a machine that is avoided from now on: starts have failed on
// it in a row.
func (w *World) shunned(r *state.Record) {
	c, was, is := &w.truth.conduct, r.Machine.Before, r.Machine.After
	switch {
	case is.Avoid == "":
		delete(c.avoided, is.ID)
		return
	case was.Avoid == "" && (c.inRow[is.ID] == 0 || is.Avoided == 1 && c.inRow[is.ID] < 3):
		w.fail("machine %s is avoided (%s) after %d failed starts in a row", is.ID, is.Avoid, c.inRow[is.ID])
	}
	c.avoided[is.ID] = is.AvoidUntil
	delete(c.failed, is.ID) // that led to it
}

// startedOr counts starts, and those that failed.
func (w *World) startedOr(r *state.Record) {
	c, x := &w.truth.conduct, r.Task.After
	began := r.Task.Before == task.Assigned || r.Task.Before == task.Starting
	switch {
	case x.State == task.Running && x.Ran == r.At, x.State == task.Finished && x.Ran == 0 && !r.Task.Before.Stopping():
		c.fine[x.Config], c.inRow[x.Machine] = r.At, 0
		delete(c.failed, x.Machine)
	case began && x.Ran == 0 && (x.State == task.Lost || x.State == task.Failed):
		c.inRow[x.Machine]++
		w.failedStart(x, r.At)
	}
}

// failedStart holds for a start that failed: the ones before it were not enough
// to avoid the machine, or it is avoided.
func (w *World) failedStart(x task.Task, at unit.Tick) {
	c := &w.truth.conduct
	n := w.byID[x.Machine]
	if l := w.leader.loop; n == nil || n.hole == task.Init || l == nil || l.Snapshot().Cluster.Recovery { // only of those it is certain that they start nothing
		delete(c.failed, x.Machine)
		return
	}
	row := c.failed[x.Machine]
	for len(row) > 7 || len(row) > 0 && at-row[0].at > 9*Minute {
		row = row[1:]
	}
	_, avoided := c.avoided[x.Machine]
	open := !avoided && len(c.avoided) < 2 // so few that one more may be
	if len(row) > 0 && row[len(row)-1].proven && at-row[len(row)-1].at > Second && open {
		w.fail("machine %s starts nothing, %d tasks in a row have shown it, and it is not avoided", x.Machine, len(row))
	}
	row = append(row, failedStart{config: x.Config, at: at})
	borne := 0
	for _, f := range row {
		if started, ok := c.fine[f.config]; ok && started > row[0].at {
			borne++
		}
	}
	row[len(row)-1].proven = borne == len(row) && borne >= plenty && open
	c.failed[x.Machine] = row
}
