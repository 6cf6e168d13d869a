// Package machine describes the computers of a pool and their life.
package machine

import (
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/unit"
)

// An ID names a machine for as long as the cluster lives.
type ID string

// A Mode is what an operator wants of a machine.
type Mode uint8

// The modes, in the order of a maintenance (Aurora S-70).
const (
	None Mode = iota
	Scheduled
	Draining
	Drained
)

var modeNames = [...]string{"NONE", "SCHEDULED", "DRAINING", "DRAINED"}

// String returns the mode as Aurora spells it.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "UNKNOWN"
}

// An Attribute is one fact about a machine; a machine may have several values
// of one name.
type Attribute struct{ Name, Value string }

// A Machine is what the cluster knows of one computer.
type Machine struct {
	ID         ID
	Host       string         // where its tasks' ports are reached
	Attributes []Attribute    // sorted by name, then value; always holds host
	Capacity   unit.Resources // what the computer has: what it costs
	Overhead   unit.Resources // kept back for the agent and the supervisors
	Owed       unit.Resources // what they take beyond Overhead, of room that tasks hold: kept back as soon as it is free
	Foreign    unit.Resources // used by others than this cluster
	Ports      PortRange      // dynamic ports to give out
	Mode       Mode
	Up         bool      // its agent's lease holds
	Leaving    bool      // its agent stops its tasks and takes no new ones; when it is not up, it has ended so
	Avoid      string    // why tasks are put on it only when no other machine takes them; empty: it is not avoided
	AvoidUntil unit.Tick // until when it is avoided, or was last; 0: for as long as Avoid says why
	Avoided    int32     // how often in a row it was found to start no tasks: each time it is avoided for longer
	Boot       string    // the computer's boot id, new at every boot

	Limits []string // guarantees that its agent cannot give, for people
}

// A PortRange is the ports From to To, both included. The zero range is empty.
type PortRange struct{ From, To uint16 }

// Len returns the number of ports.
func (p PortRange) Len() int {
	if p.From == 0 || p.To < p.From {
		return 0
	}
	return int(p.To) - int(p.From) + 1
}

// Allocatable returns what tasks may reserve in all: capacity less what the
// agent and the supervisors take and foreign use.
func (m Machine) Allocatable() unit.Resources { return m.Capacity.Sub(m.Taken()).Sub(m.Foreign) }

// Taken returns what the agent and the supervisors take, as the agent says.
func (m Machine) Taken() unit.Resources { return m.Overhead.Add(m.Owed) }

// Settle divides what the agent and the supervisors take. free is what is left
// after it and after all that is reserved: below 0, tasks hold some of it. That
// is theirs, and owed to the overhead; the rest is kept back.
func (m Machine) Settle(free unit.Resources) Machine {
	taken := m.Taken()
	m.Owed = taken.Min(unit.Resources{}.Sub(free)).Max(unit.Resources{})
	m.Overhead = taken.Sub(m.Owed)
	return m
}

// Has reports whether the machine has attribute name with the given value.
func (m Machine) Has(name, value string) bool {
	return slices.Contains(m.Attributes, Attribute{name, value})
}

// Values returns the machine's values of an attribute.
func (m Machine) Values(name string) []string {
	var vs []string
	for _, a := range m.Attributes {
		if a.Name == name {
			vs = append(vs, a.Value)
		}
	}
	return vs
}

// Validate reports the first reason for which no agent may register as m.
func (m Machine) Validate() error {
	if err := name.Valid("machine id", string(m.ID)); err != nil {
		return fault.Invalid.Errorf("%w", err)
	}
	for _, q := range []struct {
		what string
		r    unit.Resources
	}{{"capacity", m.Capacity}, {"overhead", m.Overhead}, {"owed overhead", m.Owed}, {"foreign use", m.Foreign}} {
		for _, x := range unit.Measures() {
			if q.r.Of(x) < 0 {
				return fault.Invalid.Errorf("machine %s: %s of %v is %d; want 0 or more", m.ID, q.what, x, q.r.Of(x))
			}
		}
		if q.r != q.r.Whole() {
			return fault.Invalid.Errorf("machine %s: %s is not in whole MiB of ram and disk", m.ID, q.what)
		}
	}
	return nil
}
