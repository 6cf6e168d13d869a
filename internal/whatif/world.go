// Package whatif answers "what would happen": it puts machines and jobs into a
// cluster that exists in memory alone and lets the real engines place them.
//
// It is pure: what it reads is handed to it, how long something took it asks a
// function that it is given, and chance comes from a seed. The same input gives
// the same placements.
package whatif

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/converge"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A World is a cluster in memory, and the placer's index of it.
type World struct {
	s       *state.Snapshot
	x       *sched.Index
	index   Indexer
	tasks   *converge.Index // of what this world has changed, and of nothing else
	now     unit.Tick
	clock   func() time.Duration
	placing time.Duration // what the placer took: its folds and plans
	placed  []task.ID     // since they were last asked for; see [World.begin]
	stops   map[task.ID]Stop
	order   []task.ID // of stops
}

// A Stop is a task that was stopped for another.
type Stop struct {
	Task   task.ID
	Tier   string
	Reason string
}

const second = unit.Hour / 3600

// An Indexer makes the placer's index of a snapshot; with it comes its policy.
type Indexer func(*state.Snapshot) *sched.Index

// New returns an empty cluster. clock tells how much time has passed; nil: none
// ever does, for who asks for no durations.
func New(clock func() time.Duration, index Indexer) *World {
	s := state.New()
	s.Cluster = state.Cluster{Name: role, UID: role, Incarnation: 1}
	return From(s, clock, index)
}

// From returns the world of a snapshot. The snapshot stays as it is.
func From(s *state.Snapshot, clock func() time.Duration, index Indexer) *World {
	if clock == nil {
		clock = func() time.Duration { return 0 }
	}
	return &World{s: s, x: index(s), index: index, tasks: converge.NewIndex(state.New()), now: max(s.At, unit.Hour), clock: clock, stops: map[task.ID]Stop{}}
}

// Snapshot returns the cluster as it is now.
func (w *World) Snapshot() *state.Snapshot { return w.s }

// Placing returns how long the placer has worked: its plans, and its folds of
// what changed. What it takes to write rows and records is not counted.
func (w *World) Placing() time.Duration { return w.placing }

// Stopped returns the tasks that were stopped for others, in order of time.
func (w *World) Stopped() []Stop {
	out := make([]Stop, 0, len(w.order))
	for _, id := range w.order {
		out = append(out, w.stops[id])
	}
	return out
}

// do applies changes as one commit, and folds them.
func (w *World) do(changes ...state.Change) (state.Delta, error) {
	return w.edit(func(d *state.Draft) error {
		for _, c := range changes {
			if err := d.Apply(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// edit makes what f does to a draft the world's present.
func (w *World) edit(f func(d *state.Draft) error) (state.Delta, error) {
	d := state.NewDraft(w.s, w.now)
	if err := f(d); err != nil {
		return state.Delta{}, err
	}
	w.s = d.Snapshot()
	w.now = max(w.now, w.s.At)
	changed := d.Changed()
	w.tasks.Fold(w.s, changed)
	at := w.clock()
	w.x.Fold(w.s, changed)
	w.placing += w.clock() - at
	return changed, nil
}

// AddMachines registers machines.
func (w *World) AddMachines(all []machine.Machine) error {
	_, err := w.edit(func(d *state.Draft) error {
		for _, m := range all {
			if _, there := d.Snapshot().Machine(m.ID); there {
				return fault.Conflict.Errorf("machine %s is there already; give the new one another id", m.ID)
			}
			if err := d.Apply(state.PutMachine{Machine: m}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// Submit asks for jobs, all in one commit: their tasks wait.
func (w *World) Submit(jobs ...job.Job) error {
	made, err := w.edit(func(d *state.Draft) error {
		for _, j := range jobs {
			if _, exists := d.Snapshot().Job(j.Key); exists {
				return fault.Conflict.Errorf("job %s is there already; give the new one another name", w.full(j.Key))
			}
			if err := put(d, j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.settle(made)
}

// maxRounds bounds how often the engines look at each other's work.
const maxRounds = 10_000

// Place places what waits, as far as it fits. Tasks that are stopped for others
// end at once. The reasons why others wait are looked into up to looks machines;
// 1: not at all.
func (w *World) Place(looks int) (sched.Waits, error) {
	for range maxRounds {
		waits, more, err := w.step(looks)
		if err != nil || !more {
			return waits, err
		}
	}
	return sched.Waits{}, fault.Internal.Errorf("the placer came to no end in %d plans; report this with the input", maxRounds)
}

// step lets the placer plan once. It is done when there is no more to place.
func (w *World) step(looks int) (waits sched.Waits, more bool, err error) {
	at := w.clock()
	changes, waits := sched.Plan(w.s, w.x, w.now, sched.Limits{Looks: looks})
	w.placing += w.clock() - at
	if len(changes) == 0 {
		return waits, false, nil
	}
	for _, c := range changes {
		w.note(c)
	}
	made, err := w.do(changes...)
	if err != nil {
		return waits, false, err
	}
	ending := w.stopping(made)
	if len(ending) == 0 {
		return waits, waits.More, nil
	}
	if made, err = w.do(ending...); err == nil {
		err = w.settle(made)
	}
	return waits, true, err
}

// note remembers a task that is placed, or stopped for another one.
func (w *World) note(c state.Change) {
	step, ok := c.(state.StepTask)
	if ok && step.Event.To == task.Assigned {
		w.placed = append(w.placed, step.ID)
	}
	if !ok || step.Event.To != task.Preempting {
		return
	}
	row, _ := w.s.Task(step.ID)
	tier := ""
	if cfg, ok := w.s.Config(row.Config); ok {
		tier = cfg.Tier
	}
	if _, again := w.stops[step.ID]; !again {
		w.order = append(w.order, step.ID)
	}
	w.stops[step.ID] = Stop{step.ID, tier, step.Event.Reason}
}

// Settle lets what should exist come to be: open slots get tasks, tasks that
// are being stopped end, and short waits pass. look is what has changed.
func (w *World) settle(look state.Delta) error {
	for range maxRounds {
		r := converge.Plan(w.s, w.tasks, look, w.now, converge.Limits{Changes: 100_000, GiveUp: 1 << 30})
		changes := r.Changes
		if len(changes) == 0 {
			changes = w.stopping(look)
		}
		if len(changes) == 0 {
			if r.Next == 0 || r.Next > w.now+grace {
				return nil
			}
			w.now, look = r.Next, state.NewDelta()
			continue
		}
		made, err := w.do(changes...)
		if err != nil {
			return err
		}
		if r.More {
			made.Merge(look)
		}
		look = made
	}
	return fault.Internal.Errorf("the tasks came to no end in %d plans; report this with the input", maxRounds)
}

// grace is how long a task may be held back before it counts as waiting: one
// that its machine lost before it ran is not started again at once.
const grace = 2 * second

// stopping returns the ends of the tasks of a delta that are being stopped.
func (w *World) stopping(look state.Delta) []state.Change {
	var out []state.Change
	for _, id := range slices.SortedFunc(maps.Keys(look.Tasks), task.ID.Compare) {
		if t, ok := w.s.Task(id); ok && t.State.Stopping() {
			out = append(out, state.StepTask{ID: id, Base: t.Rev, Event: task.Event{To: task.Killed, Reason: t.Reason}})
		}
	}
	return out
}

// ReasonOf says in one or two words why tasks wait, so that they may be
// counted: what the nearest machine lacks, or that no machine is large enough.
func ReasonOf(g sched.Wait) string {
	switch {
	case TooLarge(g):
		large, _, _ := strings.Cut(g.Text, ":")
		return large
	case g.Nearest == nil && len(g.Reasons) == 0:
		return "not looked into"
	case g.Nearest == nil || len(g.Nearest.Lacks) == 0:
		return "its turn"
	}
	var rules []string
	for _, l := range g.Nearest.Lacks {
		r := string(l.Rule)
		if l.Detail != "" {
			r += " " + l.Detail
		}
		rules = append(rules, r)
	}
	slices.Sort(rules)
	return strings.Join(slices.Compact(rules), ", ")
}

// TooLarge reports whether no machine would hold such a task if it were empty.
func TooLarge(g sched.Wait) bool { return strings.HasPrefix(g.Text, "larger than any machine") }

// Waiting counts the tasks that wait, by [ReasonOf].
func Waiting(w sched.Waits) map[string]int {
	out := map[string]int{}
	for _, g := range w.Groups {
		out[ReasonOf(g)] += g.Tasks
	}
	return out
}

// A Placement is a task and its machine.
type Placement struct {
	Task    task.ID
	Machine machine.ID
}

// Placements returns where every task is, in order of task.
func (w *World) Placements() []Placement {
	var out []Placement
	for t := range w.s.Tasks() {
		if t.State.Placed() && t.Machine != "" {
			out = append(out, Placement{t.ID, t.Machine})
		}
	}
	return out
}

// Count returns how many tasks hold a place, and how many wait for one.
func (w *World) Count() (placed, waiting int) {
	for t := range w.s.Tasks() {
		switch {
		case t.State.Placed():
			placed++
		case t.State == task.Pending || t.State == task.Throttled:
			waiting++
		}
	}
	return placed, waiting
}
