package sim

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/meter"
	"github.com/covey-platform/covey/internal/rate"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// bill is the company's side of the world: the real meter and the real prices,
// fed with every record that becomes durable. It crashes now and then, and
// takes records in again from where it was stored.
type bill struct {
	books  books
	stored books                       // as the company's database has them
	copied books                       // an old copy of that, made with the cluster's
	made   map[string][]ledger.Amounts // what facts say was used, by source and number, from 1
	asked  map[job.Key]unit.Resources  // the most that was ever asked for, of all instances together
}

// books are how far the meter has come and what it gave. Beside the meter
// stands what it must agree with, worked out from the tasks alone.
type books struct {
	b     *bill
	fold  *meter.Fold
	hours []ledger.Hour
	used  []ledger.UsedHour

	placed map[task.ID]placed
	owed   map[job.Key]ledger.Amounts // in the open hour, by tasks or parts of them that are over
	told   ledger.Amounts             // what the facts say that were taken in
}

// placed is a task that holds room on a machine.
type placed struct {
	holds unit.Resources
	since unit.Tick
}

func newBill() *bill {
	b := &bill{made: map[string][]ledger.Amounts{}, asked: map[job.Key]unit.Resources{}}
	b.books = books{b: b, fold: meter.New(), placed: map[task.ID]placed{}, owed: map[job.Key]ledger.Amounts{}}
	b.stored, b.copied = b.books.clone(), b.books.clone()
	return b
}

func (k *books) clone() books {
	c := *k
	c.fold, c.placed, c.owed = k.fold.Clone(), maps.Clone(k.placed), maps.Clone(k.owed)
	c.hours, c.used = slices.Clip(k.hours), slices.Clip(k.used)
	return c
}

// wants notes what a user asks for.
func (b *bill) wants(j job.Job) {
	var all unit.Resources
	for range j.Instances.Len() {
		all = all.Add(j.Config.Task.Resources)
	}
	if b.asked[j.Key].Fits(all) {
		b.asked[j.Key] = all
	}
}

// take meters records. What was metered before changes nothing.
func (k *books) take(records []state.Record) error {
	for i := range records {
		r := &records[i]
		known := r.Seq <= k.fold.Seq()
		if err := k.fold.Fold(*r, k); err != nil {
			return err
		}
		if known {
			continue
		}
		switch r.Kind {
		case state.TaskRecord:
			if err := k.step(r); err != nil {
				return err
			}
		case state.FactRecord:
			var err error
			if k.told, err = k.told.Add(k.b.made[r.Fact.Source][r.Fact.Seq-1]); err != nil {
				return err
			}
		case state.JobRecord, state.MachineRecord, state.ClusterRecord, state.QuotaRecord:
		}
	}
	return nil
}

// step follows which tasks hold room.
func (k *books) step(r *state.Record) error {
	x := r.Task.After
	p, was := k.placed[x.ID]
	switch is := x.State.Placed(); {
	case is && !was:
		k.placed[x.ID] = placed{x.Resources, r.At}
	case was && !is:
		delete(k.placed, x.ID)
		return k.owe(x.ID.Job, p, r.At)
	}
	return nil
}

func (k *books) owe(j job.Key, p placed, until unit.Tick) error {
	sum, err := k.owed[j].Add(during(p.holds, until-p.since))
	k.owed[j] = sum
	return err
}

func during(r unit.Resources, d unit.Tick) ledger.Amounts {
	return ledger.Amounts{
		unit.CPU: unit.Product(r.CPU, int64(d)), unit.RAM: unit.Product(r.RAM/unit.MiB, int64(d)),
		unit.Disk: unit.Product(r.Disk/unit.MiB, int64(d)), unit.GPU: unit.Product(r.GPU, int64(d)),
	}
}

// Hour takes an hour that is over. Of every machine, what was billed, kept
// back, idle and down is what it had; every job owes what its tasks held, and
// none more than it asked for.
func (k *books) Hour(h ledger.Hour) error {
	if err := h.Check(); err != nil {
		return err
	}
	for id, p := range k.placed {
		if err := k.owe(id.Job, p, h.To); err != nil {
			return err
		}
		p.since = h.To
		k.placed[id] = p
	}
	maps.DeleteFunc(k.owed, func(_ job.Key, a ledger.Amounts) bool { return a.Zero() })
	if len(k.owed) != len(h.Jobs) {
		return fmt.Errorf("hour %s: %d jobs are billed, and tasks of %d held room", ledger.Stamp(h.From), len(h.Jobs), len(k.owed))
	}
	for _, j := range h.Jobs {
		if j.Reserved != k.owed[j.Job] {
			return fmt.Errorf("hour %s: job %s is billed for %v, and its tasks held %v", ledger.Stamp(h.From), j.Job, j.Reserved, k.owed[j.Job])
		}
		most := during(k.b.asked[j.Job], h.To-h.From)
		for _, m := range ledger.Measures() {
			if left, err := most[m].Sub(j.Reserved[m]); err != nil || left.Sign() < 0 {
				return fmt.Errorf("hour %s: job %s is billed for %v, and asked for %v at most", ledger.Stamp(h.From), j.Job, j.Reserved, most)
			}
		}
	}
	clear(k.owed)
	k.hours = append(k.hours, h)
	return nil
}

// Used takes what was used.
func (k *books) Used(u ledger.UsedHour) error {
	k.used = append(k.used, u)
	return nil
}

// statement is what the company would bill by now. It adds up, or there is none.
func (k *books) statement(now unit.Tick) (ledger.Statement, error) {
	c := k.clone()
	if err := c.fold.At(now, c.Hour); err != nil {
		return ledger.Statement{}, err
	}
	b, err := rate.NewBill(rate.Default(), "uid", ledger.ByJob, birth, birth+rate.MaxSpan)
	if err != nil {
		return ledger.Statement{}, err
	}
	for _, h := range c.hours {
		if err = b.Hour(h); err != nil {
			return ledger.Statement{}, err
		}
	}
	var used ledger.Amounts
	for _, u := range c.used {
		if err = b.Used(u); err != nil {
			return ledger.Statement{}, err
		}
		if used, err = used.Add(u.Used); err != nil {
			return ledger.Statement{}, err
		}
	}
	if used != c.told {
		return ledger.Statement{}, fmt.Errorf("%v is billed as used, and the facts that were taken in say %v", used, c.told)
	}
	return b.Statement()
}

// audit holds now and again: the bill adds up, and a meter that crashed, and
// takes in again what it had not stored, makes the same.
func (w *World) audit() {
	if w.err != nil {
		return
	}
	b, now := w.bill, w.truth.lastAt
	before, err := b.books.statement(now)
	if err != nil {
		w.fail("%v", err)
		return
	}
	b.books = b.stored.clone()
	records, err := w.disk.mem.Records(context.Background(), b.books.fold.Seq(), int(w.truth.last))
	if err == nil {
		err = b.books.take(records)
	}
	if err != nil {
		w.fail("after the meter's crash: %v", err)
		return
	}
	after, err := b.books.statement(now)
	if err != nil || !reflect.DeepEqual(before, after) {
		w.fail("after the meter's crash the bill is %+v, error %v; it was %+v", after, err, before)
	}
	b.stored = b.books.clone()
}
