package store_test

import (
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/unit"
)

func TestPostgres(t *testing.T) {
	server := storetest.StartPostgres(t, "fsync=off")
	storetest.Run(t, func(t *testing.T, now func() unit.Tick) func() storetest.Subject {
		var s *store.Postgres
		t.Cleanup(func() {
			if s != nil {
				_ = s.Close()
			}
		})
		url := server.Database(t)
		return func() storetest.Subject {
			if s != nil {
				_ = s.Close()
			}
			var err error
			clock := func() time.Time { return now().Time().Add(unit.TickNanos / 2) } // as for SQLite
			s, err = store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url, Name: "server-1", Now: clock, TTL: storetest.TTL.Duration()})
			if err != nil {
				t.Fatalf("OpenPostgres: %v", err)
			}
			return s
		}
	})
}
