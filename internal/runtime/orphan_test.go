package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// lose starts a task, takes the whole directory of its runtime away, and opens
// another runtime on an empty one. It returns where the directory is now.
func (w *world) lose(s Spec) (id task.ID, before Status, kept string) {
	w.t.Helper()
	id = w.start(s)
	before = w.running(id)
	w.r.Close()
	kept = w.cfg.Dir + ".kept"
	if err := os.Rename(w.cfg.Dir, kept); err != nil {
		w.t.Fatal(err)
	}
	w.open()
	return id, before, kept
}

func (w *world) groupIsGone(id task.ID) {
	w.t.Helper()
	for _, d := range w.r.groups.of(filepath.Base(w.r.liveDir(id))).dirs() {
		if _, err := os.Lstat(d); err == nil {
			w.t.Errorf("cgroup left: %s", d)
		}
	}
}

// eventually polls until what is wrong is nothing.
func eventually(t testing.TB, wrong func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		s := wrong()
		if s == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(s)
		}
	}
}

// A task whose directory was lost is found by its cgroup, and says what it is.
// Told to stop, it ends in order: its supervisor still knows how.
func TestOrphanStopped(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("trap 'echo in order > said; exit 0' TERM; : > ready; while :; do sleep 0.05; done")
	s.Config.Task.Resources = unit.Resources{CPU: 250, RAM: 96 << 20, Disk: 64 << 20}
	id, before, kept := w.lose(s)
	got := w.status(id)
	want := Status{
		ID: id, Name: "RUNNING", State: task.Running, Orphan: true, Pid: before.Pid, Start: before.Start, Supervisor: before.Supervisor,
		SupervisorStart: before.SupervisorStart, Holds: unit.Resources{CPU: 250, RAM: 96 << 20},
	}
	said := Status{
		ID: got.ID, Name: got.Name, State: got.State, Orphan: got.Orphan, Pid: got.Pid, Start: got.Start, Supervisor: got.Supervisor,
		SupervisorStart: got.SupervisorStart, Holds: got.Holds,
	}
	if d := cmp.Diff(want, said); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if off := got.StartedAt.Sub(before.StartedAt).Abs(); off > 10*time.Second {
		t.Errorf("it started at %v; want %v or about", got.StartedAt, before.StartedAt)
	}
	if c, err := w.r.Usage(id); err != nil || c.CPUNanos == 0 || c.RAM == 0 {
		t.Errorf("usage: got %+v, %v; want what its cgroup counts", c, err)
	}
	if err := w.r.Start(t.Context(), s); err != nil || !inside.Same(before.Pid, before.Start) {
		t.Errorf("started again: %v, lives: %v; want nothing to happen", err, inside.Same(before.Pid, before.Start))
	}
	sandbox := filepath.Join(kept, liveDir, filepath.Base(w.r.liveDir(id)), sandboxDir)
	eventually(t, func() string {
		if missing(filepath.Join(sandbox, "ready")) {
			return "the task has not said yet what it does with SIGTERM"
		}
		return ""
	})
	if err := w.r.Stop(t.Context(), id, "enough"); err != nil {
		t.Fatal(err)
	}
	if got := w.end(id); got.State != task.Killed || got.Reason != "enough" || got.Known || got.CPUNanos == 0 {
		t.Errorf("got %+v; want KILLED because enough, and no exit status", got)
	}
	if b, err := os.ReadFile(filepath.Join(sandbox, "said")); string(b) != "in order\n" {
		t.Errorf("the task said %q, %v; want it to have had SIGTERM", b, err)
	}
	if inside.Same(before.Supervisor, before.SupervisorStart) || inside.Same(before.Pid, before.Start) {
		t.Error("its supervisor or its init lives on")
	}
	w.groupIsGone(id)
	if err := w.r.Forget(t.Context(), id); err != nil {
		t.Error(err)
	}
	if all, err := w.r.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v; want no task", all, err)
	}
}

// One that heeds nothing is killed, with a supervisor that stands still.
func TestOrphanKilled(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id, before, _ := w.lose(w.spec("trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & while :; do sleep 1; done"))
	if err := unix.Kill(before.Supervisor, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := w.r.Kill(t.Context(), id, "now"); err != nil {
		t.Fatal(err)
	}
	if got := w.end(id); got.State != task.Killed || got.Reason != "now" {
		t.Errorf("got %+v; want KILLED because now", got)
	}
	if inside.Same(before.Supervisor, before.SupervisorStart) || inside.Same(before.Pid, before.Start) {
		t.Error("its supervisor or its init lives on")
	}
	w.groupIsGone(id)
}

// An orphan that ends by itself is LOST, and leaves nothing.
func TestOrphanEnds(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id, before, kept := w.lose(w.spec("while [ ! -e go ]; do sleep 0.01; done"))
	if err := os.WriteFile(filepath.Join(kept, liveDir, filepath.Base(w.r.liveDir(id)), sandboxDir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := w.end(id); got.State != task.Lost || got.Known {
		t.Errorf("got %+v; want LOST: nobody knows how it ended", got)
	}
	eventually(t, func() string {
		if inside.Same(before.Supervisor, before.SupervisorStart) {
			return "its supervisor lives on"
		}
		return ""
	})
	w.groupIsGone(id)
}

// A group of processes that nobody supervises, under the name of a task, is an
// orphan too. What goes by no task's name is nobody's.
func TestGroupsByHand(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	if w.r.groups.off() {
		t.Skip("SKIPPED: needs cgroups")
	}
	id := w.id()
	w.r.Close()
	sleeper, stranger := w.sleepIn(filepath.Base(w.r.liveDir(id))), w.sleepIn("no+task")
	w.open()
	if got := w.status(id); !got.Orphan || got.Pid != sleeper || got.Supervisor != 0 {
		t.Errorf("got %+v; want an orphan without supervisor, process %d", got, sleeper)
	}
	if all, err := w.r.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("got %v, %v; want one task", all, err)
	}
	if err := w.r.Stop(t.Context(), id, "enough"); err != nil {
		t.Fatal(err)
	}
	w.end(id)
	if _, lives := inside.ReadProcess(stranger); !lives {
		t.Error("a process in a cgroup that is no task's was ended")
	}
	inside.Kill(stranger)
	if err := w.r.groups.of("no+task").remove(patience); err != nil {
		t.Error(err)
	}
}

// sleepIn puts a process of its own into a group.
func (w *world) sleepIn(group string) (pid int) {
	w.t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go cmd.Wait() // reaps it
	w.t.Cleanup(func() { _ = cmd.Process.Kill() })
	g := w.r.groups.of(group)
	if err := g.mkdir(); err != nil {
		w.t.Fatal(err)
	}
	if err := g.add(cmd.Process.Pid); err != nil {
		w.t.Fatal(err)
	}
	return cmd.Process.Pid
}

// A task is not started where processes of another start live, as when its
// directory was lost between two looks. They are left alone.
func TestStartBesideProcesses(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	if w.r.groups.off() {
		t.Skip("SKIPPED: needs cgroups")
	}
	s := w.spec("true")
	pid := w.sleepIn(filepath.Base(w.r.liveDir(s.ID)))
	err := w.r.Start(t.Context(), s)
	if fault.Of(err) != fault.Unavailable || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("got %v; want unavailable, and which processes live there", err)
	}
	if _, lives := inside.ReadProcess(pid); !lives {
		t.Error("they were ended")
	}
	if all, err := w.r.List(t.Context()); err != nil || len(all) != 0 || !missing(w.r.liveDir(s.ID)) {
		t.Errorf("got %v, %v; want nothing to be left of the start", all, err)
	}
	inside.Kill(pid)
	if err := w.r.groups.of(filepath.Base(w.r.liveDir(s.ID))).remove(patience); err != nil {
		t.Fatal(err)
	}
	w.end(w.start(s)) // and now it may
}

// The directory is lost under a running agent, which knows the task: it ends as
// ever, and its end is told though it can be written nowhere.
func TestDirectoryLostUnderAgent(t *testing.T) {
	needRoot(t)
	for name, end := range map[string]func(*world, task.ID, Status){
		"stopped":           func(w *world, id task.ID, _ Status) { _ = w.r.Stop(w.t.Context(), id, "enough") },
		"killed":            func(w *world, id task.ID, _ Status) { _ = w.r.Kill(w.t.Context(), id, "enough") },
		"supervisor killed": func(_ *world, _ task.ID, st Status) { inside.Kill(st.Supervisor) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			id := w.start(w.spec("exec sleep 1000"))
			st := w.running(id)
			if err := os.Rename(w.r.liveDir(id), filepath.Join(t.TempDir(), "lost")); err != nil { // at once, whoever writes there
				t.Fatal(err)
			}
			end(w, id, st)
			if got := w.end(id); name != "supervisor killed" && (got.State != task.Killed || got.Reason != "enough") {
				t.Errorf("got %+v; want KILLED because enough", got)
			}
			if err := w.r.Forget(t.Context(), id); err != nil {
				t.Error(err)
			}
			w.groupIsGone(id)
		})
	}
}

// What a group holds is read from the limits, on either version.
func TestHoldsFiles(t *testing.T) {
	for name, c := range map[string]struct {
		v2    bool
		files map[string]string
		want  unit.Resources
	}{
		"version 1":           {false, map[string]string{"cpu.cfs_period_us": "100000\n", "cpu.cfs_quota_us": "25000\n", "memory.limit_in_bytes": "1048576\n"}, unit.Resources{CPU: 250, RAM: 1 << 20}},
		"version 1, no limit": {false, map[string]string{"cpu.cfs_period_us": "100000\n", "cpu.cfs_quota_us": "-1\n", "memory.limit_in_bytes": "9223372036854771712\n"}, unit.Resources{}},
		"version 2":           {true, map[string]string{"cpu.max": "150000 100000\n", "memory.max": "1048576\n"}, unit.Resources{CPU: 1500, RAM: 1 << 20}},
		"version 2, no limit": {true, map[string]string{"cpu.max": "max 100000\n", "memory.max": "max\n"}, unit.Resources{}},
		"nothing to read":     {true, nil, unit.Resources{}},
	} {
		dir := t.TempDir()
		for f, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m := mounts{v1: map[string]string{"cpu": dir, "memory": dir}}
		if c.v2 {
			m = mounts{v2: dir, v2has: []string{"cpu", "memory"}}
		}
		if d := cmp.Diff(c.want, group{m: m, path: "/"}.holds()); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
}
