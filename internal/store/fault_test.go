package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/unit"
)

func open(t *testing.T, path string) *store.SQLite {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Path: path, Now: time.Now})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// refused checks the kind and the words of an error.
func refused(t *testing.T, err error, kind fault.Kind, words ...string) {
	t.Helper()
	if err == nil || fault.Of(err) != kind {
		t.Fatalf("error %v of kind %v, want kind %v", err, fault.Of(err), kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q, want it to say %q", err, w)
		}
	}
}

func openErr(path string) error {
	s, err := store.Open(context.Background(), store.Config{Path: path, Now: time.Now})
	if err == nil {
		_ = s.Close()
	}
	return err
}

func TestOpenDirectory(t *testing.T) {
	dir := t.TempDir()
	refused(t, openErr(filepath.Join(dir, "none", "c.db")), fault.Denied, filepath.Join(dir, "none"), "create it")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, openErr(filepath.Join(file, "c.db")), fault.Denied, file)
	refused(t, openErr(dir), fault.Denied, dir, "no file")
}

// TestOpenReadOnly needs a directory that even root cannot write to.
func TestOpenReadOnly(t *testing.T) {
	dir := mount(t, "64k")
	if err := unix.Mount("none", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=64k"); err != nil {
		t.Skipf("cannot make a read-only mount here: %v", err)
	}
	refused(t, openErr(filepath.Join(dir, "c.db")), fault.Denied, dir, "cannot be written", "give it to the user")
}

func TestOpenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	refused(t, openErr(path), fault.Conflict, filepath.Dir(path), fmt.Sprintf("pid %d", os.Getpid()), "stop it")
	shut(t, s)
	shut(t, s)
	open(t, path)
}

// edit changes a database behind the store's back.
func edit(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOpenNewer opens databases that a newer program has upgraded: what is one
// version ahead works as it is.
func TestOpenNewer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	first := commitOne(t, s, machine.Epoch{}, state.Head{}, "before")
	shut(t, s)
	edit(t, path, "INSERT INTO schema_version (version_id, is_applied) VALUES (4, 1)",
		"CREATE TABLE added (x)", "ALTER TABLE meta ADD COLUMN added", "ALTER TABLE job ADD COLUMN added")
	s = open(t, path)
	commitOne(t, s, machine.Epoch{}, first, "after")
	if got := rows(t, s); len(got) != 2 {
		t.Errorf("%d rows, want 2: %v", len(got), got)
	}
	shut(t, s)
	edit(t, path, "INSERT INTO schema_version (version_id, is_applied) VALUES (5, 1)")
	refused(t, openErr(path), fault.Invalid, path, "version 5", "wants 3", "start a newer one")
}

func TestOpenForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	edit(t, path, "CREATE TABLE bookmarks (url TEXT)")
	refused(t, openErr(path), fault.Invalid, path, "some other program")
}

// commitOne commits one row and record and returns where the store stands.
// Without an epoch it takes the lead first.
func commitOne(t *testing.T, s *store.SQLite, e machine.Epoch, h state.Head, key string) state.Head {
	t.Helper()
	if e == (machine.Epoch{}) {
		var err error
		if e, err = s.Acquire(t.Context(), "test"); err != nil {
			t.Fatalf("Acquire: %v", err)
		}
	}
	b := one(e, h, key, []byte("value of "+key))
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return state.Head{Rev: b.Rev, Seq: h.Seq + 1, At: b.At}
}

func one(e machine.Epoch, h state.Head, key string, value []byte) *state.Batch {
	return &state.Batch{
		Epoch: e, Base: h.Rev, Rev: h.Rev + 1, At: h.At + 1,
		Rows:    []state.Row{{Table: state.JobTable, Key: key, Value: value}},
		Records: []state.Record{{Seq: h.Seq + 1, At: h.At + 1, Kind: state.JobRecord, Job: &state.JobChange{Reason: key}}},
	}
}

func rows(t *testing.T, s *store.SQLite) map[string][]byte {
	t.Helper()
	got := make(map[string][]byte)
	if _, err := s.Load(t.Context(), func(r state.Row) error { got[r.Key] = r.Value; return nil }); err != nil {
		t.Fatalf("Load: %v", err)
	}
	return got
}

// TestDamage flips bits of a database at rest: none may be served.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.db")
	s := open(t, path)
	value := bytes.Repeat([]byte("all work and no play "), 20)
	e, err := s.Acquire(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	if err = s.Commit(t.Context(), one(e, state.Head{}, "the key", value)); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(whole, value[:40])
	if at < 0 {
		t.Fatal("the value is not in the file")
	}
	damage := func(name string, change func(b []byte) []byte) string {
		p := filepath.Join(dir, name)
		if err = os.WriteFile(p, change(bytes.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	refused(t, openErr(damage("header", func(b []byte) []byte { copy(b, "garbage"); return b })), fault.Internal, "damaged", "restore")
	refused(t, openErr(damage("noise", func(b []byte) []byte { return bytes.Repeat([]byte{0xa5}, len(b)) })), fault.Internal, "damaged", "restore")

	s = open(t, damage("bit", func(b []byte) []byte { b[at+100] ^= 1; return b }))
	_, err = s.Load(t.Context(), func(state.Row) error { return nil })
	refused(t, err, fault.Internal, "damaged", `"the key"`, "checksum", "restore")
	shut(t, s)

	// Every page but the first in turn is overwritten: open, load or read
	// fails, or the page held nothing that they give.
	for page := 4096; page+4096 <= len(whole); page += 4096 {
		p := damage("page", func(b []byte) []byte { copy(b[page:], bytes.Repeat([]byte{0xa5}, 4096)); return b })
		if got, err := everything(p); err == nil && got != string(value)+"the key" {
			t.Errorf("page %d overwritten: served %.80q", page/4096, got)
		} else if err != nil {
			refused(t, err, fault.Internal, p, "damaged", "restore")
		}
		_ = os.Remove(p + "-wal")
		_ = os.Remove(p + "-shm")
	}
}

// TestDamagedVersions: a database whose table of versions cannot be read is
// damaged. The migrations alone would say that the table exists already.
func TestDamagedVersions(t *testing.T) {
	cluster := func(path string) error {
		s, err := store.Open(t.Context(), store.Config{Path: path, Now: time.Now})
		if err == nil {
			err = s.Close()
		}
		return err
	}
	company := func(path string) error {
		c, err := store.OpenCompany(t.Context(), path, nil)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	for name, reopen := range map[string]func(string) error{"cluster": cluster, "company": company} {
		path := filepath.Join(t.TempDir(), "c.db")
		if err := reopen(path); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		var root int
		if err = errors.Join(db.QueryRowContext(t.Context(), "SELECT rootpage FROM sqlite_master WHERE name = 'schema_version'").Scan(&root), db.Close()); err != nil {
			t.Fatal(err)
		}
		for what, change := range map[string]func(page []byte){
			"noise":   func(p []byte) { _, _ = rand.NewChaCha8([32]byte{1}).Read(p) },
			"zeros":   func(p []byte) { clear(p) },
			"no rows": func(p []byte) { copy(p, []byte{13, 0, 0, 0, 0, 0x10, 0, 0}) },
			"no time": func(p []byte) { copy(p[bytes.LastIndex(p, []byte("20")):], "abcdefghij") },
		} {
			for _, n := range []string{path + "-wal", path + "-shm"} {
				_ = os.Remove(n)
			}
			b := bytes.Clone(whole)
			change(b[(root-1)*4096 : root*4096])
			if err = os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Run(name+" "+what, func(t *testing.T) { refused(t, reopen(path), fault.Internal, path, "damaged", "restore") })
		}
	}
}

// everything reads the only row and record of a database.
func everything(path string) (string, error) {
	s, err := store.Open(context.Background(), store.Config{Path: path, Now: time.Now})
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close() }()
	var out string
	if _, err = s.Load(context.Background(), func(r state.Row) error { out += string(r.Value); return nil }); err != nil {
		return "", err
	}
	records, err := s.Records(context.Background(), 0, 10)
	for _, r := range records {
		out += r.Job.Reason
	}
	return out, err
}

// mount returns a directory on a file system of its own.
func mount(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestDiskFull fills the disk, at many different points of a commit and of a
// merge, and makes room again.
func TestDiskFull(t *testing.T) {
	dir := mount(t, "4m")
	path := filepath.Join(dir, "c.db")
	s := open(t, path)
	e, err := s.Acquire(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string][]byte)
	var head state.Head
	try := func(key string, size int) error {
		b := one(e, head, key, bytes.Repeat([]byte{byte(size)}, size))
		refused := s.Commit(t.Context(), b)
		if refused == nil {
			want[key] = b.Rows[0].Value
			head = state.Head{Rev: b.Rev, Seq: head.Seq + 1, At: b.At}
		}
		return refused
	}
	for i := range 20 {
		if err = try(fmt.Sprint("before", i), 1000); err != nil {
			t.Fatal(err)
		}
	}
	ballast := filepath.Join(dir, "ballast")
	fulls, merged, unmerged := 0, 0, 0
	merge := func(round int) {
		switch err := s.Merge(t.Context()); {
		case err == nil:
			merged++
		case fault.Of(err) == fault.Exhausted:
			unmerged++
			refused(t, err, fault.Exhausted, "disk", dir, "full", "room")
		default:
			t.Fatalf("round %d: merge: %v of kind %v, want exhausted", round, err, fault.Of(err))
		}
	}
	for round := range 12 {
		fill(t, ballast, round*5000)
		for i := range 4 {
			switch err = try(fmt.Sprint("full", round, i), 3000+9000*i); {
			case err == nil:
			case fault.Of(err) == fault.Exhausted:
				fulls++
				refused(t, err, fault.Exhausted, "disk", dir, "full", "room")
			default:
				t.Fatalf("round %d: %v of kind %v, want exhausted", round, err, fault.Of(err))
			}
			if i%2 == round%2 {
				merge(round)
			}
		}
		got := rows(t, s)
		compare(t, fmt.Sprint("round ", round), want, got)
		if err = os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if err = try(fmt.Sprint("after", round), 2000); err != nil {
			t.Fatalf("round %d: after making room: %v", round, err)
		}
		if round%2 == 0 {
			if merge(round); s.Waiting() > 0 {
				t.Fatalf("round %d: nothing was merged after making room", round)
			}
		}
	}
	if fulls == 0 || unmerged == 0 || merged == 0 {
		t.Errorf("%d commits and %d merges met the full disk, and %d merges did not, want some of each", fulls, unmerged, merged)
	}
	shut(t, s)
	s = open(t, path)
	compare(t, "after all", want, rows(t, s))
	records, err := s.Records(t.Context(), 0, 1000)
	if err != nil || len(records) != len(want) {
		t.Errorf("%d records, %v, want %d", len(records), err, len(want))
	}
}

// TestOpenDiskFull opens databases on a full disk, where SQLite cannot even make
// the index of its log.
func TestOpenDiskFull(t *testing.T) {
	dir := mount(t, "4m")
	path := filepath.Join(dir, "c.db")
	shut(t, open(t, path))
	ballast := filepath.Join(dir, "ballast")
	for _, spare := range []int{0, 4 << 10, 16 << 10, 40 << 10} {
		fill(t, ballast, spare)
		for _, p := range []string{path, filepath.Join(dir, fmt.Sprint(spare, ".db"))} {
			s, err := store.Open(t.Context(), store.Config{Path: p, Now: time.Now})
			if err == nil {
				_, err = s.Acquire(t.Context(), "test")
				shut(t, s)
			}
			if err != nil {
				refused(t, err, fault.Exhausted, "disk", dir, "full", "room")
			} else if spare == 0 {
				t.Errorf("%s: works on a full disk", p)
			}
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, open(t, path))
}

func compare(t *testing.T, what string, want, got map[string][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for k, v := range want {
		if !bytes.Equal(got[k], v) {
			t.Errorf("%s: row %s has %d bytes, want %d", what, k, len(got[k]), len(v))
		}
	}
}

// fill writes a file until the disk is full but for spare bytes.
func fill(t *testing.T, path string, spare int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	for block := make([]byte, 1<<10); err == nil; {
		var n int
		n, err = f.Write(block)
		size += int64(n)
	}
	if err := f.Truncate(max(0, size-int64(spare))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestClosed sees that a closed store says so.
func TestClosed(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "c.db"))
	shut(t, s)
	_, err := s.Acquire(t.Context(), "test")
	refused(t, err, fault.Unavailable, "closed")
	refused(t, s.Commit(t.Context(), &state.Batch{Rev: 1, At: unit.Hour}), fault.Unavailable, "closed")
}
