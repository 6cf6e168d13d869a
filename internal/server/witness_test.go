package server

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/unit"
)

// TestTestimony: only a witness that agrees in everything proves that a
// database is no old copy, but for one commit that it did not live to note.
func TestTestimony(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   bool
		change func(*testing.T, *testimony, *state.Snapshot, string)
	}{
		{"the same", true, func(*testing.T, *testimony, *state.Snapshot, string) {}},
		{"one commit more", true, func(_ *testing.T, _ *testimony, s *state.Snapshot, _ string) {
			s.Rev, s.Seq, s.At = s.Rev+1, s.Seq+3, s.At+1
		}},
		{"one commit more, and earlier", false, func(_ *testing.T, _ *testimony, s *state.Snapshot, _ string) {
			s.Rev++
		}},
		{"one commit more, and fewer records", false, func(_ *testing.T, _ *testimony, s *state.Snapshot, _ string) {
			s.Rev, s.Seq, s.At = s.Rev+1, s.Seq-1, s.At+1
		}},
		{"two commits more", false, func(_ *testing.T, _ *testimony, s *state.Snapshot, _ string) {
			s.Rev, s.At = s.Rev+2, s.At+2
		}},
		{"one commit less", false, func(_ *testing.T, _ *testimony, s *state.Snapshot, _ string) {
			s.Rev--
		}},
		{"another life of the same length", false, func(_ *testing.T, _ *testimony, s *state.Snapshot, _ string) {
			s.At++
		}},
		{"another cluster", false, func(_ *testing.T, _ *testimony, s *state.Snapshot, _ string) {
			s.Cluster.UID = "V"
		}},
		{"a UID that is a path", false, func(_ *testing.T, _ *testimony, s *state.Snapshot, _ string) {
			s.Cluster.UID = "../V"
		}},
		{"another boot", false, func(_ *testing.T, x *testimony, _ *state.Snapshot, _ string) {
			x.Boot = "b"
		}},
		{"another file", false, func(_ *testing.T, x *testimony, _ *state.Snapshot, _ string) {
			x.Inode++
		}},
		{"another path", false, func(_ *testing.T, x *testimony, _ *state.Snapshot, _ string) {
			x.Database += "2"
		}},
		{"long ago", false, func(_ *testing.T, x *testimony, _ *state.Snapshot, _ string) {
			x.Awake -= goodFor
		}},
		{"in the future", false, func(_ *testing.T, x *testimony, _ *state.Snapshot, _ string) {
			x.Awake += unit.Hour.Duration()
		}},
		{"a copy that was put in its place", false, func(t *testing.T, _ *testimony, _ *state.Snapshot, database string) {
			if err := os.Rename(write(t, database+".copy", "x"), database); err != nil {
				t.Fatal(err)
			}
		}},
		{"no database", false, func(t *testing.T, _ *testimony, _ *state.Snapshot, database string) {
			if err := os.Remove(database); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := t.TempDir()
			database := write(t, filepath.Join(t.TempDir(), "cluster.db"), "x")
			s := state.New()
			s.Rev, s.Seq, s.At, s.Cluster = 100, 50, 490_000*unit.Hour, state.Cluster{Name: "c", UID: "U", Incarnation: 1}
			w := witness{run: run, database: database}
			if w.saw(s) {
				t.Fatal("a witness where there was none")
			}
			for range 3 { // in place, whatever the length
				s.Rev++
				if err := w.note(s); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(run, "U", witnessFile)
			var said testimony
			data, err := os.ReadFile(path)
			if err == nil {
				err = json.Unmarshal(data, &said)
			}
			if err != nil {
				t.Fatal(err)
			}
			c.change(t, &said, s, database)
			if data, err = json.Marshal(said); err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			next := witness{run: run, database: database}
			if got := next.saw(s); got != c.want {
				t.Errorf("proved: %v; want %v\n%s", got, c.want, data)
			}
		})
	}
}

// TestWitnessBroken: a file that is torn or forgotten proves nothing, and one
// that cannot be written is said once and keeps nobody from working.
func TestWitnessBroken(t *testing.T) {
	s := state.New()
	s.Rev, s.Cluster = 7, state.Cluster{Name: "c", UID: "U"}
	run := t.TempDir()
	w := witness{run: run, database: write(t, filepath.Join(t.TempDir(), "cluster.db"), "x")}
	path := filepath.Join(run, "U", witnessFile)
	if err := w.note(s); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(path); os.WriteFile(path, data[:len(data)/2], 0o600) != nil || w.saw(s) {
		t.Error("half a testimony proves something")
	}
	w.forget()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("forgotten: %v; want no file", err)
	}
	broken := witness{run: write(t, filepath.Join(t.TempDir(), "run"), "no directory"), database: w.database}
	if broken.saw(s) || broken.note(s) == nil {
		t.Error("no error though nothing can be written")
	}
	if err := broken.note(s); err != nil {
		t.Errorf("said again: %v", err)
	}
	var none witness
	if none.saw(s) || none.note(s) != nil {
		t.Error("who has no place for it wrote something down")
	}
}

// TestWitnessTidy removes what databases have left behind that are no more.
func TestWitnessTidy(t *testing.T) {
	run, dir := t.TempDir(), t.TempDir()
	for _, uid := range []string{"here", "gone"} {
		s := state.New()
		s.Cluster.UID = uid
		w := witness{run: run, database: write(t, filepath.Join(dir, uid), "x")}
		if err := w.note(s); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(run, "agent"), "no directory")
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	(&witness{run: run}).tidy()
	left, _ := filepath.Glob(filepath.Join(run, "*"))
	if got := strings.Join(left, " "); got != filepath.Join(run, "agent")+" "+filepath.Join(run, "here") {
		t.Errorf("left: %s; want agent and here", got)
	}
}

// TestRestartProved: a server that is started again where it was killed starts
// tasks at once, though a machine has not spoken; on an old copy of its
// database it waits for it.
func TestRestartProved(t *testing.T) {
	run, dir := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "cluster.db")
	lead := func() (*looper, func()) {
		db, err := store.Open(t.Context(), store.Config{Path: path, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		l := newLooper(db, "c", "me", newStats(), slog.New(slog.DiscardHandler))
		l.witness = witness{run: run, database: path}
		if err = l.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		return l, func() { _ = db.Close() }
	}
	hello := func(l *looper, id machine.ID, speaks bool) {
		t.Helper()
		err := l.turn(t.Context(), []input{{do: func(x *control.Turn) error {
			m := machine.Machine{ID: id, Host: "h", Capacity: unit.Resources{CPU: 4000}, Boot: "b"}
			err := x.Hello(control.Hello{Session: "s", UID: l.loop.Snapshot().Cluster.UID, Machine: m})
			if err == nil && speaks {
				err = x.Hear(id, control.Message{Session: "s", N: 1, Full: true})
			}
			return err
		}, done: func(err error) {
			if err != nil {
				t.Error(err)
			}
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	l, end := lead()
	hello(l, "m1", true)
	if !l.loop.Settled() {
		t.Fatal("a new cluster waits for machines that it does not have")
	}
	end() // as a kill does: nothing is taken back
	copied := map[string]string{}
	for _, name := range []string{path, path + "-wal"} {
		if data, err := os.ReadFile(name); err == nil {
			copied[name] = string(data)
		}
	}
	if l, end = lead(); !l.loop.Settled() {
		t.Error("started again: it waits for the machines; want it to go on")
	}
	hello(l, "m2", true)
	hello(l, "m3", true)
	end()
	for name, data := range copied {
		write(t, name, data) // into the same file
	}
	if l, end = lead(); l.loop.Settled() {
		t.Error("an old copy: it goes on; want it to wait for the machines")
	}
	hello(l, "m9", false) // commits, and proves nothing yet
	end()
	if l, end = lead(); l.loop.Settled() {
		t.Error("an old copy, started again before the machines spoke: it goes on; want it to wait")
	}
	hello(l, "m1", true)
	hello(l, "m9", true)
	if !l.loop.Settled() {
		t.Error("all machines have spoken, and it waits")
	}
	end()
	if l, end = lead(); !l.loop.Settled() {
		t.Error("started again after they spoke: it waits; want it to go on")
	}
	end()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWitnessSaid: that nothing can be written down is in the log, with what
// follows from it.
func TestWitnessSaid(t *testing.T) {
	var text strings.Builder
	l := newLooper(nil, "c", "me", newStats(), slog.New(slog.NewTextHandler(io.Writer(&text), nil)))
	s := state.New()
	s.Cluster = state.Cluster{Name: "c", UID: "U", Incarnation: 1}
	l.loop = control.New(s, machine.Epoch{Incarnation: 1, N: 1}, 1, control.Defaults())
	l.loop.Warm()
	dir := t.TempDir()
	l.witness = witness{run: write(t, filepath.Join(dir, "run"), ""), database: write(t, filepath.Join(dir, "db"), "")}
	for range 3 {
		l.vouch(context.Background())
	}
	if got := strings.Count(text.String(), "cannot be written down"); got != 1 {
		t.Errorf("said %d times, want once:\n%s", got, text.String())
	}
}
