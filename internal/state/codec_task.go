package state

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// taskSize is what most task rows fit into, in bytes.
const taskSize = 160

// EncodeTask returns the row of a task. Its key is [TaskKey].
func EncodeTask(t Task) []byte {
	w := newWriter(taskSize)
	w.hash(1, t.Config)
	w.int(2, t.Resources.CPU)
	w.int(3, t.Resources.RAM)
	w.int(4, t.Resources.Disk)
	w.int(5, t.Resources.GPU)
	w.int(6, t.Resources.Net)
	w.uint(7, uint64(t.State))
	w.str(8, string(t.Machine))
	w.ports(9, t.Ports)
	w.int(10, int64(t.Created))
	w.int(11, int64(t.Since))
	w.int(12, int64(t.Ran))
	w.int(13, int64(t.Failures))
	w.flag(14, t.Wanted)
	w.str(15, t.Reason)
	w.uint(16, uint64(t.Rev))
	w.ports(17, t.GPUs)
	w.str(18, string(t.Room))
	w.int(19, int64(t.RoomUntil))
	w.raw(t.Unknown)
	return w
}

// DecodeTask reads what [EncodeTask] returned.
func DecodeTask(key string, value []byte) (Task, error) {
	t, err := decodeTask(key, value, nil)
	if err != nil {
		return Task{}, err
	}
	return *t, nil
}

func decodeTask(key string, value []byte, shared *texts) (*Task, error) {
	id, err := parseTask(key, shared)
	if err != nil {
		return nil, err
	}
	t := &Task{Task: task.Task{ID: id}}
	r := newReader(value, shared)
	for r.next() {
		switch r.num {
		case 1:
			t.Config = r.hash()
		case 2, 3, 4, 5, 6:
			r.measure(&t.Resources, r.num-2)
		case 7:
			t.State = r.state()
		case 8:
			t.Machine = machine.ID(r.share())
		case 9:
			t.Ports = r.ports()
		case 10:
			t.Created = unit.Tick(r.int())
		case 11:
			t.Since = unit.Tick(r.int())
		case 12:
			t.Ran = unit.Tick(r.int())
		case 13:
			t.Failures = r.int32()
		case 14:
			t.Wanted = r.flag()
		case 15:
			t.Reason = r.share()
		case 16:
			t.Rev = Rev(r.uint(math.MaxUint64))
		case 17:
			t.GPUs = r.ports()
		case 18:
			t.Room = machine.ID(r.share())
		case 19:
			t.RoomUntil = unit.Tick(r.int())
		default:
			r.keep()
		}
	}
	t.Unknown = string(r.unknown)
	return t, r.err
}

// measure reads the field that holds measure number n of x.
func (r *reader) measure(x *unit.Resources, n protowire.Number) {
	switch n {
	case 0:
		x.CPU = r.int()
	case 1:
		x.RAM = r.int()
	case 2:
		x.Disk = r.int()
	case 3:
		x.GPU = r.int()
	case 4:
		x.Net = r.int()
	}
}

func (w *writer) ports(n protowire.Number, ports []uint16) {
	if len(ports) == 0 {
		return
	}
	size := 0
	for _, p := range ports {
		size += protowire.SizeVarint(uint64(p))
	}
	*w = protowire.AppendVarint(protowire.AppendTag(*w, n, protowire.BytesType), uint64(size))
	for _, p := range ports {
		*w = protowire.AppendVarint(*w, uint64(p))
	}
}

func (r *reader) ports() []uint16 {
	var ports []uint16
	for p := r.packed(); p.more(); {
		ports = append(ports, uint16(p.uint(math.MaxUint16)))
	}
	return ports
}
