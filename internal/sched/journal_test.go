package sched

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// picture is all that trees and hosts hold, in words.
func (x *Index) picture() (all []string) {
	all = append(all, fmt.Sprint("roots ", x.roots))
	for n := range x.nodes {
		h := x.hosts[n]
		h.at = 0 // counts changes, and to undo one is another
		all = append(all, fmt.Sprintf("%d: %v %+v", n, x.nodes[n], h))
	}
	return all
}

// TestPlanUndone: a plan leaves trees and hosts as it found them, to the last
// node, whether it places, gives GPUs or has others stopped, and so does a
// question how many would fit.
func TestPlanUndone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		for i := range rapid.IntRange(1, 40).Draw(rt, "machines") {
			r := unit.Resources{CPU: rapid.Int64Range(500, 4000).Draw(rt, "cpu"), RAM: gib * rapid.Int64Range(1, 8).Draw(rt, "ram")}
			if rapid.IntRange(0, 4).Draw(rt, "gpus") == 0 {
				r.GPU = 2000
			}
			w.add(machine.ID(fmt.Sprintf("m%03d", i)), r, "rack", string("ab"[i%2]))
		}
		for i := range rapid.IntRange(1, 6).Draw(rt, "jobs") {
			c := asks(unit.Resources{CPU: rapid.Int64Range(100, 1500).Draw(rt, "asks"), RAM: gib / 2}, i%3)
			switch rapid.IntRange(0, 5).Draw(rt, "kind") {
			case 0:
				c.Task.Resources.GPU = 500
			case 1:
				c.Constraints = append(c.Constraints, most("host", 2))
			case 2:
				c.Placement = job.Spread
			case 3:
				c.Tier = job.Preferred
			}
			k := job.Key(fmt.Sprintf("r/prod/j%d", i))
			w.submit(k, rapid.Int32Range(1, 60).Draw(rt, "tasks"), c)
			before := w.x.picture()
			changes, _ := Plan(w.s, w.x, w.now, Limits{})
			if d := gocmp.Diff(before, w.x.picture()); d != "" {
				rt.Fatalf("a plan of %d changes is not undone (-before +after):\n%s", len(changes), d)
			}
			Fit(w.s, w.x, k, &c, 100)
			if d := gocmp.Diff(before, w.x.picture()); d != "" {
				rt.Fatalf("the question how many fit is not undone (-before +after):\n%s", d)
			}
			w.do(changes...)
			if d := w.x.Audit(w.s); d != "" {
				rt.Fatalf("after the plan: %s", d)
			}
		}
	})
}

// TestJournalRound: when the number of plans has gone round, a mark of long ago
// is not taken for one of this plan.
func TestJournalRound(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.add(machine.ID(fmt.Sprintf("m%03d", i)), cpu(1000))
	}
	w.submit("r/prod/j", 30, asks(cpu(300), 0))
	w.x.journal.plan = 0
	before := w.x.picture()
	for _, when := range []string{"the first time", "a round later", "and then"} {
		Plan(w.s, w.x, w.now, Limits{})
		if d := gocmp.Diff(before, w.x.picture()); d != "" {
			t.Errorf("%s a plan is not undone (-before +after):\n%s", when, d)
		}
		if when == "the first time" {
			w.x.journal.plan = math.MaxUint32
		}
	}
	if got := w.x.journal; got.plan != 2 || got.open || len(got.hosts)+len(got.nodes) > 0 {
		t.Errorf("plan %d, open %t, with %d hosts and %d nodes; want 2, closed and empty", got.plan, got.open, len(got.hosts), len(got.nodes))
	}
}

// TestAuditTrees: the audit finds a node that knows too much or too little, and
// a task that waits with another revision or another machine to avoid.
func TestAuditTrees(t *testing.T) {
	for _, c := range []struct {
		what, want string
		spoil      func(x *Index)
	}{
		{"nothing", "", func(*Index) {}},
		{"more cpu than there is", "and those below it is known", func(x *Index) { x.nodes[x.roots[preferred][even]].sum.most.CPU++ }},
		{"less memory", "and those below it is known", func(x *Index) { x.nodes[x.roots[preferred][even]].sum.most.RAM-- }},
		{"a class less", "and those below it is known", func(x *Index) { x.nodes[x.roots[preferred][even]].sum.mask = bitmap{} }},
		{"another place", "and those below it is known", func(x *Index) { x.nodes[1].at.left++ }},
		{"another revision", "there wait", func(x *Index) { x.spoilWaiter(func(w *waiter) { w.rev++ }) }},
		{"another machine to avoid", "there wait", func(x *Index) { x.spoilWaiter(func(w *waiter) { w.avoid = "m1" }) }},
	} {
		w := newWorld(t)
		w.add("m1", unit.Resources{CPU: 1000, RAM: gib})
		w.add("m2", unit.Resources{CPU: 1000, RAM: gib})
		w.submit("r/prod/j", 1, asks(cpu(3000), 0))
		c.spoil(w.x)
		got := w.x.Audit(w.s)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("with %s the audit says %q; want %q", c.what, got, c.want)
		}
	}
}

// spoilWaiter changes a task that waits.
func (x *Index) spoilWaiter(how func(w *waiter)) {
	for _, g := range x.groups {
		for _, w := range slices.Clone(g.waiters()) {
			how(&w)
			g.tasks.ReplaceOrInsert(w)
		}
	}
}

// TestWaiterChanges: a task whose row changes while it waits is placed by the
// revision that it has now.
func TestWaiterChanges(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(1000))
	w.submit("r/prod/j", 1, asks(cpu(100), 0))
	id := w.id("r/prod/j", 0)
	row, _ := w.s.Task(id)
	w.do(state.MakeRoom{ID: id, Base: row.Rev, Reason: "no room was made for it"})
	if d := w.x.Audit(w.s); d != "" {
		t.Error(d)
	}
	w.plan()
	if got := w.where("r/prod/j", 0); got != "m1" {
		t.Errorf("it is on %q; want m1", got)
	}
}
