package store_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/unit"
)

func TestSQLite(t *testing.T) {
	suite(t, func(s *store.SQLite) storetest.Subject { return s })
}

// TestSQLiteMerged is the same for a store that merges each commit at once.
func TestSQLiteMerged(t *testing.T) {
	suite(t, func(s *store.SQLite) storetest.Subject { return eager{s} })
}

// eager is a store that keeps nothing waiting.
type eager struct{ *store.SQLite }

func (e eager) Commit(ctx context.Context, b *state.Batch) error {
	if err := e.SQLite.Commit(ctx, b); err != nil {
		return err
	}
	return e.Merge(ctx)
}

func suite(t *testing.T, as func(*store.SQLite) storetest.Subject) {
	t.Helper()
	storetest.Run(t, func(t *testing.T, now func() unit.Tick) func() storetest.Subject {
		var s *store.SQLite
		t.Cleanup(func() {
			if s != nil {
				shut(t, s)
			}
		})
		path := filepath.Join(t.TempDir(), "a b?c%20#d.db")
		return func() storetest.Subject {
			if s != nil {
				shut(t, s)
			}
			var err error
			// One tick more than now, which Time rounds down to a nanosecond.
			clock := func() time.Time { return now().Time().Add(unit.TickNanos / 2) }
			s, err = store.Open(t.Context(), store.Config{Path: path, Now: clock, TTL: storetest.TTL.Duration()})
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			return as(s)
		}
	})
}

func TestMem(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, now func() unit.Tick) func() storetest.Subject {
		m := &state.Mem{Now: now, TTL: storetest.TTL}
		return func() storetest.Subject { return m }
	})
}

func shut(t *testing.T, s *store.SQLite) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
