package sim

import (
	"context"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// disk is the cluster store with everything that can go wrong between it and
// a leader.
type disk struct {
	w    *World
	mem  *state.Mem
	copy *state.Mem // an old copy, for restores
	next fate

	epoch   machine.Epoch // acquired last
	pending *state.Batch  // said to be durable, but not: a planted bug
}

// fate is what becomes of the next commit.
type fate uint8

const (
	good        fate = iota
	refused          // nothing happened, and the leader is told so
	lostAnswer       // it happened, and the leader hears a timeout
	lostRequest      // it did not happen, and the leader hears a timeout
	crashBefore      // the leader dies before it
	crashAfter       // the leader dies after it
	fates
)

func newDisk(w *World) *disk { return &disk{w: w, mem: &state.Mem{}} }

func (d *disk) load() (*state.Snapshot, error) {
	return state.Restore(func(yield func(state.Row) error) (state.Head, error) { return d.mem.Load(context.Background(), yield) })
}

func (d *disk) acquire() (machine.Epoch, error) {
	e, err := d.mem.Acquire(context.Background(), "leader")
	d.epoch = e
	return e, err
}

// commit returns an error, and whether the leader dies of it.
func (d *disk) commit(b *state.Batch) (err error, dead bool) {
	f := d.next
	d.next = good
	timeout := fault.Timeout.Errorf("commit: no answer")
	switch f {
	case refused:
		return fault.Unavailable.Errorf("commit: the disk is full"), false
	case lostRequest:
		return timeout, false
	case crashBefore:
		return timeout, true
	case good, lostAnswer, crashAfter, fates:
	}
	if fault.Planted("skipped-fsync") {
		if err := d.flush(); err != nil {
			return err, false
		}
		d.pending = b
	} else if err := d.write(b); err != nil {
		return err, false
	}
	switch f {
	case lostAnswer:
		return timeout, false
	case crashAfter:
		return timeout, true
	default:
		return nil, false
	}
}

func (d *disk) write(b *state.Batch) error {
	if err := d.mem.Commit(context.Background(), b); err != nil {
		return err
	}
	d.w.stats.Commits++
	d.w.committed(b)
	return nil
}

func (d *disk) flush() error {
	if b := d.pending; b != nil {
		d.pending = nil
		return d.write(b)
	}
	return nil
}

// crash loses what was not written.
func (d *disk) crash() { d.pending = nil }

// trim forgets old records and ended tasks, as the server does.
func (d *disk) trim() {
	q := state.TrimQuery{
		RecordsBefore: d.w.now - unit.Hour, UpTo: d.w.bill.stored.fold.Seq(), EndedBefore: d.w.now - unit.Hour, PerJob: 100,
		KeepEnded: d.w.now - unit.Hour, Limit: 1 << 20,
	}
	if _, err := d.mem.Trim(context.Background(), q); err != nil {
		d.w.fail("trim: %v", err)
	}
}

// keep takes a copy of the databases, to be restored later: the company's must
// be as old as the cluster's.
func (d *disk) keep() {
	d.copy, d.w.bill.copied = d.mem.Clone(), d.w.bill.books.clone()
}
