package runtime

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
)

// Whatever is rotated, a reader that follows sees a gap-free end of the stream.
func TestRotation(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("seq 100000; echo last >&2")
	s.Config.Task.Processes[0].Logger = job.Logger{Rotate: true, LogSize: 50_000, Backups: 3}
	id := w.start(s)
	if got := w.end(id); got.State != task.Finished {
		t.Fatalf("got %+v", got)
	}
	var whole bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintln(&whole, i+1)
	}
	c, err := w.r.LogChunk(id, "p0", 1, Stdout, 0, 1000)
	if err != nil || c.Offset < int64(whole.Len())-200_000 || c.EOF {
		t.Errorf("got %d..%d, %v; want to begin where the oldest file begins", c.Offset, c.Next, err)
	}
	var got []byte
	begin := c.Offset
	for at := c.Offset; ; at = c.Next {
		if c, err = w.r.LogChunk(id, "p0", 0, Stdout, at, 7001); err != nil {
			t.Fatal(err)
		}
		got = append(got, c.Data...)
		if c.EOF {
			break
		}
	}
	if !bytes.Equal(got, whole.Bytes()[begin:]) {
		t.Errorf("got %d bytes from %d on; want the last %d of the stream", len(got), begin, whole.Len()-int(begin))
	}
	if c, err = w.r.LogChunk(id, "p0", 1, Stdout, -7, 100); err != nil || string(c.Data) != "100000\n" || !c.EOF {
		t.Errorf("tail: %+v, %v", c, err)
	}
	files, err := w.r.ListFiles(id, ".logs/p0/1")
	if err != nil || len(files) != 5 { // three rotated, the current, stderr
		t.Errorf("got %v, %v; want five files", files, err)
	}
	for _, f := range files {
		if f.Size > 50_000 {
			t.Errorf("%s has %d bytes; want at most 50000", f.Name, f.Size)
		}
	}
	if c, err = w.r.LogChunk(id, "p0", 1, Stderr, 0, 100); err != nil || string(c.Data) != "last\n" {
		t.Errorf("stderr: %+v, %v", c, err)
	}
	for _, bad := range []struct {
		process string
		run     int
		stream  string
		kind    fault.Kind
	}{{"p0", 2, Stdout, fault.NotFound}, {"p0", -1, Stdout, fault.NotFound}, {"p9", 0, Stdout, fault.NotFound}, {"p0", 0, "stdin", fault.Invalid}} {
		if _, err := w.r.LogChunk(id, bad.process, bad.run, bad.stream, 0, 1); fault.Of(err) != bad.kind {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
}

func TestLogDestinations(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("echo file", "echo console", "echo both", "echo none")
	for i, d := range []string{"", "console", "both", "none"} {
		s.Config.Task.Processes[i].Logger.Destination = d
	}
	s.Config.Task.Order = [][]string{{"p0", "p1", "p2", "p3"}}
	id := w.start(s)
	w.end(id)
	for i, want := range []string{"file\n", "", "both\n", ""} {
		c, err := w.r.LogChunk(id, fmt.Sprintf("p%d", i), 0, Stdout, 0, 100)
		if err != nil || string(c.Data) != want {
			t.Errorf("p%d: got %q, %v; want %q", i, c.Data, err, want)
		}
	}
	if b, err := w.r.ReadFile(id, ".logs/%console/1/stdout", 0, 100); err != nil || string(b) != "console\nboth\n" {
		t.Errorf("console: got %q, %v", b, err)
	}
}

// A full disk drops output and says so; the process goes on.
func TestLogOnFullDisk(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := newLogFile(root, "d", Stdout, job.Process{})
	l.write([]byte("one\n"))
	good := l.f
	if l.f, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Skip("SKIPPED: no /dev/full:", err)
	}
	l.write([]byte("two\n"))
	l.write([]byte("three\n"))
	_ = l.f.Close()
	l.f = good
	l.write([]byte("four\n"))
	l.close()
	b, err := root.ReadFile("d/stdout")
	want := "one\n\n[covey: 10 bytes of output were dropped: the disk was full]\nfour\n"
	if err != nil || string(b) != want {
		t.Errorf("got %q, %v; want %q", b, err, want)
	}
}

// A stream is the same however it is cut into files and reads.
func TestReadStreamWhileRotating(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := newLogFile(root, "d", Stdout, job.Process{Logger: job.Logger{Rotate: true, LogSize: 64, Backups: 100}})
	want := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz\n", 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < len(want); i += 13 {
			l.write([]byte(want[i:min(i+13, len(want))]))
		}
	}()
	var got []byte
	for over := false; ; {
		select {
		case <-done:
			over = true
		default:
		}
		c, end, err := readStream(root, "d", Stdout, int64(len(got)), 50)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Data) > 0 && c.Offset != int64(len(got)) {
			t.Fatalf("asked for %d, got %d", len(got), c.Offset)
		}
		got = append(got, c.Data...)
		if over && int64(len(got)) == end {
			break
		}
	}
	if string(got) != want {
		t.Errorf("got %d bytes, want %d; or they differ", len(got), len(want))
	}
}

func TestRemoveTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	deep := dir
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cwd, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * maxDepth {
		if err := cwd.Mkdir("d", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := cwd.OpenRoot("d")
		if err != nil {
			t.Fatal(err)
		}
		_ = cwd.WriteFile("f", nil, 0o600)
		_ = cwd.Symlink("/etc", "l")
		_ = cwd.Close()
		cwd = next
	}
	_ = cwd.Close()
	if err := removeTree(deep); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("got %v; want it gone", err)
	}
	if err := removeTree(dir); err != nil {
		t.Errorf("remove what is gone: %v", err)
	}
}
