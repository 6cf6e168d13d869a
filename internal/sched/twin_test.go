package sched

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// The twin places by the same rules and scans everything for each task. It
// shares no code with the package: what it needs it reads from the snapshot.
type twin struct {
	s     *state.Snapshot
	held  map[machine.ID][]state.Task // before this plan
	extra map[machine.ID][]state.Task // placed by this plan
	rooms map[machine.ID][]state.Task // of pending tasks, on their machines
	ends  map[task.ID]bool            // tasks that this plan has stopped

	popular *[]wish         // see kinds
	left    map[int64]int64 // see remains
}

func newTwin(s *state.Snapshot) *twin {
	w := &twin{s: s, held: map[machine.ID][]state.Task{}, extra: map[machine.ID][]state.Task{}, left: map[int64]int64{}, rooms: map[machine.ID][]state.Task{}, ends: map[task.ID]bool{}}
	for t := range s.Tasks() {
		if t.State.Placed() {
			w.held[t.Machine] = append(w.held[t.Machine], t)
		}
		if t.Room != "" {
			w.rooms[t.Room] = append(w.rooms[t.Room], t)
		}
	}
	for m := range s.Machines() {
		for _, x := range m.Strays { // they are of no job here
			held := task.Task{Machine: m.ID, Resources: x.Resources, Ports: x.Ports, GPUs: x.GPUs}
			w.held[m.ID] = append(w.held[m.ID], state.Task{Task: held})
		}
	}
	return w
}

type choice struct {
	Task    string
	Machine machine.ID
	GPUs    string
	Stopped string // instead of a place: who is stopped for it
}

// plan returns what becomes of each task, in order, and the tasks that found nothing.
func (w *twin) plan(now unit.Tick) (placed []choice, waits []string) {
	var pending []state.Task
	for t := range w.s.Tasks() {
		if t.State == task.Pending && t.Room == "" {
			pending = append(pending, t)
		} else if t.State == task.Pending {
			if c, ok := w.settle(t, now); ok {
				placed = append(placed, c)
			} else {
				waits = append(waits, t.ID.String())
			}
		}
	}
	tiers := map[string]int{job.Preferred: 1, job.Preemptible: 2, job.Revocable: 3}
	slices.SortFunc(pending, func(a, b state.Task) int {
		p, q := w.config(a), w.config(b)
		return cmp.Or(tiers[p.Tier]-tiers[q.Tier], int(q.Priority)-int(p.Priority), cmp.Compare(a.Created, b.Created), a.ID.Compare(b.ID))
	})
	done := map[task.ID]bool{}
	for i, t := range pending {
		if done[t.ID] {
			continue
		}
		if m := w.best(t); m != "" {
			placed = append(placed, w.put(t, m))
			continue
		}
		for _, o := range pending[i:] { // its like have no better luck
			if o.ID.Job != t.ID.Job || o.Config != t.Config {
				continue
			}
			done[o.ID] = true
			if c, ok := w.room(o); ok {
				placed = append(placed, c)
			}
			waits = append(waits, o.ID.String())
		}
	}
	return placed, waits
}

func (w *twin) put(t state.Task, m machine.ID) choice {
	if t.Resources.GPU > 0 {
		row, _ := w.s.Machine(m)
		t.GPUs = w.gpus(t, row).pick
	}
	w.extra[m] = append(w.extra[m], t)
	return choice{Task: t.ID.String(), Machine: m, GPUs: fmt.Sprint(t.GPUs)}
}

func (w *twin) config(t state.Task) *job.Config { c, _ := w.s.Config(t.Config); return c }

func (w *twin) on(m machine.ID) []state.Task {
	return slices.Concat(w.held[m], w.extra[m])
}

// best ranks every machine that fits: the one failed on last, those avoided
// last but that, then those with maintenance scheduled, those with GPUs, of these those that others who wait insist on,
// then for a job that spreads those with more of its tasks; then by shelf; then the least left over, or the most; then the id.
func (w *twin) best(t state.Task) machine.ID {
	in, _ := w.s.Instance(state.Slot{Job: t.ID.Job, N: t.ID.Instance})
	top, others := w.top(), w.insisting(t)
	var best machine.ID
	var score [9]int64
	for m := range w.s.Machines() {
		if !w.fits(t, m) {
			continue
		}
		var s [9]int64
		if in.Last.Machine == m.ID && (in.Last.State == task.Failed || in.Last.State == task.Lost) {
			s[0] = 1
		}
		s[1] = int64(m.Mode)
		if m.Avoid != "" {
			s[1] = 9
		}
		free := w.free(m)
		for _, x := range unit.Measures() {
			if f := free.Of(x); f > 0 && top.Of(x) > 0 {
				s[6] += f * (1 << 20) / top.Of(x)
			}
		}
		s[5] = w.shelf(t, free, m.Capacity.Sub(m.Overhead).Sub(m.Foreign))
		if m.Allocatable().GPU > 0 && t.Resources.GPU == 0 && slices.ContainsFunc(others, func(o insisted) bool { return constrainedBy(o.cons, o.role, m) }) {
			s[3] = 1
		}
		if w.config(t).Placement == job.Spread {
			s[5], s[6] = 0, -s[6]
			for _, o := range slices.Concat(w.on(m.ID), w.rooms[m.ID]) {
				if o.ID.Job == t.ID.Job {
					s[4]++
				}
			}
		}
		if m.Allocatable().GPU > 0 {
			g := w.gpus(t, m)
			s[2], s[5], s[6], s[7] = 1, 0, g.steps, g.left
			if w.kept(t, m) {
				s[3] = 1
			}
		}
		if best == "" || slices.Compare(s[:], score[:]) < 0 {
			best, score = m.ID, s
		}
	}
	return best
}

// shelf says how little a task wants a machine for what it is short of: for
// whatever is scarcer in the whole cluster, those that ask for less than their share
// of it take the machines last that have nothing else left, and all others
// take these first.
func (w *twin) shelf(t state.Task, free, all unit.Resources) int64 {
	const mega = 1 << 20
	cpu := max(free.CPU, 0) * max(all.RAM/mega, 0)
	ram := max(free.RAM/mega, 0) * max(all.CPU, 0)
	noRAM, noCPU := 2*ram < cpu, 2*cpu < ram

	asked, has := w.balance()
	need := t.Resources
	lacksRAM := asked[1]*has[0] > has[1]*asked[0]
	frugal := need.RAM/mega*asked[0] > asked[1]*need.CPU // with cpu
	first, last := noRAM, noCPU
	if lacksRAM {
		frugal = asked[1]*need.CPU > need.RAM/mega*asked[0]
		first, last = noCPU, noRAM
	}
	switch {
	case !frugal && first, frugal && last:
		return 0
	case frugal && first:
		return 2
	case !frugal && last, frugal:
		return 1
	default:
		return 2
	}
}

// top is the most that any machine has, in each measure.
func (w *twin) top() (top unit.Resources) {
	for m := range w.s.Machines() {
		a := m.Capacity.Sub(m.Overhead).Sub(m.Foreign)
		top = unit.Resources{CPU: max(top.CPU, a.CPU), RAM: max(top.RAM, a.RAM), Disk: max(top.Disk, a.Disk), GPU: max(top.GPU, a.GPU), Net: max(top.Net, a.Net)}
	}
	return top
}

func (w *twin) free(m state.Machine) unit.Resources {
	free := m.Capacity.Sub(m.Overhead).Sub(m.Foreign)
	for _, t := range slices.Concat(w.on(m.ID), w.rooms[m.ID]) {
		free = free.Sub(t.Resources)
	}
	return free
}

func (w *twin) fits(t state.Task, m state.Machine) bool {
	c := w.config(t)
	if !m.Up || m.Mode > machine.Scheduled || !w.constrained(t, m) {
		return false
	}
	free := w.free(m)
	for _, x := range unit.Measures() {
		if c.Task.Resources.Of(x) > free.Of(x) {
			return false
		}
	}
	if len(c.Task.Ports) > w.portsLeft(m) {
		return false
	}
	return c.Task.Resources.GPU == 0 || w.gpus(t, m).pick != nil
}

func (w *twin) portsLeft(m state.Machine) int {
	ports := m.Ports.Len()
	for _, o := range w.on(m.ID) {
		if o.Machine == "" {
			ports -= len(w.config(o).Task.Ports) // placed by this plan, its ports are not chosen
		}
		for _, p := range o.Ports {
			if p >= m.Ports.From && p <= m.Ports.To {
				ports--
			}
		}
	}
	return ports
}

func (w *twin) constrained(t state.Task, m state.Machine) bool {
	if !w.may(t, m) {
		return false
	}
	for _, c := range w.config(t).Constraints {
		have := map[string]bool{}
		for _, v := range m.Values(c.Attribute) {
			have[v] = true
		}
		if (c.Spread > 0 || c.With != "") && !w.placed(t, m, c) {
			return false
		}
		if c.Limit > 0 && w.most(t.ID.Job, c.Attribute, have) >= int(c.Limit) {
			return false
		}
	}
	return true
}

// constrainedBy holds a machine to value constraints and to the dedicated rule.
func constrainedBy(cons []job.Constraint, role string, m state.Machine) bool {
	kept, mine := len(m.Values("dedicated")) > 0, false
	for _, c := range cons {
		hit := false
		for _, v := range c.Values {
			have := slices.Contains(m.Values(c.Attribute), v)
			hit = hit || have
			if have && c.Attribute == "dedicated" && !c.Negated && (strings.HasPrefix(v, role+"/") || strings.HasPrefix(v, "*/") || v == role) {
				mine = true
			}
		}
		if hit == c.Negated {
			return false
		}
	}
	return !kept || mine
}

// placed holds a machine to a spread or to nearness.
func (w *twin) placed(t state.Task, m state.Machine, c job.Constraint) bool {
	count := map[string]int32{}
	of := c.With
	if c.Spread > 0 {
		of = t.ID.Job
	}
	var domain []string
	for o := range w.s.Machines() {
		values := slices.Compact(o.Values(c.Attribute))
		for _, x := range slices.Concat(w.on(o.ID), w.rooms[o.ID]) {
			for _, v := range values {
				if x.ID.Job == of {
					count[v]++
				}
			}
		}
		if o.Up && o.Mode == machine.None && w.may(t, o) {
			domain = append(domain, values...)
		}
	}
	mine := m.Values(c.Attribute)
	if c.Spread > 0 {
		fewest := int32(0)
		for i, v := range domain {
			if i == 0 || count[v] < fewest {
				fewest = count[v]
			}
		}
		return len(mine) > 0 && !slices.ContainsFunc(mine, func(v string) bool { return count[v] >= fewest+c.Spread })
	}
	near := slices.ContainsFunc(mine, func(v string) bool { return count[v] > 0 })
	if c.Negated {
		return !near
	}
	return near || len(mine) > 0 && of == t.ID.Job && len(count) == 0
}

// most counts the job's tasks for each of the values and returns the largest count.
func (w *twin) most(k job.Key, attribute string, values map[string]bool) int {
	count, top := map[string]int{}, 0
	for m := range w.s.Machines() {
		for _, t := range slices.Concat(w.on(m.ID), w.rooms[m.ID]) {
			for _, v := range slices.Compact(m.Values(attribute)) {
				if t.ID.Job == k && values[v] {
					count[v]++
					top = max(top, count[v])
				}
			}
		}
	}
	return top
}

// verify checks a plan by the rows that it leads to: every machine within its
// means, every port given once, in its range, and as many as the config asks.
func verify(t fatal, before *state.Snapshot, changes []state.Change) {
	t.Helper()
	d := state.NewDraft(before, before.At)
	for _, c := range changes {
		if err := d.Apply(c); err != nil {
			t.Fatalf("a planned change is refused: %v", err)
		}
	}
	s := d.Snapshot()
	for _, c := range changes {
		step, ok := c.(state.StepTask)
		if !ok || step.Event.To != task.Assigned {
			continue
		}
		got, ok := s.Task(step.ID)
		if !ok || got.State != task.Assigned {
			t.Fatalf("task %s is %v after the plan; want ASSIGNED", got.ID, got.State)
		}
		cfg, _ := s.Config(got.Config)
		if len(got.Ports) != len(cfg.Task.Ports) {
			t.Fatalf("task %s has ports %v; want %d", got.ID, got.Ports, len(cfg.Task.Ports))
		}
		m, ok := s.Machine(got.Machine)
		if !ok {
			t.Fatalf("task %s is on machine %q, which does not exist", got.ID, got.Machine)
		}
		left, taken := m.Allocatable().Sub(m.Strayed()), map[uint16]bool{}
		for _, x := range m.Strays {
			for _, p := range x.Ports {
				taken[p] = true
			}
		}
		for o := range s.TasksOn(m.ID) {
			left = left.Sub(o.Resources)
			for _, p := range o.Ports {
				if taken[p] || p < m.Ports.From && o.State == task.Assigned {
					t.Fatalf("port %d of %s is given twice or out of range %v", p, m.ID, m.Ports)
				}
				taken[p] = true
			}
		}
		if !(unit.Resources{}).Fits(left) {
			t.Fatalf("machine %s is left with %v after the plan", m.ID, left)
		}
	}
}

// choices reads a plan as the twin writes its own.
func choices(changes []state.Change) []choice {
	var out []choice
	var stopped []string
	for _, c := range changes {
		switch c := c.(type) {
		case state.StepTask:
			if c.Event.To == task.Preempting {
				stopped = append(stopped, c.ID.String())
				continue
			}
			out = append(out, choice{Task: c.ID.String(), Machine: c.Event.Machine, GPUs: fmt.Sprint(c.Event.GPUs)})
		case state.MakeRoom:
			slices.Sort(stopped)
			out = append(out, choice{Task: c.ID.String(), Machine: c.Machine, Stopped: fmt.Sprint(stopped)})
			stopped = nil
		}
	}
	return out
}

// TestTwin holds plans to the twin's over random clusters that change in
// every way there is, and the index to a fresh one after each fold.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		for range rapid.IntRange(1, 8).Draw(rt, "machines") {
			randomMachine(rt, w)
		}
		for range rapid.IntRange(5, 40).Draw(rt, "steps") {
			randomStep(rt, w)
			if d := w.x.Audit(w.s); d != "" {
				rt.Fatalf("after a fold: %s", d)
			}
		}
	})
}

func randomStep(t *rapid.T, w *world) {
	switch rapid.IntRange(0, 10).Draw(t, "step") {
	case 10:
		w.now += unit.Hour / 60 * unit.Tick(rapid.IntRange(1, 4).Draw(t, "minutes"))
	case 0:
		randomMachine(t, w)
	case 1, 2:
		k := job.NewKey(rapid.SampledFrom([]string{"ads", "web"}).Draw(t, "role"), "prod", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"))
		w.submit(k, rapid.Int32Range(1, 5).Draw(t, "instances"), randomConfig(t))
	case 3, 4, 5:
		var all []state.Task
		for x := range w.s.Tasks() {
			all = append(all, x)
		}
		if len(all) == 0 {
			return
		}
		x := rapid.SampledFrom(all).Draw(t, "task")
		to := rapid.SampledFrom([]task.State{task.Failed, task.Lost, task.Killing, task.Running, task.Killed, task.Partitioned}).Draw(t, "to")
		if next, _, res := task.Step(x.Task, task.Event{To: to}, task.Policy{}); res == task.Done && next.State == to {
			w.step(x.ID, to)
		}
	case 6:
		randomDrop(t, w)
	default:
		planBoth(t, w)
	}
}

// planBoth plans with both, compares, and applies a part of the plan.
func planBoth(t *rapid.T, w *world) {
	lim := rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "limit")
	changes, waits := Plan(w.s, w.x, w.now, Limits{Placements: lim})
	if d := w.x.Audit(w.s); d != "" {
		t.Fatalf("after a plan: %s", d)
	}
	got := choices(changes)
	want, left := newTwin(w.s).plan(w.now)
	if lim > 0 && waits.More && len(want) > len(got) {
		want = want[:len(got)]
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Fatalf("placements (-twin +got):\n%s", d)
	}
	if !waits.More {
		n := 0
		for _, g := range waits.Groups {
			n += g.Tasks
			if g.Text == "" || g.Room == "" && !strings.Contains(g.Text, "no machine fits") && !strings.Contains(g.Text, "larger than any") {
				t.Fatalf("%s waits because %q", g.Job, g.Text)
			}
		}
		if n != len(left) {
			t.Fatalf("%d tasks wait with a reason; want %d: %v", n, len(left), left)
		}
	}
	verify(t, w.s, changes)
	w.do(changes[:rapid.IntRange(0, len(changes)).Draw(t, "applied")]...)
}
