package state

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// EncodeMachine returns the row of a machine. Its key is [MachineKey].
func EncodeMachine(m Machine) []byte {
	w := newWriter(256)
	w.machine(&m.Machine)
	w.int(14, int64(m.Since))
	w.uint(15, uint64(m.Rev))
	w.strays(16, m.Strays)
	w.raw(m.Unknown)
	return w
}

// machine appends what is known of m, except its ID.
func (w *writer) machine(m *machine.Machine) {
	w.str(1, m.Host)
	for _, a := range m.Attributes {
		b := make(writer, 0, len(a.Name)+len(a.Value)+4)
		b.str(1, a.Name)
		b.str(2, a.Value)
		w.bytes(2, b)
	}
	w.resources(3, m.Capacity)
	w.resources(4, m.Overhead)
	w.resources(5, m.Foreign)
	w.uint(6, uint64(m.Ports.From))
	w.uint(7, uint64(m.Ports.To))
	w.uint(8, uint64(m.Mode))
	w.flag(9, m.Up)
	w.str(10, m.Boot)
	for _, l := range m.Limits {
		w.must(11, l)
	}
	w.flag(12, m.Leaving)
	w.str(13, m.Avoid)
	w.resources(17, m.Owed)
	w.int(18, int64(m.AvoidUntil))
	w.int(19, int64(m.Avoided))
}

// DecodeMachine reads what [EncodeMachine] returned.
func DecodeMachine(key string, value []byte) (Machine, error) {
	m := Machine{Machine: machine.Machine{ID: machine.ID(key)}}
	r := newReader(value, nil)
	for r.next() {
		switch r.num {
		case 14:
			m.Since = unit.Tick(r.int())
		case 15:
			m.Rev = Rev(r.uint(math.MaxUint64))
		case 16:
			m.Strays = append(m.Strays, r.stray())
		default:
			r.machine(&m.Machine)
		}
	}
	m.Unknown = string(r.unknown)
	return m, r.err
}

// machine reads one field of what is known of m.
func (r *reader) machine(m *machine.Machine) {
	switch r.num {
	case 1:
		m.Host = r.str()
	case 2:
		m.Attributes = append(m.Attributes, r.attribute())
	case 3:
		m.Capacity = r.resources()
	case 4:
		m.Overhead = r.resources()
	case 5:
		m.Foreign = r.resources()
	case 6:
		m.Ports.From = uint16(r.uint(math.MaxUint16))
	case 7:
		m.Ports.To = uint16(r.uint(math.MaxUint16))
	case 8:
		m.Mode = machine.Mode(r.uint(uint64(machine.Drained)))
	case 9:
		m.Up = r.flag()
	case 10:
		m.Boot = r.str()
	case 11:
		m.Limits = append(m.Limits, r.str())
	case 12:
		m.Leaving = r.flag()
	case 13:
		m.Avoid = r.str()
	case 17: // 14 to 16 are the row's
		m.Owed = r.resources()
	case 18:
		m.AvoidUntil = unit.Tick(r.int())
	case 19:
		m.Avoided = r.int32()
	default:
		r.keep()
	}
}

// inner returns a reader of the message in a field.
func (r *reader) inner() *reader {
	b := r.bytes()
	return &reader{rest: b, shared: r.shared, err: r.err}
}

func (r *reader) attribute() machine.Attribute {
	var a machine.Attribute
	in := r.inner()
	for in.next() {
		switch in.num {
		case 1:
			a.Name = in.str()
		case 2:
			a.Value = in.str()
		default:
			in.closed()
		}
	}
	r.err = in.err
	return a
}

// resources appends x as a message, unless it is nothing.
func (w *writer) resources(n protowire.Number, x unit.Resources) {
	if x != (unit.Resources{}) {
		w.bytes(n, appendResources(make([]byte, 0, 40), x))
	}
}

func appendResources(b []byte, x unit.Resources) []byte {
	w := writer(b)
	w.int(1, x.CPU)
	w.int(2, x.RAM)
	w.int(3, x.Disk)
	w.int(4, x.GPU)
	w.int(5, x.Net)
	return w
}

func (r *reader) resources() unit.Resources {
	var x unit.Resources
	in := r.inner()
	for in.next() {
		if in.num > 5 {
			in.closed()
			break
		}
		in.measure(&x, in.num-1)
	}
	r.err = in.err
	return x
}
