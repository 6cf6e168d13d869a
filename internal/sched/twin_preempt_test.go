package sched

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// settle says what becomes of a task with room of its own, false if it goes on waiting.
func (w *twin) settle(t state.Task, now unit.Tick) (choice, bool) {
	m, ok := w.s.Machine(t.Room)
	at := t.Room
	without := func() {
		w.rooms[at] = slices.DeleteFunc(slices.Clone(w.rooms[at]), func(o state.Task) bool { return o.ID == t.ID })
	}
	kept := w.rooms[at]
	if !ok || !m.Up || m.Mode > machine.Scheduled || t.RoomUntil <= now || !w.may(t, m) {
		return choice{Task: t.ID.String(), Stopped: "[]"}, true // what it held is held until the plan is carried out
	}
	without()
	if w.fits(t, m) {
		return w.put(t, at), true
	}
	w.rooms[at] = kept
	return choice{}, false
}

// room tries every machine and every single victim.
func (w *twin) room(t state.Task) (choice, bool) {
	type offer struct {
		m       machine.ID
		victims []state.Task
		score   [3]int64
	}
	var best *offer
	looked := 0
	consider := func(all []state.Machine, strong bool) {
		for _, m := range all {
			if looked == 8 {
				return
			}
			if !m.Up || m.Mode != machine.None || m.Avoid != "" || !w.constrained(t, m) {
				continue
			}
			if !strong && !slices.ContainsFunc(w.held[m.ID], func(o state.Task) bool { return w.rule(t, o) }) {
				continue
			}
			if strong && !t.Resources.Fits(w.withoutWeak(m)) {
				continue
			}
			victims, ok := w.leastVictims(t, m)
			if !ok {
				continue
			}
			looked++
			o := &offer{m.ID, victims, [3]int64{-3, 0, int64(len(victims))}}
			for _, v := range victims {
				rank := -w.rank(v)
				prio := int64(w.config(v).Priority)
				if rank > o.score[0] || rank == o.score[0] && prio > o.score[1] {
					o.score[0], o.score[1] = rank, prio
				}
			}
			if best == nil || slices.Compare(o.score[:], best.score[:]) < 0 {
				best = o
			}
		}
	}
	if w.rank(t) == 0 {
		consider(w.inOrder(), true)
	}
	if best == nil {
		looked = 0
		consider(w.inOrder(), false)
	}
	if best == nil {
		return choice{}, false
	}
	var names []string
	for _, v := range best.victims {
		w.ends[v.ID] = true
		names = append(names, v.ID.String())
	}
	slices.Sort(names)
	w.rooms[best.m] = append(w.rooms[best.m], t)
	return choice{Task: t.ID.String(), Machine: best.m, Stopped: fmt.Sprint(names)}, true
}

// inOrder returns the machines without GPUs, then those with, each best fit first.
func (w *twin) inOrder() []state.Machine {
	top := w.top()
	all := slices.Collect(w.s.Machines())
	key := func(m state.Machine) (gpu, left int64) {
		if m.Allocatable().GPU > 0 {
			gpu = 1
		}
		for _, x := range unit.Measures() {
			if f := w.free(m).Of(x); f > 0 && top.Of(x) > 0 {
				left += min(f, top.Of(x)) * (1 << 20) / top.Of(x)
			}
		}
		return gpu, left
	}
	slices.SortFunc(all, func(a, b state.Machine) int {
		g1, l1 := key(a)
		g2, l2 := key(b)
		return cmp.Or(cmp.Compare(g1, g2), cmp.Compare(l1, l2), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func (w *twin) rank(t state.Task) int64 {
	return map[string]int64{job.Preferred: 0, job.Preemptible: 1, job.Revocable: 2}[w.config(t).Tier]
}

// withoutWeak is what a machine would have if all were gone that a preferred task may stop.
func (w *twin) withoutWeak(m state.Machine) unit.Resources {
	free := w.free(m)
	for _, o := range w.held[m.ID] {
		live := o.State == task.Assigned || o.State == task.Starting || o.State == task.Running
		if o.State.Stopping() || w.ends[o.ID] || live && w.rank(o) != 0 {
			free = free.Add(o.Resources)
		}
	}
	return free
}

func (w *twin) mayStop(t, o state.Task) bool { return !w.ends[o.ID] && w.rule(t, o) }

// rule says who may be stopped for whom.
func (w *twin) rule(t, o state.Task) bool {
	if o.State != task.Assigned && o.State != task.Starting && o.State != task.Running || o.ID.Job == t.ID.Job {
		return false
	}
	a, b := w.config(t), w.config(o)
	if a.Tier == job.Preferred && b.Tier != job.Preferred {
		return true
	}
	return (a.Tier == job.Preferred) == (b.Tier == job.Preferred) && t.ID.Job.Role() == o.ID.Job.Role() && a.Priority > b.Priority
}

// leastVictims stops those that matter least until the task fits, then lets
// those live that it fits beside, the ones that matter most first.
func (w *twin) leastVictims(t state.Task, m state.Machine) ([]state.Task, bool) {
	top := w.top()
	size := func(r unit.Resources) (n int64) {
		for _, x := range unit.Measures() {
			if f := r.Of(x); f > 0 && top.Of(x) > 0 {
				n += min(f, top.Of(x)) * (1 << 20) / top.Of(x)
			}
		}
		return n
	}
	var may []state.Task
	gone := map[task.ID]bool{}
	for _, o := range w.held[m.ID] {
		if o.State.Stopping() || w.ends[o.ID] {
			gone[o.ID] = true
		} else if w.mayStop(t, o) {
			may = append(may, o)
		}
	}
	slices.SortFunc(may, func(a, b state.Task) int {
		return cmp.Or(cmp.Compare(w.rank(b), w.rank(a)), cmp.Compare(w.config(a).Priority, w.config(b).Priority),
			cmp.Compare(size(b.Resources), size(a.Resources)), cmp.Compare(b.Created, a.Created), a.ID.Compare(b.ID))
	})
	fits := func() bool {
		// What a task without numbers has of the GPUs is free when its end is seen.
		free, bins, ports := w.free(m), w.bins(m), len(w.config(t).Task.Ports)
		for _, o := range w.held[m.ID] {
			if !gone[o.ID] {
				continue
			}
			free = free.Add(o.Resources)
			for _, g := range o.GPUs {
				if int(g) < len(bins) {
					bins[g] += min(1000, o.Resources.GPU)
				}
			}
			for _, p := range o.Ports {
				if p >= m.Ports.From && p <= m.Ports.To {
					ports--
				}
			}
		}
		for _, x := range unit.Measures() {
			if t.Resources.Of(x) > free.Of(x) {
				return false
			}
		}
		return ports <= w.portsLeft(m) && (t.Resources.GPU == 0 || tightest(bins, t.Resources.GPU) != nil)
	}
	n := 0
	for ; n < len(may) && !fits(); n++ {
		gone[may[n].ID] = true
	}
	if !fits() {
		return nil, false
	}
	var out []state.Task
	for i := n - 1; i >= 0; i-- {
		delete(gone, may[i].ID)
		if !fits() {
			gone[may[i].ID] = true
			out = append(out, may[i])
		}
	}
	return out, true
}

// TestTwinPreempts holds plans to the twin's in clusters that are full of tasks
// of every tier, while victims end and machines come and go.
func TestTwinPreempts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		gpus := rapid.SampledFrom([]int64{0, 0, 2000}).Draw(rt, "gpus")
		for i := range rapid.IntRange(2, 12).Draw(rt, "machines") {
			w.add(machine.ID(fmt.Sprintf("m%02d", i)), unit.Resources{CPU: 4000, RAM: 4 * gib, GPU: gpus}, "rack", fmt.Sprint("r", i%3))
		}
		for range rapid.IntRange(4, 14).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0, 1, 2:
				k := job.NewKey(rapid.SampledFrom([]string{"ads", "web"}).Draw(rt, "role"), "prod", rapid.StringMatching("[a-f]").Draw(rt, "name"))
				c := asks(unit.Resources{
					CPU: rapid.SampledFrom([]int64{1000, 1000, 2000, 3000, 4000}).Draw(rt, "cpu"), RAM: gib * rapid.Int64Range(0, 3).Draw(rt, "ram"),
					GPU: rapid.SampledFrom([]int64{0, gpus / 4, gpus / 2, gpus}).Draw(rt, "gpu"),
				}, rapid.IntRange(0, 4).Draw(rt, "ports"))
				c.Tier = rapid.SampledFrom([]string{job.Preferred, job.Preemptible, job.Revocable}).Draw(rt, "tier")
				c.Priority = rapid.Int32Range(0, 3).Draw(rt, "priority")
				c.Placement = rapid.SampledFrom([]string{"", "", job.Spread}).Draw(rt, "placement")
				switch rapid.IntRange(0, 7).Draw(rt, "limited") {
				case 0:
					c.Constraints = []job.Constraint{most("rack", rapid.Int32Range(1, 3).Draw(rt, "limit"))}
				case 1, 2:
					c.Constraints = []job.Constraint{{Attribute: rapid.SampledFrom([]string{"rack", "host"}).Draw(rt, "over"), Spread: rapid.Int32Range(1, 2).Draw(rt, "spread")}}
				case 3, 4:
					c.Constraints = []job.Constraint{{
						Attribute: rapid.SampledFrom([]string{"rack", "host"}).Draw(rt, "near"), Negated: rapid.Bool().Draw(rt, "far"),
						With: job.NewKey("ads", "prod", rapid.StringMatching("[a-f]").Draw(rt, "to")),
					}}
				}
				w.submit(k, rapid.Int32Range(1, 30).Draw(rt, "instances"), c)
			case 3:
				for x := range w.s.Tasks() {
					if x.State.Stopping() && rapid.Bool().Draw(rt, "ends") {
						w.step(x.ID, task.Killed)
					}
				}
			case 4:
				w.edit(machine.ID(fmt.Sprintf("m%02d", rapid.IntRange(0, 1).Draw(rt, "machine"))), func(m *machine.Machine) {
					m.Up = rapid.Bool().Draw(rt, "up")
					m.Mode = rapid.SampledFrom([]machine.Mode{machine.None, machine.Scheduled, machine.Draining}).Draw(rt, "mode")
					m.Avoid = rapid.SampledFrom([]string{"", "it is old"}).Draw(rt, "avoid")
				})
			case 5:
				w.now += unit.Hour / 60 * unit.Tick(rapid.IntRange(0, 6).Draw(rt, "minutes"))
			}
			planBoth(rt, w)
			if d := w.x.Audit(w.s); d != "" {
				rt.Fatalf("after a fold: %s", d)
			}
		}
	})
}
