package state

import (
	"fmt"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestDelay is the table of how long an instance waits after early deaths in a row.
func TestDelay(t *testing.T) {
	for streak, seconds := range []float64{0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300} {
		got := delay(int32(streak)).Duration().Round(time.Second).Seconds()
		if got != seconds {
			t.Errorf("after %d early deaths in a row: %v s, want %v s", streak, got, seconds)
		}
	}
	if got := delay(1 << 30); got != maxThrottle {
		t.Errorf("after very many: %v, want %v", got, maxThrottle)
	}
}

func TestFirstAttempt(t *testing.T) {
	for _, c := range []struct {
		incarnation uint64
		want        uint32
	}{{0, 1}, {1, 1}, {2, 1<<20 + 1}, {3, 2<<20 + 1}, {2049, 1<<31 + 1}, {1 << 40, 1<<31 + 1}} {
		if got := (Cluster{Incarnation: c.incarnation}).FirstAttempt(); got != c.want {
			t.Errorf("incarnation %d: %d, want %d", c.incarnation, got, c.want)
		}
	}
}

// one is a service of one instance that runs on m1.
type one struct {
	t *testing.T
	d *Draft
}

const key job.Key = "a/prod/x"

func newOne(t *testing.T, cfg job.Config) *one {
	t.Helper()
	o := &one{t, NewDraft(New(), 1000*unit.Hour)}
	o.apply(PutMachine{Machine: machine.Machine{ID: "m1", Up: true, Capacity: unit.Resources{CPU: 100}}})
	cfg.Task.Resources = unit.Resources{CPU: 7}
	o.apply(PutJob{Job: job.Job{Key: key, Instances: job.FirstN(1), Config: cfg}})
	o.apply(OpenSlot{Slot: Slot{Job: key}})
	o.next()
	return o
}

func (o *one) apply(c Change) {
	o.t.Helper()
	if err := o.d.Apply(c); err != nil {
		o.t.Fatalf("%T: %v", c, err)
	}
}

func (o *one) slot() Instance {
	in, _ := o.d.Snapshot().Instance(Slot{Job: key})
	return in
}

// next numbers the next task; it waits no longer.
func (o *one) next() {
	o.t.Helper()
	in := o.slot()
	o.apply(NewTask{Slot: in.Slot, Base: in.Rev})
	if o.task().State == task.Throttled {
		o.step(task.Pending)
	}
}

func (o *one) task() Task {
	x, _ := o.d.Snapshot().Task(task.ID{Job: key, Attempt: o.slot().Attempt})
	return x
}

func (o *one) step(to ...task.State) {
	o.t.Helper()
	for _, s := range to {
		x := o.task()
		o.apply(StepTask{ID: x.ID, Base: x.Rev, Event: task.Event{To: s, Machine: "m1"}})
	}
}

// later lets time pass.
func (o *one) later(d unit.Tick) {
	_, s, _ := o.d.Seal(machine.Epoch{})
	o.d = NewDraft(s, s.At+d)
}

// TestStreak says whose end counts as an early death.
func TestStreak(t *testing.T) {
	early, late := unit.Hour/60, unit.Hour/10
	for _, c := range []struct {
		name   string
		path   []task.State // after Pending
		ran    unit.Tick    // before the last of path
		streak int32
		due    unit.Tick
	}{
		{"failed early", []task.State{task.Assigned, task.Running, task.Failed}, early, 4, 4 * firstThrottle},
		{"failed before it ran", []task.State{task.Assigned, task.Failed}, late, 4, 4 * firstThrottle},
		{"finished early", []task.State{task.Assigned, task.Running, task.Finished}, early, 4, 4 * firstThrottle},
		{"killed by nobody", []task.State{task.Assigned, task.Running, task.Killed}, early, 4, 4 * firstThrottle},
		{"failed late", []task.State{task.Assigned, task.Running, task.Failed}, late, 0, 0},
		{"lost late", []task.State{task.Assigned, task.Running, task.Lost}, late, 0, 0},
		{"lost early", []task.State{task.Assigned, task.Running, task.Lost}, early, 3, 0},
		{"refused", []task.State{task.Assigned, task.Lost}, 0, 3, refusedDelay},
		{"restarted", []task.State{task.Assigned, task.Running, task.Restarting, task.Killed}, early, 3, 0},
		{"restarted, and failed at it", []task.State{task.Assigned, task.Running, task.Restarting, task.Failed}, early, 3, 0},
		{"killed by a user", []task.State{task.Assigned, task.Running, task.Killing, task.Killed}, early, 3, 0},
	} {
		o := newOne(t, job.Config{Service: true})
		for range 3 { // a row of three
			o.step(task.Assigned, task.Running, task.Failed)
			o.next()
		}
		o.later(maxThrottle)
		last := len(c.path) - 1
		o.step(c.path[:last]...)
		o.later(c.ran)
		o.step(c.path[last])
		in := o.slot()
		if due := max(0, in.Due-o.d.Snapshot().At); in.Streak != c.streak || due != c.due {
			t.Errorf("%s: streak %d, due in %v; want %d, %v", c.name, in.Streak, due.Duration(), c.streak, c.due.Duration())
		}
	}
}

// TestRefusals: a slot whose task is refused again and again waits longer each
// time; one that ran in between begins anew.
func TestRefusals(t *testing.T) {
	o := newOne(t, job.Config{Service: true})
	refuse := func() unit.Tick {
		o.step(task.Assigned, task.Lost)
		return o.slot().Due - o.d.Snapshot().At
	}
	for i, want := range []unit.Tick{1, 2, 4, 8, 16, 30, 30} {
		if got := refuse(); got != want*refusedDelay {
			t.Errorf("refusal %d: waits %v; want %d s", i+1, got.Duration(), want)
		}
		o.later(2 * maxRefused)
		o.next()
	}
	o.step(task.Assigned, task.Running, task.Failed)
	o.next()
	if got := refuse(); got != refusedDelay {
		t.Errorf("after one that ran: waits %v; want 1 s", got.Duration())
	}
}

// TestOutcome keeps how the last attempt ended, and counts failures.
func TestOutcome(t *testing.T) {
	o := newOne(t, job.Config{MaxTaskFailures: 3})
	o.step(task.Assigned, task.Running, task.Failed)
	in := o.slot()
	want := Outcome{Attempt: 1, State: task.Failed, At: o.d.Snapshot().At, Machine: "m1"}
	if in.Last != want || in.Failures != 1 || !in.Open || in.Live {
		t.Errorf("after a failure: %+v; want last %+v", in, want)
	}
	o.next()
	o.step(task.Assigned, task.Running, task.Finished)
	if in := o.slot(); in.Last.State != task.Finished || in.Failures != 1 || in.Open {
		t.Errorf("after success: %+v; want it done, with one failure", in)
	}
}

// TestOpenedWhileStopping begins a new row of failures though the old task ends later.
func TestOpenedWhileStopping(t *testing.T) {
	o := newOne(t, job.Config{MaxTaskFailures: 3})
	o.step(task.Assigned, task.Running, task.Failed)
	o.next()
	o.step(task.Assigned, task.Running, task.Killing)
	in := o.slot()
	o.apply(OpenSlot{Slot: in.Slot, Base: in.Rev})
	o.step(task.Failed)
	if in := o.slot(); in.Failures != 0 || in.Streak != 0 || !in.Open || in.Live {
		t.Errorf("%+v; want it open, with no failures", in)
	}
}

// TestAdopt takes in what runs under a number that is not used, and nothing else.
func TestAdopt(t *testing.T) {
	o := newOne(t, job.Config{Service: true})
	x := o.task()
	adopt := func(attempt uint32) error {
		y := x.Task
		y.ID.Attempt, y.State, y.Machine = attempt, task.Running, "m1"
		return o.d.Apply(AdoptTask{Task: y})
	}
	if err := adopt(2); err == nil {
		t.Error("a task was adopted into a slot that has one")
	}
	o.step(task.Assigned, task.Running, task.Failed)
	if err := adopt(1); err == nil {
		t.Error("a task was adopted whose end is remembered")
	}
	if err := adopt(5); err != nil {
		t.Fatal(err)
	}
	if in := o.slot(); in.Attempt != 5 || !in.Live || in.Open {
		t.Errorf("%+v; want attempt 5 live", in)
	}
	if got := o.d.Snapshot().Free("m1").CPU; got != 93 {
		t.Errorf("m1 has %d left, want 93", got)
	}
	o.step(task.Failed)
	if in := o.slot(); in.Live || !in.Open {
		t.Errorf("after its end: %+v; want it open", in)
	}
	y := x.Task
	y.ID.Attempt, y.Config = 9, job.Hash{1}
	if err := o.d.Apply(AdoptTask{Task: y}); err == nil {
		t.Error("a task was adopted whose config is not stored")
	}
}

// TestFactsOnce takes each fact in once, whatever comes again.
func TestFactsOnce(t *testing.T) {
	d := NewDraft(New(), 5)
	for _, n := range []uint64{1, 2, 2, 1, 4, 3} {
		if err := d.Apply(TakeFact{Fact: Fact{Source: "m1/j", Seq: n}}); err != nil {
			t.Fatal(err)
		}
	}
	b, s, _ := d.Seal(machine.Epoch{})
	var got []uint64
	for i := range b.Records {
		got = append(got, b.Records[i].Fact.Seq)
	}
	if fmt.Sprint(got) != "[1 2 4]" || s.Source("m1/j") != 4 {
		t.Errorf("taken in: %v, last %d; want 1, 2, 4", got, s.Source("m1/j"))
	}
}
