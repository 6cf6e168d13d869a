package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

func withSpare(c *Config) { c.Spare = true }

// cmdline returns a process's arguments.
func cmdline(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(string(b), "\x00")
}

// waiting returns the spares that wait in this world.
func (w *world) waiting() (pids []int) {
	for _, pid := range w.r.groups.of(overheadName).procs() {
		if a := cmdline(pid); len(a) > 2 && a[1] == SuperviseArg && strings.HasPrefix(a[2], "spare") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// spare waits until there is one, which is none of those in not, and until it
// can be had.
func (w *world) spare(not ...int) int {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		found := w.waiting()
		if len(found) != 1 || len(not) > 0 && found[0] == not[0] {
			continue
		}
		if len(w.r.spares) == 1 {
			return found[0]
		}
	}
	w.t.Fatalf("no spare waits after %v; got %v", patience, w.waiting())
	return 0
}

func (w *world) gone(pid int, start uint64) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); inside.Same(pid, start); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("process %d still lives after %v", pid, patience)
		}
	}
}

func (w *world) supervisorOf(id task.ID) int { return w.running(id).Supervisor }

// A task gets the supervisor that waited, which is then like any other: it
// bears the task's directory as its name, and the next one waits already.
func TestSpareTakesTask(t *testing.T) {
	needRoot(t)
	w := newWorld(t, withSpare)
	want := w.spare()
	id := w.start(w.spec("echo hello from $USER in $PWD; sleep 1000"))
	if got := w.supervisorOf(id); got != want {
		t.Errorf("got supervisor %d; want %d, which waited", got, want)
	}
	if got := cmdline(want); got[2] != w.r.liveDir(id) {
		t.Errorf("got name %q; want %q", got[2], w.r.liveDir(id))
	}
	if lock, err := takeLock(w.r.liveDir(id)); err == nil {
		t.Errorf("the task's record is not locked while its supervisor lives")
		_ = lock.Close()
	}
	w.spare(want)
	if err := w.r.Stop(t.Context(), id, "enough"); err != nil {
		t.Fatal(err)
	}
	if got := w.end(id); got.State != task.Killed {
		t.Errorf("got %+v; want KILLED", got)
	}
	if got, want := w.output(id, "p0"), "hello from covey-role in /sandbox\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// halted reports whether a process is stopped, dead or gone.
func halted(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") T ") || strings.Contains(string(b), ") Z ")
}

// A spare that is dead, or that does not answer, costs a task nothing but time.
func TestSpareFails(t *testing.T) {
	needRoot(t)
	for name, sig := range map[string]unix.Signal{"killed": unix.SIGKILL, "stopped": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withSpare)
			pid := w.spare()
			st, _ := inside.ReadProcess(pid)
			if err := unix.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(patience); !halted(pid); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("process %d runs on after %v", pid, sig)
				}
			}
			id := w.start(w.spec("echo once >> ran"))
			if got := w.end(id); got.State != task.Finished || got.Supervisor == pid {
				t.Errorf("got %+v; want FINISHED under another supervisor than %d", got, pid)
			}
			b, err := w.r.ReadFile(id, "ran", 0, 100)
			if err != nil || string(b) != "once\n" {
				t.Errorf("got %q, %v; want that it ran once", b, err)
			}
			w.gone(pid, st.Start)
		})
	}
}

// After the binary was replaced, the spare of the old one supervises nothing.
func TestSpareOfOldBinary(t *testing.T) {
	needRoot(t)
	self := filepath.Join(t.TempDir(), "covey")
	install := func() {
		b, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(self+".new", b, 0o700)
		}
		if err == nil {
			err = os.Rename(self+".new", self)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install()
	w := newWorld(t, withSpare, func(c *Config) { c.Self = self })
	old := w.spare()
	st, _ := inside.ReadProcess(old)
	install()
	id := w.start(w.spec("sleep 1000"))
	got := w.supervisorOf(id)
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", got))
	if err != nil || exe != self || got == old {
		t.Errorf("got supervisor %d of %q, %v; want one of %q, not %d", got, exe, err, self, old)
	}
	w.gone(old, st.Start)
}

// A spare dies with its agent, even if that is killed; the task that an
// earlier one has taken does not, and the next agent finds it.
func TestSpareDiesWithAgent(t *testing.T) {
	needRoot(t)
	w := newWorld(t, withSpare)
	w.r.Close()
	s := w.spec("sleep 1000")
	other := w.otherAgent(s)
	pid := 0
	for deadline := time.Now().Add(patience); pid == 0 && time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if found := w.waiting(); len(found) == 1 {
			pid = found[0]
		}
	}
	st, ok := inside.ReadProcess(pid)
	if !ok {
		t.Fatal("the other agent has no spare")
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	w.gone(pid, st.Start)
	w.open()
	if got := w.running(s.ID); got.Ended {
		t.Errorf("got %+v; want it running", got)
	}
	if all, err := w.r.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("got %v, %v; want the task alone", all, err)
	}
}
