package inside

import (
	"errors"
	goruntime "runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// A spawner starts processes from one thread that has given up everything:
// user, groups, capabilities, the right to gain privileges. Children inherit
// that. The rest of init keeps its rights, which makes it invulnerable to the
// task: other user, not dumpable, not reached by signals.
type spawner struct{ jobs chan spawnJob }

type command struct {
	argv, env []string
	dir       string
	files     []uintptr
	orphan    bool // no namespace ends it with us: let the kernel kill it when the thread dies
}

type spawnJob struct {
	command
	done chan<- spawned
}

type spawned struct {
	pid, pidfd int
	err        error
}

// newSpawner starts the thread and drops its privileges; l nil keeps the user.
func newSpawner(l *Login) (spawner, error) {
	s := spawner{make(chan spawnJob)}
	ready := make(chan error)
	go s.run(l, ready)
	return s, <-ready
}

// run never unlocks its thread and never returns: the kernel ties the death
// signals of children to the thread that started them.
func (s spawner) run(l *Login, ready chan<- error) {
	goruntime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread's own death signal would be cleared with its user. Hold it, use another.
		go s.run(l, ready)
		select {}
	}
	if err := dropThread(l); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for j := range s.jobs {
		j.done <- j.start()
	}
}

func (s spawner) start(c command) (pid, pidfd int, err error) {
	done := make(chan spawned, 1)
	s.jobs <- spawnJob{c, done}
	r := <-done
	return r.pid, r.pidfd, r.err
}

func (c command) start() spawned {
	fd := -1
	attr := &syscall.ProcAttr{Dir: c.dir, Env: c.env, Files: c.files, Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &fd}}
	if c.orphan {
		attr.Sys.Pdeathsig = syscall.SIGKILL
	}
	pid, err := syscall.ForkExec(c.argv[0], c.argv, attr) //nolint:gosec // running what the task says is what this is for
	if err != nil {
		return spawned{err: fault.Unavailable.Errorf("start %s: %w", c.argv[0], err)}
	}
	return spawned{pid: pid, pidfd: fd}
}

// dropThread takes every privilege from the calling thread alone. That is why
// it speaks to the kernel directly: the library's calls change all threads.
func dropThread(l *Login) error {
	if l != nil {
		for c := uintptr(0); c <= 63; c++ {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				if errors.Is(err, unix.EINVAL) {
					break
				}
				return fault.Unavailable.Errorf("drop capability %d: %w", c, err)
			}
		}
		if err := BecomeThread(*l); err != nil {
			return err
		}
		_, _, _ = unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0) // no keyring of the agent's, where there are any
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return fault.Unavailable.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fault.Unavailable.Errorf("no new privileges: %w", err)
	}
	return filterThread()
}

// BecomeThread gives the calling thread another user for good.
func BecomeThread(l Login) error {
	gids := l.Groups
	if len(gids) == 0 {
		gids = []uint32{l.GID}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(unsafe.Pointer(&gids[0])), 0); e != 0 { //nolint:gosec // the kernel reads len(gids) numbers
		return fault.Unavailable.Errorf("groups %v: %w", gids, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(l.GID), uintptr(l.GID), uintptr(l.GID)); e != 0 {
		return fault.Unavailable.Errorf("group %d: %w", l.GID, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(l.UID), uintptr(l.UID), uintptr(l.UID)); e != 0 {
		return fault.Unavailable.Errorf("user %d: %w", l.UID, e)
	}
	return nil
}
