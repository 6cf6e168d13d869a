package sched

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// A shape is all that placing wants to know of a config and its job.
type shape struct {
	role string
	tier int8 // rank: the most urgent is 0
	prio int32

	exclusive bool
	placement string
	need      unit.Resources
	room      chart // where need may fit
	ports     int
	values    []job.Constraint
	limits    []job.Constraint
	spreads   []job.Constraint
	nears     []job.Constraint // affinity and its opposite
	counted   []string         // the attributes that machines must have because tasks are counted by them

	valueTexts, nearTexts []string // how people write values and nears
}

func shapeOf(k job.Key, c *job.Config) *shape {
	w := &shape{role: k.Role(), tier: tierRank(c.Tier), prio: c.Priority, need: c.Task.Resources, ports: len(c.Task.Ports)}
	w.room, w.exclusive = chartFrom(w.need), c.Exclusive
	w.placement = c.Placement
	for _, con := range c.Constraints {
		switch {
		case con.Limit > 0:
			w.limits = append(w.limits, con)
		case con.Spread > 0:
			w.spreads = append(w.spreads, con)
		case con.With != "":
			w.nears, w.nearTexts = append(w.nears, con), append(w.nearTexts, spell(con))
		default:
			w.values, w.valueTexts = append(w.values, con), append(w.valueTexts, spell(con))
		}
	}
	if len(w.limits)+len(w.spreads)+len(w.nears) > 0 {
		for _, con := range slices.Concat(w.limits, w.spreads, w.nears) {
			if !con.Negated {
				w.counted = append(w.counted, con.Attribute)
			}
		}
	}
	return w
}

func tierRank(tier string) int8 {
	switch tier {
	case job.Preferred:
		return 0
	case job.Revocable:
		return 2
	default:
		return 1
	}
}

// dedicated is the attribute of machines that are kept for some (Aurora S-12).
const dedicated = "dedicated"

// classKey names what the constraints of w allow: shapes with the same key
// are allowed on the same machines.
func (w *shape) classKey() string {
	parts := make([]string, 0, 1+len(w.values)+len(w.limits))
	for _, c := range w.values {
		parts = append(parts, fmt.Sprintf("%q %t %q", c.Attribute, c.Negated, c.Values))
		if c.Attribute == dedicated && !c.Negated {
			parts = append(parts, "role"+strconv.Quote(w.role))
		}
	}
	for _, a := range w.counted {
		parts = append(parts, "limit"+strconv.Quote(a))
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ";")
}

// allows reports whether what does not change with the tasks on m lets w run
// there: the dedicated rule, value constraints, and the attributes that limits
// count by. Whether m is up is not asked.
func (w *shape) allows(m *machine.Machine) bool {
	if !w.mayUse(m) {
		return false
	}
	for i := range w.values {
		if !matches(&w.values[i], m) {
			return false
		}
	}
	for _, a := range w.counted {
		if !hasAny(m, a) {
			return false
		}
	}
	return true
}

// mayUse is the dedicated rule: a machine with the attribute takes only tasks
// that ask for it by a value whose role part is theirs, or *.
func (w *shape) mayUse(m *machine.Machine) bool {
	if !hasAny(m, dedicated) {
		return true
	}
	for _, c := range w.values {
		if c.Attribute != dedicated || c.Negated {
			continue
		}
		for _, v := range c.Values {
			role, _, _ := strings.Cut(v, "/")
			if (role == "*" || role == w.role) && m.Has(dedicated, v) {
				return true
			}
		}
	}
	return false
}

// matches holds a machine to a value constraint. A missing attribute fails a
// positive one and passes a negated one (Aurora S-10).
func matches(c *job.Constraint, m *machine.Machine) bool {
	for _, a := range m.Attributes {
		if a.Name == c.Attribute && slices.Contains(c.Values, a.Value) {
			return !c.Negated
		}
	}
	return c.Negated
}

func hasAny(m *machine.Machine, attribute string) bool {
	return slices.ContainsFunc(m.Attributes, func(a machine.Attribute) bool { return a.Name == attribute })
}

// A class is a set of machines: those that some constraints allow. Which they
// are is worked out once, and again only for a machine whose attributes change.
type class struct {
	key     string
	shape   *shape // any one of the class
	allowed []bool // by slot
	bit     int    // in the masks
	groups  int    // that use it
	used    uint64 // when it was last asked for; see Index.clock
	offer   *offer // nil until asked for
}

// classesKept is how many classes are remembered when no group needs them.
const classesKept = 128

// classOf returns the class of a shape, new or known.
func (x *Index) classOf(w *shape) *class {
	key := w.classKey()
	x.clock++
	if c, ok := x.classes[key]; ok {
		c.used = x.clock
		return c
	}
	x.forgetClasses()
	c := &class{key: key, shape: w, allowed: make([]bool, len(x.hosts)), used: x.clock}
	var alone bool
	c.bit, alone = x.freeBit()
	x.classes[key] = c
	x.looked += len(x.hosts)
	for n := 1; n < len(x.hosts); n++ {
		h := &x.hosts[n]
		c.allowed[n] = h.row.ID != "" && w.allows(&h.row.Machine)
		if alone {
			h.mask.clear(c.bit)
		}
		if c.allowed[n] {
			h.mask.set(c.bit)
		}
	}
	x.pullTrees()
	return c
}

// freeBit returns the bit that the fewest classes have, and whether none has it.
func (x *Index) freeBit() (bit int, alone bool) {
	var users [bitmapBits]int
	for _, c := range x.classes {
		users[c.bit]++
	}
	for i, n := range users {
		if n < users[bit] {
			bit = i
		}
	}
	return bit, users[bit] == 0
}

// forgetClasses makes room by forgetting the classes that no group has needed for longest.
func (x *Index) forgetClasses() {
	if len(x.classes) < classesKept {
		return
	}
	var idle []*class
	for _, c := range x.classes {
		if c.groups == 0 {
			idle = append(idle, c)
		}
	}
	slices.SortFunc(idle, func(a, b *class) int { return int(int64(a.used) - int64(b.used)) })
	for _, c := range idle[:len(idle)/2] {
		delete(x.classes, c.key)
	}
	maps.DeleteFunc(x.domains, func(k domainKey, _ *domain) bool { return x.classes[k.class.key] != k.class })
	maps.DeleteFunc(x.ladders, func(k ladderKey, _ *ladder) bool { return x.classes[k.class.key] != k.class })
	maps.DeleteFunc(x.fronts, func(k need, _ *frontSet) bool { return x.classes[k.class.key] != k.class })
	maps.DeleteFunc(x.boards, func(k need, _ *board) bool { return x.classes[k.class.key] != k.class })
}

// reclass works out anew which classes allow a host.
func (x *Index) reclass(n int32) {
	h := &x.hosts[n]
	h.mask = bitmap{}
	for _, c := range x.classes {
		for len(c.allowed) <= int(n) {
			c.allowed = append(c.allowed, false)
		}
		c.allowed[n] = h.row.ID != "" && c.shape.allows(&h.row.Machine)
		if c.allowed[n] {
			h.mask.set(c.bit)
		}
	}
}
