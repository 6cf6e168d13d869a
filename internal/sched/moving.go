package sched

import (
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
)

// A moving is what rules machines out for a group by where tasks are at the
// moment: limits and spread count the job's own, affinity those of another. A
// job that spreads its tasks ranks the others by it.
type moving struct {
	shape *shape
	own   *tally
	near  []*tally // of the jobs that shape.nears name
	least []least  // one for each of shape.spreads
}

// A least is how many tasks the value of an attribute has that has the fewest.
type least struct {
	values []string // of the machines that may be used
	count  int32
	at     int // no value before this one has so few
}

// passes reports whether one more task may go to m.
func (v *moving) passes(m *machine.Machine) bool {
	for i := range v.shape.limits {
		if _, full := v.full(i, m); full {
			return false
		}
	}
	for i := range v.shape.spreads {
		if _, crowded := v.crowded(i, m); crowded {
			return false
		}
	}
	for i := range v.shape.nears {
		if v.astray(i, m) {
			return false
		}
	}
	return true
}

// refusals appends why one more task may not go to m, if so.
func (v *moving) refusals(all []Lack, m *machine.Machine) []Lack {
	for i := range v.shape.limits {
		c := &v.shape.limits[i]
		if have, full := v.full(i, m); full {
			all = append(all, Lack{Rule: Limit, Detail: c.Attribute, Need: int64(c.Limit), Have: int64(have)})
		}
	}
	for i := range v.shape.spreads {
		c := &v.shape.spreads[i]
		if have, crowded := v.crowded(i, m); crowded {
			all = append(all, Lack{Rule: Spreading, Detail: c.Attribute, Need: int64(c.Spread), Have: int64(have)})
		}
	}
	for i := range v.shape.nears {
		if v.astray(i, m) {
			all = append(all, Lack{Rule: Affinity, Detail: v.shape.nearTexts[i]})
		}
	}
	return all
}

// full reports whether a value of m is at a limit.
func (v *moving) full(limit int, m *machine.Machine) (have int32, full bool) {
	c := &v.shape.limits[limit]
	return v.own.reaches(c.Attribute, m, c.Limit)
}

// crowded reports whether a value of m has as many tasks as a spread allows.
func (v *moving) crowded(spread int, m *machine.Machine) (have int32, crowded bool) {
	c := &v.shape.spreads[spread]
	return v.own.reaches(c.Attribute, m, v.least[spread].count+c.Spread)
}

// astray reports whether m is where an affinity does not allow it. The first
// task of a job that is to be near itself may go anywhere.
func (v *moving) astray(near int, m *machine.Machine) bool {
	c := &v.shape.nears[near]
	by := v.near[near].by[c.Attribute]
	if !c.Negated && len(by) == 0 && v.near[near] == v.own {
		return false
	}
	return anyOf(by, m, c.Attribute) == c.Negated
}

// reaches reports whether one of m's values of an attribute has n tasks or more.
func (y *tally) reaches(attribute string, m *machine.Machine, n int32) (have int32, full bool) {
	by := y.by[attribute]
	for _, a := range m.Attributes {
		if a.Name == attribute && by[a.Value] >= n {
			return by[a.Value], true
		}
	}
	return 0, false
}

func anyOf(by map[string]int32, m *machine.Machine, attribute string) bool {
	return slices.ContainsFunc(m.Attributes, func(a machine.Attribute) bool { return a.Name == attribute && by[a.Value] > 0 })
}

// movingOf makes what a shape needs of the tallies, nil if nothing.
func (x *Index) movingOf(s *state.Snapshot, k job.Key, w *shape) *moving {
	if len(w.limits)+len(w.spreads)+len(w.nears) == 0 && !w.spreadsOut() {
		return nil
	}
	v := &moving{shape: w, least: make([]least, len(w.spreads))}
	by := slices.Concat(w.limits, w.spreads)
	if w.spreadsOut() {
		by = append(by, job.Constraint{Attribute: onMachine})
	}
	v.own = x.tallyOf(s, k, by)
	v.own.groups++
	for _, c := range w.nears {
		y := x.tallyOf(s, c.With, []job.Constraint{c})
		y.groups++
		v.near = append(v.near, y)
	}
	return v
}

// partMoving is the opposite of movingOf.
func (x *Index) partMoving(k job.Key, v *moving) {
	drop := func(k job.Key, y *tally) {
		if y.groups--; y.groups == 0 {
			delete(x.tallies, k)
		}
	}
	drop(k, v.own)
	for i, c := range v.shape.nears {
		drop(c.With, v.near[i])
	}
}

// refresh works out anew how many tasks the values with the fewest have.
func (x *Index) refresh(g *group) {
	for i, c := range g.shape.spreads {
		l, by := least{values: x.domain(domainKey{g.class, c.Attribute, false}).values}, g.moving.own.by[c.Attribute]
		if len(l.values) > 0 && len(l.values) <= len(by) { // else some value has none
			l.count = by[l.values[0]]
			for _, value := range l.values {
				l.count = min(l.count, by[value])
			}
		}
		g.moving.least[i] = l
	}
}

// rises takes note of a task that was added, and reports whether the fewest
// have become more.
func (v *moving) rises() bool {
	rose := false
	for i, c := range v.shape.spreads {
		l, by := &v.least[i], v.own.by[c.Attribute]
		for l.at < len(l.values) && by[l.values[l.at]] > l.count {
			l.at++
		}
		if len(l.values) == 0 || l.at < len(l.values) {
			continue
		}
		rose, l.at, l.count = true, 0, by[l.values[0]]
		for _, value := range l.values {
			l.count = min(l.count, by[value])
		}
	}
	return rose
}

// watch has a group's search begin anew when a placement lets go what ruled
// machines out: an affinity finds another value, or the fewest become more.
func (p *planner) watch(g *group) {
	if len(g.shape.spreads) > 0 {
		p.watchers[g.job] = append(p.watchers[g.job], g)
	}
	for _, c := range g.shape.nears {
		if !c.Negated && c.With != g.job || !c.Negated && len(g.shape.spreads) == 0 {
			p.watchers[c.With] = append(p.watchers[c.With], g)
		}
	}
}

// loosen takes note of a task of a job that was placed on m.
func (p *planner) loosen(k job.Key, m *machine.Machine) {
	for _, g := range p.watchers[k] {
		again := g.job == k && g.moving.rises()
		for i, c := range g.shape.nears {
			by := g.moving.near[i].by[c.Attribute]
			again = again || c.With == k && !c.Negated && slices.ContainsFunc(m.Attributes, func(a machine.Attribute) bool {
				return a.Name == c.Attribute && by[a.Value] == 1
			})
		}
		if again {
			delete(p.hopeless, g)
			delete(p.limited, g)
			delete(p.leveled, g)
			delete(p.boards, g)
			p.freed[g] = true
		}
	}
}

// movingFrom works the same out from a snapshot alone.
func movingFrom(s *state.Snapshot, w *shape, k job.Key) *moving {
	v := &moving{shape: w, own: &tally{by: map[string]map[string]int32{}}}
	for _, c := range slices.Concat(w.limits, w.spreads) {
		v.own.by[c.Attribute] = countBy(s, k, c.Attribute)
	}
	for _, c := range w.spreads {
		l := least{count: -1}
		for m := range s.Machines() {
			if !spreadOver(&m.Machine) || !w.allows(&m.Machine) {
				continue
			}
			for _, value := range m.Values(c.Attribute) {
				if n := v.own.by[c.Attribute][value]; l.count < 0 || n < l.count {
					l.count = n
				}
			}
		}
		l.count = max(l.count, 0)
		v.least = append(v.least, l)
	}
	for _, c := range w.nears {
		y := &tally{by: map[string]map[string]int32{c.Attribute: countBy(s, c.With, c.Attribute)}}
		if c.With == k {
			v.own.by[c.Attribute] = y.by[c.Attribute]
			y = v.own
		}
		v.near = append(v.near, y)
	}
	return v
}
