// Package meter turns a cluster's records into what was had, reserved and
// used. It is a fold: a value and a function of the next record, without a
// clock, so the same records always give the same hours, a record that comes
// twice changes nothing, and one that is missing is an error.
//
// Five accounts of every machine are kept apart, each integrated by its own
// code from its own fields of the records: capacity from the machine's life,
// billed from the steps of tasks, overhead from what machines keep back, idle
// and down from the free amounts that the leader counts beside its tasks. They
// must add up, [ledger.Hour.Check] says whether they do, and nothing here
// makes them.
//
// The fold holds what lives now and the open hour, never history: an hour that
// is over is handed to the [Sink] and forgotten.
package meter

import (
	"maps"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// MaxQuiet is the longest time between two records. A leader whose clock jumps
// further would bill years in one step.
const MaxQuiet = 400 * 24 * unit.Hour

// A Sink takes what a fold has finished. What it is given is its own.
type Sink interface {
	// Hour takes an hour that is over. Hours come in order, without gaps.
	Hour(h ledger.Hour) error
	// Used takes amounts that were used, for any hour.
	Used(u ledger.UsedHour) error
}

// A Fold is where the meter of one cluster stands. It belongs to one goroutine.
type Fold struct {
	seq      state.Seq // of the last record
	at       unit.Tick // of the last record
	hour     unit.Tick // start of the open hour
	machines map[machine.ID]*account
	jobs     map[job.Key]*held
	strays   map[task.ID][]machine.ID // on whose accounts a task has stretches
	since    changes
	broken   error
}

// changes are what is different from what was stored last.
type changes struct {
	whole    bool // all of it
	machines map[machine.ID]bool
	jobs     map[job.Key]bool
}

func (c *changes) machine(id machine.ID) {
	if c.machines == nil {
		c.machines = map[machine.ID]bool{}
	}
	c.machines[id] = true
}

func (c *changes) job(k job.Key) {
	if c.jobs == nil {
		c.jobs = map[job.Key]bool{}
	}
	c.jobs[k] = true
}

// New returns the meter of a cluster that has no records yet.
func New() *Fold {
	return &Fold{
		machines: map[machine.ID]*account{}, jobs: map[job.Key]*held{}, strays: map[task.ID][]machine.ID{},
		since: changes{whole: true},
	}
}

// Seq returns the number of the last record folded, 0 if none.
func (f *Fold) Seq() state.Seq { return f.seq }

// Time returns when the last record was made, 0 if there is none.
func (f *Fold) Time() unit.Tick { return f.at }

// Fold takes in the record that follows the last one and gives what it
// finishes to the sink. A record taken in before changes nothing. After an
// error that is not about the record's place in the sequence the fold is of
// no more use: load it again from where it was stored.
func (f *Fold) Fold(r state.Record, to Sink) error {
	if f.broken != nil {
		return f.broken
	}
	if known, err := f.place(r); known || err != nil {
		return err
	}
	if f.seq == 0 {
		f.hour = r.At.FloorHour()
	}
	f.broken = f.take(r, to)
	if f.broken == nil {
		f.seq, f.at = r.Seq, r.At
	}
	return f.broken
}

// place reports whether r was taken in before, or what is wrong with its place.
func (f *Fold) place(r state.Record) (known bool, err error) {
	switch {
	case r.Seq <= f.seq && r.At > f.at:
		return false, fault.Conflict.Errorf("record %d is of %s, but record %d of %s was metered before it: the cluster was restored from an older copy; restore the company's database from the same time",
			r.Seq, ledger.Stamp(r.At), f.seq, ledger.Stamp(f.at))
	case r.Seq <= f.seq:
		return !fault.Planted("meter-recounts"), nil
	case r.Seq != f.seq+1:
		return false, fault.Internal.Errorf("record %d follows record %d; want %d: records are missing, and what they say cannot be billed", r.Seq, f.seq, f.seq+1)
	case r.At < f.at:
		return false, fault.Internal.Errorf("record %d is of %s, before record %d of %s: the time of records never goes back", r.Seq, ledger.Stamp(r.At), f.seq, ledger.Stamp(f.at))
	case f.seq > 0 && r.At-f.at > MaxQuiet:
		return false, fault.Internal.Errorf("record %d is of %s, more than 400 days after record %d of %s: the leader's clock jumped", r.Seq, ledger.Stamp(r.At), f.seq, ledger.Stamp(f.at))
	}
	return false, nil
}

func (f *Fold) take(r state.Record, to Sink) error {
	if err := f.closeUpTo(r.At, to.Hour); err != nil {
		return err
	}
	var err error
	switch r.Kind {
	case state.TaskRecord:
		err = f.task(r.At, r.Task)
	case state.MachineRecord:
		err = f.machine(r.At, r.Machine)
	case state.FactRecord:
		err = f.fact(r.At, r.Fact, to)
	case state.JobRecord, state.ClusterRecord, state.QuotaRecord: // nothing is reserved by them
	default: // of a later version, which tells machines and tasks as this one does
	}
	if err != nil {
		return fault.Internal.Errorf("record %d: %w", r.Seq, err)
	}
	return nil
}

func (f *Fold) task(at unit.Tick, c *state.TaskChange) error {
	if c == nil {
		return errEmpty
	}
	was, is := c.Before.Placed(), c.After.State.Placed()
	if was != is {
		r, err := levelOf(c.After.Resources)
		if err != nil {
			return err
		}
		if was {
			r = r.negated()
		}
		if err := f.held(c.After, at-f.hour, r); err != nil {
			return err
		}
	}
	if c.After.Machine == "" {
		return nil
	}
	free, err := levelOf(c.Free)
	if err != nil {
		return err
	}
	m := f.account(c.After.Machine)
	if err := m.idle.task(at, free); err != nil {
		return err
	}
	return m.down.task(at, free)
}

// held changes what a task's job and its machine hold.
func (f *Fold) held(t task.Task, since unit.Tick, by level) error {
	h := f.jobs[t.ID.Job]
	if h == nil {
		h = &held{}
		f.jobs[t.ID.Job] = h
	}
	f.since.job(t.ID.Job)
	if err := h.change(since, by); err != nil {
		return err
	}
	return f.account(t.Machine).billed.change(since, by)
}

func (f *Fold) machine(at unit.Tick, c *state.MachineChange) error {
	if c == nil {
		return errEmpty
	}
	if c.Left {
		f.stray(at, c.Before.ID, nil)
		return f.account(c.Before.ID).leave(at, at-f.hour)
	}
	capacity, err := levelOf(c.After.Capacity)
	if err != nil {
		return err
	}
	kept, err := levelOf(c.After.Overhead)
	if err != nil {
		return err
	}
	foreign, err := levelOf(c.After.Foreign)
	if err != nil {
		return err
	}
	if kept, err = kept.plus(foreign); err != nil {
		return err
	}
	free, err := levelOf(c.Free)
	if err != nil {
		return err
	}
	f.stray(at, c.After.ID, c.Strays)
	m := f.account(c.After.ID)
	if err := m.capacity.span(at, capacity); err != nil {
		return err
	}
	if err := m.overhead.set(at-f.hour, kept.when(c.After.Up || fault.Planted("meter-kept-when-down"))); err != nil {
		return err
	}
	if err := m.idle.machine(at, free, c.After.Up); err != nil {
		return err
	}
	return m.down.machine(at, free, kept, !c.After.Up)
}

// fact takes in what tasks used. What a task used after its row's end is the
// platform's, and no owner's.
func (f *Fold) fact(at unit.Tick, x *state.Fact, to Sink) error {
	if x == nil {
		return errEmpty
	}
	facts, err := ledger.DecodeUsed(x.Payload)
	if err != nil {
		return fault.Internal.Errorf("fact %d of %s: %w", x.Seq, x.Source, err)
	}
	// Facts of one task or job stand together: sum them before they are given on.
	owners, platform := run{to: to}, run{to: to}
	for _, u := range facts {
		hour, own := u.From.FloorHour(), u
		if d := f.surplus(at, u); d > 0 {
			var rest ledger.Used
			own, rest = divide(u, d)
			if err = platform.add(hour, "", rest.Amounts()); err != nil {
				return err
			}
			if d == u.To-u.From {
				continue
			}
		}
		if err = owners.add(hour, u.Task.Job, own.Amounts()); err != nil {
			return err
		}
	}
	if err = owners.flush(); err != nil {
		return err
	}
	return platform.flush()
}

// closeUpTo ends every hour that is over at time at.
func (f *Fold) closeUpTo(at unit.Tick, to func(ledger.Hour) error) error {
	for at >= f.hour+unit.Hour {
		h, err := f.close(f.hour + unit.Hour)
		if err != nil {
			return err
		}
		if err := to(h); err != nil {
			return err
		}
		f.hour += unit.Hour
	}
	return nil
}

// close returns the open hour, ended at end, and starts every account anew.
// Accounts that hold nothing any more are forgotten.
func (f *Fold) close(end unit.Tick) (ledger.Hour, error) {
	h := ledger.Hour{From: f.hour, To: end}
	f.since = changes{whole: true}
	for _, id := range slices.Sorted(maps.Keys(f.machines)) {
		line, err := f.machines[id].close(end, end-f.hour)
		if err != nil {
			return h, fault.Internal.Errorf("machine %s, hour %s: %w", id, ledger.Stamp(f.hour), err)
		}
		line.Machine = id
		if line != (ledger.MachineHour{Machine: id}) {
			h.Machines = append(h.Machines, line)
		}
		f.forgetStrays(end, id, f.machines[id])
		if f.machines[id].idleForever() {
			delete(f.machines, id)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(f.jobs)) {
		sum, err := f.jobs[key].close(end - f.hour)
		if err != nil {
			return h, fault.Internal.Errorf("job %s, hour %s: %w", key, ledger.Stamp(f.hour), err)
		}
		if !sum.Zero() {
			h.Jobs = append(h.Jobs, ledger.JobHour{Job: key, Reserved: sum})
		}
		if *f.jobs[key] == (held{}) {
			delete(f.jobs, key)
		}
	}
	return h, nil
}

// At gives the hours that are open to the sink as they stand at now: hours that
// are over by the clock though no record has closed them, and the part of the
// present one that is over. A now before the last record counts as that
// record's time. The fold stays as it was.
func (f *Fold) At(now unit.Tick, to func(ledger.Hour) error) error {
	if f.broken != nil {
		return f.broken
	}
	if f.seq == 0 {
		return nil
	}
	now = max(now, f.at)
	if now-f.at > MaxQuiet {
		return fault.Internal.Errorf("it is %s, more than 400 days after the last record, of %s: the clock jumped, or this cluster is no longer metered", ledger.Stamp(now), ledger.Stamp(f.at))
	}
	c := f.Clone()
	if err := c.closeUpTo(now, to); err != nil {
		return err
	}
	if now == c.hour {
		return nil
	}
	h, err := c.close(now)
	if err != nil {
		return err
	}
	return to(h)
}

// Clone returns a copy that shares nothing with f.
func (f *Fold) Clone() *Fold {
	c := *f
	c.since = changes{whole: true}
	c.machines = make(map[machine.ID]*account, len(f.machines))
	for id, m := range f.machines {
		c.machines[id] = new(*m)
	}
	c.strays = maps.Clone(f.strays)
	c.jobs = make(map[job.Key]*held, len(f.jobs))
	for key, h := range f.jobs {
		c.jobs[key] = new(*h)
	}
	return &c
}

func (f *Fold) account(id machine.ID) *account {
	f.since.machine(id)
	m := f.machines[id]
	if m == nil {
		m = &account{}
		f.machines[id] = m
	}
	return m
}
