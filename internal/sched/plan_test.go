package sched

import (
	"slices"
	"strconv"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const web = job.Key("www/prod/web")

// TestRules places the instances of one job, one plan, and says where each
// of them went: "-" is nowhere.
func TestRules(t *testing.T) {
	big := unit.Resources{CPU: 4000, RAM: 8 * gib, Disk: 64 * gib}
	for _, c := range []struct {
		name  string
		setup func(w *world)
		n     int32
		asks  job.Config
		want  []string
	}{
		{"no machine", func(*world) {}, 1, asks(cpu(1000), 0), []string{"-"}},
		{
			"it fills one machine, then the next", func(w *world) { w.add("m1", cpu(2000)); w.add("m2", cpu(2000)) },
			5, asks(cpu(1000), 0),
			[]string{"m1", "m1", "m2", "m2", "-"},
		},
		{
			"the fullest first", func(w *world) { w.add("m1", cpu(4000)); w.add("m2", cpu(2000)) },
			2, asks(cpu(2000), 0),
			[]string{"m2", "m1"},
		},
		{"every measure counts", func(w *world) {
			w.add("m1", unit.Resources{CPU: 8000, RAM: gib})
			w.add("m2", unit.Resources{CPU: 8000, RAM: 8 * gib})
		}, 2, asks(unit.Resources{CPU: 1000, RAM: 2 * gib}, 0), []string{"m2", "m2"}},
		{"overhead and foreign use are not given out", func(w *world) {
			w.add("m1", cpu(2000))
			w.edit("m1", func(m *machine.Machine) { m.Overhead, m.Foreign = cpu(100), cpu(900) })
		}, 2, asks(cpu(1000), 0), []string{"m1", "-"}},
		{"a machine in debt takes nothing", func(w *world) {
			w.add("m1", unit.Resources{CPU: 2000, Net: 5})
			w.edit("m1", func(m *machine.Machine) { m.Foreign = unit.Resources{Net: 6} })
		}, 1, asks(cpu(1000), 0), []string{"-"}},
		{
			"bandwidth", func(w *world) { w.add("m1", unit.Resources{CPU: 4000, Net: 100e6}) },
			2, asks(unit.Resources{CPU: 1, Net: 60e6}, 0),
			[]string{"m1", "-"},
		},
		{"ports", func(w *world) {
			w.add("m1", big)
			w.edit("m1", func(m *machine.Machine) { m.Ports.To = m.Ports.From + 4 })
		}, 3, asks(cpu(1), 2), []string{"m1", "m1", "-"}},
		{
			"shares sit on one GPU", func(w *world) { w.add("m1", unit.Resources{GPU: 2000}) },
			3, asks(unit.Resources{GPU: 600}, 0),
			[]string{"m1", "m1", "-"},
		},
		{
			"several GPUs are whole ones", func(w *world) { w.add("m1", unit.Resources{GPU: 3000}) },
			2, asks(unit.Resources{GPU: 1500}, 0),
			[]string{"m1", "-"},
		},
		{"down, draining and drained never; scheduled last", func(w *world) {
			for i, mode := range []machine.Mode{machine.None, machine.Draining, machine.Drained, machine.Scheduled, machine.None} {
				id := machine.ID("m" + strconv.Itoa(i))
				w.add(id, cpu(int64(1000*(5-i))))
				w.edit(id, func(m *machine.Machine) { m.Mode, m.Up = mode, i != 0 })
			}
			w.add("m5", cpu(9000))
		}, 3, asks(cpu(1000), 0), []string{"m4", "m5", "m5"}},
		{"scheduled if nothing else", func(w *world) {
			w.add("m1", cpu(1000))
			w.edit("m1", func(m *machine.Machine) { m.Mode = machine.Scheduled })
			w.add("m2", cpu(2000))
		}, 3, asks(cpu(1000), 0), []string{"m2", "m2", "m1"}},
		{"one of several values", racks, 9, asks(big, 0, is("rack", "b", "c")), []string{"mb", "mbc", "-", "-", "-", "-", "-", "-", "-"}},
		{"none of several values; a missing attribute passes", racks, 3, asks(big, 0, not("rack", "b", "c")), []string{"m", "ma", "-"}},
		{"constraints add up", racks, 2, asks(big, 0, is("rack", "b"), not("rack", "c")), []string{"mb", "-"}},
		{"at most one per host", racks, 5, asks(cpu(1), 0, most("host", 1)), []string{"m", "ma", "mb", "mbc", "-"}},
		{
			"at most two per rack; no rack is no place", racks, 7, asks(cpu(1), 0, most("rack", 2)),
			[]string{"ma", "ma", "mb", "mb", "-", "-", "-"},
		},
		{"several values count for each", racks, 4, asks(cpu(1), 0, most("rack", 1), is("host", "mbc", "mb")), []string{"mb", "-", "-", "-"}},
		{"a dedicated machine refuses others", kept, 2, asks(big, 0), []string{"m1", "-"}},
		{"a dedicated machine takes those who ask", kept, 2, asks(big, 0, is("dedicated", "www/x")), []string{"m2", "-"}},
		{"not in another role's name", kept, 1, asks(big, 0, is("dedicated", "ads/x")), []string{"-"}},
		{"in everybody's name", kept, 2, asks(big, 0, is("dedicated", "*/x")), []string{"m4", "-"}},
		{"a negated wish is no wish", kept, 2, asks(big, 0, not("dedicated", "www/x")), []string{"m1", "-"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.setup(w)
			w.submit(web, c.n, c.asks)
			w.plan()
			var got []string
			for i := range c.n {
				at := string(w.where(web, i))
				if at == "" {
					at = "-"
				}
				got = append(got, at)
			}
			if d := gocmp.Diff(c.want, got); d != "" {
				t.Errorf("places (-want +got):\n%s", d)
			}
		})
	}
}

// racks adds machines of one size on rack a, on rack b, on both b and c, and on none.
func racks(w *world) {
	big := unit.Resources{CPU: 4000, RAM: 8 * gib, Disk: 64 * gib}
	w.add("m", big)
	w.add("ma", big, "rack", "a")
	w.add("mb", big, "rack", "b")
	w.add("mbc", big, "rack", "b", "rack", "c")
}

// kept adds a machine for everybody and one dedicated to each of several.
func kept(w *world) {
	big := unit.Resources{CPU: 4000, RAM: 8 * gib, Disk: 64 * gib}
	w.add("m1", big)
	w.add("m2", big, "dedicated", "www/x")
	w.add("m3", big, "dedicated", "ads/x")
	w.add("m4", big, "dedicated", "*/x")
}

func TestUrgentFirst(t *testing.T) {
	w := newWorld(t)
	for _, j := range []struct {
		name, tier string
		prio       int32
	}{{"revocable", job.Revocable, 9}, {"old", job.Preemptible, 5}, {"young", job.Preemptible, 5}, {"urgent", job.Preemptible, 6}, {"prod", job.Preferred, 0}} {
		c := asks(cpu(1000), 0)
		c.Tier, c.Priority = j.tier, j.prio
		w.submit(job.NewKey("r", "prod", j.name), 1, c)
	}
	w.add("m1", cpu(5000))
	changes, _ := Plan(w.s, w.x, w.now, Limits{})
	var got []string
	for _, c := range changes {
		got = append(got, c.(state.StepTask).ID.Job.Name())
	}
	if d := gocmp.Diff([]string{"prod", "urgent", "old", "young", "revocable"}, got); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}

// TestBackfill: a task that fits nowhere holds up none that is less urgent.
func TestBackfill(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(1000))
	large := asks(cpu(9000), 0)
	large.Priority = 9
	w.submit("r/prod/large", 2, large)
	w.submit("r/prod/small", 1, asks(cpu(1000), 0))
	waits := w.plan()
	if got := w.where("r/prod/small", 0); got != "m1" {
		t.Errorf("the small task is on %q; want m1", got)
	}
	if len(waits.Groups) != 1 || waits.Groups[0].Tasks != 2 {
		t.Errorf("groups that wait: %+v; want one of 2 tasks", waits.Groups)
	}
}

// TestElsewhere: an instance that failed or was lost on a machine gets another
// one, but that one rather than none.
func TestElsewhere(t *testing.T) {
	for _, end := range []task.State{task.Failed, task.Lost} {
		w := newWorld(t)
		w.add("m1", cpu(1000))
		w.add("m2", cpu(9000))
		w.edit("m2", func(m *machine.Machine) { m.Mode = machine.Scheduled })
		w.submit(web, 1, asks(cpu(1000), 0))
		w.plan()
		if got := w.where(web, 0); got != "m1" {
			t.Fatalf("first on %q; want m1", got)
		}
		w.step(w.id(web, 0), end)
		w.open(web, 1)
		w.plan()
		if got := w.where(web, 0); got != "m2" {
			t.Errorf("after %v on m1 it is on %q; want m2", end, got)
		}
		w.step(w.id(web, 0), end)
		w.edit("m1", func(m *machine.Machine) { m.Up = false })
		w.open(web, 1)
		w.plan()
		if got := w.where(web, 0); got != "m2" {
			t.Errorf("after %v on m2, the only machine, it is on %q; want m2", end, got)
		}
	}
}

// TestLimitPerJob: a limit counts its own job, of every config, and forgets
// who has ended.
func TestLimitPerJob(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(9000))
	w.submit("r/prod/other", 3, asks(cpu(1), 0))
	w.plan()
	w.submit(web, 1, asks(cpu(1), 0))
	w.plan()
	w.submit(web, 2, asks(cpu(2), 0, most("host", 1)))
	w.plan()
	if got := w.where(web, 1); got != "" {
		t.Errorf("the second of the job is on %q; want it to wait, for one of another config is there", got)
	}
	w.step(w.id(web, 0), task.Killing)
	w.step(w.id(web, 0), task.Killed)
	w.plan()
	if got := w.where(web, 1); got != "m1" {
		t.Errorf("after the first has ended the second is on %q; want m1", got)
	}
}

// TestPortsMoveOn: a port that was just given up is not the next one given out.
func TestPortsMoveOn(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(1000))
	w.submit(web, 1, asks(cpu(1000), 2))
	var last []uint16
	for round := range 50 {
		w.open(web, 1)
		w.plan()
		got, _ := w.s.Task(w.id(web, 0))
		if len(got.Ports) != 2 || got.Ports[0] == got.Ports[1] {
			t.Fatalf("round %d: ports %v; want two", round, got.Ports)
		}
		for _, p := range got.Ports {
			if p < 31000 || p > 31009 || slices.Contains(last, p) {
				t.Fatalf("round %d: ports %v after %v; want others of 31000 to 31009", round, got.Ports, last)
			}
		}
		last = got.Ports
		w.step(got.ID, task.Running)
		w.step(got.ID, task.Failed)
	}
}

// TestMore: a plan places as many as it may and says that there are more.
func TestMore(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(200_000))
	w.submit(web, 150, asks(cpu(1000), 0))
	for i, want := range []struct {
		n    int
		more bool
	}{{70, true}, {70, true}, {10, false}, {0, false}} {
		changes, waits := Plan(w.s, w.x, w.now, Limits{Placements: 70})
		if len(changes) != want.n || waits.More != want.more {
			t.Errorf("plan %d: %d placed, more %t; want %+v", i, len(changes), waits.More, want)
		}
		w.do(changes...)
	}
}

// TestDropped: a plan of which nothing was applied is made again, the same.
func TestDropped(t *testing.T) {
	w := newWorld(t)
	racks(w)
	w.submit(web, 6, asks(cpu(700), 1, most("host", 2)))
	first, _ := Plan(w.s, w.x, w.now, Limits{})
	again, _ := Plan(w.s, w.x, w.now, Limits{})
	fresh, _ := Plan(w.s, NewIndex(w.s), w.now, Limits{})
	if len(first) != 6 {
		t.Errorf("%d placed; want 6", len(first))
	}
	if d := gocmp.Diff(first, again); d != "" {
		t.Errorf("second plan (-first +second):\n%s", d)
	}
	if d := gocmp.Diff(first, fresh); d != "" {
		t.Errorf("plan with a fresh index (-first +fresh):\n%s", d)
	}
}

// TestManyClasses: more classes than have bits of their own, and more than are
// remembered, place all the same.
func TestManyClasses(t *testing.T) {
	w := newWorld(t)
	for i := range 40 {
		w.add(machine.ID("m"+strconv.Itoa(i)), cpu(1000), "slot", strconv.Itoa(i))
	}
	for round := range 10 {
		for i := range 40 {
			k := job.NewKey("r", "prod", "j"+strconv.Itoa(i))
			w.submit(k, 1, asks(cpu(1000), 0, is("slot", strconv.Itoa(i), "round"+strconv.Itoa(round))))
		}
		w.plan()
		for i := range 40 {
			k := job.NewKey("r", "prod", "j"+strconv.Itoa(i))
			if got, want := w.where(k, 0), machine.ID("m"+strconv.Itoa(i)); got != want {
				t.Fatalf("round %d: %s is on %q; want %s", round, k, got, want)
			}
			w.step(w.id(k, 0), task.Killing)
			w.step(w.id(k, 0), task.Killed)
		}
		if d := w.x.Audit(w.s); d != "" {
			t.Fatal(d)
		}
	}
	if n := len(w.x.classes); n > classesKept+40 {
		t.Errorf("%d classes are remembered; want at most %d", n, classesKept+40)
	}
}

// TestAudit: an index that missed a change is found out.
func TestAudit(t *testing.T) {
	for name, miss := range map[string]func(w *world) state.Change{
		"task": func(w *world) state.Change {
			return state.StepTask{ID: w.id(web, 0), Base: w.s.Rev, Event: task.Event{To: task.Assigned, Machine: "m1"}}
		},
		"machine": func(w *world) state.Change {
			m, _ := w.s.Machine("m1")
			m.Foreign = cpu(1)
			return state.PutMachine{Machine: m.Machine, Base: m.Rev}
		},
	} {
		w := newWorld(t)
		w.add("m1", cpu(9000))
		w.submit(web, 1, asks(cpu(1), 0, most("host", 1)))
		if d := w.x.Audit(w.s); d != "" {
			t.Errorf("%s: before: %s", name, d)
		}
		d := state.NewDraft(w.s, w.now)
		if err := d.Apply(miss(w)); err != nil {
			t.Fatal(err)
		}
		if w.x.Audit(d.Snapshot()) == "" {
			t.Errorf("%s: a missed change was not found", name)
		}
	}
}

// TestFit: what would fit is what does fit when it is asked for.
func TestFit(t *testing.T) {
	for _, c := range []struct {
		name string
		asks job.Config
		want int
	}{
		{"by resources", asks(cpu(1500), 0), 8},
		{"by limit, less the one there is", asks(cpu(1), 0, most("host", 1)), 3},
		{"by ports", asks(cpu(1), 3), 12},
		{"up to what is asked", asks(cpu(1), 0), 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			racks(w)
			w.submit(web, 1, asks(cpu(1), 0))
			w.plan()
			if got := Fit(w.s, w.x, web, &c.asks, 40); got != c.want {
				t.Errorf("Fit is %d; want %d", got, c.want)
			}
			if d := w.x.Audit(w.s); d != "" {
				t.Errorf("Fit changed the index: %s", d)
			}
			w.submit(web, 41, c.asks)
			if changes, _ := Plan(w.s, w.x, w.now, Limits{}); min(len(changes), 40) != c.want {
				t.Errorf("%d of 40 more were placed; want %d", len(changes), c.want)
			}
		})
	}
}

func TestGPUs(t *testing.T) {
	for _, c := range []struct {
		total int64
		asked []int64
		want  bool
	}{
		{2000, []int64{300, 300, 700, 700}, true}, // the larger shares first
		{2000, []int64{600, 600, 500}, false},
		{3000, []int64{600, 600, 500, 500}, true},
		{2500, []int64{2000, 500}, true}, // others use half of the third
		{2500, []int64{2000, 600}, false},
		{2500, []int64{2500}, false},
		{1000, []int64{1000, 1}, false},
		{0, nil, true},
		{-1, []int64{1}, false},
	} {
		h := host{devs: devicesOf(c.total)}
		before := totalOf(h.devs)
		want := int64(0)
		for _, a := range c.asked {
			n, each := gpusOf(a)
			want += n * each
		}
		h.guess(slices.Clone(c.asked))
		if got := before-totalOf(h.devs) == want; got != c.want {
			t.Errorf("%v fit on GPUs of %d: %t; want %t", c.asked, c.total, got, c.want)
		}
	}
}

// TestManyFreed: more machines than a search keeps aside become free behind it.
func TestManyFreed(t *testing.T) {
	w := newWorld(t)
	for i := range 40 {
		w.add(machine.ID("m"+strconv.Itoa(i)), cpu(1000))
	}
	w.submit(web, 40, asks(cpu(1000), 0))
	w.plan()
	w.submit("r/prod/next", 40, asks(cpu(1000), 0))
	w.plan()
	const freed = 2 * someAtMost
	var ends []state.Change
	for i := range int32(freed) {
		row, _ := w.s.Task(w.id(web, i))
		ends = append(ends, state.StepTask{ID: row.ID, Base: row.Rev, Event: task.Event{To: task.Failed}})
	}
	w.do(ends...)
	if changes, _ := Plan(w.s, w.x, w.now, Limits{}); len(changes) != freed {
		t.Errorf("%d tasks placed on %d machines that are free again; want all", len(changes), freed)
	}
}

// TestProposed: a proposal that was folded and then dropped is forgotten by
// folding what was before, or what came instead, with its keys.
func TestProposed(t *testing.T) {
	w := newWorld(t)
	w.add("m1", cpu(1000))
	before := w.s
	w.submit(web, 1, asks(cpu(100), 0, most("host", 1)))
	w.plan()
	w.submit("r/prod/other", 1, asks(cpu(100), 1))
	d := state.NewDraft(before, w.now+unit.Hour) // the same ids, made at another time
	for _, c := range []state.Change{
		state.PutJob{Job: job.Job{Key: "r/prod/other", Instances: job.FirstN(1), Config: asks(cpu(200), 0)}},
		state.OpenSlot{Slot: state.Slot{Job: "r/prod/other"}},
		state.NewTask{Slot: state.Slot{Job: "r/prod/other"}, Base: before.Rev + 1},
	} {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	delta := d.Changed()
	delta.Machines["m1"], delta.Jobs[web] = true, true
	delta.Tasks[w.id(web, 0)], delta.Tasks[w.id("r/prod/other", 0)] = true, true
	w.x.Fold(d.Snapshot(), delta)
	if diff := w.x.Audit(d.Snapshot()); diff != "" {
		t.Errorf("after what came instead: %s", diff)
	}
	w.x.Fold(before, delta)
	if diff := w.x.Audit(before); diff != "" {
		t.Errorf("after what was before: %s", diff)
	}
}
