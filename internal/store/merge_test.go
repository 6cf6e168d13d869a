package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// twin is what a store should hold, kept the simple way.
type twin struct {
	epoch machine.Epoch
	head  state.Head
	rows  map[string]state.Row
	ended []task.Task
	rnd   *rand.Rand
}

const twinJob job.Key = "www/prod/web"

// batch returns a random commit of n rows, some of which go, and takes it in.
func (w *twin) batch(n int) *state.Batch {
	b := &state.Batch{Epoch: w.epoch, Base: w.head.Rev, Rev: w.head.Rev + 1, At: w.head.At + unit.Tick(1)}
	for range n {
		tables := []state.Table{state.TaskTable, state.TaskTable, state.InstanceTable, state.JobTable, state.SourceTable}
		r := state.Row{Table: tables[w.rnd.IntN(len(tables))], Key: fmt.Sprintf("key%04d", w.rnd.IntN(4*n))}
		id := fmt.Sprint(r.Table, r.Key)
		if w.rnd.IntN(4) > 0 {
			r.Value = fmt.Appendf(nil, "%d of %d", len(b.Rows), b.Rev)
			w.rows[id] = r
		} else {
			delete(w.rows, id)
		}
		b.Rows = append(b.Rows, r)
	}
	for range w.rnd.IntN(3) {
		t := task.Task{ID: task.ID{Job: twinJob, Instance: int32(w.rnd.IntN(5)), Attempt: uint32(len(w.ended) + 1)}, Since: b.At, State: task.Failed}
		b.Ended, w.ended = append(b.Ended, t), append(w.ended, t)
	}
	w.head = state.Head{Rev: b.Rev, Seq: w.head.Seq, At: b.At}
	return b
}

// check compares a store with its twin.
func (w *twin) check(t *testing.T, what string, s *SQLite) {
	t.Helper()
	var got []state.Row
	head, err := s.Load(t.Context(), func(r state.Row) error { got = append(got, r); return nil })
	if err != nil {
		t.Fatalf("%s: Load: %v", what, err)
	}
	want := make([]state.Row, 0, len(w.rows))
	for _, r := range w.rows {
		want = append(want, r)
	}
	want = lastOfEach(want, tableOrder())
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s: rows (-want +got):\n%s", what, d)
	}
	if head != w.head {
		t.Fatalf("%s: head %+v, want %+v", what, head, w.head)
	}
	ended, err := s.History(t.Context(), state.HistoryQuery{Job: twinJob, Instance: -1, Limit: 1000})
	if err != nil {
		t.Fatalf("%s: History: %v", what, err)
	}
	past := slices.Clone(w.ended)
	slices.SortFunc(past, newestFirst)
	if d := cmp.Diff(past, ended, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s: history (-want +got):\n%s", what, d)
	}
}

// crashed returns the store that starts after a crash of s at this moment.
func crashed(t *testing.T, s *SQLite) *SQLite {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.db")
	for _, end := range []string{"", "-wal"} {
		b, err := os.ReadFile(s.cfg.Path + end)
		if err != nil {
			t.Fatal(err)
		}
		if err = os.WriteFile(path+end, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after, err := Open(t.Context(), Config{Path: path, Now: time.Now})
	if err != nil {
		t.Fatalf("after the crash: %v", err)
	}
	t.Cleanup(func() { _ = after.Close() })
	return after
}

// countdown is a context that ends when it was asked so many times.
type countdown struct {
	context.Context //nolint:containedctx // it is one
	left            atomic.Int64
}

func (c *countdown) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return c.Context.Err()
}

// TestMergeCut ends a merge after each of its transactions in turn: the store
// that goes on, and the one that starts after a crash, hold what was committed.
func TestMergeCut(t *testing.T) {
	s, e := opened(t)
	w := &twin{epoch: e, rows: map[string]state.Row{}, rnd: rand.New(rand.NewPCG(1, 2))}
	commit := func(n int) {
		if err := s.Commit(t.Context(), w.batch(n)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2*forgetOnce + 10 {
		commit(40)
	}
	whole := false
	for after := int64(1); !whole; after++ {
		ctx := &countdown{Context: t.Context()}
		ctx.left.Store(after)
		err := s.merger.merge(ctx)
		if err != nil && fault.Of(err) != fault.Unavailable {
			t.Fatalf("cut after %d: %v of kind %v, want unavailable", after, err, fault.Of(err))
		}
		if whole = err == nil; whole && after < 5 {
			t.Errorf("the merge took %d transactions; want more to cut", after)
		}
		what := fmt.Sprintf("cut after %d", after)
		w.check(t, what, s)
		w.check(t, what+" and crashed", crashed(t, s))
		if !whole && after%3 == 0 { // later commits count more than what was merged
			commit(100)
		}
	}
	if steps, _ := s.backlog.size(); steps != 0 {
		t.Errorf("%d steps wait after the merge, want 0", steps)
	}
	w.check(t, "after all", s)
}

// TestMergeTwin commits, merges, starts anew and trims at random.
func TestMergeTwin(t *testing.T) {
	for seed := range uint64(4) {
		s, e := opened(t)
		w := &twin{epoch: e, rows: map[string]state.Row{}, rnd: rand.New(rand.NewPCG(seed, 7))}
		for i := range 50 {
			if err := s.Commit(t.Context(), w.batch(1+w.rnd.IntN(12))); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("seed %d, commit %d", seed, i)
			switch w.rnd.IntN(12) {
			case 0, 1: // some of it
				s.merger.most = 1 + w.rnd.IntN(40)
				if err := s.merger.merge(t.Context()); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			case 2:
				s = crashed(t, s)
				var err error
				if w.epoch, err = s.Acquire(t.Context(), "test"); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			case 3:
				q := state.TrimQuery{EndedBefore: w.head.At - 20, PerJob: 1000, Limit: 1000}
				if _, err := s.Trim(t.Context(), q); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				w.ended = slices.DeleteFunc(w.ended, func(x task.Task) bool { return x.Since < q.EndedBefore })
			default:
			}
			w.check(t, what, s)
		}
	}
}

// TestMergeIsDue sees that commits ask for a merge, and wait for one when there
// is too much to merge.
func TestMergeIsDue(t *testing.T) {
	s, e := opened(t)
	w := &twin{epoch: e, rows: map[string]state.Row{}, rnd: rand.New(rand.NewPCG(3, 4))}
	commit := func() {
		if err := s.Commit(t.Context(), w.batch(10)); err != nil {
			t.Fatal(err)
		}
	}
	commit()
	s.backlog.add(0, mergeRows, nil) // as if so much waited
	commit()
	deadline := time.Now().Add(time.Minute)
	for s.Waiting() > 0 {
		if time.Now().After(deadline) {
			t.Fatal("no merge began")
		}
		time.Sleep(time.Millisecond)
	}
	s.merger.stop()
	commit()
	s.backlog.add(0, mergeLimit, nil)
	commit() // merges what was there
	if got := s.Waiting(); got != 1 {
		t.Errorf("%d commits wait after one that had to wait, want its own alone", got)
	}
	w.check(t, "after all", s)
}

// TestStepDamage sees that a step that was changed on disk is not served.
func TestStepDamage(t *testing.T) {
	for column, kind := range map[string]fault.Kind{"block": fault.Internal, "ended": fault.Internal, "format": fault.Invalid, "table": fault.Invalid} {
		s, e := opened(t)
		w := &twin{epoch: e, rows: map[string]state.Row{}, rnd: rand.New(rand.NewPCG(5, 6))}
		b := w.batch(10)
		b.Ended = []task.Task{{ID: task.ID{Job: twinJob, Attempt: 1}, State: task.Failed}}
		if err := s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		seal := newSealer()
		query, value := "UPDATE step SET block = ?", seal.seal(nil, []byte{stepFormat + 2})
		switch column {
		case "table":
			value = seal.seal(nil, encodeRows([]state.Row{{Table: 99, Key: "k", Value: []byte("v")}}))
		case "block", "ended":
			query, value = "UPDATE step SET "+column+" = ?", []byte("all work and no play")
		default:
		}
		if _, err := s.write.exec(query, value); err != nil {
			t.Fatal(err)
		}
		_, err := s.Load(t.Context(), func(state.Row) error { return nil })
		for what, err := range map[string]error{"load": err, "merge": s.Merge(t.Context())} {
			if err == nil || fault.Of(err) != kind || !strings.Contains(err.Error(), "revision 1") {
				t.Errorf("%s with another %s: %v of kind %v, want kind %v and the revision", what, column, err, fault.Of(err), kind)
			}
		}
	}
}

// TestGuard sees that a version that does not know the steps cannot lead while
// some wait, and can after the store was closed in order.
func TestGuard(t *testing.T) {
	s, e := opened(t)
	w := &twin{epoch: e, rows: map[string]state.Row{}, rnd: rand.New(rand.NewPCG(8, 9))}
	if err := s.Commit(t.Context(), w.batch(10)); err != nil {
		t.Fatal(err)
	}
	// What such a version does at first.
	const free, lead = "UPDATE meta SET holder = '' WHERE id = 1 AND holder <> ''",
		"UPDATE meta SET holder = 'old', incarnation = 1, n = n + 1, until = 5 WHERE id = 1"
	c := crashed(t, s)
	for _, q := range []string{free, lead} {
		if _, err := s.write.exec(q); err == nil || !strings.Contains(err.Error(), "newer covey") {
			t.Errorf("%s: %v, want a refusal that names the newer covey", q, err)
		}
	}
	if err := s.Merge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.exec(lead); err != nil {
		t.Errorf("with nothing waiting: %v", err)
	}
	path := c.cfg.Path
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), Config{Path: path, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if steps := c.Waiting(); steps != 0 {
		t.Errorf("%d steps wait in a store that was closed in order, want 0", steps)
	}
	w.check(t, "closed in order", c)
}
