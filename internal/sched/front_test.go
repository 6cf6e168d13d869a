package sched

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// fronts is a world in which searches for several needs go on while machines
// fill and empty.
type fronts struct {
	*world
	groups []*group
	live   []task.ID
	jobs   int
}

func newFronts(t fatal) *fronts {
	w := &fronts{world: newWorld(t)}
	for _, cfg := range []job.Config{asks(cpu(100), 0), asks(cpu(1000), 0), asks(cpu(300), 2), asks(cpu(100), 0, is("rack", "a"))} {
		g := &group{groupKey: groupKey{job: "front/prod/x"}, shape: shapeOf("front/prod/x", &cfg)}
		w.x.join(w.s, g)
		w.groups = append(w.groups, g)
	}
	return w
}

// grow adds a machine with so many cores, in thousandths.
func (w *fronts) grow(cpus int64) {
	id := machine.ID(fmt.Sprintf("m%03d", len(w.x.hosts)))
	w.add(id, cpu(cpus), "rack", string("ab"[len(w.x.hosts)%2]))
}

// run places a task, if it fits anywhere.
func (w *fronts) run(cpus int64) {
	k := job.Key(fmt.Sprintf("x/prod/j%d", w.jobs))
	w.jobs++
	w.submit(k, 1, asks(cpu(cpus), 0))
	w.plan()
	if w.where(k, 0) != "" {
		w.live = append(w.live, w.id(k, 0))
	}
}

// end ends one of the tasks that run.
func (w *fronts) end(i int) {
	id := w.live[i]
	w.live = append(w.live[:i], w.live[i+1:]...)
	w.step(id, task.Running)
	w.step(id, task.Finished)
}

// best is the dumb twin: of all hosts of a place that take the task, the first in
// the tree's order.
func best(q search, at place) int32 {
	found := int32(0)
	for n := int32(1); int(n) < len(q.x.hosts); n++ {
		if h := &q.x.hosts[n]; h.row.ID == "" || h.place() != at || n == q.avoid || !q.takes(n) {
			continue
		}
		if found == 0 || q.x.before(n, found) {
			found = n
		}
	}
	return found
}

// search asks the front of a group, and its twin.
func (w *fronts) search(g *group, at place, avoid int32) (got, want int32, looked int) {
	twin := 0
	want = best(search{x: w.x, group: g, avoid: avoid, looked: &twin}, at)
	q := search{x: w.x, group: g, avoid: avoid, looked: &looked}
	got = q.next(&w.x.frontsOf(g.need())[at.tree][at.shelf], at)
	return got, want, looked
}

// TestFrontTwin: whatever happened since a need was last searched for, its front
// finds the machine that a search from the start would.
func TestFrontTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newFronts(t)
		for range rapid.IntRange(2, 40).Draw(rt, "machines") {
			w.grow(rapid.Int64Range(50, 4000).Draw(rt, "cores"))
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				w.grow(rapid.Int64Range(50, 4000).Draw(rt, "cores"))
			case 1: // scheduled for maintenance, or drained, or back
				id := machine.ID(fmt.Sprintf("m%03d", rapid.IntRange(1, len(w.x.hosts)-1).Draw(rt, "machine")))
				mode := rapid.SampledFrom([]machine.Mode{machine.None, machine.Scheduled, machine.Drained}).Draw(rt, "mode")
				w.edit(id, func(m *machine.Machine) { m.Mode = mode })
			case 2: // many at once: fronts that look rarely have much to catch up with
				for range rapid.IntRange(1, 2*logged).Draw(rt, "tasks") {
					if len(w.live) > 0 && rapid.Bool().Draw(rt, "end") {
						w.end(rapid.IntRange(0, len(w.live)-1).Draw(rt, "which"))
					} else {
						w.run(rapid.Int64Range(1, 1500).Draw(rt, "needs"))
					}
				}
			case 3, 4, 5:
				w.run(rapid.Int64Range(1, 1500).Draw(rt, "needs"))
			default:
				g := rapid.SampledFrom(w.groups).Draw(rt, "group")
				at := rapid.SampledFrom([]place{{preferred, even}, {lastly, even}, {preferred, shortOfCPU}}).Draw(rt, "place")
				avoid := int32(rapid.IntRange(0, len(w.x.hosts)-1).Draw(rt, "avoid"))
				if got, want, _ := w.search(g, at, avoid); got != want {
					rt.Fatalf("host %d of %v; want %d", got, at, want)
				}
			}
		}
	})
}

// TestFrontLooks: a front does not look at full machines again, nor at all of
// them when one is freed; and one that fell far behind starts again, once.
func TestFrontLooks(t *testing.T) {
	w := newFronts(t)
	const full = 500
	for range full {
		w.grow(50) // too small for any need
	}
	for range 3 {
		w.grow(2000)
	}
	g := w.groups[1] // a core
	look := func(what string, most int) {
		t.Helper()
		got, want, looked := w.search(g, place{preferred, even}, 0)
		if got != want || got == 0 {
			t.Errorf("%s: host %d; want %d", what, got, want)
		}
		if looked > most {
			t.Errorf("%s: %d hosts were looked at; want %d at most", what, looked, most)
		}
	}
	look("the first search", full+10)
	look("the next", 20)
	w.edit("m007", func(m *machine.Machine) { m.Capacity = cpu(1500) })
	look("after one machine before it has grown", 40)
	if got, _, _ := w.search(g, place{preferred, even}, 0); w.x.hosts[got].row.ID != "m007" {
		t.Errorf("it found %s; want the machine that fits best, m007", w.x.hosts[got].row.ID)
	}
	for range logged + 1 {
		w.run(10)
	}
	look("after more changes than are remembered", full+logged+40)
	look("the next", 20)
}

// TestFrontFarBehind: of machines that grew since the last search, the first one
// is found, however many there are: also more than a front keeps aside, and more
// than it can catch up with.
func TestFrontFarBehind(t *testing.T) {
	for _, more := range []int{0, 1, someAtMost - 1, someAtMost, someAtMost + 1, logged - 1, logged, logged + 1, 2*logged - 1, 2 * logged} {
		w := newFronts(t)
		for range 2*logged + 10 {
			w.grow(50)
		}
		w.grow(4000)
		g := w.groups[0]
		if got, _, _ := w.search(g, place{preferred, even}, 0); int(got) != len(w.x.hosts)-1 {
			t.Fatalf("host %d; want the only one that is large enough", got)
		}
		for i := range more + 1 {
			id := machine.ID(fmt.Sprintf("m%03d", i+1))
			w.edit(id, func(m *machine.Machine) { m.Capacity = cpu(int64(150 + i)) })
		}
		for range 3 { // the front finds it again, and does not pass it over
			got, want, _ := w.search(g, place{preferred, even}, 0)
			if got != want || w.x.hosts[got].row.ID != "m001" {
				t.Errorf("%d more have grown: host %d; want %d", more, got, want)
			}
		}
	}
}

// TestFrontAvoid: the machine that one task avoids is there for the next.
func TestFrontAvoid(t *testing.T) {
	w := newFronts(t)
	for range 3 {
		w.grow(1000)
	}
	g := w.groups[0]
	first, _, _ := w.search(g, place{preferred, even}, 0)
	for _, avoid := range []int32{first, 0, first, 0} {
		got, want, _ := w.search(g, place{preferred, even}, avoid)
		if got != want || avoid == 0 && got != first {
			t.Errorf("avoiding %d: host %d; want %d", avoid, got, want)
		}
	}
}

// TestFrontsBounded: as many needs as anybody asks for cost bounded memory.
func TestFrontsBounded(t *testing.T) {
	w := newFronts(t)
	w.grow(1000)
	for i := range 3 * frontsAtOne {
		w.x.frontsOf(need{class: w.groups[0].class, each: unit.Resources{CPU: int64(i)}})
		if n := len(w.x.fronts); n > frontsAtOne {
			t.Fatalf("%d fronts are kept; want %d at most", n, frontsAtOne)
		}
	}
	got, want, _ := w.search(w.groups[0], place{preferred, even}, 0)
	if got != want || got == 0 {
		t.Errorf("after that: host %d; want %d", got, want)
	}
}
