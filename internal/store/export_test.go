package store

import "context"

// Merge merges what waits, now.
func (s *SQLite) Merge(ctx context.Context) error { return s.merger.all(ctx) }

// Waiting returns how many commits wait to be merged.
func (s *SQLite) Waiting() int {
	steps, _ := s.backlog.size()
	return steps
}
