package sched

import (
	"testing"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// TestGPUsKeptForThoseWhoCannotGoElsewhere: tasks that may run anywhere come
// first and leave the one generation alone that others, who come last, ask for.
func TestGPUsKeptForThoseWhoCannotGoElsewhere(t *testing.T) {
	w := newWorld(t)
	size := unit.Resources{CPU: 8000, RAM: 64 * gib, GPU: 4000}
	for m, gen := range map[machine.ID]string{"m1": "new", "m2": "new", "m3": "old", "m4": "old", "m5": "old", "m6": "old"} {
		w.add(m, size, "gen", gen)
	}
	one := unit.Resources{CPU: 1000, RAM: gib, GPU: 1000}
	picky, any := job.NewKey("ads", "prod", "picky"), job.NewKey("ads", "prod", "any")
	w.submit(picky, 2, asks(one, 0, is("gen", "new")))
	w.submit(job.NewKey("ads", "prod", "usual"), 6, asks(one, 0, is("gen", "old"))) // most do, so the new ones are missed less
	first := asks(one, 0)
	first.Priority = 9
	w.submit(any, 12, first)

	if waits := w.plan(); len(waits.Groups) > 0 {
		t.Fatalf("with 24 GPUs for 20 tasks %d of %s wait: %s; want none", waits.Groups[0].Tasks, waits.Groups[0].Job, waits.Groups[0].Text)
	}
	for i := range int32(2) {
		if got := w.where(picky, i); got != "m1" && got != "m2" {
			t.Errorf("task %d of %s is on %q; want m1 or m2", i, picky, got)
		}
	}
}

// TestGPUsKeptOnlyIfOthersFit: what is kept for some still goes to others
// before they wait.
func TestGPUsKeptOnlyIfOthersFit(t *testing.T) {
	w := newWorld(t)
	w.add("m1", unit.Resources{CPU: 8000, RAM: 64 * gib, GPU: 2000}, "gen", "new")
	one := unit.Resources{CPU: 1000, RAM: gib, GPU: 1000}
	picky, any := job.NewKey("ads", "prod", "picky"), job.NewKey("ads", "prod", "any")
	w.submit(picky, 2, asks(one, 0, is("gen", "new")))
	first := asks(one, 0)
	first.Priority = 9
	w.submit(any, 1, first)
	w.plan()
	if got := w.where(any, 0); got != "m1" {
		t.Errorf("the more urgent task is on %q; want m1", got)
	}
}
