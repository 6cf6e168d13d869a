package server

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// population yields the rows of a cluster in which tasks of 1,000 instances a
// job run on machines, a hundred on each.
func population(tb testing.TB, tasks int) []state.Row {
	tb.Helper()
	cfg := job.Config{Tier: job.Preferred, Service: true, MaxTaskFailures: -1, Task: job.Task{
		Name: "web", Resources: unit.Resources{CPU: 50, RAM: 32 * unit.MiB, Disk: unit.MiB},
		Processes: []job.Process{{Name: "p", Cmdline: "sleep 1"}},
	}}
	text, err := cfg.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	h := job.HashOf(text)
	rows := []state.Row{
		{Table: state.ClusterTable, Key: state.ClusterKey(), Value: state.EncodeCluster(state.Cluster{Name: "bench", UID: "u", Incarnation: 1})},
		{Table: state.ConfigTable, Key: state.ConfigKey(h), Value: text},
	}
	const each, at = 1000, unit.Tick(490_000) * unit.Hour
	var jobs, slots, lives []state.Row
	for j := range tasks / each {
		key := job.Key(fmt.Sprintf("www-data/prod/service-%05d", j))
		jobs = append(jobs, state.Row{Table: state.JobTable, Key: state.JobKey(key), Value: state.EncodeJob(state.Job{Key: key, Instances: job.FirstN(each), Config: h, Created: at, Updated: at, Rev: 1})})
		for i := range int32(each) {
			s := state.Slot{Job: key, N: i}
			slots = append(slots, state.Row{Table: state.InstanceTable, Key: state.SlotKey(s), Value: state.EncodeInstance(state.Instance{Slot: s, Attempt: 1, Live: true, Rev: 1})})
			id := task.ID{Job: key, Instance: i, Attempt: 1}
			x := task.Task{
				ID: id, Config: h, Resources: cfg.Task.Resources, State: task.Running, Created: at, Since: at, Ran: at,
				Machine: machine.ID(fmt.Sprintf("machine-%05d", (j*each+int(i))*7919%(tasks/100))),
			}
			lives = append(lives, state.Row{Table: state.TaskTable, Key: state.TaskKey(id), Value: state.EncodeTask(state.Task{Task: x, Rev: 1})})
		}
	}
	rows = append(append(append(rows, jobs...), slots...), lives...)
	for m := range tasks / 100 {
		x := machine.Machine{
			ID: machine.ID(fmt.Sprintf("machine-%05d", m)), Host: "10.0.0.1", Up: true, Ports: machine.PortRange{From: 31000, To: 32000},
			Capacity: unit.Resources{CPU: 8000, RAM: 8 << 30, Disk: 1 << 30},
		}
		rows = append(rows, state.Row{Table: state.MachineTable, Key: state.MachineKey(x.ID), Value: state.EncodeMachine(state.Machine{Machine: x, Rev: 1})})
	}
	return rows
}

// BenchmarkTakeover is what a follower does when it becomes the leader, before
// it places the next task: it has the state in memory.
func BenchmarkTakeover(b *testing.B) {
	for _, tasks := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d tasks", tasks), func(b *testing.B) {
			rows := population(b, tasks)
			snap, err := state.Restore(func(yield func(state.Row) error) (state.Head, error) {
				for _, r := range rows {
					if err := yield(r); err != nil {
						return state.Head{}, err
					}
				}
				return state.Head{Rev: 1, Seq: 1, At: 490_001 * unit.Hour}, nil
			})
			if err != nil {
				b.Fatal(err)
			}
			rows = nil
			runtime.GC()
			b.ResetTimer()
			for b.Loop() {
				s := stages{b: b, began: time.Now()}
				l := control.New(snap, machine.Epoch{Incarnation: 1, N: 2}, 1, control.Defaults())
				l.Warm()
				s.done("new-ms")
				s.place(l, 2)
			}
		})
	}
}

// BenchmarkRestart is what a server does that is started again after a kill,
// before it places the next task: it opens its database, reads the state, and
// looks at all of it twice, while it waits for the machines to speak and after.
func BenchmarkRestart(b *testing.B) {
	for _, tasks := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d tasks", tasks), func(b *testing.B) {
			cfg := store.Config{Path: filepath.Join(b.TempDir(), "cluster.db"), Now: time.Now}
			remember(b, cfg, population(b, tasks))
			runtime.GC()
			b.ResetTimer()
			before := usage(b)
			for b.Loop() {
				restart(b, cfg)
			}
			after := usage(b)
			b.ReportMetric(float64(after.Maxrss)/1024, "rss-MiB")
			cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(cpu)/1e6/float64(b.N), "cpu-ms")
		})
	}
}

// usage is what this process has used.
func usage(b *testing.B) (u unix.Rusage) {
	b.Helper()
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u
}

// remember commits rows to a new database.
func remember(b *testing.B, cfg store.Config, rows []state.Row) {
	b.Helper()
	s, err := store.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	e, err := s.Acquire(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	rev := state.Rev(0)
	for some := range slices.Chunk(rows, 2000) {
		batch := &state.Batch{Epoch: e, Base: rev, Rev: rev + 1, At: 490_001*unit.Hour + unit.Tick(rev), Rows: some}
		if err := s.Commit(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		rev++
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

func restart(b *testing.B, cfg store.Config) {
	b.Helper()
	loud := hush()
	s := stages{b: b, began: time.Now()}
	db, err := store.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	e, err := db.Acquire(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	s.done("open-ms")
	looper := newLooper(db, "bench", "bench", newStats(), slog.New(slog.DiscardHandler))
	snap, err := looper.load(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	s.done("load-ms")
	loop := looper.outlook(snap).New(e, 1, control.Defaults())
	s.done("new-ms")
	loud()
	t := loop.Begin(snap.At+1, 2)
	if _, err = t.End(); err != nil {
		b.Fatal(err)
	}
	loop.Commit(t)
	s.done("held-turn-ms")
	s.place(loop, 2+control.Defaults().StartGrace)
}

// stages reports how long each stage of a start took.
type stages struct {
	b     *testing.B
	began time.Time
}

func (s *stages) done(what string) {
	s.b.ReportMetric(float64(time.Since(s.began).Milliseconds()), what)
	s.began = time.Now()
}

// place takes the turn in which a new task is placed.
func (s *stages) place(l *control.Loop, steady unit.Tick) {
	s.b.Helper()
	snap := l.Snapshot()
	cfg, _ := snap.Config(firstConfig(snap))
	t := l.Begin(snap.At+1, steady)
	if _, err := t.Do(control.CreateJob{Job: job.Job{Key: "www-data/prod/next", Instances: job.FirstN(1), Config: *cfg}, By: "bench"}); err != nil {
		s.b.Fatal(err)
	}
	batch, err := t.End()
	if err != nil {
		s.b.Fatal(err)
	}
	l.Commit(t)
	s.done("turn-ms")
	placed := false
	for _, r := range batch.Records {
		placed = placed || r.Task != nil && r.Task.After.State == task.Assigned
	}
	if !placed {
		s.b.Fatalf("nothing was placed: %+v", batch.Records)
	}
}

func firstConfig(s *state.Snapshot) job.Hash {
	for j := range s.Jobs("") {
		return j.Config
	}
	return job.Hash{}
}
