package sched

import (
	"fmt"
	"math/big"
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// bins is what the GPUs of a machine have left: those that rows name first,
// then the others, the largest first, each where it leaves the least.
func (w *twin) bins(m state.Machine) []int64 {
	var bins []int64
	total := m.Allocatable().GPU
	for i := range (total + 999) / 1000 {
		bins = append(bins, min(1000, total-1000*i))
	}
	var loose []int64
	for _, o := range w.on(m.ID) {
		for _, g := range o.GPUs {
			if int(g) < len(bins) {
				bins[g] -= min(o.Resources.GPU, 1000)
			}
		}
		if o.GPUs == nil && o.Resources.GPU > 0 {
			loose = append(loose, o.Resources.GPU)
		}
	}
	slices.Sort(loose)
	slices.Reverse(loose)
	for _, a := range loose {
		for _, g := range tightest(bins, a) {
			bins[g] -= min(a, 1000)
		}
	}
	return bins
}

// tightest returns where an amount goes if only what is left counts.
func tightest(bins []int64, amount int64) []uint16 {
	var all []uint16
	for i, b := range bins {
		if b >= min(amount, 1000) {
			all = append(all, uint16(i))
		}
	}
	n := int(max(1, (amount+999)/1000))
	if len(all) < n {
		return nil
	}
	if amount < 1000 {
		slices.SortStableFunc(all, func(a, b uint16) int { return int(bins[a] - bins[b]) })
	}
	return all[:n]
}

// dealt is what becomes of a machine's GPUs with one more task.
type dealt struct {
	pick        []uint16
	steps, left int64
}

// gpus tries every GPU.
func (w *twin) gpus(t state.Task, m state.Machine) dealt {
	bins, need := w.bins(m), t.Resources
	now := w.wasted(m, w.free(m), bins)
	try := func(pick []uint16) dealt {
		after, d := slices.Clone(bins), dealt{pick: pick}
		for _, g := range pick {
			after[g] -= min(need.GPU, 1000)
		}
		for _, b := range after {
			d.left += max(b, 0)
		}
		// Rounded down: the gain in steps of 40.
		gain := big.NewRat(now-w.wasted(m, w.free(m).Sub(need), after), 40)
		q, _ := new(big.Int).DivMod(gain.Num(), gain.Denom(), new(big.Int))
		d.steps = -q.Int64()
		return d
	}
	if need.GPU == 0 {
		return try(nil)
	}
	if need.GPU >= 1000 {
		if p := tightest(bins, need.GPU); p != nil {
			return try(p)
		}
		return dealt{}
	}
	best := dealt{}
	for i, b := range bins {
		if b < need.GPU {
			continue
		}
		if d := try([]uint16{uint16(i)}); best.pick == nil || d.steps < best.steps {
			best = d
		}
	}
	return best
}

// wish is one shape of task that jobs ask for.
type wish struct {
	t      state.Task
	weight int64
	name   string
}

// kinds returns the most popular shapes that ask for GPUs: 95 % of the tasks.
func (w *twin) kinds() []wish {
	if w.popular != nil {
		return *w.popular
	}
	by := map[string]*wish{}
	var all []*wish
	total := int64(0)
	for j := range w.s.Jobs("") {
		c, _ := w.s.Config(j.Config)
		if c.Task.Resources.GPU == 0 {
			continue
		}
		t := state.Task{}
		t.ID.Job, t.Config, t.Resources = j.Key, j.Config, c.Task.Resources
		name := w.spelling(t)
		if by[name] == nil {
			by[name] = &wish{t: t, name: name}
			all = append(all, by[name])
		}
		by[name].weight += int64(j.Instances.Len())
		total += int64(j.Instances.Len())
	}
	slices.SortFunc(all, func(a, b *wish) int {
		if a.weight != b.weight {
			return int(b.weight - a.weight)
		}
		if a.name < b.name {
			return -1
		}
		return 1
	})
	out := []wish{}
	sum := int64(0)
	for _, k := range all {
		if sum*100 < total*95 {
			out = append(out, *k)
			sum += k.weight
		}
	}
	w.popular = &out
	return out
}

// spelling says what tells two shapes apart, in the order in which equally popular
// ones are taken.
func (w *twin) spelling(t state.Task) string {
	s := w.demands(t)
	for _, x := range unit.Measures() {
		s += fmt.Sprint(" ", t.Resources.Of(x))
	}
	return s
}

// demands says what a task asks of machines beside room.
func (w *twin) demands(t state.Task) string {
	var parts []string
	role := t.ID.Job.Role()
	for _, c := range w.config(t).Constraints {
		if c.Limit+c.Spread > 0 || c.With != "" {
			if !c.Negated {
				parts = append(parts, fmt.Sprintf("limit%q", c.Attribute))
			}
			continue
		}
		parts = append(parts, fmt.Sprintf("%q %t %q", c.Attribute, c.Negated, c.Values))
		if c.Attribute == "dedicated" && !c.Negated {
			parts = append(parts, fmt.Sprintf("role%q", role))
		}
	}
	slices.Sort(parts)
	s := ""
	for i, p := range slices.Compact(parts) {
		if i > 0 {
			s += ";"
		}
		s += p
	}
	return s
}

// kept reports whether a task that asks for a GPU should leave m to others that
// wait: they may run on few machines only, and those have not much more free
// than they ask for.
func (w *twin) kept(t state.Task, m state.Machine) bool {
	wait, one := map[string]int64{}, map[string]state.Task{}
	for o := range w.s.Tasks() {
		if o.State != task.Pending || o.Room != "" || w.gone(o) || t.Resources.GPU == 0 || o.Resources.GPU == 0 {
			continue
		}
		if slices.ContainsFunc(w.config(o).Constraints, func(c job.Constraint) bool { return c.Limit+c.Spread == 0 && c.With == "" }) {
			name := w.demands(o)
			wait[name], one[name] = wait[name]+o.Resources.GPU, o
		}
	}
	for name, need := range wait {
		if name == w.demands(t) || !w.may(one[name], m) {
			continue
		}
		free := int64(0)
		for x := range w.s.Machines() {
			if x.Up && !x.Leaving && x.Mode <= machine.Scheduled && w.may(one[name], x) {
				free += max(w.free(x).GPU, 0)
			}
		}
		if float64(free-2*t.Resources.GPU) < 1.1*float64(need) {
			return true
		}
	}
	return false
}

// gone reports whether a task that was pending has found a place or room in this plan.
func (w *twin) gone(t state.Task) bool {
	is := func(o state.Task) bool { return o.ID == t.ID }
	for _, on := range w.extra {
		if slices.ContainsFunc(on, is) {
			return true
		}
	}
	for _, on := range w.rooms {
		if slices.ContainsFunc(on, is) {
			return true
		}
	}
	return false
}

// remains foretells what shares will leave of r thousandths, in parts of 256.
func (w *twin) remains(r int64) int64 {
	if v, ok := w.left[r]; ok || r == 0 {
		return v
	}
	sum, shares := int64(0), int64(0)
	for _, k := range w.kinds() {
		sum += k.weight
	}
	up := 65536 / 10 * r * 256
	for _, k := range w.kinds() {
		if d := min(k.t.Resources.GPU, 1000); d <= r {
			p := k.weight * 65536 / sum
			up += p * w.remains(r-d)
			shares += p
		}
	}
	v := up / (65536/10 + shares)
	w.left[r] = v
	return v
}

// wasted is how much of what GPUs have left will come to nothing.
func (w *twin) wasted(m state.Machine, free unit.Resources, bins []int64) int64 {
	total, rest, empty := int64(0), int64(0), int64(0)
	for _, b := range bins {
		if b > 0 {
			total, rest = total+b, rest+w.remains(b)
		}
		if b == 1000 {
			empty++
		}
	}
	if total == 0 {
		return 0
	}
	kinds := w.kinds()
	sum, claims := int64(0), int64(0)
	for _, k := range kinds {
		sum, claims = sum+k.weight, claims+k.weight*k.t.Resources.GPU
	}
	lost, stranded := int64(0), int64(0)
	for _, k := range kinds {
		need := k.t.Resources
		whole := int64(1)
		if need.GPU > 1000 {
			whole = (need.GPU + 999) / 1000
		}
		may := w.may(k.t, m)
		others := true
		for _, x := range unit.Measures() {
			others = others && (x == unit.GPU || need.Of(x) <= free.Of(x))
		}
		if p := k.weight * 65536 / sum; may && others && (whole == 1 || whole <= empty) {
			lost += p * rest / 256
		} else {
			lost += p * total
		}
		if !may {
			continue
		}
		room := empty / whole
		if need.GPU < 1000 {
			room = 0
			for _, b := range bins {
				room += max(b, 0) / need.GPU
			}
		}
		held := room * 1000
		for _, x := range unit.Measures() {
			if n := need.Of(x); x != unit.GPU && n > 0 {
				held = min(held, max(free.Of(x), 0)*1000/n)
			}
		}
		stranded += k.weight * need.GPU * 65536 / claims * ((room*1000 - held) * whole * min(need.GPU, 1000) / 1000)
	}
	return (lost + stranded/2) / 65536
}

// may reports whether what never changes with the tasks on a machine lets t run there.
func (w *twin) may(t state.Task, m state.Machine) bool {
	c := *w.config(t)
	var still []job.Constraint
	for _, x := range c.Constraints {
		if x.Limit+x.Spread > 0 || x.With != "" {
			if !x.Negated && len(m.Values(x.Attribute)) == 0 {
				return false
			}
			continue
		}
		still = append(still, x)
	}
	return constrainedBy(still, t.ID.Job.Role(), m)
}
