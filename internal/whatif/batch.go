package whatif

import (
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// A Batch is what became of jobs that came one after the other.
type Batch struct {
	Machines, Tasks, Placed int
	Waits                   sched.Waits
	Placing                 time.Duration // of all jobs
	Jobs                    Spread        // of each job, or of all that came at once: from its coming until all of it has its place, as far as there is one
	Single                  Spread        // of one task alone, in the cluster as it is then
	Placements              []Placement
}

// A Spread is how durations lie.
type Spread struct{ P50, P99, Max time.Duration }

// SpreadOf returns how durations lie. It sorts them.
func SpreadOf(all []time.Duration) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	slices.Sort(all)
	return Spread{all[len(all)/2], all[len(all)*99/100], all[len(all)-1]}
}

// surveyed bounds the machines that are asked why tasks wait.
const surveyed = 20_000_000

// singles is how many tasks are placed once more, each alone.
const singles = 1000

// Run lets jobs come, and then asks for the reasons of those that wait: one job
// after the other, in order, each placed before the next is known; or all at once.
func (w *World) Run(asks []Ask, atOnce bool) (Batch, error) {
	var b Batch
	begun := w.placing
	each := make([]time.Duration, 0, len(asks))
	var jobs []job.Job
	for i, a := range asks {
		b.Tasks += a.Job.Instances.Len()
		if jobs = append(jobs, a.Job); atOnce && i < len(asks)-1 {
			continue
		}
		before := w.placing
		if err := w.Submit(jobs...); err != nil {
			return b, err
		}
		if _, err := w.Place(1); err != nil {
			return b, err
		}
		each, jobs = append(each, w.placing-before), jobs[:0]
	}
	b.Jobs, b.Placing = SpreadOf(each), w.placing-begun
	var err error
	b.Waits, err = w.Place(surveyed)
	if err != nil {
		return b, err
	}
	_, _, b.Machines = w.s.Len()
	b.Placements = w.Placements()
	b.Placed = len(b.Placements)
	b.Single, err = w.single(b.Placements)
	return b, err
}

// single ends tasks and places their successors, one at a time: what one task
// costs in this cluster. The world is not the same afterwards.
func (w *World) single(all []Placement) (Spread, error) {
	step := max(1, len(all)/singles)
	var each []time.Duration
	for i := 0; i < len(all); i += step {
		t, ok := w.s.Task(all[i].Task)
		if !ok || !t.State.Placed() {
			continue // its place was taken by one that matters more
		}
		made, err := w.do(state.StepTask{ID: t.ID, Base: t.Rev, Event: task.Event{To: task.Restarting}})
		if err == nil {
			err = w.settle(made)
		}
		if err != nil {
			return Spread{}, err
		}
		before := w.placing
		if _, err := w.Place(1); err != nil {
			return Spread{}, err
		}
		each = append(each, w.placing-before)
	}
	return SpreadOf(each), nil
}
