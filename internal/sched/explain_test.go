package sched

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestTexts holds what people are told, by the plan and by Explain alike.
func TestTexts(t *testing.T) {
	big := unit.Resources{CPU: 4000, RAM: 8 * gib, Disk: 64 * gib}
	for _, c := range []struct {
		name  string
		setup func(w *world)
		asks  job.Config
		text  string
	}{
		{"nothing there", func(*world) {}, asks(cpu(1), 0), "no machine fits: the cluster has no machine"},
		{"too full", func(w *world) {
			for i, id := range []machine.ID{"m1", "m2", "m3"} {
				w.add(id, cpu(4000))
				w.edit(id, func(m *machine.Machine) { m.Foreign = cpu(int64(2000 - 500*(i%2))) })
			}
			w.edit("m3", func(m *machine.Machine) { m.Mode = machine.Draining })
			w.add("m0", cpu(4000))
			w.edit("m0", func(m *machine.Machine) { m.Up = false })
		}, asks(cpu(4000), 0), "no machine fits: 2 of 4 lack cpu (need 4, nearest m2 has 2.5), 1 is draining, 1 is down"},
		{
			"two measures", func(w *world) {
				w.add("m1", big)
				w.submit("r/prod/x", 1, asks(unit.Resources{CPU: 3000, RAM: 7 * gib}, 0))
			}, asks(unit.Resources{CPU: 2000, RAM: 2 * gib}, 0),
			"no machine fits: 1 of 1 lacks cpu (need 2, nearest m1 has 1), 1 lacks ram (need 2 GiB, nearest m1 has 1 GiB)",
		},
		{
			"a giant", func(w *world) {
				w.add("m1", big)
				w.add("m2", unit.Resources{CPU: 1000, RAM: 23*gib + gib/2, Disk: gib})
			},
			asks(unit.Resources{CPU: 1000, RAM: 64 * gib}, 0), "larger than any machine: needs ram 64 GiB, the largest has 23.5 GiB",
		},
		{
			"a giant in sum", func(w *world) { w.add("m1", big); w.add("m2", unit.Resources{CPU: 1000, RAM: 16 * gib}) },
			asks(unit.Resources{CPU: 4000, RAM: 16 * gib}, 1), "larger than any machine: needs cpu 4, ram 16 GiB, 1 port together, and no machine has all of it",
		},
		{
			"a giant where it may go", func(w *world) { w.add("m1", big); w.add("m2", cpu(1000), "rack", "a") },
			asks(cpu(2000), 0, is("rack", "a")), "larger than any machine that its constraints allow: needs cpu 2, the largest has 1",
		},
		{"ports", func(w *world) {
			w.add("m1", big)
			w.submit("r/prod/x", 1, asks(cpu(1), 8))
		}, asks(cpu(1), 3), "no machine fits: 1 of 1 lacks ports (need 3, nearest m1 has 2)"},
		{"ports for a giant", func(w *world) { w.add("m1", big) }, asks(cpu(1), 11), "larger than any machine: needs 11 ports, the largest has 10"},
		{"a split gpu", func(w *world) {
			w.add("m1", unit.Resources{GPU: 2000})
			w.submit("r/prod/x", 2, asks(unit.Resources{GPU: 600}, 0))
		}, asks(unit.Resources{GPU: 500}, 0), "no machine fits: 1 of 1 lacks a gpu with so much left (need 0.5, nearest m1 has 0.8 over all)"},
		{"constraints", racks, asks(cpu(1), 0, is("rack", "x", "y")), "no machine fits: 4 of 4 do not match rack=x,y"},
		{"negated", func(w *world) { w.add("m1", big, "rack", "a") }, asks(cpu(1), 0, not("rack", "a")), "no machine fits: 1 of 1 does not match rack=!a"},
		{"limit", func(w *world) {
			racks(w)
			w.submit(web, 2, asks(cpu(1), 0, most("rack", 1)))
		}, asks(cpu(1), 0, most("rack", 1)), "no machine fits: 3 of 4 are at the limit of 1 per rack, 1 has no attribute rack, by which tasks are counted"},
		{"dedicated", func(w *world) { w.add("m1", big, "dedicated", "ads/x") }, asks(cpu(1), 0), "no machine fits: 1 of 1 is dedicated to ads/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.setup(w)
			w.plan()
			n := int32(0)
			for range w.s.TasksOf(web) {
				n++
			}
			w.submit(web, n+1, c.asks)
			waits := w.plan()
			id := w.id(web, n)
			row, _ := w.s.Task(id)
			got, ok := waits.Of(row.Task)
			if !ok || got.Text != c.text {
				t.Errorf("the plan says %q; want %q", got.Text, c.text)
			}
			if len(got.Text) > 300 {
				t.Errorf("the text is %d bytes long", len(got.Text))
			}
			alone, err := Explain(w.s, id, 2)
			if err != nil {
				t.Fatal(err)
			}
			_, _, machines := w.s.Len()
			if len(alone.Machines) != min(2, machines) {
				t.Errorf("%d machines in detail; want at most 2 of %d", len(alone.Machines), machines)
			}
			alone.Machines = nil
			if d := gocmp.Diff(got, alone); d != "" {
				t.Errorf("Explain (-plan +alone):\n%s", d)
			}
		})
	}
}

// TestNearest: a machine that is merely full is nearer than one that is ruled out.
func TestNearest(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(8000), "dedicated", "ads/x")
	w.add("m2", cpu(8000), "rack", "b")
	w.add("m3", cpu(8000), "rack", "a")
	w.edit("m3", func(m *machine.Machine) { m.Foreign = cpu(7999) })
	w.add("m4", cpu(8000), "rack", "a")
	w.edit("m4", func(m *machine.Machine) { m.Foreign = cpu(7000) })
	w.submit(web, 1, asks(cpu(2000), 0, is("rack", "a")))
	waits := w.plan()
	want := &Verdict{"m4", []Lack{{Rule: CPU, Need: 2000, Have: 1000}}}
	if d := gocmp.Diff(want, waits.Groups[0].Nearest); d != "" {
		t.Errorf("nearest (-want +got):\n%s", d)
	}
}

// TestNearestLacksAll: whoever mends one of the constraints that the nearest
// machine breaks hears at once of the others, and of what it has too little of.
// Of machines that are ruled out alike, the one that breaks least is nearest.
func TestNearestLacksAll(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(1000), "rack", "b", "disk", "hdd", "zone", "y")
	w.add("m2", cpu(1000), "rack", "b", "disk", "hdd", "zone", "x")
	w.add("m3", cpu(8000), "rack", "a", "disk", "ssd", "zone", "x")
	w.edit("m3", func(m *machine.Machine) { m.Mode = machine.Drained })
	limit := job.Constraint{Attribute: "row", Limit: 1}
	w.submit(web, 1, asks(cpu(2000), 0, is("rack", "a"), is("disk", "ssd"), is("zone", "x"), limit))
	waits := w.plan()
	want := &Verdict{"m2", []Lack{
		{Rule: Constraint, Detail: "rack=a"},
		{Rule: Constraint, Detail: "disk=ssd"},
		{Rule: Attribute, Detail: "row"},
		{Rule: CPU, Need: 2000, Have: 1000},
	}}
	if d := gocmp.Diff(want, waits.Groups[0].Nearest); d != "" {
		t.Errorf("nearest (-want +got):\n%s", d)
	}
	got, err := Explain(w.s, w.id(web, 0), 9)
	if err != nil || len(got.Machines) != 3 {
		t.Fatalf("Explain: %v, %d machines; want 3", err, len(got.Machines))
	}
	if d := gocmp.Diff(*want, got.Machines[1]); d != "" {
		t.Errorf("m2 in detail (-want +got):\n%s", d)
	}
	if d := gocmp.Diff([]Lack{{Rule: Drained}, {Rule: Attribute, Detail: "row"}}, got.Machines[2].Lacks); d != "" {
		t.Errorf("m3, which is drained, lacks (-want +got):\n%s", d)
	}
}

func TestExplainOthers(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(1000))
	w.submit(web, 2, asks(cpu(1000), 0))
	got, err := Explain(w.s, w.id(web, 0), 9)
	if want := "machine m1 fits; it waits for its turn"; err != nil || got.Text != want {
		t.Errorf("before its turn: %q, %v; want %q", got.Text, err, want)
	}
	w.plan()
	w.step(w.id(web, 0), task.Running)
	got, err = Explain(w.s, w.id(web, 0), 9)
	if want := "does not wait for a machine: it is RUNNING on m1"; err != nil || got.Text != want {
		t.Errorf("running: %q, %v; want %q", got.Text, err, want)
	}
	_, err = Explain(w.s, task.ID{Job: web, Instance: 7, Attempt: 1}, 9)
	if fault.Of(err) != fault.NotFound {
		t.Errorf("unknown: %v; want an error of kind not found", err)
	}
}

// TestLooks: reasons cost no more than the limit allows, and shapes share them.
func TestLooks(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.add(machine.ID("m"+strconv.Itoa(i)), cpu(1000))
	}
	for i := range 6 {
		w.submit(job.NewKey("r", "prod", "same"+strconv.Itoa(i)), 1, asks(cpu(2000), 0))
		w.submit(job.NewKey("r", "prod", "other"+strconv.Itoa(i)), 1, asks(cpu(int64(3000+i)), 0))
	}
	_, waits := Plan(w.s, w.x, w.now, Limits{Looks: 35})
	told := 0
	for _, g := range waits.Groups {
		if strings.HasPrefix(g.Text, "larger than any machine: ") {
			told++
		} else if g.Text != tooMany {
			t.Errorf("%s waits because %q", g.Job, g.Text)
		}
	}
	if want := 6 + 2; told != want || len(waits.Groups) != 12 {
		t.Errorf("%d of %d groups were explained; want %d of 12: three surveys of ten machines", told, len(waits.Groups), want)
	}
}

// TestSpreadAndAffinity: where tasks go, and what people hear of the rest.
func TestSpreadAndAffinity(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"a1", "a2", "b1", "c1"} {
		w.add(machine.ID(id), cpu(4000), "rack", id[:1])
	}
	con := func(c job.Constraint) job.Config { return asks(cpu(1000), 0, c) }
	racks := func(k job.Key) string {
		var out []string
		for x := range w.s.TasksOf(k) {
			if x.Machine != "" {
				out = append(out, string(x.Machine[:1]))
			}
		}
		slices.Sort(out)
		return strings.Join(out, "")
	}
	w.submit("r/prod/even", 7, con(job.Constraint{Attribute: "rack", Spread: 1}))
	w.plan()
	if got := racks("r/prod/even"); got != "aaabbcc" {
		t.Errorf("seven tasks over three racks are on %s; want aaabbcc", got)
	}
	w.edit("c1", func(m *machine.Machine) { m.Capacity = cpu(2000) })
	w.submit("r/prod/even", 20, con(job.Constraint{Attribute: "rack", Spread: 1}))
	waits := w.plan()
	if got := racks("r/prod/even"); got != "aaabbbcc" {
		t.Errorf("with a rack that is full, they are on %s; want aaabbbcc", got)
	}
	if want := "no machine fits: 1 of 4 lacks cpu (need 1, nearest c1 has 0), 3 are where the job has 1 more per rack than where it has the fewest"; len(waits.Groups) != 1 || waits.Groups[0].Text != want {
		t.Errorf("the rest waits because %q; want %q", waits.Groups[0].Text, want)
	}
	w.submit("r/prod/near", 2, con(job.Constraint{Attribute: "rack", With: "r/prod/db"}))
	waits = w.plan()
	if text := waits.Groups[len(waits.Groups)-1].Text; !strings.Contains(text, "do not match rack=with:r/prod/db") {
		t.Errorf("near a job that is nowhere: %q", text)
	}
	db := asks(cpu(500), 0, is("rack", "b"))
	w.submit("r/prod/db", 1, db)
	w.plan() // the database
	w.plan() // what wants to be near it
	if got := racks("r/prod/near"); got != "" {
		t.Errorf("near %s; want nowhere, for rack b has half a core left", got)
	}
	w.edit("b1", func(m *machine.Machine) { m.Capacity = cpu(8000) })
	w.plan()
	if got := racks("r/prod/near"); got != "bb" {
		t.Errorf("near %s; want bb", got)
	}
	w.submit("r/prod/far", 1, con(job.Constraint{Attribute: "rack", With: "r/prod/even", Negated: true}))
	waits = w.plan()
	if text := waits.Groups[len(waits.Groups)-1].Text; !strings.Contains(text, "rack=without:r/prod/even") {
		t.Errorf("far from a job that is everywhere: %q", text)
	}
}

// TestReasonsTakeTurns: where reasons cost too much for one plan, each plan
// looks into other groups, until all are told what is true now; then none does.
func TestReasonsTakeTurns(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.add(machine.ID("m"+strconv.Itoa(i)), cpu(1000))
	}
	for i := range 5 {
		w.submit(job.NewKey("r", "prod", "j"+strconv.Itoa(i)), 1, asks(cpu(int64(2000+i)), 0))
	}
	plan := func() (told int, w2 Waits) {
		_, waits := Plan(w.s, w.x, w.now, Limits{Looks: 25})
		for _, g := range waits.Groups {
			if g.Text != tooMany {
				told++
			}
		}
		return told, waits
	}
	for round, want := range []int{2, 4, 5, 5} {
		told, waits := plan()
		if told != want {
			t.Errorf("plan %d: %d of 5 groups are told why they wait; want %d", round, told, want)
		}
		if soon := waits.Next == w.now+second; soon != (want < 5) {
			t.Errorf("plan %d is to be made again at %d; want that within a second: %t", round, waits.Next, want < 5)
		}
	}
	w.edit("m3", func(m *machine.Machine) { m.Up = false })
	fresh := func() (n int) {
		_, waits := plan()
		for _, g := range waits.Groups {
			if strings.Contains(g.Text, "1 is down") || g.Reasons[len(g.Reasons)-1].Rule == Down {
				n++
			}
		}
		return n
	}
	for round, want := range []int{2, 4, 5, 5} {
		if got := fresh(); got != want {
			t.Errorf("plan %d after a machine is lost: %d of 5 groups are told of it; want %d", round, got, want)
		}
	}
	if len(w.x.reasons) != 5 {
		t.Errorf("%d reasons are kept; want those of the five that wait", len(w.x.reasons))
	}
}
