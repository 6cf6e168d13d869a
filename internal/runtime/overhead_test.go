package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/unit"
)

// TestOverhead measures what supervisors take: their memory and cpu time grow
// with each, and the page cache that they fill is not theirs.
func TestOverhead(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	if w.r.groups.off() || !w.r.groups.m.has("memory") {
		t.Skip("SKIPPED: no cgroup counts memory here")
	}
	before := w.overhead()
	const n = 4
	for range n {
		w.running(w.start(w.spec("sleep 1000")))
	}
	after := w.overhead()
	each := (after.RAM - before.RAM) / n // this process, which grows as well, is in it
	t.Logf("a supervisor takes %s", unit.RAM.Format(each))
	if each < unit.MiB || each > 64*unit.MiB {
		t.Errorf("%d supervisors have the overhead grow from %d to %d bytes; want 1 to 64 MiB for each", n, before.RAM, after.RAM)
	}
	if after.CPUNanos <= before.CPUNanos {
		t.Errorf("%d starts have the cpu time go from %d to %d ns; want more", n, before.CPUNanos, after.CPUNanos)
	}
	const size = 48 * unit.MiB
	for _, dir := range []string{w.cfg.Dir, "/dev/shm"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			t.Logf("SKIPPED: %s: %v", dir, err)
			continue
		}
		want, what := int64(0), "page cache"
		if fs.Type == unix.TMPFS_MAGIC {
			want, what = size, "memory of tmpfs"
		}
		file := w.write(dir, size)
		w.until(what, func() bool { // what the kernel tells of a group is some seconds old
			grown := w.overhead().RAM - after.RAM
			return grown > want-size/3 && grown < want+size/3
		})
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}

// write has a process of the supervisors' group make a file.
func (w *world) write(dir string, size int64) (file string) {
	w.t.Helper()
	f, err := os.CreateTemp(dir, "overhead")
	if err != nil {
		w.t.Skip("SKIPPED: no room for a file:", err)
	}
	_ = f.Close()
	w.t.Cleanup(func() { _ = os.Remove(f.Name()) })
	cmd := exec.Command("/bin/sh", "-c", `read go; exec head -c "$1" /dev/zero > "$0"`, f.Name(), strconv.FormatInt(size, 10))
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		err = w.r.groups.of(overheadName).add(cmd.Process.Pid)
	}
	if err == nil {
		_, err = in.Write([]byte("go\n"))
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		w.t.Fatalf("write %d bytes to %s: %v", size, f.Name(), err)
	}
	return f.Name()
}

func (w *world) overhead() Overhead {
	w.t.Helper()
	o, err := w.r.Overhead()
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Errorf("%s: the overhead is %d bytes", what, w.overhead().RAM)
			return
		}
	}
}

// TestOverheadReduced reads /proc where there are no cgroups.
func TestOverheadReduced(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Reduced = true })
	before := w.overhead()
	id := w.start(w.spec("sleep 1000"))
	pid := w.running(id).Supervisor
	w.until("one supervisor more", func() bool { return pinnedBy(pid) > unit.MiB/2 && w.overhead().RAM-before.RAM > pinnedBy(pid)/2 })
	if before.RAM < unit.MiB {
		t.Errorf("without a supervisor the overhead is %d bytes; want this process's", before.RAM)
	}
	if got := pinnedBy(1 << 30); got != 0 {
		t.Errorf("a process that is not there holds %d bytes", got)
	}
}

// TestPinned counts by the files of either version.
func TestPinned(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		v2    bool
		want  int64
	}{
		"version 2": {map[string]string{"memory.current": "1000\n", "memory.stat": "anon 400\nfile 300\nshmem 100\nslab_reclaimable 50\nkernel 250\n"}, true, 750},
		"version 1": {map[string]string{
			"memory.stat": "cache 7\ntotal_cache 300\ntotal_rss 400\ntotal_shmem 100\n", "memory.kmem.usage_in_bytes": "99999999\n", "cgroup.procs": "1234\n1235\n",
		}, false, 500 + 2*kernelShare},
		"version 1, little of the kernel's": {map[string]string{"memory.stat": "total_rss 400\n", "memory.kmem.usage_in_bytes": "60\n", "cgroup.procs": "1234\n"}, false, 460},
		"version 1, kernel not charged":     {map[string]string{"memory.stat": "total_rss 400\ntotal_shmem 1\n"}, false, 401},
	} {
		dir := t.TempDir()
		for f, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g := group{m: mounts{v1: map[string]string{"memory": dir}}, path: "/"}
		if c.v2 {
			g.m = mounts{v2: dir, v2has: []string{"memory"}}
		}
		if got, err := g.pinned(); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
	if _, err := (group{m: mounts{v2: t.TempDir()}, path: "/"}).pinned(); err == nil {
		t.Error("a group that is gone has no error")
	}
}
