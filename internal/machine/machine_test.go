package machine

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// TestEpoch orders terms by incarnation, then by number.
func TestEpoch(t *testing.T) {
	inOrder := []Epoch{{}, {0, 7}, {1, 1}, {1, 2}, {2, 1}, {2, 10}}
	for i, a := range inOrder {
		for j, b := range inOrder {
			if got, want := a.Compare(b), cmp.Compare(i, j); got != want {
				t.Errorf("%v against %v: %d, want %d", a, b, got, want)
			}
		}
	}
	if got := (Epoch{2, 10}).String(); got != "2.10" {
		t.Errorf("got %s, want 2.10", got)
	}
}

func TestPortRange(t *testing.T) {
	for r, want := range map[PortRange]int{{}: 0, {From: 31000, To: 31000}: 1, {From: 31000, To: 31009}: 10, {From: 9, To: 8}: 0, {To: 9}: 0, {From: 1, To: 65535}: 65535} {
		if got := r.Len(); got != want {
			t.Errorf("%v has %d ports, want %d", r, got, want)
		}
	}
}

func TestMachine(t *testing.T) {
	m := Machine{
		ID: "m1", Attributes: []Attribute{{"rack", "a"}, {"rack", "b"}, {"host", "m1"}},
		Capacity: unit.Resources{CPU: 8000, RAM: 16 * unit.MiB}, Overhead: unit.Resources{CPU: 500}, Foreign: unit.Resources{RAM: 20 * unit.MiB},
	}
	if got, want := m.Allocatable(), (unit.Resources{CPU: 7500, RAM: -4 * unit.MiB}); got != want {
		t.Errorf("allocatable %v, want %v", got, want)
	}
	if !m.Has("rack", "b") || m.Has("rack", "m1") || !slices.Equal(m.Values("rack"), []string{"a", "b"}) || m.Values("no") != nil {
		t.Errorf("attributes: rack has %v", m.Values("rack"))
	}
	if err := m.Validate(); err != nil {
		t.Error(err)
	}
	for what, spoil := range map[string]func(*Machine){
		"machine id":  func(m *Machine) { m.ID = "../m" },
		"capacity":    func(m *Machine) { m.Capacity.CPU = -1 },
		"overhead":    func(m *Machine) { m.Overhead.Disk = -unit.MiB },
		"owed":        func(m *Machine) { m.Owed.CPU = -1 },
		"foreign use": func(m *Machine) { m.Foreign.GPU = -1 },
		"whole MiB":   func(m *Machine) { m.Capacity.RAM++ },
	} {
		x := m
		spoil(&x)
		if err := x.Validate(); err == nil || fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v; want kind invalid, and the thing named", what, err)
		}
	}
	if Draining.String() != "DRAINING" || Mode(9).String() != "UNKNOWN" {
		t.Errorf("modes are called %v, %v", Draining, Mode(9))
	}
}

// TestSettle is the table of how overhead gives way to what tasks hold.
func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name                 string
		overhead, owed, free int64 // before
		kept, debt           int64 // after
	}{
		{"there is room", 300, 0, 500, 300, 0},
		{"there is just room", 300, 0, 0, 300, 0},
		{"tasks hold some of it", 300, 0, -100, 200, 100},
		{"tasks hold all of it", 300, 0, -300, 0, 300},
		{"tasks hold more than it, which is not its debt", 300, 0, -400, 0, 300},
		{"more is owed", 200, 100, -150, 150, 150},
		{"tasks gave some back", 200, 100, -40, 260, 40},
		{"tasks gave more back than is owed", 200, 100, 60, 300, 0},
		{"nothing is taken", 0, 0, -100, 0, 0},
	} {
		m := Machine{Overhead: unit.Resources{CPU: c.overhead, RAM: 7}, Owed: unit.Resources{CPU: c.owed}}
		got := m.Settle(unit.Resources{CPU: c.free, RAM: 1, GPU: -5})
		if want := (unit.Resources{CPU: c.kept, RAM: 7}); got.Overhead != want {
			t.Errorf("%s: keeps back %v, want %v", c.name, got.Overhead, want)
		}
		if want := (unit.Resources{CPU: c.debt}); got.Owed != want {
			t.Errorf("%s: owes %v, want %v", c.name, got.Owed, want)
		}
	}
}
