package meter

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestOverheadGrows bills a machine whose overhead changes within an hour, also
// beyond what its task leaves: the accounts add up, and none is below nothing.
func TestOverheadGrows(t *testing.T) {
	start := 400_000 * unit.Hour
	snap := state.New()
	var records []state.Record
	at := func(after unit.Tick, f func(d *state.Draft)) {
		d := state.NewDraft(snap, start+after)
		f(d)
		b, s, _ := d.Seal(machine.Epoch{})
		snap, records = s, append(records, b.Records...)
	}
	apply := func(d *state.Draft, c state.Change) {
		t.Helper()
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	takes := func(milli int64) func(d *state.Draft) {
		return func(d *state.Draft) {
			old, _ := d.Snapshot().Machine("m1")
			m := machine.Machine{ID: "m1", Up: true, Capacity: unit.Resources{CPU: 8000}, Overhead: unit.Resources{CPU: milli}}
			apply(d, state.PutMachine{Machine: m, Base: old.Rev})
		}
	}
	slot := state.Slot{Job: "www/prod/hello"}
	step := func(d *state.Draft, to task.State) {
		x, _ := d.Snapshot().Task(task.ID{Job: slot.Job, Attempt: 1})
		apply(d, state.StepTask{ID: x.ID, Base: x.Rev, Event: task.Event{To: to, Machine: "m1"}})
	}
	at(0, func(d *state.Draft) {
		takes(500)(d)
		c := job.Config{Task: job.Task{Name: "t", Resources: unit.Resources{CPU: 6000}}, MaxTaskFailures: 1}
		apply(d, state.PutJob{Job: job.Job{Key: slot.Job, Instances: job.FirstN(1), Config: c}})
		apply(d, state.OpenSlot{Slot: slot})
		in, _ := d.Snapshot().Instance(slot)
		apply(d, state.NewTask{Slot: slot, Base: in.Rev})
		step(d, task.Assigned)
	})
	at(unit.Hour/4, takes(1000))                                     // of 2 cores that are free
	at(unit.Hour/2, takes(4000))                                     // 2 of them are the task's
	at(5*unit.Hour/4, func(d *state.Draft) { step(d, task.Failed) }) // and are kept back when it has ended
	at(3*unit.Hour/2, takes(500))                                    // less again
	at(2*unit.Hour, func(*state.Draft) {})
	f, b := New(), newBook()
	foldAll(t, f, records, b)
	if err := f.At(start+2*unit.Hour, b.Hour); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range b.hours {
		if err := h.Check(); err != nil {
			t.Error(err)
		}
		for _, m := range h.Machines {
			got = append(got, strings.Join([]string{m.Capacity.Hours(unit.CPU), m.Billed.Hours(unit.CPU), m.Overhead.Hours(unit.CPU), m.Idle.Hours(unit.CPU), m.Down.Hours(unit.CPU)}, " "))
		}
	}
	want := []string{
		"8 6 1.375 0.625 0", // overhead 0.5 and 1 for a quarter each, 2 for half an hour
		"8 1.5 1.75 4.75 0", // 2 for a quarter, 4 for a quarter, 0.5 for half an hour
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("capacity, billed, overhead, idle, down in core-hours (-want +got):\n%s", diff)
	}
}
