package runtime

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
)

// Counters are what something has used. CPUNanos and MaxRAM never go back
// while it lives. Where the kernel keeps no peak (cgroups of version 2 before
// Linux 5.19), MaxRAM is the largest of one sample a second, or the limit if
// that was hit.
type Counters struct {
	CPUNanos int64 // cpu time since its start, in nanoseconds
	RAM      int64 // bytes that it holds now, without file cache that could be dropped
	MaxRAM   int64 // the most bytes that were charged to it, cache included
	Disk     int64 // bytes of its sandbox with its logs, when last measured
}

// counters reads the group's counters. Kind NotFound: the group is gone.
func (g group) counters() (Counters, error) {
	cpu, err := g.cpuNanos()
	if err != nil {
		return Counters{}, err
	}
	c := Counters{CPUNanos: cpu}
	if !g.m.has("memory") {
		return c, nil
	}
	d, v2 := g.dir("memory")
	usage, peak, inactive := "memory.usage_in_bytes", "memory.max_usage_in_bytes", "total_inactive_file"
	if v2 {
		usage, peak, inactive = "memory.current", "memory.peak", "inactive_file"
	}
	now, err := number(filepath.Join(d, usage))
	if err != nil {
		return Counters{}, err
	}
	stat, err := keyed(filepath.Join(d, "memory.stat"), inactive)
	if err != nil {
		return Counters{}, err
	}
	c.RAM = max(now-stat, 0)
	c.MaxRAM, err = number(filepath.Join(d, peak))
	if err != nil && g.oomKills() > 0 {
		c.MaxRAM, _ = number(filepath.Join(d, "memory.max")) // none: then it was the machine's memory
	}
	c.MaxRAM = max(c.MaxRAM, now)
	return c, nil
}

// cpuNanos returns the cpu time that the group's processes, dead ones
// included, have used.
func (g group) cpuNanos() (int64, error) {
	if g.none() || !g.m.has("cpuacct") {
		return 0, fault.NotFound.Errorf("no cgroup counts cpu time here")
	}
	d, v2 := g.dir("cpuacct")
	if v2 {
		us, err := keyed(filepath.Join(d, "cpu.stat"), "usage_usec")
		return us * 1000, err
	}
	return number(filepath.Join(d, "cpuacct.usage"))
}

// oomKills returns how many processes of the group the kernel has killed for
// want of memory.
func (g group) oomKills() int64 {
	if g.none() || !g.m.has("memory") {
		return 0
	}
	d, v2 := g.dir("memory")
	file := "memory.oom_control"
	if v2 {
		file = "memory.events"
	}
	n, err := keyed(filepath.Join(d, file), "oom_kill")
	if err != nil {
		return 0
	}
	return n
}

// number reads a file that holds one number.
func number(file string) (int64, error) {
	b, err := os.ReadFile(file) //nolint:gosec // a path of our own making
	if err != nil {
		return 0, fault.NotFound.Errorf("%w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fault.Internal.Errorf("%s: %w", file, err)
	}
	return n, nil
}

// keyed reads the number behind a key in a file of "key number" lines.
func keyed(file, key string) (int64, error) {
	b, err := os.ReadFile(file) //nolint:gosec // a path of our own making
	if err != nil {
		return 0, fault.NotFound.Errorf("%w", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+" "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err != nil {
				return 0, fault.Internal.Errorf("%s: %s: %w", file, key, err)
			}
			return n, nil
		}
	}
	return 0, fault.Internal.Errorf("%s has no %s", file, key)
}
