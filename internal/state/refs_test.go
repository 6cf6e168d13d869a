package state

import "github.com/covey-platform/covey/internal/job"

// ConfigRefs shows how often each config of s counts as referred to.
func ConfigRefs(s *Snapshot) map[job.Hash]int {
	out := map[job.Hash]int{}
	s.configs.Ascend(func(c config) bool {
		out[c.hash] = c.refs
		return true
	})
	return out
}
