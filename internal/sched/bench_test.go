package sched

import (
	"testing"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// BenchmarkPlace places a whole workload, 5,000 tasks a plan. It reports tasks
// per second of planning and folding alone, and of all of it with the rows applied.
func BenchmarkPlace(b *testing.B) {
	for _, name := range []string{"w1k", "w10k"} {
		b.Run(name, func(b *testing.B) {
			machines, jobs := workload(b, name, 1)
			s := load(b, machines, jobs)
			placed, looked := 0, 0
			for b.Loop() {
				placed, looked = placeAll(b, s)
			}
			each := b.Elapsed().Seconds() / float64(b.N) / float64(placed)
			b.ReportMetric(1/each, "tasks/s")
			b.ReportMetric(float64(looked)/float64(placed), "looks/task")
		})
	}
}

// placeAll plans until nothing more is left and returns how many tasks it
// placed and how many nodes it looked at.
func placeAll(t testing.TB, s *state.Snapshot) (placed, looked int) {
	t.Helper()
	x := NewIndex(s)
	for more := true; more; {
		changes, waits := Plan(s, x, unit.Hour, Limits{})
		placed, looked, more = placed+len(changes), looked+waits.Looked, waits.More
		d := state.NewDraft(s, unit.Hour)
		for _, c := range changes {
			if err := d.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		s = d.Snapshot()
		x.Fold(s, d.Changed())
	}
	return placed, looked
}
