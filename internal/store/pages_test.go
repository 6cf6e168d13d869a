package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// TestPages reads tables of every shape from their pages, and holds that to what
// SQLite says is in them: none, one and many rows, rows of every length up to
// several pages, in trees that grew and shrank in any order.
func TestPages(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s, _ := opened(t)
			fill(t, s, rnd, seed)
			want := asked(t, s)
			got := map[string]string{}
			last := ""
			_, err := s.load(t.Context(), func(l *loading) error {
				return l.table(t.Context(), state.SourceTable, func(r state.Row) error {
					if r.Key <= last && len(got) > 0 {
						t.Errorf("%q comes after %q", r.Key, last)
					}
					last = r.Key
					got[r.Key] = string(r.Value)
					return nil
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-SQLite +pages:\n%.2000s", diff)
			}
			t.Logf("%d rows", len(got))
		})
	}
}

// fill writes rows beside the store's own ways, and takes many away again.
func fill(t *testing.T, s *SQLite, rnd *rand.Rand, seed uint64) {
	t.Helper()
	rows := []int{0, 1, 40, 3000, 12_000, 12_000}[seed]
	longest := []int{10, 20_000, 9_000, 200, 100, 1_200}[seed]
	db, err := s.pool(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	seal := newSealer()
	for i := range rows {
		key := fmt.Appendf(nil, "%0*d", 1+rnd.IntN(60), rnd.IntN(10*rows))
		if i%50 == 0 {
			key = append(key, bytes.Repeat([]byte("k"), rnd.IntN(longest))...)
		}
		value := make([]byte, rnd.IntN(longest+1))
		for j := range value {
			value[j] = byte(rnd.Uint32())
		}
		seal.reset(len(value) + sealSize)
		if _, err = tx.ExecContext(t.Context(), "INSERT OR REPLACE INTO source VALUES (?, ?)", key, seal.seal(key, value)); err != nil {
			t.Fatal(err)
		}
		if i%3 == 2 && seed != 1 {
			if _, err = tx.ExecContext(t.Context(), "DELETE FROM source WHERE key IN (SELECT key FROM source WHERE key > ? LIMIT ?)", key, rnd.IntN(3)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err = tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// asked returns the rows of the table as SQLite tells them.
func asked(t *testing.T, s *SQLite) map[string]string {
	t.Helper()
	rows, err := s.read.QueryContext(t.Context(), "SELECT key, value FROM source")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	out := map[string]string{}
	for rows.Next() {
		var key, value []byte
		if err := rows.Scan(&key, &value); err != nil {
			t.Fatal(err)
		}
		out[string(key)] = string(value[:len(value)-sealSize])
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLoadBeside reads a store from two goroutines, with steps that wait beside
// the tables, and finds what Load finds, as of one moment although commits go on.
func TestLoadBeside(t *testing.T) {
	s, e := opened(t)
	rev := state.Rev(0)
	commit := func(n int) {
		t.Helper()
		b := &state.Batch{Epoch: e, Base: rev, Rev: rev + 1}
		for _, table := range []state.Table{state.InstanceTable, state.TaskTable, state.MachineTable} {
			for i := range 300 {
				r := state.Row{Table: table, Key: fmt.Sprintf("%05d", i*7%1000+n), Value: fmt.Appendf(nil, "%d of %v", n, table)}
				if i%5 == 4 {
					r.Value = nil
				}
				b.Rows = append(b.Rows, r)
			}
		}
		if err := s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		rev++
	}
	for n := range 5 {
		commit(n)
		if n == 2 {
			if err := s.merger.all(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	var want []state.Row
	at, err := s.Load(t.Context(), func(r state.Row) error {
		want = append(want, state.Row{Table: r.Table, Key: r.Key, Value: bytes.Clone(r.Value)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var slots, tasks, rest []state.Row
	head, err := s.LoadBeside(t.Context(), func(r state.Row) error {
		r.Value = bytes.Clone(r.Value)
		switch r.Table {
		case state.InstanceTable:
			slots = append(slots, r)
		case state.TaskTable:
			tasks = append(tasks, r)
		default:
			if len(slots)+len(tasks) > 0 {
				return errors.New("a row of another table comes after those of slots and tasks")
			}
			if rest = append(rest, r); len(rest) == 1 {
				commit(9) // after this moment
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if head != at {
		t.Errorf("it stands at %+v; want %+v", head, at)
	}
	var wantSlots, wantTasks, wantRest []state.Row
	for _, r := range want {
		switch r.Table {
		case state.InstanceTable:
			wantSlots = append(wantSlots, r)
		case state.TaskTable:
			wantTasks = append(wantTasks, r)
		default:
			wantRest = append(wantRest, r)
		}
	}
	if len(wantSlots) == 0 || len(wantTasks) == 0 || len(wantRest) == 0 {
		t.Fatalf("%d, %d and %d rows; want some of each", len(wantSlots), len(wantTasks), len(wantRest))
	}
	for what, rows := range map[string][2][]state.Row{"slots": {wantSlots, slots}, "tasks": {wantTasks, tasks}, "rest": {wantRest, rest}} {
		if diff := cmp.Diff(rows[0], rows[1]); diff != "" {
			t.Errorf("%s: -Load +LoadBeside:\n%.2000s", what, diff)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err = s.LoadBeside(ended, func(state.Row) error { return nil }); err == nil {
		t.Error("no error although the context had ended")
	}
	wrong := errors.New("no more")
	if _, err = s.LoadBeside(t.Context(), func(r state.Row) error {
		if r.Table == state.TaskTable {
			return wrong
		}
		return nil
	}); !errors.Is(err, wrong) {
		t.Errorf("error %v; want that of who reads", err)
	}
}

// FuzzPage reads pages of any content: it may refuse them, and does not crash.
func FuzzPage(f *testing.F) {
	p := make([]byte, 512)
	p[0], p[4], p[8], p[9] = leaf, 1, 1, 0xf0
	copy(p[0x1f0:], []byte{8, 3, 14, 16, 'k', 'v', 'v'})
	f.Add(p)
	p = bytes.Clone(p)
	p[0], p[11], p[12], p[13] = inner, 7, 1, 0xe0
	f.Add(p)
	f.Fuzz(func(_ *testing.T, b []byte) {
		for len(b) < 512 {
			b = append(b, 0)
		}
		p, err := openPage(b, 512)
		if err != nil {
			return
		}
		for i := range p.cells {
			c, err := p.cell(i)
			if err != nil {
				continue
			}
			_, _, _ = columns(p.bytes[c.at : c.at+c.here])
		}
	})
}

// BenchmarkRead hands over the rows of a table with 300,000 tasks: one by one, as
// the driver does, and from its pages.
func BenchmarkRead(b *testing.B) {
	s, err := Open(b.Context(), Config{Path: filepath.Join(b.TempDir(), "c.db"), Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	e, err := s.Acquire(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	const rows, each = 300_000, 5000
	for n := range rows / each {
		batch := &state.Batch{Epoch: e, Base: state.Rev(n), Rev: state.Rev(n + 1)}
		for i := range each {
			id := task.ID{Job: "www-data/prod/service", Instance: int32(n*each + i), Attempt: 1}
			t := state.Task{Task: task.Task{ID: id, Config: job.Hash{1}, State: task.Running, Machine: "machine-00001", Created: 1 << 50, Since: 1 << 50, Ran: 1 << 50}, Rev: 1}
			batch.Rows = append(batch.Rows, state.Row{Table: state.TaskTable, Key: state.TaskKey(id), Value: state.EncodeTask(t)})
		}
		if err := s.Commit(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.merger.all(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Run("rows", func(b *testing.B) {
		for b.Loop() {
			if n := one(b, s); n != rows {
				b.Fatalf("%d rows; want %d", n, rows)
			}
		}
	})
	b.Run("pages", func(b *testing.B) {
		for b.Loop() {
			n := 0
			_, err := s.load(b.Context(), func(l *loading) error {
				return l.table(b.Context(), state.TaskTable, func(state.Row) error { n++; return nil })
			})
			if err != nil || n != rows {
				b.Fatalf("%d rows, %v; want %d", n, err, rows)
			}
		}
	})
}

// one reads rows one by one, and checks each.
func one(b *testing.B, s *SQLite) (n int) {
	b.Helper()
	conn, err := s.read.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	err = conn.Raw(func(dc any) error {
		rows, err := dc.(driver.QueryerContext).QueryContext(context.Background(), "SELECT key, value FROM task ORDER BY key", nil) //nolint:forcetypeassert // it is one
		if err != nil {
			return err
		}
		seal, dest := newSealer(), make([]driver.Value, 2)
		for ; err == nil; n++ {
			if err = rows.Next(dest); err == nil {
				_, err = seal.open(dest[0].([]byte), dest[1].([]byte)) //nolint:forcetypeassert // blobs
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return errors.Join(err, rows.Close())
	})
	if err != nil {
		b.Fatal(err)
	}
	return n - 1
}
