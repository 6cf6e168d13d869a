package control_test

import (
	"fmt"
	"testing"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// perJob is how many tasks a job of the grown cluster has.
const perJob = 500

// grown is a cluster of n machines with two running tasks each, whose agents
// have all said everything.
func grown(t *testing.T, n int) *control.Loop {
	t.Helper()
	d := state.NewDraft(state.New(), epoch)
	apply := func(c state.Change) {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	apply(state.PutCluster{Cluster: state.Cluster{Name: "west", UID: "uid", Incarnation: 1}})
	for i := range n {
		apply(state.PutMachine{Machine: growing(i)})
	}
	for i := range 2 * n {
		k := job.Key(fmt.Sprintf("www/prod/j%05d", i/perJob))
		at := state.Slot{Job: k, N: int32(i % perJob)}
		if at.N == 0 {
			apply(state.PutJob{Job: job.Job{Key: k, Instances: job.FirstN(perJob), Config: config(1)}})
		}
		apply(state.OpenSlot{Slot: at})
		in, _ := d.Snapshot().Instance(at)
		apply(state.NewTask{Slot: at, Base: in.Rev})
		id := task.ID{Job: k, Instance: at.N, Attempt: 1}
		for _, e := range []task.Event{{To: task.Assigned, Machine: growing(i / 2).ID}, {To: task.Running}} {
			x, _ := d.Snapshot().Task(id)
			apply(state.StepTask{ID: id, Base: x.Rev, Event: e})
		}
	}
	_, s, _ := d.Seal(machine.Epoch{Incarnation: 1, N: 1})
	cfg := control.Defaults()
	cfg.AgentLease = unit.Hour // nobody sends a sign of life here
	l := control.New(s, machine.Epoch{Incarnation: 1, N: 1}, epoch, cfg)
	for from := 0; from < n; from += 2000 {
		take(t, l, epoch+unit.Tick(from), func(x *control.Turn) {
			for i := from; i < min(from+2000, n); i++ {
				m := growing(i)
				if err := x.Hello(control.Hello{Session: "s", UID: "uid", Machine: m}); err != nil {
					t.Fatal(err)
				}
				all := control.Message{Session: "s", N: 1, Full: true}
				for y := range s.TasksOn(m.ID) {
					all.Sightings = append(all.Sightings, task.Sighting{ID: y.ID, Config: y.Config, State: task.Running})
				}
				if err := x.Hear(m.ID, all); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	for busy := true; busy; {
		busy = take(t, l, epoch+5*second, func(*control.Turn) {}).Busy
	}
	return l
}

func growing(i int) machine.Machine {
	id := machine.ID(fmt.Sprintf("m%05d", i))
	return machine.Machine{
		ID: id, Host: "127.0.0.1", Up: true, Capacity: unit.Resources{CPU: 4000, RAM: 64 << 30, Disk: 64 << 30},
		Attributes: []machine.Attribute{{Name: "host", Value: string(id)}},
	}
}

// take takes one turn.
func take(t *testing.T, l *control.Loop, now unit.Tick, say func(*control.Turn)) control.Result {
	t.Helper()
	x := l.Begin(now, now)
	say(x)
	if _, err := x.End(); err != nil {
		t.Fatal(err)
	}
	return l.Commit(x)
}

// effort changes a few things in every turn: tasks fail and are replaced, jobs
// come, a machine shrinks. It returns what the engines
// looked at for each record that came of it.
func effort(t *testing.T, l *control.Loop, n int) float64 {
	looked, records := 0, 0
	count := func(r control.Result) bool {
		looked, records = looked+r.Looked, records+len(r.Records)
		return r.Busy
	}
	for round := range 20 {
		now := epoch + unit.Tick(10+round)*second
		k := job.Key(fmt.Sprintf("www/prod/new%d", round))
		busy := count(take(t, l, now, func(x *control.Turn) {
			if _, err := x.Do(control.CreateJob{Job: job.Job{Key: k, Instances: job.FirstN(20), Config: config(1)}}); err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				m := growing((round*10 + i) * 7 % n)
				said := control.Message{Session: "s", N: uint64(2 + round)}
				for y := range l.Snapshot().TasksOn(m.ID) {
					if y.State == task.Running {
						said.Sightings = append(said.Sightings, task.Sighting{ID: y.ID, Config: y.Config, State: task.Failed})
						break
					}
				}
				if i == 0 {
					m.Capacity.CPU -= 100
					said.Machine = &m
				}
				if err := x.Hear(m.ID, said); err != nil {
					t.Fatal(err)
				}
			}
		}))
		for ; busy; now++ {
			busy = count(take(t, l, now+1, func(*control.Turn) {}))
		}
	}
	return float64(looked) / float64(records)
}

// TestGrowth: what a change costs, in rows and machines that converge and sched
// look at, does not follow the size of the cluster.
func TestGrowth(t *testing.T) {
	var first float64
	for _, n := range []int{1_000, 10_000, 50_000} {
		l := grown(t, n)
		_, tasks, machines := l.Snapshot().Len()
		got := effort(t, l, n)
		if err := l.Audit(); err != nil {
			t.Error(err)
		}
		t.Logf("%d machines, %d tasks: %.1f looks for each record", machines, tasks, got)
		if first == 0 {
			first = got
		}
		if got > 2*first {
			t.Errorf("a change costs %.1f looks with %d machines and %.1f with 1,000; want at most twice as many", got, n, first)
		}
	}
}

// submitted is a cluster of one large machine to which jobs of perJob tasks
// were given in one turn.
func submitted(tb testing.TB, jobs int) *control.Loop {
	tb.Helper()
	d := state.NewDraft(state.New(), epoch)
	large := growing(0)
	large.Capacity = unit.Resources{CPU: 1 << 40, RAM: 1 << 60, Disk: 1 << 60}
	if err := d.Apply(state.PutMachine{Machine: large}); err != nil {
		tb.Fatal(err)
	}
	_, s, _ := d.Seal(machine.Epoch{Incarnation: 1, N: 1})
	l := control.New(s, machine.Epoch{Incarnation: 1, N: 1}, epoch, control.Defaults())
	l.Warm()
	x := l.Begin(epoch, epoch)
	for i := range jobs {
		k := job.Key(fmt.Sprintf("www/prod/j%05d", i))
		if _, err := x.Do(control.CreateJob{Job: job.Job{Key: k, Instances: job.FirstN(perJob), Config: config(1)}}); err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := x.End(); err != nil {
		tb.Fatal(err)
	}
	l.Commit(x)
	return l
}

// TestBacklog: many jobs that come at once wait as jobs. Each turn takes in some
// of them whole, and its cost does not follow how many tasks are still to come.
func TestBacklog(t *testing.T) {
	const jobs = 60
	l := submitted(t, jobs)
	most := 0
	for turn := unit.Tick(1); ; turn++ {
		x := l.Begin(epoch+turn, epoch+turn)
		if _, err := x.End(); err != nil {
			t.Fatal(err)
		}
		r := l.Commit(x)
		most = max(most, control.Backlog(l))
		if !r.Busy {
			break
		}
		if turn > 1000 {
			t.Fatal("it does not end")
		}
	}
	if _, tasks, _ := l.Snapshot().Len(); tasks != jobs*perJob {
		t.Errorf("%d tasks, want %d", tasks, jobs*perJob)
	}
	if limit := 4 * control.Defaults().TurnChanges; most > limit {
		t.Errorf("%d keys waited for the next turn at most; want no more than %d of %d slots", most, limit, jobs*perJob)
	}
}

// BenchmarkSubmit makes the tasks of many jobs that were given at once.
func BenchmarkSubmit(b *testing.B) {
	for _, jobs := range []int{100, 1000} {
		b.Run(fmt.Sprintf("%d tasks", jobs*perJob), func(b *testing.B) {
			for b.Loop() {
				l := submitted(b, jobs)
				for turn, busy := unit.Tick(1), true; busy && turn < 2000; turn++ {
					x := l.Begin(epoch+turn, epoch+turn)
					if _, err := x.End(); err != nil {
						b.Fatal(err)
					}
					busy = l.Commit(x).Busy
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*jobs*perJob), "µs/task")
		})
	}
}
