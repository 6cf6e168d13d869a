package store_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/task"
)

// sized is a store that says how large it is.
type sized interface {
	Size(ctx context.Context) (store.Size, error)
}

func sizeOf(tb testing.TB, s storetest.Subject) store.Size {
	tb.Helper()
	size, err := s.(sized).Size(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return size
}

func TestSize(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		s, _, _ := full(t, benchSQLite, 5*perBatch)
		size := sizeOf(t, s)
		if size.Waiting != 5*perBatch || size.Bytes < 5*perBatch*100 || size.Free <= 0 {
			t.Errorf("got %+v; want %d rows that wait, above 100 bytes each, and room left", size, 5*perBatch)
		}
		if err := s.(*store.SQLite).Merge(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := sizeOf(t, s); after.Waiting != 0 {
			t.Errorf("%d rows wait after a merge; want none", after.Waiting)
		}
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		s, l, _ := full(t, benchPostgres, perBatch)
		before := sizeOf(t, s)
		for range 5 {
			lives(t, s, l, 0)
		}
		after := sizeOf(t, s)
		if before.Bytes <= 0 || after.Bytes <= before.Bytes || after.Free >= 0 || after.Waiting != 0 {
			t.Errorf("got %+v, then %+v; want growth, and nothing that the database does not say", before, after)
		}
	})
}

// lives ends a batch of tasks from the at-th on and starts their successors,
// each step a commit with its records, as a service that dies does.
func lives(tb testing.TB, s storetest.Subject, l *load, at int) {
	tb.Helper()
	ids := make([]int, perBatch)
	for j := range ids {
		ids[j] = at + j
	}
	for _, step := range []task.State{task.Assigned, task.Starting, task.Running} {
		l.commit(tb, s, l.batch(ids, step))
	}
	end := l.batch(ids, task.Failed)
	for i, r := range end.Records {
		end.Ended = append(end.Ended, r.Task.After)
		next := l.task(ids[i], task.Pending)
		next.Machine, next.Ports = "", nil
		end.Rows[i].Value = state.EncodeTask(next)
		end.Records = append(end.Records, state.Record{
			Seq: r.Seq + perBatch, At: r.At, Kind: state.TaskRecord, Task: &state.TaskChange{Before: task.Init, After: next.Task},
		})
	}
	l.commit(tb, s, end)
}

// BenchmarkSize says what a task takes on disk while it lives, and what the
// life of one leaves: four steps and its successor's first, each with its
// record, and the task itself in the history. One op is a thousand lives.
func BenchmarkSize(b *testing.B) {
	const tasks = 200_000
	for _, kind := range benchStores {
		b.Run(kind.name, func(b *testing.B) {
			s, l, wal := full(b, kind.open, tasks)
			alive := settled(b, s, wal)
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				lives(b, s, l, i*perBatch%tasks)
			}
			b.StopTimer()
			grown := settled(b, s, wal) - alive
			b.ReportMetric(float64(alive)/tasks, "B/task")
			b.ReportMetric(float64(grown)/float64(b.N*perBatch), "B/life")
		})
	}
}

// settled is what a store takes when everything is in its tables, in bytes. Of
// a file's pages those count that hold something: others are used next.
func settled(b *testing.B, s storetest.Subject, wal string) int64 {
	b.Helper()
	x, ok := s.(*store.SQLite)
	if !ok {
		return sizeOf(b, s).Bytes
	}
	if err := x.Merge(b.Context()); err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+strings.TrimSuffix(wal, "-wal")+"?mode=ro")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	var size int64
	const ask = "SELECT (p.page_count - f.freelist_count) * s.page_size FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s"
	if err := db.QueryRowContext(b.Context(), ask).Scan(&size); err != nil {
		b.Fatal(err)
	}
	return size
}
