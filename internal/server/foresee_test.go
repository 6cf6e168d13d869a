package server

import (
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// TestForesee: a follower gets ready to lead while the lease of who led runs
// out, once, and forgets that when the lease was renewed after all. What it made
// ready is used only at the snapshot of which it is.
func TestForesee(t *testing.T) {
	l := newLooper(nil, "dev", "me", newStats(), nil)
	snap, next := state.New(), state.New()
	at := time.Unix(1, 0)
	look := func(after time.Duration, s *state.Snapshot, lease int) bool {
		l.foresee(s, state.Term{Holder: "other", Until: unit.Tick(lease)}, at.Add(after))
		return l.foreseen != nil
	}
	for _, x := range []struct {
		after time.Duration
		snap  *state.Snapshot
		lease int
		want  bool
	}{
		{0, snap, 1, false},
		{time.Second, snap, 1, false},
		{doubt, snap, 1, true},
		{doubt + time.Second, snap, 2, false}, // it was late
		{doubt + 2*time.Second, snap, 2, false},
		{2*doubt + time.Second, snap, 2, true},
	} {
		if got := look(x.after, x.snap, x.lease); got != x.want {
			t.Errorf("after %v: ready %v; want %v", x.after, got, x.want)
		}
	}
	first := l.foreseen
	if look(3*doubt+time.Second, next, 2); l.foreseen != first {
		t.Error("it got ready again for the same lease")
	}
	if o := l.outlook(snap); o != first {
		t.Error("what was made ready is not used")
	}
	if o := l.outlook(next); o == first || o.Of() != next {
		t.Error("what was made ready for another snapshot is used")
	}
	if doubt+time.Second > leaseTTL {
		t.Errorf("it gets ready %v after the last renewal; want that a second before a lease of %v has run out", doubt, leaseTTL)
	}
}
