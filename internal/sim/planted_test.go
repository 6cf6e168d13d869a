//go:build planted

package sim

import (
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// TestPlanted checks the checker: each of these bugs, on purpose in the code,
// must be found by some seed.
func TestPlanted(t *testing.T) {
	for _, bug := range []string{
		"double-start", "stale-epoch", "skipped-fsync", "published-early", "dropped-fact", "doubled-fact", "reused-id",
		"absence-is-an-order", "overcommit", "lost-forever", "time-goes-back", "stray-ignored", "late-report-accepted",
		"restore-not-noticed", "kill-forgotten", "lease-of-a-former-leader", "lease-outlived",
		"exclusive-given-up", "stops-unbounded",
	} {
		t.Run(bug, func(t *testing.T) {
			fault.Plant(bug)
			defer fault.Plant("")
			began := time.Now()
			for s := uint64(1); s <= 200; s++ {
				w := New(config(s))
				err := w.Run(unit.Hour)
				if err == nil {
					err = w.Settle()
				}
				if err != nil {
					t.Logf("found by seed %d in %v: %v", s, time.Since(began).Round(time.Millisecond), err)
					return
				}
			}
			t.Errorf("200 seeds did not find it")
		})
	}
}
