package sched

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// BenchmarkPlace places a whole workload, 5,000 tasks a plan: tasks per second
// over all, with the rows applied to a draft, and of the engine alone (index,
// plans and folds).
func BenchmarkPlace(b *testing.B) {
	for _, name := range []string{"w1k", "w10k"} {
		b.Run(name, func(b *testing.B) {
			machines, jobs := workload(b, name, 1)
			s := load(b, machines, jobs)
			var all placing
			for b.Loop() {
				placeAll(b, s, &all)
			}
			b.ReportMetric(float64(all.placed)/b.Elapsed().Seconds(), "tasks/s")
			all.report(b)
		})
	}
}

// placing is what placing cost.
type placing struct {
	placed, looked int
	engine, cpu    time.Duration
}

// processor returns the processor time that the process has used. On a machine
// that others use too it tells more than the time that passed.
func processor(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// time runs a part of the engine.
func (p *placing) time(t testing.TB, part func()) {
	at, used := time.Now(), processor(t)
	part()
	p.engine, p.cpu = p.engine+time.Since(at), p.cpu+processor(t)-used
}

// report tells the rates of the engine, and those by its processor time, with
// the garbage that it makes.
func (p *placing) report(b *testing.B) {
	b.ReportMetric(float64(p.placed)/float64(b.N), "placed")
	b.ReportMetric(p.engine.Seconds()/float64(b.N), "engine-s/op")
	b.ReportMetric(p.cpu.Seconds()/float64(b.N), "engine-cpu-s/op")
	b.ReportMetric(float64(p.placed)/p.engine.Seconds(), "engine-tasks/s")
	b.ReportMetric(float64(p.placed)/p.cpu.Seconds(), "engine-tasks/cpu-s")
	b.ReportMetric(float64(p.looked)/float64(p.placed), "looks/task")
}

// placeAll plans until nothing more is left.
func placeAll(t testing.TB, s *state.Snapshot, all *placing) {
	t.Helper()
	var x *Index
	all.time(t, func() { x = NewIndex(s) })
	for more := true; more; {
		var changes []state.Change
		var waits Waits
		all.time(t, func() { changes, waits = Plan(s, x, unit.Hour, Limits{}) })
		all.placed, all.looked, more = all.placed+len(changes), all.looked+waits.Looked, waits.More
		d := state.NewDraft(s, unit.Hour)
		for _, c := range changes {
			if err := d.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		s = d.Snapshot()
		all.time(t, func() { x.Fold(s, d.Changed()) })
	}
}

// BenchmarkOne places one task of a job in a cluster that is full of others,
// and folds it: what a single restart costs.
func BenchmarkOne(b *testing.B) {
	for _, copies := range []int{1, 5} {
		b.Run(fmt.Sprintf("%d0k", copies), func(b *testing.B) {
			machines, jobs := workload(b, "w10k", copies)
			s := load(b, machines, jobs)
			x := NewIndex(s)
			for more := true; more; {
				s, more = planOnce(b, s, x)
			}
			r := rand.New(rand.NewPCG(1, 2))
			var spent []time.Duration
			for b.Loop() {
				s = churn(b, s, x, r, 1)
				at := time.Now()
				s, _ = planOnce(b, s, x)
				spent = append(spent, time.Since(at))
			}
			slices.Sort(spent)
			b.ReportMetric(float64(spent[len(spent)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(spent[len(spent)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// planOnce plans once, applies it and folds it.
func planOnce(t testing.TB, s *state.Snapshot, x *Index) (*state.Snapshot, bool) {
	t.Helper()
	changes, waits := Plan(s, x, s.At, Limits{})
	d := state.NewDraft(s, s.At)
	for _, c := range changes {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	x.Fold(d.Snapshot(), d.Changed())
	return d.Snapshot(), waits.More
}
