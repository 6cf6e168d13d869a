package runtime

import (
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/task"
)

func TestFindMounts(t *testing.T) {
	for name, c := range map[string]struct {
		info string
		want mounts
	}{
		"version 1, two together": {
			"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			mounts{v1: map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory"}},
		},
		"a named hierarchy is none": {"40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n", mounts{}},
		"version 2":                 {"40 31 0:37 / /nowhere rw - cgroup2 cgroup2 rw\n", mounts{v2: "/nowhere"}},
		"nothing":                   {"23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\nshort line\n", mounts{}},
	} {
		if d := cmp.Diff(c.want, findMounts(c.info), cmp.AllowUnexported(mounts{}), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
}

// Which file holds which limit, on either version, is written to a directory
// that stands for the kernel's.
func TestLimitFiles(t *testing.T) {
	for name, c := range map[string]struct {
		v2   bool
		want map[string]string
	}{
		"version 1": {false, map[string]string{
			"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000", "cpu.shares": "256",
			"memory.limit_in_bytes": "1048576", "memory.memsw.limit_in_bytes": "1048576", "pids.max": "99",
		}},
		"version 2": {true, map[string]string{
			"cpu.max": "25000 100000", "cpu.weight": "25", "memory.max": "1048576", "memory.swap.max": "0", "pids.max": "99",
		}},
	} {
		dir := t.TempDir()
		m := mounts{v1: map[string]string{"cpu": dir, "memory": dir, "pids": dir}}
		if c.v2 {
			m = mounts{v2: dir, v2has: []string{"cpu", "memory", "pids"}}
		}
		g := group{m: m, path: "/g"}
		if err := g.mkdir(); err != nil {
			t.Fatal(err)
		}
		for f := range c.want {
			if err := os.WriteFile(dir+"/g/"+f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.limit(limits{cpuMilli: 250, ram: 1 << 20, pids: 99}); err != nil {
			t.Fatal(err)
		}
		for f, want := range c.want {
			if b, err := os.ReadFile(dir + "/g/" + f); err != nil || string(b) != want {
				t.Errorf("%s: %s is %q, %v; want %q", name, f, b, err, want)
			}
		}
	}
}

func TestCounterFiles(t *testing.T) {
	dir := t.TempDir()
	for f, s := range map[string]string{
		"cpu.stat": "usage_usec 1500\nuser_usec 1\n", "memory.current": "5000\n", "memory.peak": "9000\n",
		"memory.stat": "anon 1\ninactive_file 2000\n", "memory.events": "low 0\noom 3\noom_kill 2\n",
	} {
		if err := os.WriteFile(dir+"/"+f, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := group{m: mounts{v2: dir, v2has: []string{"cpu", "memory", "pids"}}, path: "/"}
	got, err := g.counters()
	if d := cmp.Diff(Counters{CPUNanos: 1_500_000, RAM: 3000, MaxRAM: 9000}, got); d != "" || err != nil {
		t.Errorf("%v -want +got\n%s", err, d)
	}
	if n := g.oomKills(); n != 2 {
		t.Errorf("got %d kills; want 2", n)
	}
	// As before Linux 5.19.
	if err = os.Remove(dir + "/memory.peak"); err == nil {
		err = os.WriteFile(dir+"/memory.max", []byte("8192\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := g.counters(); err != nil || got.MaxRAM != 8192 {
		t.Errorf("without a peak: got %d, %v; want the limit that was hit, 8192", got.MaxRAM, err)
	}
}

func TestCutReason(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("x", task.MaxReason), strings.Repeat("x", 500), strings.Repeat("x", 116) + strings.Repeat("ö", 50), strings.Repeat("世", 100)} {
		got := cutReason(s)
		if len(got) > task.MaxReason || !utf8.ValidString(got) || len(s) <= task.MaxReason && got != s || len(s) > task.MaxReason && !strings.HasSuffix(got, "...") {
			t.Errorf("got %q of %d bytes", got, len(s))
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte(`{"op":"status","status":{"version":1,"id":"a/prod/b/0.1","state":"RUNNING"}}`))
	f.Add([]byte(`{"op":"hello","version":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFrame(b)
		if err != nil || got.Status == nil {
			return
		}
		if got.Status.ID.String() != got.Status.Task || got.Status.State.String() != got.Status.Name {
			t.Errorf("accepted %+v", got.Status)
		}
	})
}

// What cannot go in one hierarchy does not keep the group in the others, and
// is told.
func TestRemoveGoesOn(t *testing.T) {
	cpu, memory, v2 := t.TempDir(), t.TempDir(), t.TempDir()
	g := group{m: mounts{v1: map[string]string{"cpu": cpu, "memory": memory}, v2: v2}, path: "/g"}
	if err := g.mkdir(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(cpu+"/g/busy", 0o700); err != nil {
		t.Fatal(err)
	}
	err := g.remove(0)
	if err == nil || !strings.Contains(err.Error(), cpu+"/g") || strings.Contains(err.Error(), memory) {
		t.Errorf("got %v; want an error about %s/g alone", err, cpu)
	}
	for dir, want := range map[string]bool{cpu: true, memory: false, v2: false} {
		if _, err := os.Lstat(dir + "/g"); (err == nil) != want {
			t.Errorf("%s/g: %v; want it there: %v", dir, err, want)
		}
	}
}

// The end of a task that fails before it has begun can come while its cgroups
// are still being made.
func TestCgroupsOfFailedStarts(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	if w.r.groups.off() {
		t.Skip("SKIPPED: no cgroups here")
	}
	const many = 40
	var all []task.ID
	for range many {
		s := w.spec("true")
		s.Config.Task.Artifacts = []job.Artifact{{URI: "file:///nonexistent/x", Path: "x"}}
		all = append(all, w.start(s))
	}
	for _, id := range all {
		if got := w.end(id); got.State != task.Failed || !strings.Contains(got.Reason, "no such file") {
			t.Errorf("%v is %v, %q; want FAILED since there is no such file", id, got.State, got.Reason)
		}
	}
	if got := w.r.groups.names(); len(got) > 0 {
		t.Errorf("%d of %d tasks left cgroups: %v", len(got), many, got)
	}
}

// A cgroup that the kernel did not let go of in time goes with the next
// collection; a live task's stays.
func TestGCSweepsCgroups(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	if w.r.groups.off() {
		t.Skip("SKIPPED: no cgroups here")
	}
	live := w.start(w.spec("sleep 600"))
	w.running(live)
	ended := w.start(w.spec("true"))
	w.end(ended)
	for _, id := range []task.ID{ended, w.id()} {
		if err := w.groupOf(id).mkdir(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.r.GC(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{name.Escape(live.String())}, w.r.groups.names()); d != "" {
		t.Errorf("cgroups (-want +got):\n%s", d)
	}
}
