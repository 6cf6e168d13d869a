package sched

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestAlternatives: of five machines one is down, one is of another rack, one is
// too small and two are alike; the task sits on one of those.
func TestAlternatives(t *testing.T) {
	w := newWorld(t)
	small, large := unit.Resources{CPU: 500}, unit.Resources{CPU: 1500}
	w.add("down", large, "rack", "a")
	w.edit("down", func(m *machine.Machine) { m.Up = false })
	w.add("other", large, "rack", "b")
	w.add("small", small, "rack", "a")
	w.add("one", large, "rack", "a")
	w.add("two", large, "rack", "a")
	cfg := asks(unit.Resources{CPU: 1000}, 0)
	cfg.Constraints = []job.Constraint{is("rack", "a")}
	j := job.Job{Key: "x/prod/y", Instances: job.FirstN(1), Config: cfg}
	at := state.Slot{Job: j.Key}
	w.do(state.PutJob{Job: j}, state.OpenSlot{Slot: at}, state.NewTask{Slot: at, Base: w.s.Rev + 1})
	id := task.ID{Job: j.Key, Attempt: 1}
	changes, _ := Plan(w.s, w.x, w.now, Limits{})
	w.do(changes...)
	got, err := Elsewhere(w.s, id, 5)
	if err != nil {
		t.Fatal(err)
	}
	want := Alternatives{Machines: 5, Allowed: 3, Room: 1, Scores: []Score{{Machine: "one", Thousandths: 1000, Here: true}, {Machine: "two", Thousandths: 1000}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err = Elsewhere(w.s, task.ID{Job: j.Key, Attempt: 2}, 5); fault.Of(err) != fault.NotFound {
		t.Errorf("of a task that is not there: %v; want an error of kind not found", err)
	}
}

// TestScores: the machine that a task was given is the first by the scores, in
// worlds of any kind, and the list is as long as was asked for.
func TestScores(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		for i := range rapid.IntRange(1, 8).Draw(rt, "machines") {
			id := machine.ID(fmt.Sprintf("m%d", i))
			w.add(id, unit.Resources{
				CPU: rapid.Int64Range(500, 4000).Draw(rt, "cpu"), RAM: rapid.Int64Range(1, 8).Draw(rt, "ram") * unit.MiB, Disk: rapid.Int64Range(1, 8).Draw(rt, "disk") * unit.MiB,
				GPU: 1000 * int64(i/7), // of one machine: among several, other things than the score decide
			})
			if rapid.IntRange(0, 3).Draw(rt, "avoided") == 0 {
				w.edit(id, func(m *machine.Machine) { m.Avoid = "it is old" })
			}
			if rapid.IntRange(0, 3).Draw(rt, "maintenance") == 0 {
				w.edit(id, func(m *machine.Machine) { m.Mode = machine.Scheduled })
			}
		}
		for i := range rapid.IntRange(1, 12).Draw(rt, "jobs") {
			k := job.Key(fmt.Sprintf("x/prod/j%d", i))
			c := asks(unit.Resources{CPU: rapid.Int64Range(1, 2000).Draw(rt, "needs"), RAM: rapid.Int64Range(0, 2).Draw(rt, "needs ram") * unit.MiB}, 0)
			c.Placement = rapid.SampledFrom([]string{"", job.Spread}).Draw(rt, "placement")
			last := rapid.Int32Range(0, 4).Draw(rt, "instances before")
			w.submit(k, last+1, c)
			w.plan()
			at := w.where(k, last)
			if at == "" {
				continue
			}
			most := rapid.IntRange(1, 4).Draw(rt, "scores")
			got, err := Elsewhere(w.s, w.id(k, last), most)
			if err != nil {
				rt.Fatal(err)
			}
			if len(got.Scores) == 0 || !got.Scores[0].Here || got.Scores[0].Machine != at || len(got.Scores) > most {
				rt.Fatalf("%s went to %s; the %d best are %+v", k, at, most, got.Scores)
			}
		}
	})
}

// TestScoresKeepHere: the machine where the task is has its score shown, however
// many are better by now.
func TestScoresKeepHere(t *testing.T) {
	var fits []fit
	for i, id := range []machine.ID{"a", "b", "c", "d"} {
		fits = append(fits, fit{machine: id, tree: preferred, left: int64(4-i) * scale, rank: int64(4 - i), here: id == "a"})
	}
	fits = append(fits, fit{machine: "e", tree: lastly, last: true})
	want := []Score{{Machine: "d", Thousandths: 1000}, {Machine: "c", Thousandths: 2000}, {Machine: "a", Thousandths: 4000, Here: true}}
	if d := cmp.Diff(want, scored(fits, 2)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	want = []Score{want[0], want[1], {Machine: "b", Thousandths: 3000}, want[2], {Machine: "e", Last: true}}
	if d := cmp.Diff(want, scored(fits, 9)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestScoresOfKept: a machine with GPUs that is kept for tasks that insist on
// its generation and wait comes after another, although it is the better fit.
func TestScoresOfKept(t *testing.T) {
	for _, c := range []struct {
		name  string
		waits int32 // instances of the job that insists
		room  int64 // of a machine, milli-cores
		huge  int64 // what one more job asks for that insists, more than a machine has
		want  []Score
	}{
		{"none waits", 1, 6000, 0, []Score{{Machine: "a", Here: true, GPUs: true}, {Machine: "b", GPUs: true}}},
		{"one waits and there is room for many", 40, 900_000, 1_000_000, []Score{{Machine: "a", Here: true, GPUs: true}, {Machine: "b", GPUs: true}}},
		{"some wait", 3, 6000, 0, []Score{{Machine: "b", Here: true, GPUs: true}, {Machine: "a", GPUs: true, Kept: "gen=x"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.add("a", unit.Resources{CPU: c.room, GPU: 1000}, "gen", "x")
			w.add("b", unit.Resources{CPU: c.room, GPU: 1000}, "gen", "y")
			if c.huge > 0 {
				w.submit("x/prod/huge", 1, asks(unit.Resources{CPU: c.huge}, 0, is("gen", "x")))
			}
			w.submit("x/prod/insists", c.waits, asks(unit.Resources{CPU: 4000}, 0, is("gen", "x")))
			w.plan()
			w.submit("x/prod/any", 1, asks(unit.Resources{CPU: 1000}, 0))
			w.plan()
			got, err := Elsewhere(w.s, w.id("x/prod/any", 0), 5)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got.Scores {
				got.Scores[i].Thousandths = 0
			}
			if d := cmp.Diff(c.want, got.Scores); d != "" {
				t.Errorf("it is on %s; (-want +got):\n%s", w.where("x/prod/any", 0), d)
			}
		})
	}
}
