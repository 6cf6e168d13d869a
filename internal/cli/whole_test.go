package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
)

// TestWriteWhole: a file is there whole or as it was, a link leads where it led,
// and what is no file is written to and not replaced by one.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	say := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	want := func(name, text string) {
		t.Helper()
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("%s holds %q, %v; want %q", filepath.Base(name), got, err, text)
		}
	}
	if err := errors.Join(WriteWhole(at("a"), 0o640, say("one")), os.Symlink("a", at("link")), WriteWhole(at("link"), 0o640, say("two"))); err != nil {
		t.Fatal(err)
	}
	want(at("a"), "two")
	if to, err := os.Readlink(at("link")); to != "a" {
		t.Errorf("the link leads to %q, %v; want a", to, err)
	}
	if info, err := os.Stat(at("a")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v; want mode 640", info.Mode(), err)
	}
	broken := errors.New("broken")
	if err := WriteWhole(at("a"), 0o640, func(w io.Writer) error { return errors.Join(say("half")(w), broken) }); !errors.Is(err, broken) {
		t.Errorf("%v; want what the writer said", err)
	}
	want(at("a"), "two")
	for _, name := range []string{dir, at("no/such"), at("a/b")} {
		if err := WriteWhole(name, 0o600, say("x")); fault.Of(err) != fault.Invalid || err == nil {
			t.Errorf("%s: %v; want it refused", name, err)
		}
	}
	if all, err := filepath.Glob(at(".covey-*")); err != nil || len(all) > 0 {
		t.Errorf("left behind: %v, %v", all, err)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = errors.Join(WriteWhole(fmt.Sprintf("/dev/fd/%d", w.Fd()), 0o600, say("three")), w.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "three" {
		t.Errorf("the pipe gave %q, %v; want three", got, err)
	}
	if err = syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	both, err := os.OpenFile(at("fifo"), os.O_RDWR, 0) // so that nobody waits for the other end
	if err != nil {
		t.Fatal(err)
	}
	defer both.Close()
	if err = WriteWhole(at("fifo"), 0o600, say("four")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err = io.ReadFull(both, got); string(got) != "four" {
		t.Errorf("the fifo gave %q, %v; want four", got, err)
	}
	if info, err := os.Lstat(at("fifo")); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("it is %v, %v; want the fifo that it was", info.Mode(), err)
	}
}
