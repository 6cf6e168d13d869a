package runtime

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

// Ways in which the directory of a runtime becomes another one while tasks
// run and no agent does. Each returns where it is then.
var moves = map[string]func(w *world) string{
	"replaced by a copy": func(w *world) string {
		w.sh("cp -a %[1]s %[1]s.bak; rm -rf %[1]s; cp -a %[1]s.bak %[1]s", w.cfg.Dir)
		return w.cfg.Dir
	},
	"copied elsewhere, then lost": func(w *world) string {
		w.sh("cp -a %[1]s %[1]s.copy; rm -rf %[1]s", w.cfg.Dir)
		return w.cfg.Dir + ".copy"
	},
	"copied, the first kept": func(w *world) string {
		w.sh("mv %[1]s %[1]s.first; cp -a %[1]s.first %[1]s", w.cfg.Dir)
		return w.cfg.Dir
	},
	"files replaced one by one": func(w *world) string {
		w.sh("tar -C %[1]s -cf %[1]s.tar .; tar -C %[1]s -xf %[1]s.tar", w.cfg.Dir)
		return w.cfg.Dir
	},
	"moved": func(w *world) string {
		w.sh("mv %[1]s %[1]s.moved", w.cfg.Dir)
		return w.cfg.Dir + ".moved"
	},
}

// sh runs commands, and does not mind that files change under them.
func (w *world) sh(format string, args ...any) {
	w.t.Helper()
	if out, err := exec.Command("sh", "-c", fmt.Sprintf(format, args...)).CombinedOutput(); err != nil {
		w.t.Logf("%v: %s", err, out)
	}
}

// eachMove runs a test for every way and every kind of runtime.
func eachMove(t *testing.T, f func(t *testing.T, w *world, move func())) {
	needRoot(t)
	for name, move := range moves {
		for _, reduced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reduced %v", name, reduced), func(t *testing.T) {
				w := newWorld(t, func(c *Config) { c.Reduced = reduced })
				f(t, w, func() { w.cfg.Dir = move(w) })
			})
		}
	}
}

// counter counts in its log until it is told to end, and has a final process.
func (w *world) counter() Spec {
	s := w.spec("trap 'echo term; exit 0' TERM; trap 'echo usr1; exit 7' USR1; n=0; while :; do echo $n; n=$((n+1)); sleep 0.02; done", `echo bye > "$HOME/last" && echo final`)
	s.Config.Task.Processes[1].Final = true
	s.Config.Task.FinalizationWait = 30
	return s
}

// saved waits until a task runs and its directory says so, so that a copy of
// it knows the supervisor, and nothing more is about to be written.
func (w *world) saved(id task.ID) Status {
	w.t.Helper()
	w.running(id)
	return w.wait(id, "saved", func(st Status) bool {
		s, err := readStatus(w.r.liveDir(id), stateFile)
		return err == nil && len(s.Processes) > 0 && s.Processes[0].Pid == st.Processes[0].Pid
	})
}

// said returns what a process has said so far.
func (w *world) said(id task.ID, process string) string {
	w.t.Helper()
	c, err := w.r.LogChunk(id, process, 0, Stdout, 0, maxChunk)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(c.Data)
}

// counted fails unless the log counts from 0 without a gap, and ends with last.
func (w *world) counted(id task.ID, last string) {
	w.t.Helper()
	got := strings.Split(strings.TrimSuffix(w.said(id, "p0"), "\n"), "\n")
	want := make([]string, len(got))
	for i := range want {
		want[i] = fmt.Sprint(i)
	}
	want[len(want)-1] = last
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("log: -want +got\n%s", d)
	}
}

// goesOn waits until the log of a task goes on.
func (w *world) goesOn(id task.ID) {
	w.t.Helper()
	before := len(w.said(id, "p0"))
	eventually(w.t, func() string {
		if got := w.said(id, "p0"); len(got) <= before {
			return fmt.Sprintf("the log stays at %d bytes, ending %q", before, got[max(0, len(got)-20):])
		}
		return ""
	})
}

// The agent finds the supervisor wherever the directory is now: the logs go on
// without a gap, a stop is in order, the end is on disk, and what starts later
// finds its sandbox.
func TestStopAfterMove(t *testing.T) {
	eachMove(t, func(t *testing.T, w *world, move func()) {
		id := w.start(w.counter())
		w.saved(id)
		w.goesOn(id)
		w.r.Close()
		move()
		w.open()
		w.goesOn(id)
		w.r.Close()
		w.open() // by the next agent too
		w.goesOn(id)
		if err := w.r.Stop(t.Context(), id, "enough"); err != nil {
			t.Fatal(err)
		}
		if got := w.end(id); got.State != task.Killed || got.Reason != "enough" {
			t.Errorf("got %+v; want KILLED because enough", got)
		}
		w.counted(id, "term")
		if got := w.said(id, "p1"); got != "final\n" {
			t.Errorf("the final process said %q; want %q", got, "final\n")
		}
		if b, err := w.r.ReadFile(id, "last", 0, 100); err != nil || string(b) != "bye\n" {
			t.Errorf("what the final process wrote: %q, %v; want bye", b, err)
		}
		w.r.Close()
		w.open()
		if got := w.status(id); !got.Ended || got.State != task.Killed || got.Reason != "enough" {
			t.Errorf("on disk: got %+v; want KILLED because enough", got)
		}
	})
}

// The task ends by itself while no agent is there, after one was, and the next
// one has its true exit status.
func TestEndAfterMove(t *testing.T) {
	eachMove(t, func(t *testing.T, w *world, move func()) {
		id := w.start(w.counter())
		st := w.saved(id)
		w.goesOn(id)
		w.r.Close()
		move()
		w.open()
		w.goesOn(id)
		w.r.Close()
		w.endsAlone(st)
		w.open()
		if got := w.end(id); got.State != task.Failed || !got.Known || got.ExitCode != 7 {
			t.Errorf("got %+v; want FAILED with status 7", got)
		}
		w.counted(id, "usr1")
	})
}

// The same, and no agent was there between the move and the end. What stands
// in no directory that the supervisor could know of is lost.
func TestEndUnseenAfterMove(t *testing.T) {
	eachMove(t, func(t *testing.T, w *world, move func()) {
		if strings.Contains(t.Name(), "elsewhere") {
			t.Skip("nobody has told the supervisor of this directory")
		}
		s := w.counter()
		s.Config.Task.Processes = s.Config.Task.Processes[:1] // what starts now may not find its sandbox
		id := w.start(s)
		st := w.saved(id)
		w.goesOn(id)
		w.r.Close()
		move()
		w.endsAlone(st)
		w.open()
		if got := w.end(id); got.State != task.Failed || !got.Known || got.ExitCode != 7 {
			t.Errorf("got %+v; want FAILED with status 7", got)
		}
	})
}

// endsAlone has a task end by itself, and waits until its supervisor is gone.
func (w *world) endsAlone(st Status) {
	w.t.Helper()
	if err := unix.Kill(st.Processes[0].Pid, unix.SIGUSR1); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, func() string {
		if inside.Same(st.Supervisor, st.SupervisorStart) {
			return "its supervisor lives"
		}
		return ""
	})
}

// A supervisor of a version without a second name is told to stop by a signal,
// which may come again. One that is told of a directory of another task stays
// where it is.
func TestSupervisorTold(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id, other := w.start(w.counter()), w.start(w.spec("exec sleep 1000"))
	st := w.running(id)
	w.running(other)
	c, err := dialByName(st.Supervisor, st.SupervisorStart)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, dir := range []string{w.r.liveDir(other), "relative", "/nowhere", ""} {
		sendHome(c, dir)
	}
	w.goesOn(id)
	for range 3 {
		if err := unix.Kill(st.Supervisor, stopSignal); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.end(id); got.State != task.Killed || !got.Known {
		t.Errorf("got %+v; want KILLED in order", got)
	}
	w.counted(id, "term")
	if got := w.saved(other); got.ID != other {
		t.Errorf("the other task's directory: got %+v", got)
	}
}

// Who is neither root nor the supervisor's user gets nothing under the second
// name, and who listens under another's name is found out.
func TestSecondNameOfStrangers(t *testing.T) {
	needRoot(t)
	needPython(t)
	w := newWorld(t)
	mine := w.start(w.spec("exec sleep 1000"))
	st := w.running(mine)
	id := w.start(w.spec(fmt.Sprintf(`python3 -c '
import socket
s = socket.socket(socket.AF_UNIX)
s.connect("\0covey/supervisor/%d/%d")
print("got", s.recv(100))
'`, st.Supervisor, st.SupervisorStart)))
	w.end(id)
	if got := w.said(id, "p0"); got != "got b''\n" {
		t.Errorf("a task at another's supervisor: %q; want that it is hung up on", got)
	}
	l, err := net.ListenUnix("unix", secondName(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c, err := dialByName(1, 1); fault.Of(err) != fault.Denied {
		t.Errorf("got %v, %v; want denied: it is not process 1 that listens", c, err)
	}
}

// The stream of a log is the same wherever its directory goes, if the copy was
// made since the file was rotated, and else closes up.
func TestMoveLogs(t *testing.T) {
	for name, c := range map[string]struct {
		before, between, after int // bytes
		want                   string
	}{
		"nothing yet":          {0, 0, 5, "abcde"},
		"nothing in the copy":  {0, 3, 5, "abcdefgh"},
		"behind":               {3, 3, 2, "abcdefgh"},
		"level":                {3, 0, 3, "abcdef"},
		"rotated before":       {12, 3, 3, "abcdefghijklmnopqr"},
		"rotated in between":   {6, 4, 3, "abcdefijklm"},
		"rotated, with a gap":  {6, 14, 2, "abcdefqrstuv"},
		"rotated again":        {6, 4, 12, "abcdefijklmnopqrstuv"},
		"a copy without files": {0, 6, 0, "abcdef"},
	} {
		t.Run(name, func(t *testing.T) {
			first, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
			open := func(dir string) *os.Root {
				root, err := os.OpenRoot(dir)
				if err != nil {
					t.Fatal(err)
				}
				return root
			}
			d := logDir{root: open(first)}
			p := job.Process{Logger: job.Logger{Rotate: true, LogSize: 8, Backups: 100}}
			l := d.file("p/1", Stdout, p)
			next := byte('a')
			write := func(n int) {
				for range n {
					l.write([]byte{next})
					next++
				}
			}
			write(c.before)
			if err := os.CopyFS(copied, os.DirFS(first)); err != nil {
				t.Fatal(err)
			}
			write(c.between)
			if err := os.RemoveAll(first); err != nil {
				t.Fatal(err)
			}
			if err := d.move(open(copied)); err != nil {
				t.Fatal(err)
			}
			write(c.after)
			l.close()
			d.done([]*logFile{l})
			got, end, err := readStream(open(copied), "p/1", Stdout, 0, 100)
			if err != nil || string(got.Data) != c.want || end != int64(len(c.want)) {
				t.Errorf("got %q, ending at %d, %v; want %q", got.Data, end, err, c.want)
			}
			if len(d.open) != 0 || !slices.IsSorted(l.old) {
				t.Errorf("left open: %v; rotated at %v", d.open, l.old)
			}
		})
	}
}
