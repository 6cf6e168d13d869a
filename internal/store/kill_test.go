package store_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
)

// What makes the test binary a child: the path of its database, and whether
// the kernel is to refuse its writes.
const (
	childPath  = "COVEY_STORE_TEST_CHILD"
	childLimit = "COVEY_STORE_TEST_LIMIT"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		be := child
		if os.Getenv(childLimit) != "" {
			be = limitedChild
		}
		if err := be(path, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// rowsPerKill is how many rows each of the child's batches holds.
const rowsPerKill = 50

// child commits for ever, and says so after each commit, and merges what it has
// committed at the same time. Each batch writes the same rows, so that half of
// one would show.
func child(path string, out io.Writer) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Path: path, Now: time.Now})
	if err != nil {
		return err
	}
	e, err := s.Acquire(ctx, "child")
	if err != nil {
		return err
	}
	head, err := s.Load(ctx, func(state.Row) error { return nil })
	if err != nil {
		return err
	}
	go func() {
		for s.Merge(ctx) == nil { // it never ends; the child is killed
			runtime.Gosched()
		}
		fmt.Fprintln(os.Stderr, "a merge failed")
		os.Exit(1)
	}()
	for {
		b := one(e, head, "counter", []byte(strconv.Itoa(int(head.Rev)+1)))
		for i := range rowsPerKill {
			b.Rows = append(b.Rows, state.Row{Table: state.TaskTable, Key: fmt.Sprintf("row%03d", i), Value: b.Rows[0].Value})
		}
		if err := s.Commit(ctx, b); err != nil {
			return err
		}
		head = state.Head{Rev: b.Rev, Seq: head.Seq + 1, At: b.At}
		if _, err := fmt.Fprintln(out, b.Rev); err != nil {
			return err
		}
	}
}

// TestKill kills a server in the middle of its commits and merges, again and again: what
// it acknowledged is there, whole, and at most one commit more.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	acked := 0
	for round := range 8 {
		acked = max(acked, run(t, path, acked+3+7*round))
		s := open(t, path)
		got := rows(t, s)
		rev, err := strconv.Atoi(string(got["counter"]))
		if err != nil || rev < acked || rev > acked+1 {
			t.Fatalf("round %d: the store stands at %q, %d were acknowledged", round, got["counter"], acked)
		}
		for i := range rowsPerKill {
			if k := fmt.Sprintf("row%03d", i); string(got[k]) != string(got["counter"]) {
				t.Fatalf("round %d: row %s is from commit %q, want %q: a commit was torn", round, k, got[k], got["counter"])
			}
		}
		records, err := s.Records(t.Context(), 0, 10_000)
		if err != nil || len(records) != rev {
			t.Fatalf("round %d: %d records, %v, want %d", round, len(records), err, rev)
		}
		head, err := s.Load(t.Context(), func(state.Row) error { return nil })
		if want := (state.Head{Rev: state.Rev(rev), Seq: state.Seq(rev), At: head.At}); err != nil || head != want {
			t.Fatalf("round %d: head %+v, %v, want %+v", round, head, err, want)
		}
		acked = rev
		shut(t, s)
	}
}

// run starts a child, kills it when it has acknowledged commit until, and
// returns the last one that it acknowledged.
func run(t *testing.T, path string, until int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childPath+"="+path)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if last, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatalf("the child said %q", lines.Text())
		}
		if last == until {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if last < until {
		t.Fatalf("the child ended after commit %d, want %d: %s", last, until, stderr.String())
	}
	return last
}

// limitedChild commits while the kernel lets no file grow: the write of the
// log fails in the middle, as on a disk that dies. It fails unless the store
// says that nobody knows the outcome, and goes on well afterwards.
func limitedChild(path string, out io.Writer) error {
	signal.Ignore(unix.SIGXFSZ)
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Path: path, Now: time.Now})
	if err != nil {
		return err
	}
	e, err := s.Acquire(ctx, "child")
	if err != nil {
		return err
	}
	log, err := os.Stat(path + "-wal")
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err = unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	none := unix.Rlimit{Cur: uint64(log.Size()) + 5000, Max: limit.Max}
	if err = unix.Setrlimit(unix.RLIMIT_FSIZE, &none); err != nil {
		return err
	}
	b := one(e, state.Head{}, "big", bytes.Repeat([]byte("x"), 50_000))
	failed := s.Commit(ctx, b)
	if err = unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if failed == nil || fault.Of(failed) != fault.Timeout {
		return fmt.Errorf("commit = %w of kind %v, want a timeout", failed, fault.Of(failed))
	}
	head, err := s.Load(ctx, func(state.Row) error { return nil })
	if err != nil || head != (state.Head{}) {
		return fmt.Errorf("the store stands at %+v: %w", head, err)
	}
	if err = s.Commit(ctx, one(e, head, "later", []byte("later"))); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, failed)
	return err
}

// TestUnknownOutcome sees what a commit says whose log could not be written.
func TestUnknownOutcome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childPath+"="+path, childLimit+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := "nobody knows whether it happened"; !strings.Contains(string(out), want) {
		t.Errorf("the commit said %q, want %q", out, want)
	}
	s := open(t, path)
	if got := rows(t, s); len(got) != 1 || string(got["later"]) != "later" {
		t.Errorf("rows %q, want the later one", got)
	}
}
