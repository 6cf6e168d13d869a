package meter

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/ledger/pack"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Remembered is how long after a stray is gone the meter knows when it was
// one: what agents say that it used comes later.
const Remembered = 24 * unit.Hour

// A stretch is a time in which a task was a stray on one machine: from when
// its row ended, or it was seen without one, until its machine said that it is
// gone, or it had a row again.
type stretch struct {
	id       task.ID
	from, to unit.Tick // to 0: it still is
}

// over reports whether nothing is expected any more of a stretch at time at.
func (s stretch) over(at unit.Tick) bool { return s.to != 0 && at-s.to > Remembered }

// stray takes in which strays a machine has from now on. The slice that the
// account had is left as it was: clones share it.
func (f *Fold) stray(at unit.Tick, id machine.ID, now []state.Stray) {
	m := f.account(id)
	if len(m.strays) == 0 && len(now) == 0 {
		return
	}
	are := make(map[task.ID]bool, len(now))
	for i := range now {
		are[now[i].ID] = true
	}
	next := make([]stretch, 0, len(m.strays)+len(now))
	for _, s := range m.strays {
		switch {
		case s.to == 0 && !are[s.id]:
			s.to = at
		case s.to == 0:
			delete(are, s.id) // it goes on
		}
		if !s.over(at) {
			next = append(next, s)
		}
	}
	for i := range now {
		if are[now[i].ID] {
			delete(are, now[i].ID)
			next = append(next, stretch{id: now[i].ID, from: now[i].Since})
		}
	}
	f.setStrays(id, m, next)
}

// setStrays gives a machine's account its stretches, and keeps account of on
// which machines a task has any.
func (f *Fold) setStrays(id machine.ID, m *account, next []stretch) {
	for _, s := range m.strays {
		left := slices.DeleteFunc(slices.Clone(f.strays[s.id]), func(x machine.ID) bool { return x == id })
		if f.strays[s.id] = left; len(left) == 0 {
			delete(f.strays, s.id)
		}
	}
	m.strays = next
	for _, s := range next {
		if !slices.Contains(f.strays[s.id], id) {
			f.strays[s.id] = append(slices.Clip(f.strays[s.id]), id)
		}
	}
}

// forgetStrays drops stretches of which nothing is expected any more.
func (f *Fold) forgetStrays(at unit.Tick, id machine.ID, m *account) {
	if slices.ContainsFunc(m.strays, func(s stretch) bool { return s.over(at) }) {
		f.setStrays(id, m, slices.DeleteFunc(slices.Clone(m.strays), func(s stretch) bool { return s.over(at) }))
	}
}

// surplus returns for how much of a fact's time its task was a stray, as far as
// is known at time at.
func (f *Fold) surplus(at unit.Tick, u ledger.Used) unit.Tick {
	var d unit.Tick
	for _, id := range f.strays[u.Task] {
		for _, s := range f.machines[id].strays {
			if s.id != u.Task || s.over(at) {
				continue
			}
			end := u.To
			if s.to != 0 {
				end = min(end, s.to)
			}
			d += max(0, end-max(u.From, s.from))
		}
	}
	return min(d, u.To-u.From)
}

// divide splits a fact at the ends of its task's rows: what its owner used, and
// what the platform did. What was used within the fact's time is taken for even;
// nothing is lost and nothing is counted twice.
func divide(u ledger.Used, surplus unit.Tick) (owner, platform ledger.Used) {
	part := func(n int64) int64 {
		hi, lo := bits.Mul64(uint64(n), uint64(surplus)) // a fact's amounts are not below 0
		q, _ := bits.Div64(hi, lo, uint64(u.To-u.From))  // surplus is less, so the quotient fits
		return int64(q)
	}
	owner, platform = u, u
	if surplus == u.To-u.From {
		owner.CPU, owner.RAM, owner.Disk = 0, 0, 0
		return owner, platform
	}
	platform.CPU, platform.RAM, platform.Disk = part(u.CPU), part(u.RAM), part(u.Disk)
	owner.CPU, owner.RAM, owner.Disk = u.CPU-platform.CPU, u.RAM-platform.RAM, u.Disk-platform.Disk
	return owner, platform
}

// A run sums what is used by one job in one hour, for as long as facts speak of
// it, before it is given on.
type run struct {
	to  Sink
	sum ledger.UsedHour
	any bool
}

func (r *run) add(hour unit.Tick, k job.Key, a ledger.Amounts) (err error) {
	if r.any && (hour != r.sum.Hour || k != r.sum.Job) {
		if err = r.flush(); err != nil {
			return err
		}
	}
	if !r.any {
		r.sum, r.any = ledger.UsedHour{Hour: hour, Job: k}, true
	}
	r.sum.Used, err = r.sum.Used.Add(a)
	return err
}

func (r *run) flush() error {
	if !r.any {
		return nil
	}
	r.any = false
	return r.to.Used(r.sum)
}

func appendStretches(b []byte, list []stretch, hour unit.Tick) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = pack.AppendString(b, string(s.id.Job))
		b = binary.AppendVarint(b, int64(s.id.Instance))
		b = binary.AppendUvarint(b, uint64(s.id.Attempt))
		b = binary.AppendVarint(b, int64(s.from-hour))
		b = appendBool(b, s.to != 0)
		b = binary.AppendVarint(b, int64(s.to-s.from))
	}
	return b
}

// readStretches reads none where there are none: they came after the rest of
// the account did.
func readStretches(r *pack.Reader, hour unit.Tick) []stretch {
	if !r.More() {
		return nil
	}
	var list []stretch
	for range r.Count() {
		var s stretch
		s.id.Job = job.Key(r.String())
		s.id.Instance, s.id.Attempt = int32(r.Int()), uint32(r.Uint())
		s.from = hour + unit.Tick(r.Int())
		ended := r.Bool()
		if length := unit.Tick(r.Int()); ended {
			s.to = s.from + length
		}
		list = append(list, s)
	}
	return list
}
