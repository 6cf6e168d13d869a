package sched

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// climbed is the dumb twin of a ladder: every host of the trees that would have
// room for a task if all were gone that it may have stopped, in order.
func climbed(x *Index, g *group, k ladderKey) []machine.ID {
	var found []int32
	for n := 1; n < len(x.hosts); n++ {
		h := &x.hosts[n]
		would, some := h.below(k)
		if some && h.attach != nowhere && h.attach%trees == preferred && g.class.allowed[n] && g.shape.need.Fits(would) {
			found = append(found, int32(n))
		}
	}
	slices.SortFunc(found, func(a, b int32) int {
		if d := int(x.hosts[a].attach) - int(x.hosts[b].attach); d != 0 {
			return d
		}
		if x.before(a, b) {
			return -1
		}
		return 1
	})
	var ids []machine.ID
	for _, n := range found {
		ids = append(ids, x.hosts[n].row.ID)
	}
	return ids
}

// TestLadderTwin: whatever happened since a ladder was climbed last, it leads to
// the same hosts as a look at all of them.
func TestLadderTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		grow := func(i int) {
			attributes := []string{"rack", string("ab"[i%2])}
			w.add(machine.ID(fmt.Sprintf("m%02d", i)), unit.Resources{CPU: 2000, RAM: 4 * gib, GPU: int64(i%3/2) * 1000}, attributes...)
		}
		for i := range 12 {
			grow(i)
		}
		for range rapid.IntRange(10, 50).Draw(rt, "steps") {
			switch rapid.IntRange(0, 6).Draw(rt, "what") {
			case 0, 1:
				k := job.NewKey(rapid.SampledFrom([]string{"ads", "web"}).Draw(rt, "role"), "prod", rapid.StringMatching("[a-f]").Draw(rt, "name"))
				c := asks(cpu(rapid.Int64Range(1, 900).Draw(rt, "cpu")), 0)
				c.Tier = rapid.SampledFrom([]string{job.Preferred, job.Preemptible}).Draw(rt, "tier")
				c.Priority = rapid.Int32Range(0, 3).Draw(rt, "priority")
				w.submit(k, rapid.Int32Range(1, 6).Draw(rt, "instances"), c)
				w.plan()
			case 2:
				for x := range w.s.Tasks() {
					if x.State != task.Pending && rapid.IntRange(0, 3).Draw(rt, "ends") == 0 {
						w.step(x.ID, task.Lost)
					}
				}
			case 3:
				id := machine.ID(fmt.Sprintf("m%02d", rapid.IntRange(0, 11).Draw(rt, "machine")))
				mode := rapid.SampledFrom([]machine.Mode{machine.None, machine.Scheduled, machine.Drained}).Draw(rt, "mode")
				w.edit(id, func(m *machine.Machine) { m.Mode = mode })
			default:
				c := asks(cpu(rapid.Int64Range(1, 2000).Draw(rt, "asks")), 0)
				c.Tier = rapid.SampledFrom([]string{job.Preferred, job.Preemptible}).Draw(rt, "of")
				c.Priority = rapid.SampledFrom([]int32{0, 2, 2, 2}).Draw(rt, "above")
				c.Constraints = rapid.SampledFrom([][]job.Constraint{nil, {is("rack", "a")}, {not("host", "m03")}}).Draw(rt, "constraints")
				g := &group{groupKey: groupKey{job: "ads/prod/new"}, shape: shapeOf("ads/prod/new", &c)}
				w.x.join(w.s, g)
				var got []machine.ID
				looked := 0
				k := g.roleKey()
				if g.shape.tier == 0 && rapid.Bool().Draw(rt, "weaker") {
					k = g.weakerKey()
				}
				l := w.x.ladderOf(k, &looked)
				l.climb(l.root, g, &looked, func(n int32) bool {
					got = append(got, w.x.hosts[n].row.ID)
					return true
				})
				if want := climbed(w.x, g, k); !slices.Equal(got, want) {
					rt.Fatalf("the ladder leads to %v; want %v", got, want)
				}
				if got, want := w.x.outranks(g.shape), len(l.slots) > 0; !k.weaker && !got && want {
					rt.Fatalf("there is nobody below it, and %d machines on the ladder", len(l.slots))
				}
			}
			if d := w.x.Audit(w.s); d != "" {
				rt.Fatal(d)
			}
		}
	})
}

// TestLadderLooks: a ladder is climbed past machines where nothing would help,
// and goes through those that changed alone.
func TestLadderLooks(t *testing.T) {
	w := newWorld(t)
	const full = 400
	for i := range full {
		w.add(machine.ID(fmt.Sprintf("m%03d", i)), cpu(1000))
	}
	low := asks(cpu(1000), 0)
	w.submit("ads/prod/low", full, low)
	for range 3 {
		w.plan()
	}
	high := asks(cpu(1000), 0)
	high.Priority = 1
	g := &group{groupKey: groupKey{job: "ads/prod/high"}, shape: shapeOf("ads/prod/high", &high)}
	w.x.join(w.s, g)
	climb := func(what string, most int) {
		t.Helper()
		found, looked := 0, 0
		l := w.x.ladderOf(g.roleKey(), &looked)
		l.climb(l.root, g, &looked, func(int32) bool { found++; return found < candidates })
		if found != candidates || looked > most {
			t.Errorf("%s: %d machines found with %d looks; want %d with %d at most", what, found, looked, candidates, most)
		}
	}
	climb("the first time", 2*full)
	climb("again", 60)
	for i := range 5 {
		w.step(w.id("ads/prod/low", int32(i)), task.Lost)
	}
	climb("after five machines have changed", 80)
	if len(w.x.ladders) != 1 {
		t.Errorf("%d ladders are kept; want the one that was asked for", len(w.x.ladders))
	}
}
