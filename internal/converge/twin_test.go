package converge_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/converge"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const second = unit.Hour / 3600

// twin decides from scratch: it scans everything, and keeps nothing.
func twin(s *state.Snapshot, now unit.Tick, hold bool) (changes []string, next unit.Tick) {
	say := func(format string, args ...any) { changes = append(changes, fmt.Sprintf(format, args...)) }
	for j := range s.Jobs("") {
		for i := range j.Instances.All() {
			at := state.Slot{Job: j.Key, N: i}
			in, known := s.Instance(at)
			switch {
			case !known:
				say("open %v", at)
			case in.Open && !in.Live && !hold:
				say("new %v", at)
			}
		}
	}
	for t := range s.Tasks() {
		to, due := verdict(s, t)
		switch {
		case to != 0 && due <= now:
			say("step %v %v", t.ID, to)
		case to != 0 && (next == 0 || due < next):
			next = due
		}
	}
	slices.Sort(changes)
	return changes, next
}

// verdict is what should become of a task, and when.
func verdict(s *state.Snapshot, t state.Task) (task.State, unit.Tick) {
	cfg, _ := s.Config(t.Config)
	j, exists := s.Job(t.ID.Job)
	m, there := s.Machine(t.Machine)
	lost := t.Machine != "" && (!there || !m.Up)
	stopping := t.State == task.Killing || t.State == task.Restarting || t.State == task.Preempting || t.State == task.Draining
	switch {
	case (!exists || !j.Instances.Has(t.ID.Instance)) && t.State != task.Killing:
		return task.Killing, 0
	case lost && t.State == task.Assigned:
		return task.Lost, 0
	case lost && t.State != task.Partitioned:
		return task.Partitioned, 0
	case t.State == task.Throttled:
		in, _ := s.Instance(state.Slot{Job: t.ID.Job, N: t.ID.Instance})
		return task.Pending, in.Due
	case t.State == task.Partitioned && cfg.Partition.Reschedule && cfg.Exclusive:
		return task.Lost, t.Since + max(10, unit.Tick(cfg.Partition.DelayS))*unit.Hour/3600
	case t.State == task.Partitioned && cfg.Partition.Reschedule:
		return task.Lost, t.Since + unit.Tick(cfg.Partition.DelayS)*unit.Hour/3600
	case stopping && cfg.Exclusive:
		return 0, 0
	case t.State == task.Assigned && cfg.Exclusive:
		return task.Restarting, t.Since + unit.Hour/12 + unit.Tick(cfg.Task.FinalizationWait)*unit.Hour/3600
	case t.State == task.Assigned || stopping:
		return task.Lost, t.Since + unit.Hour/12 + unit.Tick(cfg.Task.FinalizationWait)*unit.Hour/3600
	default:
		return 0, 0
	}
}

// spell writes a change as the twin does.
func spell(c state.Change) string {
	switch c := c.(type) {
	case state.OpenSlot:
		return fmt.Sprintf("open %v", c.Slot)
	case state.NewTask:
		return fmt.Sprintf("new %v", c.Slot)
	case state.StepTask:
		return fmt.Sprintf("step %v %v", c.ID, c.Event.To)
	default:
		return fmt.Sprintf("%T", c)
	}
}

// history is a cluster to which things happen.
type history struct {
	rt   *rapid.T
	now  unit.Tick
	base *state.Snapshot
	d    *state.Draft
	x    *converge.Index
	todo state.Delta
}

func newHistory(rt *rapid.T) *history {
	h := &history{rt: rt, now: 1000 * unit.Hour, base: state.New(), todo: state.NewDelta()}
	h.x = converge.NewIndex(h.base)
	h.d = state.NewDraft(h.base, h.now)
	return h
}

// seal commits what happened.
func (h *history) seal() {
	h.look()
	_, s, _ := h.d.Seal(machine.Epoch{Incarnation: 1, N: 1})
	h.base = s
	h.d = state.NewDraft(s, h.now)
}

func (h *history) apply(c state.Change) { _ = h.d.Apply(c) } // a refusal is as good as nothing

// happen makes one thing happen that is no engine's doing.
func (h *history) happen() {
	rt, s := h.rt, h.d.Snapshot()
	key := rapid.SampledFrom([]job.Key{"a/prod/x", "a/prod/y", "b/prod/x"}).Draw(rt, "job")
	m := machine.Machine{ID: rapid.SampledFrom([]machine.ID{"m1", "m2", "m3"}).Draw(rt, "machine"), Up: true}
	switch rapid.IntRange(0, 9).Draw(rt, "what") {
	case 0:
		j, _ := s.Job(key)
		h.apply(state.PutJob{Job: anyJob(rt, key), Base: j.Rev})
	case 1:
		j, _ := s.Job(key)
		h.apply(state.DropJob{Key: key, Base: j.Rev})
	case 2:
		row, _ := s.Machine(m.ID)
		m.Up = rapid.Bool().Draw(rt, "up")
		h.apply(state.PutMachine{Machine: m, Base: row.Rev})
	case 3:
		h.now += rapid.SampledFrom([]unit.Tick{second, 30 * second, 400 * second}).Draw(rt, "time")
		h.seal()
	case 4:
		at := state.Slot{Job: key, N: rapid.Int32Range(0, 4).Draw(rt, "slot")}
		if in, ok := s.Instance(at); ok && !in.Open {
			h.apply(state.OpenSlot{Slot: at, Base: in.Rev})
		}
	default:
		h.step(m.ID)
	}
}

// step moves a task: to a machine, along its life, or to its end.
func (h *history) step(m machine.ID) {
	all := slices.Collect(h.d.Snapshot().Tasks())
	if len(all) == 0 {
		return
	}
	t := rapid.SampledFrom(all).Draw(h.rt, "task")
	to := rapid.SampledFrom([]task.State{
		task.Starting, task.Running, task.Running, task.Finished, task.Failed, task.Killed, task.Lost, task.Killing, task.Restarting,
	}).Draw(h.rt, "to")
	if t.State == task.Pending {
		to = task.Assigned
	}
	h.apply(state.StepTask{ID: t.ID, Base: t.Rev, Event: task.Event{To: to, Machine: m}})
}

func anyJob(rt *rapid.T, key job.Key) job.Job {
	r := job.FirstN(rapid.Int32Range(1, 5).Draw(rt, "instances"))
	if rapid.Bool().Draw(rt, "hole") {
		r = r.Without(job.Ranges{{From: 1, To: 1}})
	}
	return job.Job{Key: key, Instances: r, Config: job.Config{
		Service: rapid.Bool().Draw(rt, "service"), MaxTaskFailures: 3, Exclusive: rapid.Bool().Draw(rt, "exclusive"),
		Partition: job.Partition{Reschedule: rapid.Bool().Draw(rt, "reschedule"), DelayS: rapid.Int64Range(0, 60).Draw(rt, "delay")},
		Task:      job.Task{FinalizationWait: rapid.Int32Range(0, 60).Draw(rt, "stop")},
	}}
}

// look tells the index what happened since it looked last.
func (h *history) look() {
	d := h.d.Changed()
	h.x.Fold(h.d.Snapshot(), d)
	for k := range d.Jobs {
		h.todo.Jobs[k] = true
	}
	for k := range d.Slots {
		h.todo.Slots[k] = true
	}
	for k := range d.Machines {
		h.todo.Machines[k] = true
	}
}

// TestPlanAsTwin holds Plan, which looks at what changed, to its twin, which
// looks at everything, round after round until nothing is left to do.
func TestPlanAsTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			for range rapid.IntRange(1, 5).Draw(rt, "at once") {
				h.happen()
			}
			for round := 0; ; round++ {
				h.look()
				s := h.d.Snapshot()
				r := converge.Plan(s, h.x, h.todo, s.At, converge.Limits{Changes: 1 << 20, GiveUp: 1 << 20})
				got := make([]string, 0, len(r.Changes))
				for _, c := range r.Changes {
					got = append(got, spell(c))
				}
				slices.Sort(got)
				want, next := twin(s, s.At, false)
				if d := cmp.Diff(append([]string{}, want...), got); d != "" || len(got) == 0 && r.Next != next || r.More {
					rt.Fatalf("round %d: next %d, want %d; changes (-twin +plan):\n%s", round, r.Next, next, d)
				}
				h.todo = state.NewDelta()
				if len(got) == 0 {
					break
				}
				if round == 20 {
					rt.Fatalf("after 20 rounds there is still something to do: %v", got)
				}
				h.do(r)
			}
			if !h.x.Equal(converge.NewIndex(h.d.Snapshot())) {
				rt.Fatal("the index differs from a fresh one")
			}
		}
	})
}

func (h *history) do(r converge.Result) {
	for _, c := range r.Changes {
		if err := h.d.Apply(c); err != nil {
			h.rt.Fatalf("%s was refused: %v", spell(c), err)
		}
	}
}

// TestPlanInPieces holds Plan under tight limits to the same end: nothing is
// left to do, and no plan is larger than it may be.
func TestPlanInPieces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt)
		lim := converge.Limits{Changes: rapid.IntRange(1, 4).Draw(rt, "changes"), GiveUp: rapid.IntRange(1, 2).Draw(rt, "give up")}
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			for range rapid.IntRange(1, 5).Draw(rt, "at once") {
				h.happen()
			}
			for range 1000 {
				h.look()
				s := h.d.Snapshot()
				r := converge.Plan(s, h.x, h.todo, s.At, lim)
				if len(r.Changes) > lim.Changes {
					rt.Fatalf("%d changes, want at most %d", len(r.Changes), lim.Changes)
				}
				if !r.More {
					h.todo = state.NewDelta()
				}
				h.do(r)
				if len(r.Changes) == 0 && !r.More {
					break
				}
			}
			s := h.d.Snapshot()
			if left, _ := twin(s, s.At, false); len(left) > 0 {
				rt.Fatalf("left to do: %v", left)
			}
		}
	})
}

// TestPlanHeldBack: while control holds back, partitioned tasks are not given
// up and nothing new is made; everything else goes on.
func TestPlanHeldBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			h.happen()
			h.look()
			s := h.d.Snapshot()
			r := converge.Plan(s, h.x, h.todo, s.At, converge.Limits{Changes: 1 << 20, Hold: true})
			for _, c := range r.Changes {
				if _, made := c.(state.NewTask); made {
					rt.Fatalf("%s, and nothing new may be made", spell(c))
				}
				x, ok := c.(state.StepTask)
				if row, _ := s.Task(x.ID); ok && row.State == task.Partitioned && x.Event.To == task.Lost {
					rt.Fatalf("%s, and nothing may be given up", spell(c))
				}
			}
			h.do(converge.Plan(s, h.x, h.todo, s.At, converge.Limits{Changes: 1 << 20, GiveUp: 1 << 20}))
		}
	})
}

// TestGrowth counts what a Plan costs when little changed in a small cluster
// and in one a hundred times as large: the same.
func TestGrowth(t *testing.T) {
	cost := func(jobs int) float64 {
		s, x := populated(t, jobs)
		d := state.NewDelta()
		d.Slots[state.Slot{Job: "a/prod/j000000", N: 1}] = true
		d.Machines["m1"] = true
		return testing.AllocsPerRun(20, func() {
			x.Fold(s, d)
			converge.Plan(s, x, d, s.At, converge.Limits{Changes: 100, GiveUp: 100})
		})
	}
	small, large := cost(20), cost(2000)
	if large > small+2 { // allocations, which no busy machine changes
		t.Errorf("a look at one slot and one machine costs %v in a cluster of 20 jobs, %v in one of 2000", small, large)
	}
}

// TestHeldBackIsFree counts what is due and must wait: a look does not pass it
// one by one.
func TestHeldBackIsFree(t *testing.T) {
	s, x := populated(t, 500)
	d := state.NewDraft(s, s.At+unit.Hour)
	m, _ := s.Machine("m1")
	m.Up = false
	if err := d.Apply(state.PutMachine{Machine: m.Machine, Base: m.Rev}); err != nil {
		t.Fatal(err)
	}
	dm := d.Changed()
	x.Fold(d.Snapshot(), dm)
	for _, c := range converge.Plan(d.Snapshot(), x, dm, s.At, converge.Limits{Changes: 1 << 20}).Changes {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	x.Fold(d.Snapshot(), d.Changed())
	look := func(giveUp int) (changes int, allocs float64) {
		lim := converge.Limits{Changes: 1 << 20, GiveUp: giveUp}
		changes = len(converge.Plan(d.Snapshot(), x, state.NewDelta(), d.Snapshot().At, lim).Changes)
		return changes, testing.AllocsPerRun(5, func() { converge.Plan(d.Snapshot(), x, state.NewDelta(), d.Snapshot().At, lim) })
	}
	if n, allocs := look(0); n != 0 || allocs > 20 {
		t.Errorf("held back: %d changes, %v allocations; want none and next to none", n, allocs)
	}
	if n, _ := look(7); n != 7 {
		t.Errorf("seven may be given up: %d changes", n)
	}
}

// populated is a cluster of services with two instances each, all running on one machine.
func populated(t *testing.T, jobs int) (*state.Snapshot, *converge.Index) {
	t.Helper()
	d := state.NewDraft(state.New(), 1000*unit.Hour)
	do := func(c state.Change) {
		t.Helper()
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	do(state.PutMachine{Machine: machine.Machine{ID: "m1", Up: true}})
	for i := range jobs {
		k := job.NewKey("a", "prod", fmt.Sprintf("j%06d", i))
		do(state.PutJob{Job: job.Job{Key: k, Instances: job.FirstN(2), Config: job.Config{Service: true, Partition: job.Partition{Reschedule: true}}}})
		for n := range int32(2) {
			at := state.Slot{Job: k, N: n}
			do(state.OpenSlot{Slot: at})
			in, _ := d.Snapshot().Instance(at)
			do(state.NewTask{Slot: at, Base: in.Rev})
			id := task.ID{Job: k, Instance: n, Attempt: 1}
			for _, to := range []task.State{task.Assigned, task.Running} {
				x, _ := d.Snapshot().Task(id)
				do(state.StepTask{ID: id, Base: x.Rev, Event: task.Event{To: to, Machine: "m1"}})
			}
		}
	}
	_, s, _ := d.Seal(machine.Epoch{Incarnation: 1, N: 1})
	return s, converge.NewIndex(s)
}
