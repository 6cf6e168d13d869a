package state

import (
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Stray is a task that runs on a machine, or may run there, though no row
// says so: its row has ended and its machine has not said that the task has, or
// there never was a row. Nobody else is given its room, and nobody is billed
// for it: the platform keeps it.
type Stray struct {
	ID        task.ID
	Resources unit.Resources // in whole MiB
	Ports     []uint16
	GPUs      []uint16
	Since     unit.Tick // when it lost its row, or was seen without one
}

// MaxStrays bounds the strays of one machine. Of those beyond it the cluster
// keeps no account.
const MaxStrays = 4096

// PutStrays writes which strays a machine has, in any order.
type PutStrays struct {
	ID     machine.ID
	Base   Rev
	Strays []Stray
}

func (c PutStrays) apply(d *Draft) error {
	row, exists := d.snap.Machine(c.ID)
	if err := present("machine", string(c.ID), exists, row.Rev, c.Base); err != nil {
		return err
	}
	d.putStrays(row, c.Strays)
	return nil
}

// Strayed sums what the strays of a machine hold.
func (m Machine) Strayed() unit.Resources {
	var sum unit.Resources
	for i := range m.Strays {
		sum = sum.Add(m.Strays[i].Resources)
	}
	return sum
}

// kept returns m as records tell it: what strays hold is kept back like the
// rest of the overhead.
func (m Machine) kept() machine.Machine {
	k := m.Machine
	k.Overhead = k.Overhead.Add(m.Strayed())
	return k
}

// A settled machine has other strays than before this draft, or another part of
// its overhead is owed.
type settled struct {
	before  machine.Machine // as records told it
	strayed bool
}

// settling notes how records told a machine that is about to change. The record
// comes with the batch: much may change of it at once.
func (d *Draft) settling(row Machine, strayed bool) {
	x, known := d.settled[row.ID]
	if !known {
		x.before = row.kept()
	}
	x.strayed = x.strayed || strayed
	d.settled[row.ID] = x
}

// told returns how records told a machine before this draft changed its row, for
// a record that tells all that has changed of it.
func (d *Draft) told(id machine.ID, row Machine) machine.Machine {
	x, known := d.settled[id]
	delete(d.settled, id)
	if known {
		return x.before
	}
	return row.kept()
}

// putStrays gives a machine its strays.
func (d *Draft) putStrays(row Machine, strays []Stray) {
	d.settling(row, true)
	strays = slices.Clone(strays)
	slices.SortFunc(strays, func(a, b Stray) int { return a.ID.Compare(b.ID) })
	strays = strays[:min(len(strays), MaxStrays)]
	d.snap.giveBack(row.ID, row.Strayed())
	row.Strays, row.Rev = strays, d.snap.Rev
	for i := range strays {
		d.snap.giveBack(row.ID, unit.Resources{}.Sub(strays[i].Resources))
	}
	row.Machine = row.Settle(d.snap.Free(row.ID))
	d.snap.machines.put(row.ID, row)
	d.touchMachine(row.ID)
}

// stray keeps the room of a task that was given up: its machine may run it.
func (d *Draft) stray(t Task) {
	row, exists := d.snap.Machine(t.Machine)
	if !exists {
		return
	}
	s := Stray{ID: t.ID, Resources: t.Resources.Whole(), Ports: t.Ports, GPUs: t.GPUs, Since: d.snap.At}
	d.putStrays(row, append(slices.Clone(row.Strays), s))
}

// recordSettled records the machines whose strays or debts are others than before.
func (d *Draft) recordSettled() {
	for _, id := range slices.Sorted(maps.Keys(d.settled)) {
		row, exists := d.snap.Machine(id)
		if !exists {
			continue
		}
		x := d.settled[id]
		paid := row.kept().Overhead == x.before.Overhead
		if x.strayed && !fault.Planted("stray-unrecorded") || !paid && !x.strayed && !fault.Planted("debt-unrecorded") {
			d.record(Record{Kind: MachineRecord, Machine: d.machineChange(x.before, row)})
		}
	}
	clear(d.settled)
}

func (d *Draft) machineChange(before machine.Machine, row Machine) *MachineChange {
	return &MachineChange{Before: before, After: row.kept(), Strays: row.Strays, Free: d.snap.Free(row.ID).Add(row.Owed)}
}

func (w *writer) strays(n protowire.Number, strays []Stray) {
	for i := range strays {
		x := &strays[i]
		b := make(writer, 0, 64)
		b.str(1, string(x.ID.Job))
		b.int(2, int64(x.ID.Instance))
		b.uint(3, uint64(x.ID.Attempt))
		b.resources(4, x.Resources)
		b.ports(5, x.Ports)
		b.ports(6, x.GPUs)
		b.int(7, int64(x.Since))
		w.bytes(n, b)
	}
}

func (r *reader) stray() Stray {
	var x Stray
	in := r.inner()
	for in.next() {
		switch in.num {
		case 1:
			x.ID.Job = job.Key(in.str())
		case 2:
			x.ID.Instance = in.int32()
		case 3:
			x.ID.Attempt = uint32(in.uint(math.MaxUint32))
		case 4:
			x.Resources = in.resources()
		case 5:
			x.Ports = in.ports()
		case 6:
			x.GPUs = in.ports()
		case 7:
			x.Since = unit.Tick(in.int())
		default: // added by a newer format
		}
	}
	r.err = in.err
	return x
}
