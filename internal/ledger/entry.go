package ledger

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/unit"
)

// An Account owes or is owed: that of a job's owner, or of the cluster's
// platform, which has no job. A cluster is named by its UID.
type Account struct {
	Cluster string
	Job     job.Key
}

// Platform reports whether a is the platform's.
func (a Account) Platform() bool { return a.Job == "" }

// An Entry is one side of a posting. Entries come in pairs that cancel out:
// first who pays, with a positive amount, then who is paid.
type Entry struct {
	Hour    unit.Tick // in which it was reserved
	Usage   job.Key   // whose usage it is for
	Account Account
	Amount  unit.Money // what the account owes; negative: what it is owed
}

// Balanced reports the first pair of entries that does not cancel out.
func Balanced(entries []Entry) error {
	if len(entries)%2 != 0 {
		return fault.Internal.Errorf("%d ledger entries; want pairs", len(entries))
	}
	for i := 0; i < len(entries); i += 2 {
		a, b := entries[i], entries[i+1]
		sum, err := a.Amount.Add(b.Amount)
		if err != nil {
			return fault.Internal.Errorf("ledger entries for job %s, hour %s: %w", a.Usage, Stamp(a.Hour), err)
		}
		if sum.Sign() != 0 || a.Hour != b.Hour || a.Usage != b.Usage || a.Account == b.Account {
			return fault.Internal.Errorf("ledger entries for job %s, hour %s: %v and %v do not balance", a.Usage, Stamp(a.Hour), a.Amount, b.Amount)
		}
	}
	return nil
}

// A By says what the rows of a statement are.
type By uint8

// The kinds of rows.
const (
	ByJob  By = iota // one row for each job
	ByRole           // one row for each role
)

// String returns "job" or "role".
func (b By) String() string {
	if b == ByRole {
		return "role"
	}
	return "job"
}

// ParseBy reads what [By.String] wrote. The error is of kind Invalid.
func ParseBy(s string) (By, error) {
	switch s {
	case "job":
		return ByJob, nil
	case "role":
		return ByRole, nil
	}
	return 0, fault.Invalid.Errorf("by %.40q; want job or role", s)
}

// A Statement says what one cluster cost from From to To and who pays it. The
// rows sum to Billed exactly, and so do the hours.
type Statement struct {
	Cluster  string // its UID
	Currency string
	By       By
	From, To unit.Tick
	Hours    []HourCost // in order of time
	Rows     []Row      // in order of owner
	Billed   unit.Money
	Platform Amounts // used by tasks after they were given up; their reservations are overhead
}

// An HourCost is what an hour's capacity cost and where it went, unrounded:
// Capacity = Billed + Overhead + Idle + Down. To is the end of what is priced:
// the hour's end, or earlier in the open hour.
type HourCost struct {
	From, To                               unit.Tick
	Capacity, Billed, Overhead, Idle, Down unit.Money
}

// Check reports whether the hour's money adds up.
func (h HourCost) Check() error {
	sum := h.Billed
	var err error
	for _, part := range []unit.Money{h.Overhead, h.Idle, h.Down} {
		if sum, err = sum.Add(part); err != nil {
			return fault.Internal.Errorf("hour %s: %w", Stamp(h.From), err)
		}
	}
	if sum != h.Capacity {
		return fault.Internal.Errorf("all machines, hour %s: capacity costs %v, but billed %v + overhead %v + idle %v + down %v is %v; %s",
			Stamp(h.From), h.Capacity, h.Billed, h.Overhead, h.Idle, h.Down, sum, noBill)
	}
	return nil
}

// A Row is what one owner reserved, used and pays.
type Row struct {
	Role     string
	Job      job.Key // empty in a statement by role
	Reserved Amounts
	Used     Amounts
	Amount   unit.Money // for what was reserved
}
