package sched

import (
	"cmp"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// Alternatives counts where a task could be.
type Alternatives struct {
	Machines int // of the cluster
	Allowed  int // that are up, take tasks and meet its constraints, limits aside
	Room     int // of them, those that would take one more task like it now

	// Scores of the machine that it is on and of those with room, as if it were
	// placed now: the first would get it. None for a task with a GPU, which goes
	// where the least of the GPUs comes to waste.
	Scores []Score
	Spread bool // its job spreads: fewer tasks of it come first, then the greater score
}

// A Score says how well a task fits on a machine: the least is the best fit.
type Score struct {
	Machine machine.ID
	// What is free there, each measure in thousandths of the largest machine's,
	// summed.
	Thousandths int64
	Tasks       int32 // others of its job that are there, if it spreads
	Last        bool  // maintenance is scheduled: those without come first
	Avoided     bool  // it is avoided: all others come first
	GPUs        bool  // it has GPUs: those without come first; among those with, what of them comes to waste decides
	// What tasks insist on that wait and have little room but on machines like
	// this one, which has GPUs: others with GPUs come first. Empty: none do.
	Kept string
	Here bool // the task is on it, and what it has counts as free
}

// Elsewhere counts the machines on which a live task could be and scores the
// best of them, at most so many, looking at the whole snapshot and at no index,
// so that it may be called from anywhere. The one that the task is on is always
// among those scored. An error of kind NotFound says that no such task is live.
func Elsewhere(s *state.Snapshot, id task.ID, scores int) (Alternatives, error) {
	var a Alternatives
	t, ok := s.Task(id)
	if !ok {
		return a, fault.NotFound.Errorf("there is no live task %s; job status lists those there are", id)
	}
	cfg, ok := s.Config(t.Config)
	if !ok {
		return a, fault.Internal.Errorf("task %s: %s", id, lostConfig)
	}
	v := surveyOf(s, shapeOf(id.Job, cfg), id.Job)
	var fits []fit
	for row := range s.Machines() {
		a.Machines++
		if !row.Up || treeOf(&row.Machine) == nowhere || !v.shape.allows(&row.Machine) {
			continue
		}
		a.Allowed++
		h := look(s, row, nil)
		room := len(judge(&h, v.shape, v.moving)) == 0
		if room {
			a.Room++
		}
		if here := row.ID == t.Machine; t.Resources.GPU == 0 && (room || here) {
			free := h.free
			if here {
				free = free.Add(t.Resources)
			}
			f := fit{machine: row.ID, tree: treeOf(&row.Machine), last: row.Mode == machine.Scheduled, gpus: row.Allocatable().GPU > 0, left: leftover(free, v.largest), here: here}
			if !f.gpus && !v.shape.spreadsOut() {
				f.shelf = shelfOf(free, row.Allocatable())
			}
			if a.Spread = v.shape.spreadsOut(); a.Spread {
				f.own, f.rank = h.tasksOf(id.Job, here), -f.left
			} else {
				f.rank = f.left
			}
			fits = append(fits, f)
		}
	}
	keepFor(s, v.shape, t, fits)
	order := tiltOf(s).order(v.shape)
	for i := range fits {
		fits[i].shelf = int8(slices.Index(order[:], fits[i].shelf))
	}
	a.Scores = scored(fits, scores)
	return a, nil
}

// keepFor notes which of the machines with GPUs are kept for others.
func keepFor(s *state.Snapshot, w *shape, t state.Task, fits []fit) {
	if !slices.ContainsFunc(fits, func(f fit) bool { return f.gpus }) {
		return
	}
	kept := keepersFrom(s, w, t)
	for i := range fits {
		if fits[i].gpus {
			m, _ := s.Machine(fits[i].machine)
			fits[i].kept = kept.keep(&m.Machine)
		}
	}
}

// tasksOf counts the tasks of a job on a host, less one that is known to be there.
func (h *host) tasksOf(k job.Key, less bool) int32 {
	n := int32(0)
	for _, on := range h.jobs {
		if on == k {
			n++
		}
	}
	if less {
		n--
	}
	return n
}

// A fit is a machine that would take a task.
type fit struct {
	machine machine.ID
	tree    int8
	last    bool
	gpus    bool
	kept    string // for whom
	shelf   int8   // then its turn in the order of shelves
	own     int32
	left    int64
	rank    int64 // left, or the less the more is left
	here    bool
}

// scored returns scores in the order in which the task would go to machines,
// of at most so many of them, and of the one where the task is.
func scored(fits []fit, most int) (out []Score) {
	slices.SortFunc(fits, func(a, b fit) int {
		return cmp.Or(cmp.Compare(a.tree, b.tree), compareBool(a.gpus, b.gpus), compareBool(a.kept != "", b.kept != ""), cmp.Compare(a.shelf, b.shelf), cmp.Compare(a.own, b.own), cmp.Compare(a.rank, b.rank), cmp.Compare(a.machine, b.machine))
	})
	for i, f := range fits {
		if i < most || f.here {
			out = append(out, Score{Machine: f.machine, Thousandths: f.left * 1000 / scale, Tasks: f.own, Last: f.last, Avoided: f.tree == avoided, GPUs: f.gpus, Kept: f.kept, Here: f.here})
		}
	}
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
