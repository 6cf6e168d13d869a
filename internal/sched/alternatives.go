package sched

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// Alternatives counts where a task could be.
type Alternatives struct {
	Machines int // of the cluster
	Allowed  int // that are up, take tasks and meet its constraints, limits aside
	Room     int // of them, those that would take one more task like it now
}

// Elsewhere counts the machines on which a live task could be, looking at the
// whole snapshot and at no index, so that it may be called from anywhere. An
// error of kind NotFound says that no such task is live.
func Elsewhere(s *state.Snapshot, id task.ID) (Alternatives, error) {
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
	for row := range s.Machines() {
		a.Machines++
		if !row.Up || treeOf(row.Machine) == nowhere || !v.shape.allows(&row.Machine) {
			continue
		}
		a.Allowed++
		if h := look(s, row, nil); len(judge(&h, v.shape, v.moving)) == 0 {
			a.Room++
		}
	}
	return a, nil
}
