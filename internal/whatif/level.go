package whatif

import (
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Level is how full a cluster is.
type Level struct {
	Machines int // that may take tasks
	Tasks    int // that hold a place or wait for one
	Placed   int
	Waits    sched.Waits
	Has      unit.Resources // of those machines
	Held     unit.Resources // on them
}

// Level places what waits and says how full the cluster is then.
func (w *World) Level() (Level, error) {
	var l Level
	var err error
	if l.Waits, err = w.Place(surveyed); err != nil {
		return l, err
	}
	placed, waiting := w.Count()
	l.Placed, l.Tasks = placed, placed+waiting
	for m := range w.s.Machines() {
		if m.Up && (m.Mode == machine.None || m.Mode == machine.Scheduled) {
			l.Machines++
			all := m.Allocatable()
			l.Has = l.Has.Add(all)
			l.Held = l.Held.Add(all.Sub(w.s.Free(m.ID)))
		}
	}
	return l, nil
}

// Share returns how much of a measure is held, in percent; 0 if there is none
// of it.
func (l Level) Share(m unit.Measure) float64 {
	if l.Has.Of(m) <= 0 {
		return 0
	}
	return 100 * float64(l.Held.Of(m)) / float64(l.Has.Of(m))
}

// Slots returns where the tasks with the given ids were.
func Slots(ids []task.ID) []state.Slot {
	out := make([]state.Slot, 0, len(ids))
	for _, id := range ids {
		out = append(out, state.Slot{Job: id.Job, N: id.Instance})
	}
	return out
}

// PlacedIn counts the slots in which a task holds a place.
func (w *World) PlacedIn(slots []state.Slot) int {
	n := 0
	for _, at := range slots {
		for t := range w.s.TasksIn(at) {
			if t.State.Placed() {
				n++
				break
			}
		}
	}
	return n
}

// Job reports whether there is a job with a key.
func (w *World) Job(k job.Key) bool {
	_, ok := w.s.Job(k)
	return ok
}
