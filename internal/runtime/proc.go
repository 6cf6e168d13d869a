package runtime

import (
	"bytes"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// bootID returns the kernel's name for this boot of the machine.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fault.Unavailable.Errorf("no boot id, is /proc mounted? %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// procStat is what this package needs of /proc/PID/stat.
type procStat struct {
	pid, ppid, session int
	zombie             bool
	start              uint64 // clock ticks after boot
	ticks              int64  // cpu of the process and of its children that were waited for
	rssPages           int64
}

// readStat reads /proc/PID/stat; false when there is no such process.
func readStat(pid int) (procStat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, false
	}
	return parseStat(pid, b)
}

func parseStat(pid int, b []byte) (procStat, bool) {
	i := bytes.LastIndexByte(b, ')') // the name may hold anything, also a bracket
	if i < 0 {
		return procStat{}, false
	}
	f := strings.Fields(string(b[i+1:])) // f[0] is field 3
	if len(f) < 22 {
		return procStat{}, false
	}
	num := func(field int) int64 { n, _ := strconv.ParseInt(f[field-3], 10, 64); return n }
	start, err := strconv.ParseUint(f[22-3], 10, 64)
	if err != nil {
		return procStat{}, false
	}
	return procStat{
		pid: pid, ppid: int(num(4)), session: int(num(6)), zombie: f[0] == "Z" || f[0] == "X",
		start: start, ticks: num(14) + num(15) + num(16) + num(17), rssPages: num(24),
	}, true
}

// same reports whether process pid is the one that started at start.
func same(pid int, start uint64) bool {
	st, ok := readStat(pid)
	return ok && pid > 0 && st.start == start && !st.zombie
}

// allProcesses lists every process of the machine.
func allProcesses() []procStat {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []procStat
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil {
			continue
		}
		if st, ok := readStat(pid); ok {
			all = append(all, st)
		}
	}
	return all
}

// descendants returns the processes below pid, parents first.
func descendants(pid int, all []procStat) []procStat {
	var out []procStat
	for _, p := range all {
		if p.ppid == pid {
			out = append(append(out, p), descendants(p.pid, all)...)
		}
	}
	return out
}

// killSession kills what is left of a session. The leader's start time tells
// whether the session is still the one that was meant.
func killSession(leader int, start uint64) {
	if st, ok := readStat(leader); ok && st.start != start {
		return
	}
	for _, p := range allProcesses() {
		if p.session == leader && p.start >= start && p.pid > 1 {
			kill(p.pid)
		}
	}
}

// shrug takes signals and does nothing. They are not ignored, since what is
// ignored stays so in programs that are executed; taken ones, also those that a
// parent such as nohup had ignored, are their own again.
func shrug(sigs ...os.Signal) { signal.Notify(make(chan os.Signal, 1), sigs...) }

// closeStrangers closes what a parent has let through: every descriptor after
// last that would survive an exec. Our own never would.
func closeStrangers(last int) {
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

// kill sends SIGKILL; that the process is gone already is as good.
func kill(pid int) { _ = unix.Kill(pid, unix.SIGKILL) }

// pidOfPidfd returns the pid behind a pidfd as this process sees it.
func pidOfPidfd(fd int) (int, bool) {
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
