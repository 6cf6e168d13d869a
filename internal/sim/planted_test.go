//go:build planted

package sim

import (
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// finders is how many seeds must find each bug: what one lucky seed finds, a
// change of the world may lose.
const finders = 3

// TestPlanted checks the checker: each of these bugs, on purpose in the code,
// must be found by some seeds.
func TestPlanted(t *testing.T) {
	for _, bug := range []string{
		"double-start", "stale-epoch", "stale-epoch-committed", "skipped-fsync", "published-early", "dropped-fact", "doubled-fact", "reused-id",
		"absence-is-an-order", "overcommit", "lost-forever", "time-goes-back", "stray-ignored", "late-report-accepted",
		"restore-not-noticed", "kill-forgotten", "lease-of-a-former-leader", "lease-from-the-answer", "lease-outlived",
		"lease-of-another-time", "lease-unheard", "exclusive-given-up", "stops-unbounded",
		"stray-unrecorded", "debt-unrecorded", "debt-forgotten", "meter-recounts", "meter-kept-when-down",
		"black-hole-trusted", "avoided-for-ever", "everybody-avoided", "run-again", "orphan-stopped", "orphan-gone",
	} {
		t.Run(bug, func(t *testing.T) { planted(t, bug) })
	}
}

func planted(t *testing.T, bug string) {
	t.Helper()
	fault.Plant(bug)
	defer fault.Plant("")
	began, found := time.Now(), 0
	for s := uint64(1); s <= 200; s++ {
		w := New(config(s))
		err := w.Run(unit.Hour)
		if err == nil {
			err = w.Settle()
		}
		if err == nil {
			continue
		}
		if found++; found == 1 {
			t.Logf("the first to find it: %v", err)
		}
		if found == finders {
			t.Logf("found by %d of %d seeds in %v", found, s, time.Since(began).Round(time.Millisecond))
			return
		}
	}
	t.Errorf("%d of 200 seeds found it; want %d", found, finders)
}
