package control_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestLargeJob asks for the largest job there may be, kills it and asks for it
// again: every turn is bounded, and their number follows the work.
func TestLargeJob(t *testing.T) {
	w := newWorld(t)
	w.brief = true
	w.do("limit 500")
	w.do("machines m1-50 cpu=90")
	for _, step := range []struct {
		line  string
		tasks int
	}{{"create www/prod/web 0-3999", 4000}, {"kill www/prod/web", 0}, {"create www/prod/web 0-3999", 4000}, {"restart www/prod/web", 4000}} {
		w.turns, w.most = 0, 0
		w.do(step.line)
		if _, got, _ := w.loop.Snapshot().Len(); got != step.tasks {
			t.Errorf("%s: %d tasks, want %d", step.line, got, step.tasks)
		}
		// A turn holds what was said in it, one command or the news of 50
		// machines, and at most so many changes of each engine.
		if w.turns > 40 || w.most > 4001+2*500 {
			t.Errorf("%s: %d turns, up to %d records in one; want at most 40 and 5001", step.line, w.turns, w.most)
		}
	}
	if err := w.loop.Audit(); err != nil {
		t.Error(err)
	}
}

// TestAbortLeavesNoTrace takes random turns, each of them twice: first in vain,
// then for good. Both must be the same.
func TestAbortLeavesNoTrace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		w.cfg.AgentLease = unit.Hour // an abort drops every session, so leases begin anew
		w.do("leader")
		w.do("machines m1-6")
		for range 12 {
			session := fmt.Sprint(w.now)
			inputs := anyTurn(rt, w, session)
			seal := func() (*control.Turn, *state.Batch) {
				x := w.loop.Begin(w.now, w.now)
				for _, in := range inputs {
					_ = in(x) // a refusal is an outcome like any other
				}
				b, err := x.End()
				if err != nil {
					rt.Fatal(err)
				}
				return x, b
			}
			first, want := seal()
			w.loop.Abort(first)
			again, got := seal()
			// A loop that forgot what it had looked at looks in another order.
			byID := cmpopts.SortSlices(func(a, b task.Task) bool { return a.ID.Compare(b.ID) < 0 })
			if d := cmp.Diff(want, got, byID, cmpopts.IgnoreFields(state.Batch{}, "Records")); d != "" || len(want.Records) != len(got.Records) {
				rt.Fatalf("the same turn after an abort (-first +second):\n%s", d)
			}
			w.loop.Commit(again)
			if err := w.loop.Audit(); err != nil {
				rt.Fatal(err)
			}
			w.now += 15 * second
		}
	})
}

// anyTurn makes up what is said in a turn: some machines say hello and
// everything, some tasks end, and a user wants something.
func anyTurn(rt *rapid.T, w *world, session string) []func(*control.Turn) error {
	var ins []func(*control.Turn) error
	for i := range 6 {
		if rapid.IntRange(0, 3).Draw(rt, "silent") == 0 {
			continue
		}
		n := w.node(fmt.Sprintf("m%d", i+1))
		h := control.Hello{Session: session, UID: "uid", Machine: n.row}
		m := control.Message{Session: session, N: 1, Full: true}
		for x := range w.loop.Snapshot().TasksOn(n.row.ID) {
			if to := rapid.SampledFrom([]task.State{task.Running, task.Running, task.Starting, task.Failed, task.Killed, task.Init}).Draw(rt, "state"); to != task.Init {
				m.Sightings = append(m.Sightings, task.Sighting{ID: x.ID, Config: x.Config, State: to})
			}
		}
		id := n.row.ID
		ins = append(ins, func(t *control.Turn) error { return t.Hello(h) }, func(t *control.Turn) error { return t.Hear(id, m) })
	}
	k := rapid.SampledFrom([]job.Key{"a/prod/x", "a/prod/y", "b/test/z"}).Draw(rt, "job")
	switch rapid.IntRange(0, 4).Draw(rt, "command") {
	case 0, 1:
		n := rapid.Int32Range(1, 6).Draw(rt, "instances")
		c := control.CreateJob{Job: job.Job{Key: k, Instances: job.FirstN(n), Config: config(1)}, By: "ann"}
		ins = append(ins, func(t *control.Turn) error { _, err := t.Do(c); return err })
	case 2:
		c := control.KillJob{Key: k, Instances: job.Ranges{{From: 1, To: 2}}, By: "ann"}
		ins = append(ins, func(t *control.Turn) error { _, err := t.Do(c); return err })
	case 3:
		c := control.RestartJob{Key: k, By: "ann"}
		ins = append(ins, func(t *control.Turn) error { _, err := t.Do(c); return err })
	default:
	}
	return ins
}

// TestOneMachineSpeaks holds messages to the sender's own tasks: what a machine
// says of another one's task moves nothing.
func TestOneMachineSpeaks(t *testing.T) {
	w := newWorld(t)
	w.do("machines m1 m2")
	w.do("create www/prod/web 0")
	x, ok := w.loop.Snapshot().Task(task.ID{Job: "www/prod/web", Attempt: 1})
	if !ok || x.Machine != "m1" {
		t.Fatalf("task %+v, want it on m1", x)
	}
	w.nodes["m2"].manual = true
	w.do("say m2 www/prod/web/0.1=FAILED")
	got, ok := w.loop.Snapshot().Task(x.ID)
	if !ok || got.State != task.Running || got.Machine != machine.ID("m1") {
		t.Errorf("after m2 said that it failed: %+v, want it running on m1", got)
	}
}

// TestExcuse: a loop that was not awake takes no machine for lost because of
// that, and one that is silent from then on all the same.
func TestExcuse(t *testing.T) {
	w := newWorld(t)
	w.do("machines m1 m2")
	w.do("create www/prod/web 0-3")
	up := func() (n int) {
		for m := range w.loop.Snapshot().Machines() {
			if m.Up {
				n++
			}
		}
		return n
	}
	w.now += 60 * second
	w.loop.Excuse(w.now)
	w.turn()
	if got := up(); got != 2 {
		t.Errorf("%d machines are up after the loop stood still; want 2", got)
	}
	w.do("silent m1")
	w.do("wait 31s")
	if got := up(); got != 1 {
		t.Errorf("%d machines are up after one was silent for 31 s; want 1", got)
	}
}

// TestWaiting: an agent whose words wait for their turn is not taken as silent,
// however late that comes; it is as soon as nothing of it waits any more.
func TestWaiting(t *testing.T) {
	w := newWorld(t)
	w.do("machines m1 m2")
	w.do("create www/prod/web 0-3")
	up := func(wait unit.Tick, waiting func(machine.ID) bool) (ids []machine.ID) {
		t.Helper()
		w.now += wait
		x := w.loop.Begin(w.now, w.now)
		x.Waiting(waiting)
		if _, err := x.End(); err != nil {
			t.Fatal(err)
		}
		w.loop.Commit(x)
		for m := range w.loop.Snapshot().Machines() {
			if m.Up {
				ids = append(ids, m.ID)
			}
		}
		return ids
	}
	speaks := func(id machine.ID) bool { return id == "m1" }
	for range 3 {
		if d := cmp.Diff([]machine.ID{"m1"}, up(60*second, speaks)); d != "" {
			t.Errorf("up while words of m1 wait (-want +got):\n%s", d)
		}
	}
	if got := up(9*second, nil); len(got) != 1 {
		t.Errorf("%v are up 9 s later; want m1, whose lease went on from when its words waited", got)
	}
	if got := up(2*second, nil); len(got) != 0 {
		t.Errorf("%v are up another 2 s later; want none", got)
	}
}
