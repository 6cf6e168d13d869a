package sched

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestSpread: tasks of a job that spreads go where the fewest of them are, and
// then where the most is left, while the job beside it fills machines up.
func TestSpread(t *testing.T) {
	w := newWorld(t)
	w.add("large", cpu(16_000))
	w.add("m1", cpu(4000))
	w.add("m2", cpu(4000))
	w.add("m3", cpu(4000))
	w.add("soon", cpu(16_000))
	w.edit("soon", func(m *machine.Machine) { m.Mode = machine.Scheduled })
	w.add("with-gpu", unit.Resources{CPU: 16_000, GPU: 1000})
	packed, spread := asks(cpu(1000), 0), asks(cpu(1000), 0)
	spread.Placement = job.Spread
	on := func(k job.Key, n int32) string {
		var all []string
		for i := range n {
			all = append(all, string(w.where(k, i)))
		}
		return strings.Join(all, " ")
	}
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s are on %s; want %s", what, got, want)
		}
	}
	w.submit("a/prod/packed", 3, packed)
	w.plan()
	check("the tasks of a job that packs", on("a/prod/packed", 3), "m1 m1 m1")
	w.submit("a/prod/spread", 4, spread)
	w.plan()
	check("four tasks of a job that spreads", on("a/prod/spread", 4), "large m2 m3 m1")
	w.submit("a/prod/packed", 4, packed)
	w.submit("a/prod/spread", 6, spread)
	w.plan()
	check("the tasks of the first, one more", on("a/prod/packed", 4), "m1 m1 m1 m2")
	check("those of the second, two more", on("a/prod/spread", 6), "large m2 m3 m1 large m3")
	w.submit("b/prod/spread", 3, spread)
	w.plan()
	check("the tasks of another job, which does not care about the first", on("b/prod/spread", 3), "large m2 m3")
	// What comes last for every task comes last for these.
	w.submit("a/prod/spread", 24, spread)
	w.plan()
	var last []string
	for i := range int32(24) {
		if at := w.where("a/prod/spread", i); at == "soon" || at == "with-gpu" {
			last = append(last, string(at))
		}
	}
	check("those of the second that do not fit elsewhere", strings.Join(last, " "), "with-gpu with-gpu with-gpu")
	row, _ := w.s.Task(w.id("a/prod/spread", 0))
	if want := "of the machines that may run it, the one with the fewest tasks of its job"; row.Reason != want {
		t.Errorf("its reason is %q; want %q", row.Reason, want)
	}
}

// TestSpreadGPUs: of the machines with GPUs a job that spreads gets those with
// the fewest of its tasks, and of these the one where the least is wasted.
func TestSpreadGPUs(t *testing.T) {
	w := newWorld(t)
	for _, id := range []machine.ID{"g1", "g2"} {
		w.add(id, unit.Resources{CPU: 8000, GPU: 2000})
	}
	c := asks(unit.Resources{CPU: 1000, GPU: 500}, 0)
	w.submit("a/prod/packed", 1, c)
	c.Placement = job.Spread
	w.submit("a/prod/spread", 4, c)
	w.plan()
	var got []machine.ID
	for i := range int32(4) {
		got = append(got, w.where("a/prod/spread", i))
	}
	want := []machine.ID{"g1", "g2", "g2", "g1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestSpreadElsewhere: a task that failed on the machine that it would get goes
// to another one, and the next task of the job may have that machine.
func TestSpreadElsewhere(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(9000))
	w.add("m2", cpu(8000))
	w.add("m3", cpu(7000))
	c := asks(cpu(1000), 0)
	c.Placement = job.Spread
	w.submit("a/prod/spread", 1, c)
	w.plan()
	w.step(w.id("a/prod/spread", 0), task.Failed)
	w.submit("a/prod/spread", 3, c)
	w.plan()
	got := []machine.ID{w.where("a/prod/spread", 0), w.where("a/prod/spread", 1), w.where("a/prod/spread", 2)}
	if d := cmp.Diff([]machine.ID{"m2", "m1", "m3"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
