package sched

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// brim returns n machines, twenty in a rack, and jobs that ask for 95 % of
// their cpu, which runs out first. Of the jobs 15 % have a limit of tasks for
// each rack, 15 % go only to racks where another job is or only where it is not, and 20 % ask for a
// generation.
func brim(n int, seed uint64) (machines []machine.Machine, jobs []job.Job) {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(xs ...int64) int64 { return xs[r.IntN(len(xs))] }
	has := int64(0)
	for i := range n {
		id := "m" + strconv.Itoa(100_000+i)
		cores := pick(32, 32, 32, 64)
		has += cores * 1000
		machines = append(machines, machine.Machine{
			ID: machine.ID(id), Up: true, Ports: machine.PortRange{From: 31000, To: 31999},
			Capacity: unit.Resources{CPU: cores * 1000, RAM: cores * 6 * gib, Net: 10e9},
			Attributes: []machine.Attribute{
				{Name: "gen", Value: "g" + strconv.Itoa(i%3)}, {Name: "host", Value: id}, {Name: "rack", Value: "r" + strconv.Itoa(i/20)},
			},
		})
	}
	for asked, i := int64(0), 0; asked < has*95/100; i++ {
		c := asks(unit.Resources{CPU: pick(250, 500, 1000, 2000, 4000), RAM: pick(1, 2, 4, 8) * gib / 2, Net: 1e6}, 0)
		c.Priority = int32(r.IntN(5))
		if r.IntN(3) == 0 {
			c.Tier = job.Preferred
		}
		switch kind := r.IntN(100); {
		case kind < 15:
			c.Constraints = append(c.Constraints, most("rack", 2))
		case kind < 30 && len(jobs) > 0:
			near := job.Constraint{Attribute: "rack", With: jobs[r.IntN(len(jobs))].Key, Negated: kind < 27}
			c.Constraints = append(c.Constraints, near)
		case kind < 50:
			c.Constraints = append(c.Constraints, is("gen", "g"+strconv.Itoa(r.IntN(3))))
		}
		count := int32(pick(20, 50, 100, 500))
		asked += c.Task.Resources.CPU * int64(count)
		jobs = append(jobs, job.Job{Key: job.NewKey("r", "prod", "j"+strconv.Itoa(i)), Instances: job.FirstN(count), Config: c})
	}
	return machines, jobs
}

// BenchmarkScale places what clusters of other sizes and shapes are asked to
// run: tasks per second of the engine. There are no quotas in it: they are not
// the placer's to hold.
func BenchmarkScale(b *testing.B) {
	const seed = 11
	for _, c := range []struct {
		name string
		make func(testing.TB) ([]machine.Machine, []job.Job)
	}{
		{"full10k", func(testing.TB) ([]machine.Machine, []job.Job) { return brim(10_000, seed) }},
		{"c1m", func(testing.TB) ([]machine.Machine, []job.Job) { return c1m() }},
		{"w50k", func(t testing.TB) ([]machine.Machine, []job.Job) { return workload(t, "w10k", 5) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			machines, jobs := c.make(b)
			b.Logf("seed %d: %d machines, %d jobs", seed, len(machines), len(jobs))
			s := load(b, machines, jobs)
			var all placing
			for b.Loop() {
				placeAll(b, s, &all)
			}
			all.report(b)
		})
	}
}

// c1m is a thousand jobs of a thousand small tasks on five thousand machines.
func c1m() (machines []machine.Machine, jobs []job.Job) {
	for i := range 5000 {
		machines = append(machines, machine.Machine{
			ID: machine.ID("m" + strconv.Itoa(10_000+i)), Up: true, Ports: machine.PortRange{From: 31000, To: 31999},
			Capacity: unit.Resources{CPU: 16_000, RAM: 64 * gib},
		})
	}
	for i := range 1000 {
		jobs = append(jobs, job.Job{
			Key: job.NewKey("r", "prod", "j"+strconv.Itoa(i)), Instances: job.FirstN(1000), Config: asks(unit.Resources{CPU: 50, RAM: 32 * unit.MiB}, 0),
		})
	}
	return machines, jobs
}

// BenchmarkChurn replaces 1 % of the tasks of a cluster that is full, ten times
// a second of its time: tasks placed per second of planning.
func BenchmarkChurn(b *testing.B) {
	machines, jobs := brim(10_000, 11)
	s := load(b, machines, jobs)
	x := NewIndex(s)
	for more := true; more; {
		s, more = planOnce(b, s, x)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var all placing
	for now := s.At; b.Loop(); now += second / 10 {
		_, tasks, _ := s.Len()
		s = churn(b, s, x, r, tasks/100)
		var changes []state.Change
		all.time(b, func() { changes, _ = Plan(s, x, now, Limits{}) })
		s = applied(b, s, x, changes)
		all.placed += len(changes)
	}
	b.ReportMetric(float64(all.placed)/all.engine.Seconds(), "planned-tasks/s")
	b.ReportMetric(float64(all.placed)/all.cpu.Seconds(), "planned-tasks/cpu-s")
}

// BenchmarkJob submits one job of a thousand tasks to 50,000 machines that run
// 500,000 tasks: how long until the engine has a place for each.
func BenchmarkJob(b *testing.B) {
	machines, jobs := workload(b, "w10k", 5)
	s := load(b, machines, jobs)
	x := NewIndex(s)
	for more := true; more; {
		s, more = planOnce(b, s, x)
	}
	var spent []time.Duration
	for i := 0; b.Loop(); i++ {
		s = submitted(b, s, x, job.Job{
			Key: job.NewKey("load", "prod", "new"+strconv.Itoa(i)), Instances: job.FirstN(1000), Config: asks(unit.Resources{CPU: 250, RAM: gib / 4}, 0),
		})
		at := time.Now()
		changes, _ := Plan(s, x, s.At, Limits{Looks: 1})
		spent = append(spent, time.Since(at))
		if len(changes) != 1000 {
			b.Fatalf("%d of 1000 tasks found a place", len(changes))
		}
		s = applied(b, s, x, changes)
	}
	slices.Sort(spent)
	b.ReportMetric(float64(spent[len(spent)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(spent[len(spent)*99/100].Microseconds()), "p99-µs")
}

// submitted adds a job and its tasks, and folds them.
func submitted(t testing.TB, s *state.Snapshot, x *Index, j job.Job) *state.Snapshot {
	t.Helper()
	d := state.NewDraft(s, s.At)
	apply := func(c state.Change) {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	apply(state.PutJob{Job: j})
	for i := range j.Instances.All() {
		at := state.Slot{Job: j.Key, N: i}
		apply(state.OpenSlot{Slot: at})
		in, _ := d.Snapshot().Instance(at)
		apply(state.NewTask{Slot: at, Base: in.Rev})
	}
	x.Fold(d.Snapshot(), d.Changed())
	return d.Snapshot()
}

// applied carries a plan out and folds it.
func applied(t testing.TB, s *state.Snapshot, x *Index, changes []state.Change) *state.Snapshot {
	t.Helper()
	d := state.NewDraft(s, s.At)
	for _, c := range changes {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	x.Fold(d.Snapshot(), d.Changed())
	return d.Snapshot()
}
