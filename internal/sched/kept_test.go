package sched

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// TestKeepers holds what an explanation finds in the snapshot to what a plan
// finds in its index: for every task that waits, whose machines it leaves alone.
func TestKeepers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		for i := range rapid.IntRange(1, 8).Draw(rt, "machines") {
			r := unit.Resources{CPU: 1000 * rapid.Int64Range(2, 90).Draw(rt, "cpu"), RAM: gib * rapid.Int64Range(4, 900).Draw(rt, "ram"), GPU: 1000 * rapid.Int64Range(0, 2).Draw(rt, "gpu")}
			id := machine.ID(fmt.Sprintf("m%d", i))
			w.add(id, r, "gen", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "gen"), "rack", rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "rack"))
			if rapid.IntRange(0, 5).Draw(rt, "out") == 0 {
				w.edit(id, func(m *machine.Machine) { m.Mode = machine.Draining })
			}
		}
		for i := range rapid.IntRange(1, 10).Draw(rt, "jobs") {
			c := asks(unit.Resources{CPU: 250 * rapid.SampledFrom([]int64{0, 1, 2, 4, 16, 400}).Draw(rt, "needs"), RAM: gib * rapid.Int64Range(0, 3).Draw(rt, "needs ram")}, 0)
			c.Constraints = rapid.SliceOfN(rapid.SampledFrom([]job.Constraint{is("gen", "a"), is("gen", "b"), is("gen", "a", "c"), is("rack", "x"), not("rack", "x")}), 0, 2).Draw(rt, "constraints")
			w.submit(job.NewKey("r", "prod", fmt.Sprintf("j%d", i)), rapid.Int32Range(1, 30).Draw(rt, "instances"), c)
			if rapid.Bool().Draw(rt, "now") {
				w.plan()
			}
		}
		w.plan()
		Plan(w.s, w.x, w.now, Limits{Placements: 1}) // which brings the index up to the snapshot
		p := newPlanner(w.s, w.x, w.now, Limits{})
		for _, g := range w.x.groups {
			p.stakeRoom(g)
		}
		for _, g := range w.x.groups {
			first, _ := g.tasks.Min()
			row, _ := w.s.Task(first.id)
			var want, got []string
			for i, c := range w.x.claimants {
				if p.kept(g)&(1<<i) != 0 {
					want = append(want, c.on)
				}
			}
			for _, d := range keepersFrom(w.s, g.shape, row) {
				got = append(got, d.on)
			}
			slices.Sort(want)
			slices.Sort(got)
			if d := cmp.Diff(want, got); d != "" {
				rt.Fatalf("%s is kept from (-by the plan +by the explanation):\n%s", first.id, d)
			}
		}
	})
}
