package sched

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// TestAvoided: a machine that is avoided gets a task only when no other takes
// it: after those with maintenance scheduled, before nothing at all. Nobody is
// stopped to make room on it.
func TestAvoided(t *testing.T) {
	w := newWorld(t)
	w.add("best", cpu(1000))
	w.edit("best", func(m *machine.Machine) { m.Avoid = "tasks fail there" })
	w.add("roomy", cpu(3000))
	w.add("soon", cpu(2000))
	w.edit("soon", func(m *machine.Machine) { m.Mode = machine.Scheduled })
	w.submit("a/prod/x", 7, asks(cpu(1000), 0))
	waits := w.plan()
	var got []machine.ID
	for i := range int32(7) {
		got = append(got, w.where("a/prod/x", i))
	}
	if d := cmp.Diff([]machine.ID{"roomy", "roomy", "roomy", "soon", "soon", "best", ""}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if want := "no machine fits: 3 of 3 lack cpu (need 1, nearest best has 0)"; len(waits.Groups) != 1 || waits.Groups[0].Text != want {
		t.Errorf("the last one waits: %+v; want %s", waits.Groups, want)
	}
	urgent := asks(cpu(1000), 0)
	urgent.Tier = job.Preferred
	w.submit("b/prod/y", 3, urgent)
	w.plan()
	rooms := map[machine.ID]int{}
	for x := range w.s.TasksOf("b/prod/y") {
		rooms[x.Room]++
	}
	if d := cmp.Diff(map[machine.ID]int{"roomy": 3}, rooms); d != "" {
		t.Errorf("rooms of more urgent tasks (-want +got):\n%s", d)
	}
	w.edit("best", func(m *machine.Machine) { m.Avoid, m.Capacity = "", unit.Resources{CPU: 2000} })
	w.plan()
	if at := w.where("a/prod/x", 6); at != "best" {
		t.Errorf("when it is avoided no more, the task that waits is on %q; want best", at)
	}
}

// TestAvoidedSpread: to be avoided has nothing wait that a spread would let go.
func TestAvoidedSpread(t *testing.T) {
	w := newWorld(t)
	for _, id := range []machine.ID{"m1", "m2"} {
		w.add(id, cpu(4000), "rack", string(id))
		w.edit(id, func(m *machine.Machine) { m.Avoid = "it is old" })
	}
	w.submit("a/prod/x", 4, asks(cpu(1000), 0, job.Constraint{Attribute: "rack", Spread: 1}))
	w.plan()
	on := map[machine.ID]int{}
	for i := range int32(4) {
		on[w.where("a/prod/x", i)]++
	}
	if d := cmp.Diff(map[machine.ID]int{"m1": 2, "m2": 2}, on); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
