package sched

import (
	"cmp"
	"slices"

	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

func randomMachine(t *rapid.T, w *world) {
	id := machine.ID(rapid.SampledFrom([]string{"m1", "m2", "m3", "m4", "m5", "m6", "m7"}).Draw(t, "machine"))
	m := machine.Machine{ID: id, Up: rapid.IntRange(0, 5).Draw(t, "up") > 0, Attributes: []machine.Attribute{{Name: "host", Value: string(id)}}}
	if rapid.IntRange(0, 3).Draw(t, "maintenance") == 0 {
		m.Mode = rapid.SampledFrom([]machine.Mode{machine.Scheduled, machine.Draining, machine.Drained}).Draw(t, "mode")
	}
	m.Avoid = rapid.SampledFrom([]string{"", "", "it is old"}).Draw(t, "avoid")
	m.Capacity = randomResources(t, 8)
	m.Foreign = unit.Resources{CPU: rapid.SampledFrom([]int64{0, 0, 500, 1000}).Draw(t, "foreign")}
	m.Ports = machine.PortRange{From: 31000, To: 31000 + rapid.Uint16Range(0, 6).Draw(t, "ports")}
	for _, name := range []string{"disk", "rack"} {
		for _, v := range []string{"a", "b"} {
			if rapid.IntRange(0, 2).Draw(t, name) == 0 {
				m.Attributes = append(m.Attributes, machine.Attribute{Name: name, Value: v})
			}
		}
	}
	if rapid.IntRange(0, 4).Draw(t, "keep") == 0 {
		m.Attributes = append(m.Attributes, machine.Attribute{Name: "dedicated", Value: rapid.SampledFrom([]string{"ads/x", "*/x"}).Draw(t, "for")})
	}
	slices.SortFunc(m.Attributes, func(a, b machine.Attribute) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
	})
	w.put(m)
}

func randomResources(t *rapid.T, n int64) unit.Resources {
	return unit.Resources{
		CPU:  500 * rapid.Int64Range(0, n).Draw(t, "cpu"),
		RAM:  gib * rapid.Int64Range(0, n).Draw(t, "ram"),
		Disk: gib * rapid.Int64Range(0, n).Draw(t, "disk"),
		GPU:  rapid.SampledFrom([]int64{0, 0, 0, 300, 500, 700, 1000, 2000, 3000}).Draw(t, "gpu"),
		Net:  1e6 * rapid.SampledFrom([]int64{0, 0, n}).Draw(t, "net"),
	}
}

func randomConfig(t *rapid.T) job.Config {
	c := asks(randomResources(t, 2), rapid.IntRange(0, 2).Draw(t, "ports"))
	if c.Task.Resources.Net > 0 {
		c.Task.Resources.Net = 3e6
	}
	c.Tier = rapid.SampledFrom([]string{job.Preferred, job.Preemptible, job.Revocable}).Draw(t, "tier")
	c.Priority = rapid.Int32Range(0, 2).Draw(t, "priority")
	c.Placement = rapid.SampledFrom([]string{"", job.Spread}).Draw(t, "placement")
	c.Constraints = rapid.SliceOfN(rapid.SampledFrom([]job.Constraint{
		is("rack", "a"), is("rack", "a", "b"), not("rack", "a"), is("disk", "b"), not("disk", "a", "b"), is("host", "m1", "m2"),
		{Attribute: "rack", Spread: 1},
		{Attribute: "host", Spread: 2},
		{Attribute: "rack", With: "ads/prod/a"},
		{Attribute: "host", With: "web/prod/b"},
		{Attribute: "rack", With: "ads/prod/b", Negated: true},
		{Attribute: "host", With: "ads/prod/a", Negated: true},
		most("host", 1), most("host", 2), most("rack", 1), most("rack", 2), most("disk", 3),
		is("dedicated", "ads/x"), is("dedicated", "*/x", "ads/x"), not("dedicated", "ads/x"),
	}), 0, 2).Draw(t, "constraints")
	return c
}

// randomDrop forgets a machine that is empty.
func randomDrop(t *rapid.T, w *world) {
	var empty []state.Machine
	for m := range w.s.Machines() {
		if len(newTwin(w.s).on(m.ID)) == 0 {
			empty = append(empty, m)
		}
	}
	if len(empty) > 0 {
		m := rapid.SampledFrom(empty).Draw(t, "gone")
		w.do(state.DropMachine{ID: m.ID, Base: m.Rev})
	}
}
