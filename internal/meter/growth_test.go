package meter

import (
	"fmt"
	"testing"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// crowd is the meter of n machines with two tasks each, stored, and the record
// that it took in last.
func crowd(t *testing.T, n int) (*Fold, state.Record) {
	t.Helper()
	f := New()
	r := state.Record{At: worldStart}
	all := unit.Resources{CPU: 4000, RAM: 8 << 30, Disk: 64 << 30}
	for i := range n {
		id := machine.ID(fmt.Sprintf("m%05d", i))
		r.Seq++
		r.Kind, r.Machine = state.MachineRecord, &state.MachineChange{After: machine.Machine{ID: id, Up: true, Capacity: all}, Free: all}
		foldAll(t, f, []state.Record{r}, nowhere{})
		for slot := range int32(2) {
			r.Seq++
			foldAll(t, f, []state.Record{stepped(r, id, int32(i)*2+slot, task.Pending, task.Assigned)}, nowhere{})
		}
	}
	f.Stored()
	return f, r
}

// stepped is a record of a task's step.
func stepped(r state.Record, on machine.ID, n int32, from, to task.State) state.Record {
	r.Kind, r.Machine, r.Task = state.TaskRecord, nil, &state.TaskChange{Before: from, After: task.Task{
		ID: task.ID{Job: job.NewKey("www", "prod", fmt.Sprintf("j%03d", n/500)), Instance: n % 500, Attempt: 1}, State: to, Machine: on,
		Resources: unit.Resources{CPU: 1000, RAM: 1 << 30},
	}, Free: unit.Resources{CPU: 2000, RAM: 6 << 30, Disk: 64 << 30}}
	return r
}

// TestGrowth: what a change costs, in accounts that are stored again and in
// memory that is asked for, does not follow the size of the cluster. What an
// hour's end costs does: every machine has a line in it.
func TestGrowth(t *testing.T) {
	var bytes int
	var allocs float64
	for _, n := range []int{1_000, 10_000, 50_000} {
		f, r := crowd(t, n)
		round := func() []byte {
			for i := range 10 {
				at := i * 97 % n
				id := machine.ID(fmt.Sprintf("m%05d", at))
				for _, to := range [][2]task.State{{task.Running, task.Finished}, {task.Pending, task.Assigned}} {
					r.Seq++
					foldAll(t, f, []state.Record{stepped(r, id, int32(at)*2, to[0], to[1])}, nowhere{})
				}
			}
			b, ok := f.Changes()
			if !ok {
				t.Fatal("all of it is to be stored again")
			}
			f.Stored()
			return b
		}
		b, a := len(round()), testing.AllocsPerRun(20, func() { round() })
		t.Logf("%d machines: %d bytes, %v allocations", n, b, a)
		if n == 1_000 {
			bytes, allocs = b, a
		}
		if b > 2*bytes || a > 2*allocs {
			t.Errorf("with %d machines ten changes store %d bytes with %v allocations, with 1000 %d with %v; want at most twice as much", n, b, a, bytes, allocs)
		}
	}
}

var _ Sink = nowhere{}

// TestHourIsWhole: at an hour's end there is a line for each machine, and the
// whole is stored once.
func TestHourIsWhole(t *testing.T) {
	f, _ := crowd(t, 100)
	lines := 0
	if err := f.closeUpTo(f.hour+unit.Hour, func(h ledger.Hour) error { lines += len(h.Machines); return h.Check() }); err != nil || lines != 100 {
		t.Errorf("%d lines, %v; want one for each of 100 machines", lines, err)
	}
	if _, ok := f.Changes(); ok {
		t.Error("an hour has ended, and only changes are to be stored")
	}
}
