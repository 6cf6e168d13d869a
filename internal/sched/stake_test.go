package sched

import (
	"strconv"
	"testing"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// generations is a world of two machines of the new generation and four of the
// old one, with room for eight tasks each. All have GPUs: none is better than
// these, as it is when all others are full.
func generations(t *testing.T) (*world, job.Config) {
	w := newWorld(t)
	for m, gen := range map[machine.ID]string{"m1": "new", "m2": "new", "m3": "old", "m4": "old", "m5": "old", "m6": "old"} {
		w.add(m, unit.Resources{CPU: 8000, RAM: 32 * gib, GPU: 1000}, "gen", gen)
	}
	return w, asks(unit.Resources{CPU: 1000, RAM: 4 * gib}, 0)
}

// counts counts the tasks of a job on machines of each generation.
func (w *world) counts(k job.Key) map[string]int {
	n := map[string]int{}
	for t := range w.s.TasksOf(k) {
		if m, ok := w.s.Machine(t.Machine); ok {
			n[m.Values("gen")[0]]++
		}
	}
	return n
}

// TestRoomKeptForThoseWhoInsist: tasks that may run anywhere come first and
// leave the one generation alone that others, who come last, insist on.
func TestRoomKeptForThoseWhoInsist(t *testing.T) {
	picky, some := job.NewKey("ads", "prod", "picky"), job.NewKey("ads", "prod", "any")
	for _, c := range []struct {
		name        string
		picky, some int32
		want        map[string]int // of some
		waits       int
	}{
		{"tight", 12, 26, map[string]int{"old": 26}, 0},
		{"the old ones do not hold them", 14, 34, map[string]int{"old": 32, "new": 2}, 0},
		{"nor do the new ones", 14, 36, map[string]int{"old": 32, "new": 4}, 2},
		{"there is more", 8, 20, map[string]int{"old": 20}, 0},
		{"nobody insists", 0, 38, map[string]int{"new": 16, "old": 22}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, each := generations(t)
			insists := each
			insists.Constraints = []job.Constraint{is("gen", "new")}
			if c.picky > 0 {
				w.submit(picky, c.picky, insists)
			}
			each.Priority = 9
			w.submit(some, c.some, each)
			waits := 0
			for _, g := range w.plan().Groups {
				waits += g.Tasks
			}
			if got := w.counts(some); got["old"] != c.want["old"] || got["new"] != c.want["new"] {
				t.Errorf("of those that may go anywhere %v run on each generation; want %v", got, c.want)
			}
			if waits != c.waits {
				t.Errorf("%d tasks wait; want %d", waits, c.waits)
			}
		})
	}
}

// TestGrowthBesideThoseWhoInsist: a task that leaves machines alone which others
// insist on looks at as few in a large cluster as in a small one, though there
// are more to leave alone.
func TestGrowthBesideThoseWhoInsist(t *testing.T) {
	const warm, rounds = 5, 10
	cost := map[int]int{}
	for _, n := range []int{1000, 10_000} {
		p := newPool(t, n)
		p.submit("role1/prod/waits", int32(n/10), asks(unit.Resources{CPU: 3500, RAM: 4 * gib}, 0, is("gen", "g1")))
		for p.turn = range warm + rounds {
			if p.turn == warm {
				p.looked = 0
			}
			k := job.NewKey("role1", "prod", "beside"+strconv.Itoa(p.turn))
			c := asks(unit.Resources{CPU: 150, Disk: gib}, 0) // only machines with GPUs have a disk
			c.Priority = 9
			p.submit(k, 1, c)
			p.plan()
			p.all(k, 1)
			for row := range p.s.TasksOf(k) {
				if m, _ := p.s.Machine(row.Machine); m.Has("gen", "g1") {
					t.Errorf("%s is on %s, which is of the generation that others insist on", row.ID, m.ID)
				}
			}
			p.gone(k)
		}
		cost[n] = p.looked / rounds
	}
	t.Logf("%d looks at 1,000 machines, %d at 10,000", cost[1000], cost[10_000])
	if cost[10_000] > 2*cost[1000] {
		t.Errorf("%d looks for a task at 10,000 machines; want at most twice the %d at 1,000", cost[10_000], cost[1000])
	}
}
