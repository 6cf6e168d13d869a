package ledger

import (
	"encoding/binary"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger/pack"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// An Hour is what one cluster had and reserved from From to To: a whole hour,
// or the part of the open one that is over. Machines and jobs are in order of
// their names; those with nothing at all are left out.
type Hour struct {
	From, To unit.Tick
	Machines []MachineHour
	Jobs     []JobHour
}

// A MachineHour is where a machine's capacity went, each account integrated
// by itself: Capacity = Billed + Overhead + Idle + Down, which [Hour.Check]
// checks. Idle is negative while a pool has taken back what tasks still hold.
type MachineHour struct {
	Machine  machine.ID
	Capacity Amounts // what the machine had, from its first record until it left
	Billed   Amounts // what tasks reserved
	Overhead Amounts // what its agent and others kept back, while it was up
	Idle     Amounts // what nobody reserved, while it was up
	Down     Amounts // what was not reserved, while it was not up
}

// A JobHour is what a job's tasks reserved.
type JobHour struct {
	Job      job.Key
	Reserved Amounts
}

// A UsedHour is what a job's tasks used in the hour that starts at Hour. There
// may be several of one job and hour: they add up. Without a job it is what
// tasks used after they were given up: the platform's.
type UsedHour struct {
	Hour unit.Tick
	Job  job.Key
	Used Amounts
}

// Check reports the first machine and measure for which capacity is not
// billed + overhead + idle + down, or the first measure for which the jobs
// and the machines do not agree on what was reserved.
func (h Hour) Check() error {
	var held, reserved Amounts
	var err error
	for _, m := range h.Machines {
		if err = m.check(h); err != nil {
			return err
		}
		if held, err = held.Add(m.Billed); err != nil {
			return fault.Internal.Errorf("hour %s: what machines billed: %w", Stamp(h.From), err)
		}
	}
	for _, j := range h.Jobs {
		if reserved, err = reserved.Add(j.Reserved); err != nil {
			return fault.Internal.Errorf("hour %s: what jobs reserved: %w", Stamp(h.From), err)
		}
	}
	off, err := reserved.Sub(held)
	if err != nil {
		return fault.Internal.Errorf("hour %s: reserved less billed: %w", Stamp(h.From), err)
	}
	for _, x := range Measures() {
		if off[x].Sign() != 0 {
			return fault.Internal.Errorf("all machines, hour %s, %v: the jobs reserved %s hours and the machines billed %s; the difference is %s; %s",
				Stamp(h.From), x, reserved.Hours(x), held.Hours(x), off.Hours(x), noBill)
		}
	}
	return nil
}

const noBill = "no bill is made of numbers that do not add up: keep the records and report this"

func (m MachineHour) check(h Hour) error {
	sum := m.Billed
	var err error
	for _, part := range []Amounts{m.Overhead, m.Idle, m.Down} {
		if sum, err = sum.Add(part); err != nil {
			return fault.Internal.Errorf("machine %s, hour %s: %w", m.Machine, Stamp(h.From), err)
		}
	}
	off, err := m.Capacity.Sub(sum)
	if err != nil {
		return fault.Internal.Errorf("machine %s, hour %s: %w", m.Machine, Stamp(h.From), err)
	}
	for _, x := range Measures() {
		if off[x].Sign() != 0 {
			return fault.Internal.Errorf("machine %s, hour %s, %v: capacity is %s hours, but billed %s + overhead %s + idle %s + down %s is %s; the difference is %s; %s",
				m.Machine, Stamp(h.From), x, m.Capacity.Hours(x), m.Billed.Hours(x), m.Overhead.Hours(x), m.Idle.Hours(x), m.Down.Hours(x),
				sum.Hours(x), off.Hours(x), noBill)
		}
	}
	return nil
}

// Total returns the sums over all machines, under no name.
func (h Hour) Total() (MachineHour, error) {
	var t MachineHour
	for _, m := range h.Machines {
		for _, p := range []struct{ sum, part *Amounts }{
			{&t.Capacity, &m.Capacity},
			{&t.Billed, &m.Billed},
			{&t.Overhead, &m.Overhead},
			{&t.Idle, &m.Idle},
			{&t.Down, &m.Down},
		} {
			var err error
			if *p.sum, err = p.sum.Add(*p.part); err != nil {
				return MachineHour{}, fault.Internal.Errorf("hour %s: sum over machines: %w", Stamp(h.From), err)
			}
		}
	}
	return t, nil
}

// Stamp prints a moment as errors and statements show it, to the second:
// 2026-01-31T13:00:00Z.
func Stamp(t unit.Tick) string { return t.Time().Format(time.RFC3339) }

// HourFormat is the version of stored hours, as their first byte.
const HourFormat = 1 + format.Ahead

// EncodeHour returns h as it is stored.
func EncodeHour(h Hour) []byte {
	b := []byte{HourFormat}
	b = binary.AppendVarint(b, int64(h.From))
	b = binary.AppendVarint(b, int64(h.To))
	b = binary.AppendUvarint(b, uint64(len(h.Machines)))
	var item []byte
	for _, m := range h.Machines {
		item = pack.AppendString(item[:0], string(m.Machine))
		for _, a := range []Amounts{m.Capacity, m.Billed, m.Overhead, m.Idle, m.Down} {
			item = AppendAmounts(item, a)
		}
		b = pack.AppendItem(b, format.AppendAdded(item))
	}
	b = binary.AppendUvarint(b, uint64(len(h.Jobs)))
	for _, j := range h.Jobs {
		item = AppendAmounts(pack.AppendString(item[:0], string(j.Job)), j.Reserved)
		b = pack.AppendItem(b, item)
	}
	return b
}

// DecodeHour reads what [EncodeHour] wrote, also one version ahead.
func DecodeHour(b []byte) (Hour, error) {
	r := pack.NewReader(b)
	if err := readable("a stored hour", r.Byte(), HourFormat); err != nil {
		return Hour{}, err
	}
	h := Hour{From: unit.Tick(r.Int()), To: unit.Tick(r.Int())}
	if n := r.Count(); n > 0 {
		h.Machines = make([]MachineHour, n)
	}
	for i := range h.Machines {
		m, it := &h.Machines[i], r.Item()
		m.Machine = machine.ID(it.String())
		for _, a := range []*Amounts{&m.Capacity, &m.Billed, &m.Overhead, &m.Idle, &m.Down} {
			*a = ReadAmounts(&it)
		}
		r.Join(&it)
	}
	if n := r.Count(); n > 0 {
		h.Jobs = make([]JobHour, n)
	}
	for i := range h.Jobs {
		it := r.Item()
		h.Jobs[i] = JobHour{job.Key(it.String()), ReadAmounts(&it)}
		r.Join(&it)
	}
	if err := r.Err(); err != nil {
		return Hour{}, fault.Internal.Errorf("a stored hour: %w; restore the database from a backup", err)
	}
	return h, nil
}

// readable reports whether data of format v can be read by a program that
// writes format own: from one back to one ahead.
func readable(what string, v byte, own int) error {
	if int(v) < max(1, own-1) || int(v) > own+1 {
		return fault.Invalid.Errorf("%s is of format %d; want %d to %d: upgrade one version at a time", what, v, max(1, own-1), own+1)
	}
	return nil
}
