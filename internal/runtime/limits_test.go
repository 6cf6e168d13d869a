package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/task"
)

func TestMemoryHog(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for name, c := range map[string]struct{ cmdline, reason string }{
		"process itself":  {"exec tail /dev/zero", "memory limit 64 MiB exceeded (out-of-memory kill of process p0)"},
		"its child":       {"tail /dev/zero; exit $?", "memory limit 64 MiB exceeded (out-of-memory kill of process p0)"},
		"a grandchild":    {"(tail /dev/zero; sleep 1000) & sleep 1000", "memory limit 64 MiB exceeded (out-of-memory kill inside the task)"},
		"shared memory":   {"head -c 100m /dev/zero > /dev/shm/x; sleep 1000", "memory limit 64 MiB exceeded (out-of-memory kill "},
		"a shrugging one": {"tail /dev/zero; exit 0", "memory limit 64 MiB exceeded (out-of-memory kill inside the task)"},
	} {
		s := w.spec(c.cmdline)
		s.Config.Task.Resources.RAM = 64 << 20
		got := w.end(w.start(s))
		if got.State != task.Failed || !strings.HasPrefix(got.Reason, c.reason) || !got.OOM {
			t.Errorf("%s: got %v %q oom=%v; want FAILED %q", name, got.State, got.Reason, got.OOM, c.reason)
		}
		if got.MaxRAM < 60<<20 || got.MaxRAM > 64<<20 {
			t.Errorf("%s: got at most %d bytes of memory; want about 64 MiB", name, got.MaxRAM)
		}
	}
}

func TestForkBomb(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("b() { b | b & }; b; sleep 1000")
	s.Config.Task.PidsLimit = 40
	s.Config.Task.Resources.CPU = 500
	id := w.start(s)
	w.wait(id, "at its limit", func(Status) bool { return len(w.groupOf(id).procs()) >= 35 })
	for range 20 {
		if got := len(w.groupOf(id).procs()); got > 40+initPids {
			t.Fatalf("got %d processes; want at most %d", got, 40+initPids)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := w.r.Stop(t.Context(), id, "stop the bomb"); err != nil {
		t.Fatal(err)
	}
	w.end(id)
}

// A bomb that has used up its ration of cpu dies as soon as any other task, and
// its end is told when the last of it is gone.
func TestThrottledForkBomb(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("b() { b | b & }; trap '' TERM; b; sleep 1000")
	s.Config.Task.PidsLimit = 150
	s.Config.Task.Resources.CPU = 10
	s.Config.Task.FinalizationWait = 1
	id := w.start(s)
	w.wait(id, "many", func(Status) bool { return len(w.groupOf(id).procs()) >= 50 })
	began := time.Now()
	if err := w.r.Stop(t.Context(), id, "stop the bomb"); err != nil {
		t.Fatal(err)
	}
	got := w.end(id)
	if left := w.groupOf(id).procs(); len(left) > 0 {
		t.Errorf("%d processes live after the end was told", len(left))
	}
	if got.State != task.Killed {
		t.Errorf("got %+v; want KILLED", got)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %v to die; want the wait of 1s and little more", d)
	}
}

func (w *world) groupOf(id task.ID) group {
	return w.r.groups.of(strings.ReplaceAll(id.String(), "/", "+"))
}

func TestDiskLimit(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for name, cmdline := range map[string]string{
		"a file":       "head -c 20m /dev/zero > big; sleep 1000",
		"in /tmp":      "head -c 20m /dev/zero > /var/tmp/big; sleep 1000",
		"its log":      "head -c 20m /dev/zero; sleep 1000",
		"a deleted":    "exec 5> big; rm big; head -c 20m /dev/zero >&5; sleep 1000",
		"empty files":  "seq 60000 | xargs touch; sleep 1000",
		"nested depth": "d=x; for i in $(seq 250); do mkdir $d; cd $d; done; sleep 1000",
	} {
		s := w.spec(cmdline)
		s.Config.Task.Resources.Disk = 10 << 20
		got := w.end(w.start(s))
		want := "disk limit 10 MiB exceeded: used "
		if name == "nested depth" {
			want = "sandbox has directories nested deeper than 200"
		}
		if got.State != task.Failed || !strings.HasPrefix(got.Reason, want) {
			t.Errorf("%s: got %v %q; want FAILED %q", name, got.State, got.Reason, want)
		}
	}
}

func TestCPULimit(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("while :; do :; done", "while :; do :; done")
	s.Config.Task.Resources.CPU = 200
	id := w.start(s)
	w.running(id)
	began := time.Now()
	before, err := w.r.Usage(id)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // the time over which a rate is measured
	after, err := w.r.Usage(id)
	if err != nil {
		t.Fatal(err)
	}
	if share := float64(after.CPUNanos-before.CPUNanos) / float64(time.Since(began)); share < 0.02 || share > 0.5 {
		// Without a limit it would be two cores; an emulated processor is charged for the time that it stood still.
		t.Errorf("used %.2f cores; want about the 0.2 that it has, and not nothing", share)
	}
}

func TestLimitsWritten(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("exec sleep 1000")
	s.Config.Task.Resources.CPU = 1500
	id := w.start(s)
	w.running(id)
	for _, c := range []struct{ controller, v1, v1want, v2, v2want string }{
		{"cpu", "cpu.cfs_quota_us", "150000", "cpu.max", "150000 100000"},
		{"cpu", "cpu.shares", "1536", "cpu.weight", "150"},
		{"memory", "memory.limit_in_bytes", fmt.Sprint(128 << 20), "memory.max", fmt.Sprint(128 << 20)},
		{"pids", "pids.max", fmt.Sprint(DefaultPids + initPids), "pids.max", fmt.Sprint(DefaultPids + initPids)},
	} {
		dir, v2 := w.groupOf(id).dir(c.controller)
		file, want := c.v1, c.v1want
		if v2 {
			file, want = c.v2, c.v2want
		}
		b, err := os.ReadFile(filepath.Join(dir, file))
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %s", file, got, err, want)
		}
	}
}

// In a container that was given a hierarchy without an empty root there are no
// limits, but there are tasks.
func TestNotDelegated(t *testing.T) {
	needRoot(t)
	m := newWorld(t).r.able.mounts // its root gives every controller
	if len(m.v1) > 0 || m.v2 == "" {
		t.Skip("SKIPPED: needs cgroups of version 2 alone, as the virtual machine of TestCgroupV2InVM has them")
	}
	g := group{m: m, path: fmt.Sprintf("/covey-container-%d", os.Getpid())}
	if err := g.mkdir(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !g.killAll(patience) || g.remove(patience) != nil {
			t.Error("the container is left")
		}
	})
	at, err := os.Open(g.dirs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `umount "$1" && mount -t cgroup2 cgroup2 "$1" && exec "$0" -test.v -test.run '^TestHello$'`, self, m.v2)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(at.Fd()), Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWCGROUP,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestHello") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A group is emptied although what is in it belongs to no namespace that could
// be ended, and is another process whenever somebody looks.
func TestGroupKill(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	g := w.r.groups.of("hopping+test")
	if err := g.mkdir(); err != nil {
		t.Fatal(err)
	}
	if err := g.limit(limits{cpuMilli: 2000, ram: 128 << 20, pids: 200}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "read go; hop() { hop & }; for i in $(seq 20); do hop & done; sleep 1000")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if !g.killAll(patience) || g.remove(patience) != nil {
			t.Error("it is left")
		}
		_ = cmd.Wait()
	})
	if err := g.add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); len(g.procs()) < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got processes %v; want three at once", g.procs())
		}
	}
	if !g.killAll(sweepWithin) {
		t.Errorf("processes %v are left", g.procs())
	}
	if err := g.remove(groupWithin); err != nil {
		t.Error(err)
	}
}
