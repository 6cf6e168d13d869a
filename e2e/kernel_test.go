package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// What the kernel says, without asking covey.

// An ident is a process: its id, and when it started, in ticks after boot.
type ident struct {
	pid   int
	start uint64
}

func (p ident) String() string { return fmt.Sprintf("%d (started at %d)", p.pid, p.start) }

// identify returns who has a process id now, or nobody.
func identify(pid int) (ident, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ident{}, false
	}
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return ident{}, false
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	return ident{pid, start}, err == nil
}

func (p ident) lives() bool {
	now, ok := identify(p.pid)
	return ok && now == p
}

// signal sends a signal to the process, unless another one has its id by now.
func (p ident) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if !p.lives() {
		t.Fatalf("process %v does not live; cannot send %v", p, sig)
	}
	if err := syscall.Kill(p.pid, sig); err != nil {
		t.Fatalf("kill %v: %v", p, err)
	}
}

// end kills the process if it lives.
func (p ident) end() {
	if p.lives() {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

func argsOf(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

func parentOf(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(string(f[1]))
	return n
}

// processes returns every process whose arguments match.
func processes(match func(pid int, args []string) bool) []ident {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []ident
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if args := argsOf(pid); len(args) > 0 && match(pid, args) {
			if p, ok := identify(pid); ok {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b ident) int { return a.pid - b.pid })
	return out
}

// marked returns the processes that call themselves mark: a task's process
// does so by exec -a.
func marked(mark string) []ident {
	return processes(func(_ int, args []string) bool { return args[0] == mark })
}

// processesOf describes the processes that run a program below dir, or that
// name it in their arguments.
func processesOf(dir string) []string {
	var out []string
	self := os.Getpid()
	for _, p := range processes(func(pid int, args []string) bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return pid != self && (strings.HasPrefix(exe, dir) || slices.ContainsFunc(args[1:], func(a string) bool { return strings.HasPrefix(a, dir) }))
	}) {
		out = append(out, fmt.Sprintf("process %v: %.200q", p, argsOf(p.pid)))
	}
	return out
}

func mountsBelow(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, " "+dir) {
			out = append(out, "mount "+strings.TrimSpace(line))
		}
	}
	return out
}

// cgroupRoots are the roots of all hierarchies.
var cgroupRoots = sync.OnceValue(func() []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		for i, x := range f {
			if x == "-" && i+1 < len(f) && (f[i+1] == "cgroup" || f[i+1] == "cgroup2") && len(f) > 4 {
				out = append(out, f[4])
			}
		}
	}
	return out
})

// cgroupsOf lists the groups of a cluster, innermost first.
func cgroupsOf(uid string) []string {
	var out []string
	for _, root := range cgroupRoots() {
		_ = filepath.WalkDir(filepath.Join(root, "covey", uid), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				out = append(out, path)
			}
			return nil
		})
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}

// inCgroupsOf returns every process in the groups of a cluster.
func inCgroupsOf(uid string) []ident {
	seen := map[int]ident{}
	for _, dir := range cgroupsOf(uid) {
		data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for f := range strings.FieldsSeq(string(data)) {
			pid, _ := strconv.Atoi(f)
			if p, ok := identify(pid); ok {
				seen[pid] = p
			}
		}
	}
	var out []ident
	for _, p := range seen {
		out = append(out, p)
	}
	return out
}

// cgroupFile reads a file of a task's group, in the first hierarchy that has it.
func cgroupFile(uid, machine, id, file string) (string, error) {
	for _, root := range cgroupRoots() {
		data, err := os.ReadFile(filepath.Join(root, "covey", uid, machine, escape(id), file))
		if err == nil {
			return strings.TrimSpace(string(data)), nil
		}
	}
	return "", fmt.Errorf("no cgroup of %s has %s", id, file)
}

// escape is a task's id as a file name.
func escape(id string) string { return strings.ReplaceAll(id, "/", "+") }

// procStatus reads the lines of /proc/PID/status.
func procStatus(pid int) map[string]string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	out := map[string]string{}
	for line := range strings.Lines(string(data)) {
		k, v, _ := strings.Cut(line, ":")
		out[k] = strings.TrimSpace(v)
	}
	return out
}
