package sched

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestAlternatives: of five machines one is down, one is of another rack, one is
// too small and two are alike; the task sits on one of those.
func TestAlternatives(t *testing.T) {
	w := newWorld(t)
	small, large := unit.Resources{CPU: 500}, unit.Resources{CPU: 1500}
	w.add("down", large, "rack", "a")
	w.edit("down", func(m *machine.Machine) { m.Up = false })
	w.add("other", large, "rack", "b")
	w.add("small", small, "rack", "a")
	w.add("one", large, "rack", "a")
	w.add("two", large, "rack", "a")
	cfg := asks(unit.Resources{CPU: 1000}, 0)
	cfg.Constraints = []job.Constraint{is("rack", "a")}
	j := job.Job{Key: "x/prod/y", Instances: job.FirstN(1), Config: cfg}
	at := state.Slot{Job: j.Key}
	w.do(state.PutJob{Job: j}, state.OpenSlot{Slot: at}, state.NewTask{Slot: at, Base: w.s.Rev + 1})
	id := task.ID{Job: j.Key, Attempt: 1}
	changes, _ := Plan(w.s, w.x, w.now, Limits{})
	w.do(changes...)
	got, err := Elsewhere(w.s, id)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Alternatives{Machines: 5, Allowed: 3, Room: 1}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err = Elsewhere(w.s, task.ID{Job: j.Key, Attempt: 2}); fault.Of(err) != fault.NotFound {
		t.Errorf("of a task that is not there: %v; want an error of kind not found", err)
	}
}
