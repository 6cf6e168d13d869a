package inside

import (
	"bytes"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// BootID returns the kernel's name for this boot of the machine.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fault.Unavailable.Errorf("no boot id, is /proc mounted? %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// A Process is what is needed of /proc/PID/stat.
type Process struct {
	Pid, Parent, Session int
	Zombie               bool
	Start                uint64 // clock ticks after boot
	Ticks                int64  // cpu of the process and of its children that were waited for
	RSSPages             int64
}

// ReadProcess reads /proc/PID/stat; false when there is no such process.
func ReadProcess(pid int) (Process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, false
	}
	return parseProcess(pid, b)
}

func parseProcess(pid int, b []byte) (Process, bool) {
	i := bytes.LastIndexByte(b, ')') // the name may hold anything, also a bracket
	if i < 0 {
		return Process{}, false
	}
	f := strings.Fields(string(b[i+1:])) // f[0] is field 3
	if len(f) < 22 {
		return Process{}, false
	}
	num := func(field int) int64 { n, _ := strconv.ParseInt(f[field-3], 10, 64); return n }
	start, err := strconv.ParseUint(f[22-3], 10, 64)
	if err != nil {
		return Process{}, false
	}
	return Process{
		Pid: pid, Parent: int(num(4)), Session: int(num(6)), Zombie: f[0] == "Z" || f[0] == "X",
		Start: start, Ticks: num(14) + num(15) + num(16) + num(17), RSSPages: num(24),
	}, true
}

// Same reports whether process pid is the one that started at start.
func Same(pid int, start uint64) bool {
	st, ok := ReadProcess(pid)
	return ok && pid > 0 && st.Start == start && !st.Zombie
}

// Processes lists every process of the machine.
func Processes() []Process {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []Process
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil {
			continue
		}
		if st, ok := ReadProcess(pid); ok {
			all = append(all, st)
		}
	}
	return all
}

// Descendants returns the processes below pid, parents first.
func Descendants(pid int, all []Process) []Process {
	var out []Process
	for _, p := range all {
		if p.Parent == pid {
			out = append(append(out, p), Descendants(p.Pid, all)...)
		}
	}
	return out
}

// KillSession kills what is left of a session. The leader's start time tells
// whether the session is still the one that was meant.
func KillSession(leader int, start uint64) {
	if st, ok := ReadProcess(leader); ok && st.Start != start {
		return
	}
	for _, p := range Processes() {
		if p.Session == leader && p.Start >= start && p.Pid > 1 {
			Kill(p.Pid)
		}
	}
}

// Shrug takes signals and does nothing. They are not ignored, since what is
// ignored stays so in programs that are executed; taken ones, also those that a
// parent such as nohup had ignored, are their own again.
func Shrug(sigs ...os.Signal) { signal.Notify(make(chan os.Signal, 1), sigs...) }

// CloseStrangers closes what a parent has let through: every descriptor after
// last that would survive an exec. Our own never would.
func CloseStrangers(last int) {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, n := range names {
		fd, err := strconv.Atoi(n.Name())
		if err != nil || fd <= last {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
}

// Kill sends SIGKILL; that the process is gone already is as good.
func Kill(pid int) { _ = unix.Kill(pid, unix.SIGKILL) }

// PidOfPidfd returns the pid behind a pidfd as this process sees it.
func PidOfPidfd(fd int) (int, bool) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(v))
			return pid, err == nil && pid > 0
		}
	}
	return 0, false
}
