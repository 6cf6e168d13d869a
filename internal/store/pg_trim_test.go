package store_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/unit"
)

// pgDays: records of a day are a partition, which goes whole.
func pgDays(t *testing.T, server *storetest.Postgres) {
	url := server.Database(t)
	s := openPg(t, url, "a")
	e, err := s.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	var head state.Head
	for d := range 5 {
		b := counter(e, head)
		b.At = firstDay + unit.Tick(d)*day + 7
		b.Records[0].At = b.At
		if err = s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		head = state.Head{Rev: b.Rev, Seq: head.Seq + 1, At: b.At}
	}
	days := func() (n int) {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if err = conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_inherits WHERE inhparent = 'covey.records'::regclass").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := days(); got != 6 { // and tomorrow's
		t.Errorf("%d partitions, want 6", got)
	}
	trim := func(q state.TrimQuery) {
		t.Helper()
		q.Limit = 100
		if more, err := s.Trim(t.Context(), q); err != nil || more {
			t.Fatalf("Trim = %v, %v", more, err)
		}
	}
	trim(state.TrimQuery{RecordsBefore: firstDay + 3*day, UpTo: 2})
	if got := days(); got != 4 {
		t.Errorf("%d partitions after the first two were metered, want 4", got)
	}
	got, err := s.Records(t.Context(), 2, 10)
	if err != nil || len(got) != 3 {
		t.Errorf("Records = %d, %v, want 3", len(got), err)
	}
	_, err = s.Records(t.Context(), 1, 10)
	refused(t, err, fault.Compacted, "forgotten")
	trim(state.TrimQuery{RecordsBefore: firstDay + 9*day, UpTo: 100})
	if err = s.Commit(t.Context(), counter(e, head)); err != nil {
		t.Errorf("a commit on a day that was dropped: %v", err)
	}
}
