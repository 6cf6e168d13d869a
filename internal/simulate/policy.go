package simulate

import (
	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/whatif"
)

// indexer returns what makes the index of the policy that was asked for.
func indexer(f cli.SimulateFlags) (whatif.Indexer, error) {
	p, err := sched.ParsePolicy(f.Policy)
	if err != nil {
		return nil, err
	}
	return func(s *state.Snapshot) *sched.Index { return sched.NewIndexFor(s, p) }, nil
}
