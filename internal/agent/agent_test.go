package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
)

func id(n uint32) task.ID { return task.ID{Job: "a/prod/x", Attempt: n} }

func orders(n uint64, os ...task.Order) Orders {
	return Orders{UID: "u", Epoch: machine.Epoch{Incarnation: 1, N: 5}, Rev: 10 + n, N: n, Orders: os}
}

func obey(t *testing.T, a *Agent, o Orders) []Deed {
	t.Helper()
	deeds, err := a.Obey(o)
	if err != nil {
		t.Fatal(err)
	}
	return deeds
}

func verbs(deeds []Deed) (out []string) {
	for _, d := range deeds {
		out = append(out, d.Verb.String()+" "+d.ID.String())
	}
	return out
}

// TestObey carries each order out once, whatever comes again.
func TestObey(t *testing.T) {
	a := New("u", Seen{}, Seen{})
	run, stop, forget := task.Order{ID: id(1), Verb: task.Run}, task.Order{ID: id(1), Verb: task.Stop}, task.Order{ID: id(1), Verb: task.Forget}
	for i, c := range []struct {
		what string
		see  task.State // before; Init: nothing
		o    task.Order
		want []string
	}{
		{"run", task.Init, run, []string{"RUN a/prod/x/0.1"}},
		{"run again", task.Init, run, nil},
		{"run what runs", task.Running, run, nil},
		{"forget what runs", task.Init, forget, nil},
		{"stop", task.Init, stop, []string{"STOP a/prod/x/0.1"}},
		{"stop again, for it is there still", task.Init, stop, []string{"STOP a/prod/x/0.1"}},
		{"stop what has ended", task.Killed, stop, nil},
		{"run what has ended", task.Init, run, nil},
		{"a verb of a later version", task.Init, task.Order{ID: id(1), Verb: 99}, nil},
		{"forget", task.Init, forget, []string{"FORGET a/prod/x/0.1"}},
		{"forget again", task.Init, forget, nil},
	} {
		if c.see != task.Init {
			a.See(task.Sighting{ID: id(1), State: c.see})
		}
		if d := cmp.Diff(c.want, verbs(obey(t, a, orders(uint64(i+1), c.o)))); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, d)
		}
	}
}

// TestStopUnknown answers for a task that is not there: it will never run.
func TestStopUnknown(t *testing.T) {
	a := New("u", Seen{}, Seen{})
	a.Open()
	if deeds := obey(t, a, orders(1, task.Order{ID: id(1), Verb: task.Stop})); len(deeds) != 0 {
		t.Errorf("deeds %v, want none", deeds)
	}
	said := a.Report(false)
	if len(said) != 1 || said[0].ID != id(1) || said[0].State != task.Killed {
		t.Errorf("said %+v, want that it is KILLED", said)
	}
	if deeds := obey(t, a, orders(2, task.Order{ID: id(1), Verb: task.Run})); len(deeds) != 0 {
		t.Errorf("a late order to run it: %v, want nothing done", deeds)
	}
}

// TestAbsenceIsNoOrder: orders that do not name a task say nothing of it.
func TestAbsenceIsNoOrder(t *testing.T) {
	a := New("u", Seen{}, Seen{})
	a.See(task.Sighting{ID: id(1), State: task.Running})
	a.Open()
	for n := range uint64(3) {
		if deeds := obey(t, a, orders(n+1)); len(deeds) != 0 {
			t.Errorf("deeds %v, want none", deeds)
		}
	}
}

// TestWhoIsObeyed refuses other clusters and leaders of the past, drops what is
// late, and remembers the highest term and revision.
func TestWhoIsObeyed(t *testing.T) {
	a := New("u", Seen{Epoch: machine.Epoch{Incarnation: 1, N: 5}, Rev: 7}, Seen{})
	run := task.Order{ID: id(1), Verb: task.Run}
	for _, c := range []struct {
		what  string
		o     Orders
		kind  fault.Kind
		deeds int
		seen  Seen
	}{
		{"another cluster", Orders{UID: "v", Epoch: machine.Epoch{Incarnation: 9}, N: 1, Orders: []task.Order{run}}, fault.Denied, 0, Seen{machine.Epoch{Incarnation: 1, N: 5}, 7}},
		{"an earlier term", Orders{UID: "u", Epoch: machine.Epoch{Incarnation: 1, N: 4}, Rev: 99, N: 1, Orders: []task.Order{run}}, fault.Conflict, 0, Seen{machine.Epoch{Incarnation: 1, N: 5}, 7}},
		{"the same term, an earlier revision", Orders{UID: "u", Epoch: machine.Epoch{Incarnation: 1, N: 5}, Rev: 6, N: 3}, 0, 0, Seen{machine.Epoch{Incarnation: 1, N: 5}, 7}},
		{"late", Orders{UID: "u", Epoch: machine.Epoch{Incarnation: 1, N: 5}, Rev: 8, N: 2, Orders: []task.Order{run}}, 0, 0, Seen{machine.Epoch{Incarnation: 1, N: 5}, 7}},
		{"in order", Orders{UID: "u", Epoch: machine.Epoch{Incarnation: 1, N: 5}, Rev: 8, N: 4, Orders: []task.Order{run}}, 0, 1, Seen{machine.Epoch{Incarnation: 1, N: 5}, 8}},
		{"a later incarnation, restored", Orders{UID: "u", Epoch: machine.Epoch{Incarnation: 2, N: 1}, Rev: 3, N: 5}, 0, 0, Seen{machine.Epoch{Incarnation: 2, N: 1}, 3}},
		{"the incarnation before", Orders{UID: "u", Epoch: machine.Epoch{Incarnation: 1, N: 99}, Rev: 99, N: 6}, fault.Conflict, 0, Seen{machine.Epoch{Incarnation: 2, N: 1}, 3}},
	} {
		deeds, err := a.Obey(c.o)
		if (err != nil) != (c.kind != 0) || err != nil && fault.Of(err) != c.kind {
			t.Errorf("%s: error %v, want kind %v", c.what, err, c.kind)
		}
		if len(deeds) != c.deeds || a.Seen() != c.seen {
			t.Errorf("%s: %d deeds, seen %+v; want %d, %+v", c.what, len(deeds), a.Seen(), c.deeds, c.seen)
		}
	}
}

// TestReport says what is news, once in a session, in order; everything when asked.
func TestReport(t *testing.T) {
	a := New("u", Seen{}, Seen{})
	said := func(full bool) (out []string) {
		for _, s := range a.Report(full) {
			out = append(out, s.ID.String()+" "+s.State.String())
		}
		return out
	}
	want := func(what string, full bool, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, said(full)); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	a.See(task.Sighting{ID: id(2), State: task.Starting})
	a.See(task.Sighting{ID: id(1), State: task.Running})
	want("at first", false, "a/prod/x/0.1 RUNNING", "a/prod/x/0.2 STARTING")
	want("no news", false)
	a.See(task.Sighting{ID: id(2), State: task.Failed})
	want("an end", false, "a/prod/x/0.2 FAILED")
	a.See(task.Sighting{ID: id(2), State: task.Running})
	want("an end is final", false)
	want("everything", true, "a/prod/x/0.1 RUNNING", "a/prod/x/0.2 FAILED")
	a.Open()
	want("a new session", false, "a/prod/x/0.1 RUNNING", "a/prod/x/0.2 FAILED")
	// The leader orders what runs: it does not know, and is told again.
	obey(t, a, orders(1, task.Order{ID: id(1), Verb: task.Run}, task.Order{ID: id(2), Verb: task.Stop}))
	want("after orders that come too late", false, "a/prod/x/0.1 RUNNING", "a/prod/x/0.2 FAILED")
	obey(t, a, orders(2, task.Order{ID: id(2), Verb: task.Forget}))
	want("after it was forgotten", true, "a/prod/x/0.1 RUNNING")
}

// TestSince is the first orders of a memory, and stays when later ones come, in
// other sessions and terms.
func TestSince(t *testing.T) {
	a := New("u", Seen{}, Seen{})
	if got := a.Since(); got != (Seen{}) {
		t.Errorf("before any orders: %+v; want nothing", got)
	}
	want := Seen{Epoch: machine.Epoch{Incarnation: 1, N: 5}, Rev: 11}
	obey(t, a, orders(1))
	obey(t, a, orders(2))
	a.Open()
	obey(t, a, Orders{UID: "u", Epoch: machine.Epoch{Incarnation: 1, N: 6}, Rev: 40, N: 1})
	if got := a.Since(); got != want {
		t.Errorf("got %+v; want %+v", got, want)
	}
	if got := New("u", a.Seen(), a.Since()).Since(); got != want {
		t.Errorf("an agent that was started again: %+v; want %+v", got, want)
	}
	if _, err := New("u", Seen{Epoch: machine.Epoch{Incarnation: 2}}, Seen{}).Obey(orders(1)); err == nil {
		t.Error("orders of the past were obeyed")
	}
}
