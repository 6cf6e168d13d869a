package sched

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// insisted is what all jobs ask for that insist on the same values.
type insisted struct {
	name            string
	cons            []job.Constraint
	role            string
	cpu, ram, tasks int64
	waiting         int64
}

// insistence says which machines alone will do for tasks of a config, nothing
// if there is no such rule, or one that nobody need be held to.
func insistence(k job.Key, c *job.Config) insisted {
	out := insisted{role: k.Role()}
	var parts []string
	positive := false
	for _, x := range c.Constraints {
		if x.Limit+x.Spread > 0 || x.With != "" {
			continue
		}
		if x.Attribute == "dedicated" {
			return insisted{}
		}
		positive = positive || !x.Negated
		out.cons = append(out.cons, x)
		parts = append(parts, fmt.Sprintf("%q %t %q", x.Attribute, x.Negated, x.Values))
	}
	r := c.Task.Resources
	if !positive || r.GPU > 0 || r.CPU == 0 && r.RAM == 0 {
		return insisted{}
	}
	slices.Sort(parts)
	out.name = strings.Join(slices.Compact(parts), ";")
	return out
}

// balance sums what jobs ask for and what machines have, cpu and MiB of memory.
func (w *twin) balance() (asked, has [2]int64) {
	const mega = 1 << 20
	for j := range w.s.Jobs("") {
		c, _ := w.s.Config(j.Config)
		asked[0] += int64(j.Instances.Len()) * c.Task.Resources.CPU
		asked[1] += int64(j.Instances.Len()) * (c.Task.Resources.RAM / mega)
	}
	for m := range w.s.Machines() {
		a := m.Capacity.Sub(m.Overhead).Sub(m.Foreign)
		has[0], has[1] = has[0]+max(a.CPU, 0), has[1]+max(a.RAM/mega, 0)
	}
	return asked, has
}

// insisting returns whose machines a task should leave alone: of the four sorts
// of tasks that most is asked for and that insist on values, those of which
// some wait and few more would find room.
func (w *twin) insisting(t state.Task) []insisted {
	if w.config(t).Placement == job.Spread {
		return nil
	}
	by := map[string]insisted{}
	for j := range w.s.Jobs("") {
		c, _ := w.s.Config(j.Config)
		n := int64(j.Instances.Len())
		o := insistence(j.Key, c)
		if have, ok := by[o.name]; ok {
			o = have
		}
		o.cpu, o.ram, o.tasks = o.cpu+n*c.Task.Resources.CPU, o.ram+n*(c.Task.Resources.RAM>>20), o.tasks+n
		by[o.name] = o
	}
	delete(by, "")
	placed := map[task.ID]bool{}
	for _, on := range []map[machine.ID][]state.Task{w.extra, w.rooms} {
		for o := range maps.Values(on) {
			for _, x := range o {
				placed[x.ID] = true
			}
		}
	}
	for o := range w.s.Tasks() {
		of := insistence(o.ID.Job, w.config(o)).name
		if d, ok := by[of]; ok && o.State == task.Pending && o.Room == "" && !placed[o.ID] {
			d.waiting++
			by[of] = d
		}
	}
	all := slices.SortedFunc(maps.Values(by), func(a, b insisted) int {
		return cmp.Or(cmp.Compare(b.cpu, a.cpu), cmp.Compare(b.ram, a.ram), cmp.Compare(a.name, b.name))
	})
	own := insistence(t.ID.Job, w.config(t)).name
	return slices.DeleteFunc(all[:min(len(all), 4)], func(d insisted) bool {
		return d.name == own || d.waiting == 0 || w.thousandths(d) >= 1.1*1024*float64(d.waiting)+20*1024
	})
}

// thousandths is for how many more tasks of a sort there is room, in parts of 1,024.
func (w *twin) thousandths(d insisted) float64 {
	cpu, ram := fourDigits(d.cpu/d.tasks), fourDigits(d.ram/d.tasks)
	sum := int64(0)
	for m := range w.s.Machines() {
		if !m.Up || m.Leaving || m.Mode > machine.Scheduled || !constrainedBy(d.cons, d.role, m) {
			continue
		}
		free := w.free(m)
		var each []int64
		if cpu > 0 {
			each = append(each, max(free.CPU, 0)*1024/cpu)
		}
		if ram > 0 || cpu == 0 {
			each = append(each, max(free.RAM>>20, 0)*1024/max(ram, 1))
		}
		sum += slices.Min(each)
	}
	return float64(sum)
}

// fourDigits rounds to four binary digits.
func fourDigits(n int64) int64 {
	if more := bits.Len64(uint64(n)) - 4; more > 0 {
		unit := int64(1) << more
		return (n + unit/2) / unit * unit
	}
	return n
}

// TestTwinInsists holds plans to the twin's where machines with GPUs are all
// there is, and some of those who ask for them insist on a value.
func TestTwinInsists(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		room := int64(0)
		for i := range rapid.IntRange(2, 6).Draw(rt, "machines") {
			r := unit.Resources{CPU: 1000 * rapid.Int64Range(2, 12).Draw(rt, "cpu"), RAM: gib * rapid.Int64Range(4, 30).Draw(rt, "ram"), GPU: 1000 * rapid.Int64Range(0, 4).Draw(rt, "gpu")}
			w.add(machine.ID(fmt.Sprintf("m%d", i)), r, "gen", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "gen"), "rack", rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "rack"))
			room += r.CPU
		}
		for i := 0; room > 0 && i < 20; i++ {
			c := asks(unit.Resources{CPU: 250 * rapid.Int64Range(0, 8).Draw(rt, "needs"), RAM: gib * rapid.Int64Range(0, 4).Draw(rt, "needs ram")}, 0)
			if rapid.IntRange(0, 8).Draw(rt, "gpus") == 0 {
				c.Task.Resources.GPU = 500
			}
			c.Priority = rapid.Int32Range(0, 3).Draw(rt, "priority")
			c.Constraints = rapid.SliceOfN(rapid.SampledFrom([]job.Constraint{
				is("gen", "a"), is("gen", "b"), is("gen", "a", "c"), is("rack", "x"), is("rack", "y"), not("rack", "x"), most("host", 3),
			}), 0, 2).Draw(rt, "constraints")
			n := rapid.Int32Range(1, 5).Draw(rt, "instances")
			w.submit(job.NewKey("r", "prod", fmt.Sprintf("j%d", i)), n, c)
			room -= c.Task.Resources.CPU * int64(n)
			if rapid.IntRange(0, 4).Draw(rt, "now") == 0 {
				planBoth(rt, w)
			}
		}
		planBoth(rt, w)
		if d := w.x.Audit(w.s); d != "" {
			rt.Fatalf("after a fold: %s", d)
		}
	})
}
