package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/unit"
)

func openPgCompany(t *testing.T, url string) (*Company, *Meter) {
	t.Helper()
	c, err := OpenCompanyPostgres(t.Context(), PostgresConfig{URL: url, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m, err := c.Meter(t.Context(), "uid")
	if err != nil {
		t.Fatal(err)
	}
	return c, m
}

func TestCompanyPostgres(t *testing.T) {
	server := storetest.StartPostgres(t, "fsync=off")
	t.Run("meters once", func(t *testing.T) {
		for seed := range uint64(3) {
			url := server.Database(t)
			metersOnce(t, seed, func(int) (*Company, *Meter) { return openPgCompany(t, url) })
		}
	})
	t.Run("two servers", func(t *testing.T) { twoMeters(t, server.Database(t)) })
	t.Run("damage", func(t *testing.T) { // as far as it differs from SQLite's
		records := companyRecords(4, 200)
		now := records[len(records)-1].At
		c, m := openPgCompany(t, server.Database(t))
		if err := m.Take(t.Context(), records); err != nil {
			t.Fatal(err)
		}
		if _, err := c.write.ExecContext(t.Context(), `UPDATE hour SET value = '\x00'`); err != nil {
			t.Fatal(err)
		}
		err := m.Usage(t.Context(), companyStart, now.FloorHour()+unit.Hour, now, &gathered{})
		if fault.Of(err) != fault.Internal {
			t.Errorf("a changed value: got %v", err)
		}
	})
}

// twoMeters lets two servers take in the same records, one after the other and
// at the same time, as after a change of leaders: each record counts once.
func twoMeters(t *testing.T, url string) {
	t.Helper()
	records := companyRecords(2, 400)
	now := records[len(records)-1].At + unit.Hour/3
	_, one := openPgCompany(t, url)
	_, two := openPgCompany(t, url)
	done := make(chan error, 1)
	take := func(m *Meter) error {
		for {
			seq, err := m.Seq(t.Context())
			if err != nil || int(seq) == len(records) {
				return err
			}
			err = m.Take(t.Context(), records[seq:min(int(seq)+7, len(records))])
			if err != nil && fault.Of(err) != fault.Unavailable { // the other one was faster
				return err
			}
		}
	}
	go func() { done <- take(two) }()
	if err := take(one); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(directly(t, records, now), usageOf(t, one, now)); diff != "" {
		t.Errorf("(-fold +store):\n%s", diff)
	}
}

func TestNumberedMarks(t *testing.T) {
	if got, want := numberedMarks("a = ? AND b IN (?, ?)"), "a = $1 AND b IN ($2, $3)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
