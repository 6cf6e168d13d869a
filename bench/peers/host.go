package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// host is what a reader must know of a machine to judge its figures.
type host struct {
	CPU    string
	Cores  int
	GiB    float64
	System string
	Go     string
	Commit string
}

// unknown stands where the machine does not tell.
const unknown = "unknown"

func lookAtHost(ctx context.Context) host {
	h := host{CPU: unknown, Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Commit: unknown}
	each("/proc/cpuinfo", func(line string) {
		if name, ok := strings.CutPrefix(line, "model name"); ok && h.CPU == unknown {
			h.CPU = strings.TrimLeft(name, "\t :")
		}
	})
	each("/proc/meminfo", func(line string) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			if kib, err := strconv.ParseFloat(f[1], 64); err == nil {
				h.GiB = kib / (1 << 20)
			}
		}
	})
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		h.System += ", kernel " + strings.TrimSpace(string(release))
	}
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--exclude", "*").Output(); err == nil {
		h.Commit = strings.TrimSpace(string(out))
	}
	return h
}

// load is the machine's load average over one, five and fifteen minutes.
func load() string {
	if out, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(out)); len(f) >= 3 {
			return strings.Join(f[:3], " ")
		}
	}
	return unknown
}

// A reading is what all processors have worked until a moment.
type reading struct {
	at   time.Time
	busy float64 // seconds
}

// busy reads the machine's counters. It stays 0 where there are none.
func busy() reading {
	r := reading{at: time.Now()}
	const hertz = 100 // of these counters, on every Linux
	each("/proc/stat", func(line string) {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] != "cpu" {
			return
		}
		for i, s := range f[1:8] { // user nice system idle iowait irq softirq
			if n, err := strconv.ParseFloat(s, 64); err == nil && i != 3 && i != 4 {
				r.busy += n / hertz
			}
		}
	})
	return r
}

// others is the share of all processors that was used from r until now by
// anybody but the one who used own seconds.
func (r reading) others(now reading, own float64) float64 {
	all := now.at.Sub(r.at).Seconds() * float64(runtime.NumCPU())
	if all <= 0 {
		return 0
	}
	return min(max((now.busy-r.busy-own)/all, 0), 1)
}

// each calls f for every line of a file; a file that is not there has none.
func each(name string, f func(line string)) {
	file, err := os.Open(name) //nolint:gosec // one of the files above
	if err != nil {
		return
	}
	defer file.Close() //nolint:errcheck // it was read
	for in := bufio.NewScanner(file); in.Scan(); {
		f(in.Text())
	}
}

// thousands writes a number with commas.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// figure writes a number with as many digits as a measurement bears.
func figure(x float64) string {
	switch {
	case x >= 100:
		return thousands(int(x + 0.5))
	case x >= 10:
		return fmt.Sprintf("%.0f", x)
	case x >= 1:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2g", x)
	}
}
