package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// standStill keeps a process from running until the function is called.
func standStill(t *testing.T, p ident) (goOn func()) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	goOn = func() {
		if p.lives() {
			_ = syscall.Kill(p.pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(goOn)
	return goOn
}

// An agent that is silent for longer than its lease: its task runs on, another
// takes its place elsewhere, and when the agent is back one of them is left.
func TestAgentOutOfReach(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 2)
	key := w.create("one", service(1))
	x := w.task(key, "RUNNING", 10*time.Second)
	p := w.process("one", 0)
	goOn := standStill(t, w.child("agent", x.Machine))
	var q ident
	eventually(t, 40*time.Second, "another takes its place", func() string {
		got := marked(w.mark("one", 0))
		if !slices.Contains(got, p) {
			t.Fatalf("got %v; want %v among them: a task out of reach runs on", got, p)
		}
		for _, o := range got {
			if o != p {
				q = o
				return ""
			}
		}
		return fmt.Sprint(got)
	})
	found := false
	for _, s := range w.steps(key) {
		found = found || s.Task == x.ID && s.To == "PARTITIONED"
	}
	if !found {
		t.Errorf("no step of %s to PARTITIONED: %+v", x.ID, w.steps(key))
	}
	goOn()
	eventually(t, 30*time.Second, "one is left", func() string {
		if got := marked(w.mark("one", 0)); len(got) != 1 {
			return fmt.Sprint(got)
		}
		return ""
	})
	if got := marked(w.mark("one", 0)); !slices.Equal(got, []ident{q}) {
		t.Errorf("got %v; want the one that took the place, %v", got, q)
	}
	if v := w.status(key); len(v.Tasks) != 1 || v.Tasks[0].Status != "RUNNING" || v.Tasks[0].ID == x.ID || v.Tasks[0].Machine == x.Machine {
		t.Errorf("got %+v; want the task on the other machine", v)
	}
	money(w)
}

// A server that stands still for longer than every lease: no task notices, and
// it goes on where it was.
func TestServerStandsStill(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 2)
	w.create("stays", service(2))
	stays := []ident{w.process("stays", 0), w.process("stays", 1)}
	server := w.child("server", "")
	goOn := standStill(t, server)
	time.Sleep(12 * time.Second) // longer than the leases of agents and leader
	for _, p := range stays {
		if !p.lives() {
			t.Errorf("task %v ended while the server stood still", p)
		}
	}
	goOn()
	w.answers("stop")
	w.untouched("stays", stays)
	if !server.lives() && !strings.Contains(w.dev.log(), "started again") {
		t.Error("the server is gone, and nobody says so")
	}
	money(w)
}
