package control

import (
	"strings"

	"github.com/covey-platform/covey/internal/converge"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
)

// An Audit compares the loop's indexes with fresh ones, in three steps, so that
// what takes long keeps no turn waiting: [Loop.BeginAudit] between two turns,
// [Audit.Build] anywhere beside them, [Loop.EndAudit] between two turns again.
type Audit struct {
	snap     *state.Snapshot
	since    state.Delta // what changed while the fresh indexes were made
	like     *sched.Index
	converge *converge.Index
	sched    *sched.Index
}

// BeginAudit begins an audit at the last commit. There is one at a time: an
// earlier one that has not ended says nothing any more.
func (l *Loop) BeginAudit() *Audit {
	l.auditing = &Audit{snap: l.snap, since: state.NewDelta(), like: l.sched}
	return l.auditing
}

// Build makes the fresh indexes, of the snapshot at which the audit began: the
// long step. The loop goes on beside it.
func (a *Audit) Build() { a.converge, a.sched = converge.NewIndex(a.snap), a.like.Fresh(a.snap) }

// EndAudit brings the fresh indexes up to the last commit, keeps those that
// differ, and says what differed. An audit of which the loop does not know, as
// it began anew since, says nothing.
func (l *Loop) EndAudit(a *Audit) error {
	if l.auditing != a {
		return nil
	}
	l.auditing = nil
	a.converge.Fold(l.snap, a.since)
	a.sched.Fold(l.snap, a.since)
	var wrong []string
	if !l.converge.Equal(a.converge) {
		l.converge = a.converge
		wrong = append(wrong, "due times")
	}
	if diff := l.sched.Compare(a.sched); diff != "" {
		l.sched = a.sched
		wrong = append(wrong, diff)
	}
	if wrong != nil {
		return fault.Internal.Errorf("audit: an index differed from the cluster and was made anew: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// Audit is a whole audit at once, for tests and simulations.
func (l *Loop) Audit() error {
	a := l.BeginAudit()
	a.Build()
	return l.EndAudit(a)
}
