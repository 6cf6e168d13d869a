package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// An Overhead is what the platform itself takes of a machine: this process,
// the supervisors of its tasks and the one that waits.
type Overhead struct {
	// CPUNanos counts cpu time. Where it begins means nothing, and with another
	// process it begins anew; what dead supervisors used stays in it.
	CPUNanos int64
	// RAM is the bytes that they hold and that nobody can take from them. What
	// the kernel would drop or write out for somebody else does not count.
	RAM int64
}

// Overhead measures what the platform itself takes. Without cgroups the memory
// of the supervisors that are known is read from /proc, and their cpu time is
// not counted.
func (r *Runtime) Overhead() (Overhead, error) {
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return Overhead{}, fault.Internal.Errorf("own cpu time: %w", err)
	}
	o := Overhead{CPUNanos: own.Utime.Nano() + own.Stime.Nano(), RAM: pinnedBy(os.Getpid())}
	g := r.groups.of(overheadName)
	if cpu, err := g.cpuNanos(); err == nil {
		o.CPUNanos += cpu
	}
	if g.none() || !g.m.has("memory") {
		for _, pid := range r.supervisors() {
			o.RAM += pinnedBy(pid)
		}
		return o, nil
	}
	ram, err := g.pinned()
	o.RAM += ram
	return o, err
}

// kernelShare is the most memory of the kernel's own that one process is taken
// to need, for its stacks and page tables, where the kernel does not tell that
// from its caches of names: those of a supervisor, which looks through sandboxes
// again and again, may be large.
const kernelShare = 768 << 10

// pinned returns the bytes of the group that the kernel cannot reclaim, as it
// could page cache and the caches of names; swap is not thought of. Memory of
// tmpfs counts though the kernel calls it cache: it has nowhere to go.
func (g group) pinned() (int64, error) {
	d, v2 := g.dir("memory")
	stat, err := table(filepath.Join(d, "memory.stat"))
	if err != nil {
		return 0, err
	}
	if v2 {
		all, gone := number(filepath.Join(d, "memory.current"))
		return max(0, all-(stat["file"]-stat["shmem"])-stat["slab_reclaimable"]), gone
	}
	kernel, err := number(filepath.Join(d, "memory.kmem.usage_in_bytes"))
	if err != nil {
		kernel = 0 // a kernel that does not charge it
	}
	return stat["total_rss"] + stat["total_shmem"] + min(kernel, int64(len(g.procs()))*kernelShare), nil
}

// table reads a file of "key number" lines.
func table(file string) (map[string]int64, error) {
	b, err := os.ReadFile(file) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, fault.NotFound.Errorf("%w", err)
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		key, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, fault.Internal.Errorf("%s: %s: %w", file, key, err)
		}
		out[key] = n
	}
	return out, nil
}

// pinnedBy returns the bytes that one process holds alone and that nobody can take
// from it; 0 if it is gone.
func pinnedBy(pid int) (sum int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		key, v, _ := strings.Cut(line, ":")
		switch key {
		case "RssAnon", "RssShmem", "VmPTE":
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			sum += kib << 10
		}
	}
	return sum
}

// supervisors lists those of the tasks that live.
func (r *Runtime) supervisors() (pids []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.tasks {
		if !e.status.Ended && e.status.Supervisor > 0 {
			pids = append(pids, e.status.Supervisor)
		}
	}
	return pids
}
