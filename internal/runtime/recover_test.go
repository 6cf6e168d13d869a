package runtime

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

// A killed supervisor takes everything with it; how the process ended nobody
// saw, so nobody says.
func TestSupervisorKilled(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("setsid sleep 1001 & sleep 1000"))
	st := w.running(id)
	w.wait(id, "saved", func(Status) bool {
		s, err := readStatus(w.r.liveDir(id), stateFile)
		return err == nil && len(s.Processes) > 0
	})
	inside.Kill(st.Supervisor)
	got := w.end(id)
	want := Status{Name: "FAILED", Reason: "supervisor died", Ended: true}
	if d := cmp.Diff(want, Status{Name: got.Name, Reason: got.Reason, Ended: got.Ended, Known: got.Known, ExitCode: got.ExitCode, Signal: got.Signal}); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if inside.Same(st.Processes[0].Pid, st.Processes[0].Start) || inside.Same(st.Pid, st.Start) {
		t.Error("its processes live")
	}
	if got.CPUNanos == 0 {
		t.Error("the cgroup's last count is lost")
	}
}

// What is meant for the agent, or for everything in its terminal, does not end
// tasks.
func TestSupervisorShrugs(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("exec sleep 1000"))
	st := w.running(id)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		for _, pid := range []int{st.Supervisor, st.Pid} {
			if err := unix.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.r.Stop(t.Context(), id, "asked"); err != nil {
		t.Fatal(err)
	}
	if got := w.end(id); got.Reason != "asked" || got.State != task.Killed {
		t.Errorf("got %v %q; want KILLED because asked", got.State, got.Reason)
	}
}

func TestInitKilled(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("exec sleep 1000"))
	inside.Kill(w.running(id).Pid)
	if got := w.end(id); got.State != task.Failed || got.Reason != "the task's init died" || got.Known {
		t.Errorf("got %+v; want FAILED without an exit status", got)
	}
}

// TestAgentKilled starts tasks in another process, kills that with SIGKILL, and
// finds them.
func TestAgentKilled(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.r.Close()
	live, short := w.spec("exec sleep 1000"), w.spec("while [ ! -e go ]; do sleep 0.01; done; exit 9")
	agent := w.otherAgent(live, short)
	w.open()
	a := w.running(live.ID)
	b := w.running(short.ID)
	w.r.Close()
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if err := os.WriteFile(filepath.Join(w.r.liveDir(short.ID), sandboxDir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); inside.Same(b.Supervisor, b.SupervisorStart) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	w.open()
	got := w.running(live.ID)
	if d := cmp.Diff([]any{a.Supervisor, a.Pid, a.Start, a.Processes[0].Pid, a.Processes[0].Start},
		[]any{got.Supervisor, got.Pid, got.Start, got.Processes[0].Pid, got.Processes[0].Start}); d != "" {
		t.Errorf("-before +after\n%s", d)
	}
	all, err := w.r.List(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("got %v, %v; want two tasks", all, err)
	}
	if got := w.end(short.ID); got.ExitCode != 9 || !got.Known || got.State != task.Failed {
		t.Errorf("got %+v; want the true exit status 9", got)
	}
	if err := w.r.Start(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	if got := w.status(short.ID); !got.Ended {
		t.Error("an ended task was started again")
	}
	if err := w.r.Stop(t.Context(), live.ID, "enough"); err != nil {
		t.Fatal(err)
	}
	if got := w.end(live.ID); got.State != task.Killed || got.Reason != "enough" {
		t.Errorf("got %+v; want KILLED because enough", got)
	}
}

func TestSupervisorKilledWhileAgentIsAway(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("exec sleep 1000"))
	st := w.running(id)
	w.wait(id, "saved", func(Status) bool {
		s, err := readStatus(w.r.liveDir(id), stateFile)
		return err == nil && len(s.Processes) > 0
	})
	w.r.Close()
	inside.Kill(st.Supervisor)
	w.open()
	if got := w.end(id); got.Reason != "supervisor died" || got.Known || got.Processes[0].Live {
		t.Errorf("got %+v; want FAILED because the supervisor died", got)
	}
}

// Absence is no order: a wiped directory or an old copy of one kills nothing.
func TestDirectoryLost(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("exec sleep 1000"))
	st := w.running(id)
	w.wait(id, "saved", func(Status) bool {
		s, err := readStatus(w.r.liveDir(id), stateFile)
		return err == nil && s.Pid == st.Pid && len(s.Processes) > 0
	})
	w.r.Close()
	kept := w.cfg.Dir + ".kept"
	if err := os.Rename(w.cfg.Dir, kept); err != nil {
		t.Fatal(err)
	}
	w.open() // wiped
	w.r.Close()
	w.wipe()
	if err := os.CopyFS(w.cfg.Dir, onlyRecords{os.DirFS(kept)}); err != nil {
		t.Fatal(err)
	}
	w.open() // an old copy
	if got := w.status(id); got.Ended || !inside.Same(st.Processes[0].Pid, st.Processes[0].Start) {
		t.Errorf("got %+v; want the task to live", got)
	}
	w.r.Close()
	w.wipe()
	if err := os.Rename(kept, w.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	w.open()
	if got := w.running(id); got.Pid != st.Pid {
		t.Errorf("got %+v; want it back", got)
	}
}

// wipe removes the runtime's directory, in which a supervisor may be writing.
func (w *world) wipe() {
	w.t.Helper()
	eventually(w.t, func() string {
		if err := os.RemoveAll(w.cfg.Dir); err != nil {
			return err.Error()
		}
		return ""
	})
}

func TestRebooted(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("exec sleep 1000"))
	st := w.running(id)
	w.r.Close()
	inside.Kill(st.Supervisor)
	for deadline := time.Now().Add(patience); inside.Same(st.Pid, st.Start) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	st.Boot, st.Version = "an earlier one", version
	if err := writeJSON(filepath.Join(w.r.liveDir(id), stateFile), st); err != nil {
		t.Fatal(err)
	}
	w.open()
	if got := w.end(id); got.State != task.Lost || got.Reason != "the machine restarted" {
		t.Errorf("got %+v; want LOST", got)
	}
}

// A start that was cut off before its supervisor never ran, and says nothing.
func TestStartCutOff(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id, other := w.id(), w.id()
	w.r.Close()
	for _, x := range []task.ID{id, other} { // of the other, nothing but the directory was made
		if err := os.Mkdir(w.r.liveDir(x), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(w.r.liveDir(id), taskFile), []byte(`{"versi`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	if all, err := w.r.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v; want no task", all, err)
	}
}

// The agent dies after it has made a task's directory whole, and before the
// supervisor that waited for one was told to go: the task has not begun.
func TestStartCutOffAtSupervisor(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.id()
	rec, err := w.r.record(Spec{ID: id, Config: w.spec("true").Config})
	if err != nil {
		t.Fatal(err)
	}
	dir := w.r.liveDir(id)
	w.r.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(filepath.Join(dir, taskFile), rec); err != nil {
		t.Fatal(err)
	}
	socket, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	socket.Close()
	w.open()
	if all, err := w.r.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v; want no task", all, err)
	}
}

func TestNewerFormat(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("true"))
	w.end(id)
	w.r.Close()
	path := filepath.Join(w.r.liveDir(id), taskFile)
	rec, err := readTask(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for v, want := range map[int]fault.Kind{maxVersion: fault.Internal, maxVersion + 1: fault.Conflict} {
		rec.Version = v
		if err := writeJSON(path, rec); err != nil {
			t.Fatal(err)
		}
		r, err := New(w.cfg)
		if (err != nil) != (want == fault.Conflict) || err != nil && fault.Of(err) != want {
			t.Errorf("version %d: got %v", v, err)
		}
		if err == nil {
			r.Close()
		}
	}
	rec.Version = version
	if err := writeJSON(path, rec); err != nil {
		t.Fatal(err)
	}
	w.open()
}

func TestForgetAndGC(t *testing.T) {
	needRoot(t)
	w := newWorld(t, func(c *Config) { c.Keep = Keep{Age: time.Hour, Bytes: 7 << 20} })
	live := w.start(w.spec("exec sleep 1000"))
	w.running(live)
	if err := w.r.Forget(t.Context(), live); fault.Of(err) != fault.Conflict {
		t.Errorf("forget a live task: %v; want conflict", err)
	}
	var ids []task.ID
	for range 3 {
		s := w.spec("echo said; head -c 2m /dev/zero > big; d=x; for i in $(seq 300); do mkdir $d; cd $d; done; chmod 0 .")
		id := w.start(s)
		w.end(id)
		for range 2 {
			if err := w.r.Forget(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.r.Start(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if all, err := w.r.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("got %d tasks, %v; want the live one", len(all), err)
	}
	if c, err := w.r.LogChunk(ids[0], "p0", 0, Stdout, 0, 100); err != nil || string(c.Data) != "said\n" || !c.EOF {
		t.Errorf("log of a forgotten task: %+v, %v", c, err)
	}
	got, err := w.r.GC(t.Context(), time.Now())
	if err != nil || got.Removed != 1 || got.Freed < 2<<20 {
		t.Errorf("by space: got %+v, %v; want the oldest gone", got, err)
	}
	if _, err = w.r.LogChunk(ids[0], "p0", 0, Stdout, 0, 100); fault.Of(err) != fault.NotFound {
		t.Errorf("log of a collected task: %v; want not found", err)
	}
	got, err = w.r.GC(t.Context(), time.Now().Add(2*time.Hour))
	if err != nil || got.Removed != 2 || got.Kept != 0 {
		t.Errorf("by age: got %+v, %v; want the other two gone", got, err)
	}
	if s := w.status(live); s.Ended {
		t.Error("collected a live task")
	}
}
