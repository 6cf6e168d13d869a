package machine

import (
	"testing"

	"github.com/covey-platform/covey/internal/unit"
)

// TestShun: each time in a row a machine is avoided for twice as long, up to an
// hour; it begins anew when a task has started, or after an hour of peace.
func TestShun(t *testing.T) {
	const minute = unit.Hour / 60
	var m Machine
	now := 1000 * unit.Hour
	for i, want := range []unit.Tick{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		m = m.Shun("why", now)
		if got := m.AvoidUntil - now; got != want*minute || m.Avoid != "why" {
			t.Fatalf("time %d: avoided for %v because %q; want %d minutes", i+1, got.Duration(), m.Avoid, want)
		}
		if _, over := m.Parole(m.AvoidUntil - 1); over {
			t.Fatalf("time %d: it is over too early", i+1)
		}
		var over bool
		now = m.AvoidUntil
		if m, over = m.Parole(now); !over || m.Avoid != "" || !m.Suspect(now) {
			t.Fatalf("time %d: %+v when its time is over; want it to be used, and suspect", i+1, m)
		}
	}
	trusted, held := m.Trust()
	if !held || trusted.Suspect(now) || trusted.Shun("why", now).AvoidUntil != now+minute {
		t.Errorf("after a task has started: %+v; want it to begin anew", trusted)
	}
	if _, again := trusted.Trust(); again {
		t.Error("nothing was held against it, and it was taken back")
	}
	later := now + longestAvoidance
	if m.Suspect(later) || m.Shun("why", later).AvoidUntil != later+minute {
		t.Error("an hour later it is suspect still")
	}
}

// TestShunnedForOtherReasons: who is avoided for no given time stays so.
func TestShunnedForOtherReasons(t *testing.T) {
	m := Machine{Avoid: "it is old"}
	if _, over := m.Parole(1 << 60); over {
		t.Error("its time is over, and it had none")
	}
	if _, held := m.Trust(); held {
		t.Error("a task started there, and it is avoided no more")
	}
}
