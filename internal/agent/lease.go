package agent

import (
	"time"

	"github.com/covey-platform/covey/internal/fault"
)

// LeaseTerm is how long a machine may run exclusive tasks after it sent a
// message that the leader has acknowledged. The leader gives a silent machine's
// tasks away later ([control.Config.AgentLease], 10 s after it heard that
// message); what lies between is for killing, and for clocks that do not run
// alike.
const LeaseTerm = 8 * time.Second

// A Lease says until when a machine may run exclusive tasks. Its times are of
// a clock that nobody sets and that goes on while everything sleeps. It lapses
// by itself; one that is granted after a lapse is another one, under which
// nothing of the former may be started or live on. Its zero value has lapsed.
type Lease struct {
	until time.Duration
	count uint64 // of leases, each without a gap
}

// A Grant is what a task is started under.
type Grant struct {
	Until time.Duration // the task must be dead by then, unless the lease is renewed
	count uint64
}

// Renew takes in that the leader has acknowledged a message that was sent at
// sent. It reports whether that prolongs anything.
func (l *Lease) Renew(now, sent time.Duration) bool {
	until := sent + LeaseTerm
	if fault.Planted("lease-from-the-answer") {
		until = now + LeaseTerm
	}
	if until <= l.until || until <= now {
		return false
	}
	if now >= l.until {
		l.count++
	}
	l.until = until
	return true
}

// Grant returns the present lease; false when there is none.
func (l *Lease) Grant(now time.Duration) (Grant, bool) {
	return Grant{l.until, l.count}, now < l.until
}

// Extend returns until when a task that was ordered under g may run now; false
// when g has lapsed, also if there is a lease again: the leader may have given
// the task to another machine in between.
func (l *Lease) Extend(now time.Duration, g Grant) (time.Duration, bool) {
	return l.until, (g.count == l.count || fault.Planted("lease-of-another-time")) && now < l.until
}
