package store

import (
	"database/sql/driver"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

func opened(t *testing.T) (*SQLite, machine.Epoch) {
	t.Helper()
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "c.db"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	e, err := s.Acquire(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return s, e
}

// TestDurable holds the settings on which every acknowledgement rests, also of
// a connection that was opened anew.
func TestDurable(t *testing.T) {
	s, _ := opened(t)
	for range 2 {
		for pragma, want := range map[string]driver.Value{
			"journal_mode": "wal", "synchronous": int64(2), "application_id": int64(application), "wal_autocheckpoint": int64(0),
		} {
			got, err := s.write.row("PRAGMA "+pragma, 1)
			if err != nil || got[0] != want {
				t.Errorf("%s = %v, %v, want %v", pragma, got, err, want)
			}
		}
		s.write = s.undo(s.write) // there is nothing to undo, so the connection is given up
		if s.write != nil {
			t.Fatal("the connection was kept")
		}
		if err := s.transact(t.Context(), "test", func(*writer) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLogIsBounded commits much more than a log may hold.
func TestLogIsBounded(t *testing.T) {
	s, e := opened(t)
	var head state.Head
	value := []byte(strings.Repeat("x", 1<<20))
	const commits, most = 60, 24 << 20
	for i := range commits {
		b := &state.Batch{
			Epoch: e, Base: head.Rev, Rev: head.Rev + 1, At: head.At + unit.Tick(1),
			Rows: []state.Row{{Table: state.JobTable, Key: "key", Value: value}},
		}
		if err := s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		head = state.Head{Rev: b.Rev, At: b.At}
		if i%10 == 9 {
			if err := s.checkpoints.both(); err != nil {
				t.Fatal(err)
			}
		}
	}
	log, err := os.Stat(s.cfg.Path + "-wal")
	if err != nil || log.Size() > most {
		t.Errorf("the log has %d bytes after %d commits of 1 MiB, %v; want at most %d", log.Size(), commits, err, most)
	}
}

// TestCheckpointsAreDue sees that commits ask for them.
func TestCheckpointsAreDue(t *testing.T) {
	s, e := opened(t)
	s.checkpoints.pages.Store(checkpointAt)
	b := &state.Batch{Epoch: e, Rev: 1, Rows: []state.Row{{Table: state.JobTable, Key: "key", Value: []byte("v")}}}
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for s.checkpoints.pages.Load() != 0 {
		if time.Now().After(deadline) {
			t.Fatal("no checkpoint began")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestWritten sees that pages are counted.
func TestWritten(t *testing.T) {
	s, e := opened(t)
	s.write.written()
	before := s.checkpoints.pages.Load()
	b := &state.Batch{Epoch: e, Rev: 1, Rows: []state.Row{{Table: state.JobTable, Key: "key", Value: make([]byte, 100_000)}}}
	for range 2 { // what a commit has written is counted with the next one
		if err := s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		b.Base, b.Rev = b.Rev, b.Rev+1
	}
	if got := s.checkpoints.pages.Load() - before; got < 25 || got > 60 {
		t.Errorf("%d pages counted, want 25 or some more", got)
	}
}
