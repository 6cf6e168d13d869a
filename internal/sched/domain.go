package sched

import (
	"fmt"
	"maps"
	"slices"

	"github.com/covey-platform/covey/internal/machine"
)

// A domain is the values of an attribute that machines of a class have which
// take tasks. It is worked out when it is first asked for, and then kept: each
// machine whose row changes is taken out and counted again.
type domain struct {
	values  []string         // in order
	count   map[string]int32 // of the machines that have each
	without int              // machines that have none
}

// A domainKey names a domain: of the machines over which tasks are spread, or of
// all that take tasks.
type domainKey struct {
	class     *class
	attribute string
	all       bool
}

const domainsKept = 2 * classesKept

// domain returns the values of an attribute among the machines of a class.
func (x *Index) domain(k domainKey) *domain {
	if d, ok := x.domains[k]; ok {
		return d
	}
	if len(x.domains) >= domainsKept {
		clear(x.domains)
	}
	d := x.newDomain(k)
	x.looked += len(x.hosts)
	x.domains[k] = d
	return d
}

func (x *Index) newDomain(k domainKey) *domain {
	d := &domain{count: map[string]int32{}}
	for n := 1; n < len(x.hosts); n++ {
		d.add(k, int32(n), &x.hosts[n].row.Machine, +1, func(string, bool) {})
	}
	d.values = slices.Sorted(maps.Keys(d.count))
	return d
}

// redomain counts a machine in every domain, or takes it out.
func (x *Index) redomain(n int32, m *machine.Machine, by int32) {
	for k, d := range x.domains {
		d.add(k, n, m, by, d.list)
	}
}

// list takes note that machines have a value now, or that none has it any more.
func (d *domain) list(value string, has bool) {
	at, _ := slices.BinarySearch(d.values, value)
	if has {
		d.values = slices.Insert(d.values, at, value)
	} else {
		d.values = slices.Delete(d.values, at, at+1)
	}
}

// add counts a machine by times, and calls change for each value that is new or gone.
func (d *domain) add(k domainKey, n int32, m *machine.Machine, by int32, change func(value string, has bool)) {
	counts := spreadOver(m) || k.all && treeOf(m) != nowhere
	if !counts || int(n) >= len(k.class.allowed) || !k.class.allowed[n] {
		return
	}
	has := false
	for i, a := range m.Attributes {
		if a.Name != k.attribute {
			continue
		}
		has = true
		if i > 0 && m.Attributes[i-1] == a {
			continue
		}
		was := d.count[a.Value]
		switch d.count[a.Value] = was + by; {
		case was == 0:
			change(a.Value, true)
		case was+by == 0:
			delete(d.count, a.Value)
			change(a.Value, false)
		}
	}
	if !has {
		d.without += int(by)
	}
}

// auditDomains compares every domain with one that is worked out anew.
func (x *Index) auditDomains() string {
	for k, d := range x.domains {
		if want := x.newDomain(k); !slices.Equal(d.values, want.values) || !maps.Equal(d.count, want.count) || d.without != want.without {
			return fmt.Sprintf("the machines of class %s have %v by %s, %d have none; want %v, %d", k.class.key, d.count, k.attribute, d.without, want.count, want.without)
		}
	}
	return ""
}

// hopeless reports whether limits or affinity rule every machine out: all values
// that machines have are at a limit, none is where another job is, or all are.
// Then nobody needs to be looked at. It says no where it would have to look longer.
func (x *Index) hopeless(g *group) bool {
	v := g.moving
	for _, c := range v.shape.limits {
		d, by := x.domain(domainKey{g.class, c.Attribute, true}), v.own.by[c.Attribute]
		full := func(value string) bool { return by[value] >= c.Limit }
		if len(d.values) <= len(by) && allOf(d.values, full) {
			return true
		}
	}
	for i, c := range v.shape.nears {
		d, by := x.domain(domainKey{g.class, c.Attribute, true}), v.near[i].by[c.Attribute]
		switch {
		case c.Negated && d.without == 0 && len(d.values) <= len(by) && allOf(d.values, func(value string) bool { return by[value] > 0 }):
			return true
		case c.Negated, len(by) == 0 && v.near[i] == v.own:
		case !d.meets(by):
			return true
		}
	}
	return false
}

// meets reports whether a machine has a value where tasks are counted.
func (d *domain) meets(by map[string]int32) bool {
	for value := range by {
		if d.count[value] > 0 {
			return true
		}
	}
	return false
}

func allOf(values []string, are func(string) bool) bool {
	return !slices.ContainsFunc(values, func(value string) bool { return !are(value) })
}
