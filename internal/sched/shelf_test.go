package sched

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/unit"
)

// TestShelves: a machine whose memory is nearly gone while its cores are free is
// spared by tasks that want memory, though it is their best fit. So tasks that
// want cores find them there; without that, two of them would wait.
func TestShelves(t *testing.T) {
	w := newWorld(t)
	size := unit.Resources{CPU: 16_000, RAM: 64 * gib}
	w.add("lopsided", size)
	w.add("level", size)
	w.submit(job.NewKey("web", "prod", "a"), 1, asks(unit.Resources{CPU: 2000, RAM: 40 * gib}, 0, is("host", "lopsided"))) // leaves 14 cores, 24 GiB
	w.submit(job.NewKey("web", "prod", "b"), 1, asks(unit.Resources{CPU: 6000, RAM: 14 * gib}, 0, is("host", "level")))    // leaves 10 cores, 50 GiB
	w.plan()
	lean, rich := job.NewKey("web", "prod", "lean"), job.NewKey("web", "prod", "rich")
	w.submit(lean, 3, asks(unit.Resources{CPU: 6000, RAM: 2 * gib}, 0))
	first := asks(unit.Resources{CPU: 500, RAM: 12 * gib}, 0)
	first.Priority = 5
	w.submit(rich, 2, first)
	waits := w.plan()
	want := "rich level, rich level, lean lopsided, lean lopsided, lean level"
	if d := cmp.Diff(want, w.placements(rich, lean)); d != "" || len(waits.Groups) > 0 {
		t.Errorf("%d jobs wait; want none. Placements (-want +got):\n%s", len(waits.Groups), d)
	}
}

// placements names each task of some jobs and its machine.
func (w *world) placements(jobs ...job.Key) string {
	var out []string
	for _, k := range jobs {
		on := map[int32]string{}
		for t := range w.s.TasksOf(k) {
			on[t.ID.Instance] = k.Name() + " " + string(t.Machine)
		}
		for _, n := range slices.Sorted(maps.Keys(on)) {
			out = append(out, on[n])
		}
	}
	return strings.Join(out, ", ")
}
