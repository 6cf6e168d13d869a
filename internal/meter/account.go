package meter

import (
	"errors"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/unit"
)

var errEmpty = errors.New("it does not say what changed")

// A level is how much of each measure is held at one moment: thousandths of a
// core, MiB of ram and of disk, thousandths of a GPU.
type level [ledger.Sold]int64

// levelOf returns r as a level. Ram and disk come in whole MiB, or not at all.
func levelOf(r unit.Resources) (level, error) {
	if r != r.Whole() {
		return level{}, fault.Internal.Errorf("%d bytes of ram and %d of disk are not whole MiB", r.RAM, r.Disk)
	}
	return level{unit.CPU: r.CPU, unit.RAM: r.RAM / unit.MiB, unit.Disk: r.Disk / unit.MiB, unit.GPU: r.GPU}, nil
}

// plus returns l + o, or [unit.ErrOverflow].
func (l level) plus(o level) (level, error) {
	for i := range l {
		sum := l[i] + o[i]
		if (sum > l[i]) != (o[i] > 0) {
			return level{}, unit.ErrOverflow
		}
		l[i] = sum
	}
	return l, nil
}

func (l level) negated() level {
	for i := range l {
		l[i] = -l[i]
	}
	return l
}

// when returns l if it counts, or else nothing.
func (l level) when(counts bool) level {
	if counts {
		return l
	}
	return level{}
}

// during returns l held for d ticks.
func (l level) during(d unit.Tick) ledger.Amounts {
	var a ledger.Amounts
	for i := range l {
		a[i] = unit.Product(l[i], int64(d))
	}
	return a
}

// An account is where one machine's capacity went in the open hour so far.
// Its parts know nothing of each other.
type account struct {
	capacity life
	billed   held
	overhead kept
	idle     left
	down     gone
	strays   []stretch // shared by clones: replaced, never changed
}

// life integrates the capacity of a machine over its life: spans of a constant
// capacity, from the first record of the machine until it leaves.
type life struct {
	has   level
	since unit.Tick
	sum   ledger.Amounts
}

// span ends the running span at time at; from there on the machine has l.
func (a *life) span(at unit.Tick, l level) error {
	sum, err := a.sum.Add(a.has.during(at - a.since))
	if err != nil {
		return err
	}
	a.has, a.since, a.sum = l, at, sum
	return nil
}

func (a *life) close(end unit.Tick) (ledger.Amounts, error) {
	if err := a.span(end, a.has); err != nil {
		return ledger.Amounts{}, err
	}
	sum := a.sum
	a.sum = ledger.Amounts{}
	return sum, nil
}

// held integrates what tasks hold, step by step and without a clock of its
// own: a change by d at time s after the hour's start is worth d * (end - s) at
// the hour's end, so level * end - sum of d * s is the integral.
type held struct {
	now    level
	before ledger.Amounts // sum of d * s
}

func (a *held) change(since unit.Tick, d level) error {
	before, err := a.before.Add(d.during(since))
	if err != nil {
		return err
	}
	now, err := a.now.plus(d)
	if err != nil {
		return err
	}
	a.now, a.before = now, before
	return nil
}

func (a *held) close(length unit.Tick) (ledger.Amounts, error) {
	sum, err := a.now.during(length).Sub(a.before)
	a.before = ledger.Amounts{}
	return sum, err
}

// kept integrates what is kept back on a machine that is up. What was kept
// until the last change is summed; mark is when that was.
type kept struct {
	now  level
	mark unit.Tick // since the hour's start
	sum  ledger.Amounts
}

func (a *kept) set(since unit.Tick, l level) error {
	for i := range a.sum {
		x, err := a.sum[i].Add(unit.Product(a.now[i], int64(since-a.mark)))
		if err != nil {
			return err
		}
		a.sum[i] = x
	}
	a.now, a.mark = l, since
	return nil
}

func (a *kept) close(length unit.Tick) (ledger.Amounts, error) {
	if err := a.set(length, a.now); err != nil {
		return ledger.Amounts{}, err
	}
	sum := a.sum
	a.mark, a.sum = 0, ledger.Amounts{}
	return sum, nil
}

// left integrates what nobody has reserved of a machine that is up: the free
// amount in every record that names the machine.
type left struct {
	up    bool
	free  level
	since unit.Tick
	sum   ledger.Amounts
}

func (a *left) task(at unit.Tick, free level) error { return a.machine(at, free, a.up) }

func (a *left) machine(at unit.Tick, free level, up bool) error {
	if a.up {
		sum, err := a.sum.Add(a.free.during(at - a.since))
		if err != nil {
			return err
		}
		a.sum = sum
	}
	a.up, a.free, a.since = up, free, at
	return nil
}

func (a *left) close(end unit.Tick) (ledger.Amounts, error) {
	if err := a.machine(end, a.free, a.up); err != nil {
		return ledger.Amounts{}, err
	}
	sum := a.sum
	a.sum = ledger.Amounts{}
	return sum, nil
}

// gone integrates what a machine that is not up has beside its tasks: what is
// free of it and what is kept back. Its tasks may still run, and stay billed.
type gone struct {
	down  bool
	free  level
	kept  level
	since unit.Tick
	sum   ledger.Amounts
}

func (a *gone) task(at unit.Tick, free level) error { return a.machine(at, free, a.kept, a.down) }

func (a *gone) machine(at unit.Tick, free, kept level, down bool) error {
	if a.down {
		for _, l := range []level{a.free, a.kept} {
			sum, err := a.sum.Add(l.during(at - a.since))
			if err != nil {
				return err
			}
			a.sum = sum
		}
	}
	a.down, a.free, a.kept, a.since = down, free, kept, at
	return nil
}

func (a *gone) close(end unit.Tick) (ledger.Amounts, error) {
	if err := a.machine(end, a.free, a.kept, a.down); err != nil {
		return ledger.Amounts{}, err
	}
	sum := a.sum
	a.sum = ledger.Amounts{}
	return sum, nil
}

// leave ends a machine's life. What its tasks hold is theirs to give back.
func (m *account) leave(at, since unit.Tick) error {
	return errors.Join(
		m.capacity.span(at, level{}),
		m.overhead.set(since, level{}),
		m.idle.machine(at, level{}, false),
		m.down.machine(at, level{}, level{}, false),
	)
}

// close returns the hour's accounts and starts them anew at end, which is
// length after the hour's start.
func (m *account) close(end, length unit.Tick) (ledger.MachineHour, error) {
	var h ledger.MachineHour
	var errs [5]error
	h.Capacity, errs[0] = m.capacity.close(end)
	h.Billed, errs[1] = m.billed.close(length)
	h.Overhead, errs[2] = m.overhead.close(length)
	h.Idle, errs[3] = m.idle.close(end)
	h.Down, errs[4] = m.down.close(end)
	plant("meter-capacity", &h.Capacity)
	plant("meter-billed", &h.Billed)
	plant("meter-overhead", &h.Overhead)
	plant("meter-idle", &h.Idle)
	plant("meter-down", &h.Down)
	return h, errors.Join(errs[:]...)
}

// plant adds the smallest error there is, if the named bug is switched on.
func plant(bug string, sum *ledger.Amounts) {
	if fault.Planted(bug) {
		sum[unit.CPU], _ = sum[unit.CPU].Add(unit.Int(1))
	}
}

// idleForever reports whether nothing can come of a machine any more before
// its next record.
func (m *account) idleForever() bool {
	return m.capacity.has == level{} && m.billed.now == level{} && m.overhead.now == level{} && !m.idle.up && !m.down.down && len(m.strays) == 0
}
