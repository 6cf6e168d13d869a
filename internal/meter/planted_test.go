//go:build planted

package meter

import (
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
)

// TestPlantedBugs switches on each account's bug, by which bills must be refused.
func TestPlantedBugs(t *testing.T) {
	defer fault.Plant("")
	for _, what := range accounts {
		fault.Plant("meter-" + what)
		if err := checkHours(t, steady(), nil); err == nil || !strings.Contains(err.Error(), "machine m1, hour 2015-08-19T16:00:00Z, cpu") {
			t.Errorf("%s: got %v; want it found with machine and hour", what, err)
		}
	}
}
