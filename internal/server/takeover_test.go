package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
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

// BenchmarkTakeover is what a new leader does before it places the next task,
// step by step: with the state in memory, and read from its rows.
func BenchmarkTakeover(b *testing.B) {
	for _, tasks := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d tasks", tasks), func(b *testing.B) {
			rows := population(b, tasks)
			b.ResetTimer()
			for b.Loop() {
				takeOver(b, rows)
			}
		})
	}
}

func takeOver(b *testing.B, rows []state.Row) {
	b.Helper()
	began := time.Now()
	mark := func(what string) {
		b.ReportMetric(float64(time.Since(began).Milliseconds()), what)
		began = time.Now()
	}
	snap, err := state.Restore(each(rows), state.Head{Rev: 1, Seq: 1, At: 490_001 * unit.Hour})
	if err != nil {
		b.Fatal(err)
	}
	mark("restore-ms")
	l := control.New(snap, machine.Epoch{Incarnation: 1, N: 2}, 1, control.Defaults())
	l.Warm()
	mark("new-ms")
	cfg, _ := snap.Config(firstConfig(snap))
	t := l.Begin(snap.At+1, 2)
	if _, err = t.Do(control.CreateJob{Job: job.Job{Key: "www-data/prod/next", Instances: job.FirstN(1), Config: *cfg}, By: "bench"}); err != nil {
		b.Fatal(err)
	}
	batch, err := t.End()
	if err != nil {
		b.Fatal(err)
	}
	l.Commit(t)
	mark("turn-ms")
	placed := false
	for _, r := range batch.Records {
		placed = placed || r.Task != nil && r.Task.After.State == task.Assigned
	}
	if !placed {
		b.Fatalf("nothing was placed: %+v", batch.Records)
	}
}

func firstConfig(s *state.Snapshot) job.Hash {
	for j := range s.Jobs("") {
		return j.Config
	}
	return job.Hash{}
}
