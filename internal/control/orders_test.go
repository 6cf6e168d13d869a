package control_test

import (
	"testing"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// orders returns how many orders go out while something is done.
func (w *world) orders(do func()) int {
	before := w.sent
	do()
	return w.sent - before
}

// show has every machine say everything that it has, as of the orders until rev.
func (w *world) showAll(rev state.Rev, sightings func(*node) []task.Sighting) {
	for _, n := range w.nodes {
		w.say(n, control.Message{Full: true, Obeyed: rev, Sightings: sightings(n)})
	}
	w.turn()
}

func nothing(*node) []task.Sighting { return nil }

// TestOrdersCross counts orders that are under way while machines say what they
// have: none of them is given again for that. One that was lost is, for the next
// full message that is later than the order, and without one after 15 s.
func TestOrdersCross(t *testing.T) {
	const machines, instances = 20, 60
	w := newWorld(t)
	w.do("machines m1-20")
	w.do("manual m1-20")
	before := w.loop.Snapshot().Rev
	counts := []struct {
		what string
		want int
		do   func()
	}{
		{"60 tasks are placed", instances, func() { w.do("create www/prod/web 0-59") }},
		{"messages of before cross the orders", 0, func() { w.showAll(before, nothing) }},
		{"and once more", 0, func() { w.showAll(before, nothing) }},
		{"10 s pass", 0, func() { w.pass(10 * second) }},
		{"20 more are placed", 20, func() { w.do("create www/prod/more 0-19") }},
		{"15 s after they were placed the first are told again, the others are not", instances, func() { w.pass(6 * second) }},
		{"and the others after 15 s of their own", 20, func() { w.pass(10 * second) }},
		{"a message of an agent that does not tell what it has obeyed", instances + 20, func() { w.showAll(0, nothing) }},
		{"an order was obeyed that is later, and no task is there", instances + 20, func() { w.showAll(w.loop.Snapshot().Rev, nothing) }},
		{"they run", 0, func() { w.showAll(w.loop.Snapshot().Rev, w.running) }},
		{"a minute passes", 0, func() { w.pass(60 * second) }},
		{"all are to stop", instances, func() { before = w.loop.Snapshot().Rev; w.do("kill www/prod/web") }},
		{"messages of before cross that", 0, func() { w.showAll(before, w.running) }},
		{"it was obeyed, and they have not stopped", instances, func() { w.showAll(w.loop.Snapshot().Rev, w.running) }},
	}
	for _, c := range counts {
		if got := w.orders(c.do); got != c.want {
			t.Errorf("%s: %d orders; want %d", c.what, got, c.want)
		}
	}
	if _, _, n := w.loop.Snapshot().Len(); n != machines {
		t.Errorf("%d machines; want %d", n, machines)
	}
}

// running is what runs on a machine that did as it was told.
func (w *world) running(n *node) []task.Sighting {
	var out []task.Sighting
	for x := range w.loop.Snapshot().TasksOn(n.row.ID) {
		out = append(out, task.Sighting{ID: x.ID, Config: x.Config, Resources: x.Resources, State: task.Running})
	}
	return out
}

// TestOrderLost has the one order lost that a machine was given, and no word of
// it comes: it is given again every 15 s, for as long as the machine is heard.
func TestOrderLost(t *testing.T) {
	w := newWorld(t)
	w.do("machines m1")
	w.do("manual m1")
	before := w.loop.Snapshot().Rev
	w.do("create www/prod/web 0")
	for i := range 4 {
		w.showAll(before, nothing)
		if got := w.orders(func() { w.pass(15*second + second/100) }); got != 1 {
			t.Errorf("after %d s: %d orders; want 1", 15*(i+1), got)
		}
	}
}
