package state

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// owed tells a machine's records of a batch, in thousandths of a core: what is
// kept back, what is owed and what is idle; and at the end what may be reserved.
func owed(o *one) (told []string) {
	_, s, _ := o.seal(func(r *Record) {
		switch {
		case r.Machine != nil:
			told = append(told, fmt.Sprintf("keeps %d, owes %d, idle %d", r.Machine.After.Overhead.CPU, r.Machine.After.Owed.CPU, r.Machine.Free.CPU))
		case r.Task != nil && r.Task.After.Machine != "":
			told = append(told, fmt.Sprintf("%v, idle %d", r.Task.After.State, r.Task.Free.CPU))
		}
	})
	return append(told, fmt.Sprintf("free %d", s.Free("m1").CPU))
}

func (o *one) seal(see func(*Record)) (*Batch, *Snapshot, Delta) {
	b, s, delta := o.d.Seal(machine.Epoch{})
	for i := range b.Records {
		see(&b.Records[i])
	}
	o.d = NewDraft(s, s.At+unit.Hour/60)
	return b, s, delta
}

// takes says what the agent and the supervisors take.
func (o *one) takes(cpu int64) {
	o.t.Helper()
	m, _ := o.d.Snapshot().Machine("m1")
	m.Overhead, m.Owed = unit.Resources{CPU: cpu}, unit.Resources{}
	o.apply(PutMachine{Machine: m.Machine, Base: m.Rev})
}

// TestOwed follows a machine of 100 whose overhead grows beyond what its task of
// 7 leaves: it is kept back as far as there is room, and the rest when the task
// has ended, before anybody else may have it.
func TestOwed(t *testing.T) {
	o := newOne(t, job.Config{Service: true})
	o.takes(10)
	o.step(task.Assigned, task.Running)
	for _, c := range []struct {
		what string
		do   func()
		want []string
	}{
		{"there is room", func() {}, []string{"keeps 0, owes 0, idle 100", "keeps 10, owes 0, idle 90", "ASSIGNED, idle 83", "RUNNING, idle 83", "free 83"}},
		{"it takes more than is left", func() { o.takes(98) }, []string{"keeps 93, owes 5, idle 0", "free -5"}},
		{"it takes more than there is", func() { o.takes(120) }, []string{"keeps 93, owes 27, idle 0", "free -27"}},
		{"its machine goes down", func() {
			m, _ := o.d.Snapshot().Machine("m1")
			m.Up = false
			o.apply(PutMachine{Machine: m.Machine, Base: m.Rev})
		}, []string{"keeps 93, owes 27, idle 0", "free -27"}},
		{"the task is lost, and strays", func() { o.step(task.Lost) }, []string{"LOST, idle 0", "keeps 100, owes 27, idle 0", "free -27"}},
		{"it is gone", func() {
			m, _ := o.d.Snapshot().Machine("m1")
			o.apply(PutStrays{ID: "m1", Base: m.Rev})
		}, []string{"keeps 100, owes 20, idle 0", "free -20"}},
		{"it takes less", func() { o.takes(95) }, []string{"keeps 95, owes 0, idle 5", "free 5"}},
	} {
		c.do()
		if diff := cmp.Diff(c.want, owed(o)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

// TestOwedPaid keeps back what is owed when a task ends, with one record, and
// with none when another task has the room within the batch.
func TestOwedPaid(t *testing.T) {
	o := newOne(t, job.Config{Service: true})
	o.step(task.Assigned, task.Running)
	o.takes(97)
	owed(o)
	o.step(task.Failed)
	if diff := cmp.Diff([]string{"FAILED, idle 3", "keeps 97, owes 0, idle 3", "free 3"}, owed(o)); diff != "" {
		t.Errorf("the task has ended (-want +got):\n%s", diff)
	}
	o = newOne(t, job.Config{Service: true})
	o.step(task.Assigned, task.Running)
	o.takes(97)
	owed(o)
	o.step(task.Failed)
	o.next()
	o.step(task.Assigned)
	if diff := cmp.Diff([]string{"FAILED, idle 3", "ASSIGNED, idle 0", "free -4"}, owed(o)); diff != "" {
		t.Errorf("another has its room (-want +got):\n%s", diff)
	}
}
