package sched

import (
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestGPURows: rows say which GPUs tasks have, and what a row does not say is
// worked out from what is left.
func TestGPURows(t *testing.T) {
	w := newWorld(t)
	w.add("m1", unit.Resources{CPU: 16_000, GPU: 3000})
	ask := func(k job.Key, n int32, gpu int64) { w.submit(k, n, asks(unit.Resources{CPU: 100, GPU: gpu}, 0)) }
	ask("r/prod/share", 1, 600)
	w.plan()
	ask("r/prod/whole", 1, 1000)
	w.plan()
	ask("r/prod/rest", 2, 400)
	w.plan()
	got := map[string][]uint16{}
	for x := range w.s.Tasks() {
		got[x.ID.String()] = x.GPUs
	}
	want := map[string][]uint16{
		"r/prod/share/0.1": {0}, "r/prod/whole/0.1": {1}, "r/prod/rest/0.1": {0}, "r/prod/rest/1.1": {2},
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("GPUs (-want +got):\n%s", d)
	}
	// A task of 600 fits nowhere, though its GPU has 600 free: another has 400 of it.
	w.step(w.id("r/prod/share", 0), task.Failed)
	ask("r/prod/again", 1, 700)
	if waits := w.plan(); len(waits.Groups) != 1 || !strings.Contains(waits.Groups[0].Text, "a gpu with so much left (need 0.7, nearest m1 has 1.2 over all)") {
		t.Errorf("a share of 0.7 beside shares of 0.4 on two GPUs: %+v", waits.Groups)
	}
	old := task.Task{ID: task.ID{Job: "r/prod/rest", Instance: 5, Attempt: 1}, Config: must(w.s.Task(w.id("r/prod/rest", 0))).Config, State: task.Running, Machine: "m1", Resources: unit.Resources{GPU: 600}}
	w.do(state.AdoptTask{Task: old})
	if devs := w.x.hosts[w.x.slots["m1"]].devs; !slices.Equal(devs, []int16{0, 0, 600}) {
		t.Errorf("beside a task of 600 that has no number there are %v left; want 0, 0, 600", devs)
	}
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("not there")
	}
	return v
}
