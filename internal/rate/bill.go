package rate

import (
	"maps"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/unit"
)

// MaxSpan is the longest time that one bill covers.
const MaxSpan = 400 * 24 * unit.Hour

// A Bill is a statement in the making. Hours are given to it in order, used
// amounts in any order, and it holds a row for each owner and a line for each
// hour, however long either took to come. An error ends it.
type Bill struct {
	book  Book
	s     ledger.Statement
	rows  map[job.Key]*ledger.Row // by job, or under the role alone
	price Price                   // of the last hour
}

// Span reports what is wrong with a bill's bounds, if anything: both on the
// hour, from before to, at most [MaxSpan] apart. The error is of kind Invalid.
func Span(from, to unit.Tick) error {
	switch {
	case from.FloorHour() != from || to.FloorHour() != to:
		return fault.Invalid.Errorf("from %s to %s is not in whole hours; want both on the hour, as prices and the books are", ledger.Stamp(from), ledger.Stamp(to))
	case from >= to:
		return fault.Invalid.Errorf("from %s to %s is no time; want from before to", ledger.Stamp(from), ledger.Stamp(to))
	case to-from > MaxSpan:
		return fault.Invalid.Errorf("from %s to %s is more than 400 days; ask for less", ledger.Stamp(from), ledger.Stamp(to))
	}
	return nil
}

// NewBill starts the bill of one cluster, named by its UID. See [Span].
func NewBill(b Book, cluster string, by ledger.By, from, to unit.Tick) (*Bill, error) {
	if err := Span(from, to); err != nil {
		return nil, err
	}
	return &Bill{
		book: b,
		s:    ledger.Statement{Cluster: cluster, Currency: b.Currency, By: by, From: from, To: to},
		rows: map[job.Key]*ledger.Row{},
	}, nil
}

// Hour adds an hour, or the part of the open one that is over. It refuses an
// hour whose accounts do not add up, see [ledger.Hour.Check], and one that does
// not follow the one before.
func (b *Bill) Hour(h ledger.Hour) error {
	end := h.From.FloorHour() + unit.Hour
	if h.From < b.s.From || h.From >= b.s.To || h.To <= h.From || h.To > end {
		return fault.Internal.Errorf("hour %s to %s is no hour of the bill from %s to %s", ledger.Stamp(h.From), ledger.Stamp(h.To), ledger.Stamp(b.s.From), ledger.Stamp(b.s.To))
	}
	if n := len(b.s.Hours); n > 0 && b.s.Hours[n-1].To != h.From {
		return fault.Internal.Errorf("hour %s follows the one to %s: what is between them is missing, and a bill without it would be wrong", ledger.Stamp(h.From), ledger.Stamp(b.s.Hours[n-1].To))
	}
	if err := h.Check(); err != nil {
		return err
	}
	cost := ledger.HourCost{From: h.From, To: h.To}
	if len(h.Machines) > 0 {
		if err := b.priceAt(h.From); err != nil {
			return err
		}
		var err error
		if cost, err = b.price.hour(h); err != nil {
			return err
		}
		if err := cost.Check(); err != nil {
			return err
		}
	}
	b.s.Hours = append(b.s.Hours, cost)
	entries, err := Charge(b.book, b.s.Cluster, h)
	if err != nil {
		return err
	}
	return b.post(h, entries)
}

// post adds an hour's entries to the rows of those who pay.
func (b *Bill) post(h ledger.Hour, entries []ledger.Entry) error {
	if err := ledger.Balanced(entries); err != nil {
		return err
	}
	var err error
	for _, e := range entries {
		if e.Account.Platform() {
			continue
		}
		r := b.row(e.Account.Job)
		if r.Amount, err = r.Amount.Add(e.Amount); err != nil {
			return fault.Internal.Errorf("job %s: %w", e.Account.Job, err)
		}
	}
	for _, j := range h.Jobs {
		r := b.row(j.Job)
		if r.Reserved, err = r.Reserved.Add(j.Reserved); err != nil {
			return fault.Internal.Errorf("job %s: %w", j.Job, err)
		}
	}
	return nil
}

// Used adds what a job used, or the platform. It costs nothing: reservations are
// billed.
func (b *Bill) Used(u ledger.UsedHour) error {
	if u.Hour < b.s.From || u.Hour >= b.s.To {
		return fault.Internal.Errorf("usage of job %s in hour %s is outside the bill from %s to %s", u.Job, ledger.Stamp(u.Hour), ledger.Stamp(b.s.From), ledger.Stamp(b.s.To))
	}
	var err error
	if u.Job == "" {
		if b.s.Platform, err = b.s.Platform.Add(u.Used); err != nil {
			return fault.Internal.Errorf("the platform: %w", err)
		}
		return nil
	}
	r := b.row(u.Job)
	if r.Used, err = r.Used.Add(u.Used); err != nil {
		return fault.Internal.Errorf("job %s: %w", u.Job, err)
	}
	return nil
}

// Statement ends the bill. It refuses rows and hours that do not have the same
// sum.
func (b *Bill) Statement() (ledger.Statement, error) {
	s := b.s
	var hours unit.Money
	var err error
	for _, h := range s.Hours {
		if hours, err = hours.Add(h.Billed); err != nil {
			return s, fault.Internal.Errorf("sum of hours: %w", err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(b.rows)) {
		s.Rows = append(s.Rows, *b.rows[key])
		if s.Billed, err = s.Billed.Add(b.rows[key].Amount); err != nil {
			return s, fault.Internal.Errorf("sum of rows: %w", err)
		}
	}
	if s.Billed != hours {
		return s, fault.Internal.Errorf("the rows of the bill sum to %v and its hours to %v; no bill is made of numbers that do not add up: report this", s.Billed, hours)
	}
	return s, nil
}

func (b *Bill) row(k job.Key) *ledger.Row {
	at, r := k, ledger.Row{Role: k.Role(), Job: k}
	if b.s.By == ledger.ByRole {
		at, r.Job = job.Key(r.Role), ""
	}
	if b.rows[at] == nil {
		b.rows[at] = &r
	}
	return b.rows[at]
}

func (b *Bill) priceAt(t unit.Tick) (err error) {
	if b.price.From <= t && t < b.price.To {
		return nil
	}
	b.price, err = b.book.At(t)
	return err
}
