package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/runtime/inside"
)

// A task's directory may be moved while it runs, or be removed and replaced by
// a copy. So a supervisor holds the directory itself, not its name, listens
// under a second name that does not depend on any directory, and goes where
// the agent tells it that it looks. A supervisor that is told of no other
// directory writes the end into all that may be the one: that which it holds,
// and that which stands where its own stood.

// held is an open directory. Its number never changes, also when another
// directory takes its place, so that its path may be used by every goroutine.
type held int

// hold opens a directory.
func hold(dir string) (held, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fault.Unavailable.Errorf("%s: %w", dir, err)
	}
	return held(fd), nil
}

// path leads to the directory wherever it was moved to.
func (h held) path() string { return "/proc/self/fd/" + strconv.Itoa(int(h)) + "/." }

// become puts another directory in the place of h.
func (h held) become(dir string) error {
	other, err := hold(dir)
	if err != nil {
		return err
	}
	err = unix.Dup3(int(other), int(h), unix.O_CLOEXEC)
	if err != nil {
		err = fault.Unavailable.Errorf("%s: %w", dir, err)
	}
	return errors.Join(err, unix.Close(int(other)))
}

// is reports whether dir is the directory that is held.
func (h held) is(dir string) bool {
	a, err := os.Stat(h.path())
	if err != nil {
		return false
	}
	b, err := os.Stat(dir)
	return err == nil && os.SameFile(a, b)
}

// homes are the directories that may be the task's: that which is held, and
// that which stands where the agent looks, if it is of this task.
func (s *supervisor) homes() []string {
	all := []string{s.home.path()}
	if !s.home.is(s.dir) && s.ours(s.dir) == nil {
		all = append(all, s.dir)
	}
	return all
}

// ours says why a directory is not one of this task. Kind Conflict.
func (s *supervisor) ours(dir string) error {
	rec, err := readTask(dir)
	if err != nil {
		return err
	}
	if rec.ID != s.rec.ID || rec.ClusterUID != s.rec.ClusterUID || rec.CgroupRoot != s.rec.CgroupRoot {
		return fault.Conflict.Errorf("directory %s is of task %s of cluster %s below cgroup %s; want %s of %s below %s",
			dir, rec.ID, rec.ClusterUID, rec.CgroupRoot, s.rec.ID, s.rec.ClusterUID, s.rec.CgroupRoot)
	}
	return nil
}

// write writes into every home; one that can be written is enough.
func (s *supervisor) write(put func(dir string) error) error {
	var failed []error
	all := s.homes()
	for _, dir := range all {
		if err := put(dir); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) < len(all) {
		return nil
	}
	return errors.Join(failed...)
}

// lost reports whether there is no directory any more in which the task's end
// could be written.
func (s *supervisor) lost() bool {
	var st unix.Stat_t
	return missing(s.dir) && (unix.Fstat(int(s.home), &st) != nil || st.Nlink == 0)
}

// lives reports whether a directory is the one that is held, with the record
// that is locked: files of a copy may have been put over those that were there.
func (s *supervisor) lives(dir string) bool {
	if !s.home.is(dir) {
		return false
	}
	a, err := s.lock.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(filepath.Join(dir, taskFile))
	return err == nil && os.SameFile(a, b)
}

// settle goes to the directory in which the agent looks. If that was moved,
// nothing is to do but to remember its name. If it is another one, as a copy
// that was put back is, then from now on the records, the logs and the socket
// are there, and processes that start later find their sandbox there.
func (s *supervisor) settle(dir string) {
	switch {
	case s.ended != nil || !filepath.IsAbs(dir):
		return
	case s.lives(dir):
		if s.dir != dir && !s.plan.Isolated { // what has no mount of its own goes by the name
			s.init.tell(inside.Order{Op: "sandbox", Name: filepath.Join(dir, sandboxDir)})
		}
		s.dir = dir
		return
	case !s.begun: // what is being set up is set up where it is
		s.elsewhere = dir
		return
	}
	if err := s.resettle(dir); err != nil {
		s.log.Error("the agent has another directory of this task, and it cannot be used", "directory", dir, "error", err)
		return
	}
	s.log.Warn("the agent has another directory of this task; it is kept there from now on", "directory", dir)
	s.save()
	s.changed()
}

func (s *supervisor) resettle(dir string) error {
	if err := s.ours(dir); err != nil {
		return err
	}
	if err := reserveExit(dir, s.log); err != nil {
		return err
	}
	lock, err := takeLock(dir)
	if err != nil {
		return err
	}
	if err = s.home.become(dir); err != nil {
		return errors.Join(err, lock.Close())
	}
	old := s.lock
	s.dir, s.lock = dir, lock
	if err = old.Close(); err != nil {
		s.log.Warn("lock", "error", err)
	}
	s.speakFrom(dir)
	if err = s.moveSandbox(filepath.Join(dir, sandboxDir)); err != nil {
		s.log.Error("the task keeps the sandbox that it had", "error", err)
	}
	socket, err := listen(dir)
	if err != nil {
		return err
	}
	l, err := net.FileListener(socket)
	if err = errors.Join(err, socket.Close()); err != nil {
		return fault.Unavailable.Errorf("socket: %w", err)
	}
	go s.accept(l)
	return nil
}

// speakFrom lets what the supervisor has to say go into the supervisors' log
// beside the task's directory: the one that it had may be deleted.
func (s *supervisor) speakFrom(dir string) {
	path := filepath.Join(filepath.Dir(filepath.Dir(dir)), saidFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, fileMode) //nolint:gosec // a path of our own making
	if err != nil {
		s.log.Warn("the log of supervisors", "error", err)
		return
	}
	defer f.Close()                                                        //nolint:errcheck // its duplicate stays
	if err := unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0); err != nil { //nolint:forbidigo // where Env.Stderr leads
		s.log.Warn("the log of supervisors", "error", err)
	}
}

// moveSandbox lets the logs go on in another sandbox, and processes that start
// from now on begin there. Those that run keep what they have open.
//
// The task may have put links anywhere in its sandbox, so that everything in
// it is reached through [os.Root].
func (s *supervisor) moveSandbox(box string) error {
	if missing(box) {
		if err := s.makeDirs(box); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(box)
	if err != nil {
		return fault.Unavailable.Errorf("sandbox: %w", err)
	}
	defer root.Close() //nolint:errcheck // only a directory
	for _, d := range []string{job.LogsDir, job.TmpDir} {
		if err = root.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fault.Unavailable.Errorf("sandbox: %w", err)
		}
	}
	logs, err := root.OpenRoot(job.LogsDir)
	if err != nil {
		return fault.Unavailable.Errorf("logs: %w", err)
	}
	if err = s.logs.move(logs); err != nil {
		s.log.Error("not all of the logs could be brought along", "error", err)
	}
	if err = s.box.become(box); err != nil {
		return err
	}
	o := inside.Order{Op: "sandbox", Name: box}
	if !s.plan.Isolated {
		s.init.tell(o)
		return nil
	}
	mounts, err := inside.CloneSandbox(root)
	if err != nil {
		return err
	}
	s.init.tell(o, mounts...)
	inside.CloseAll(mounts)
	return nil
}

// A supervisor's second name is in no directory but among the abstract names
// of the machine's network, which everybody may connect to. So who is not the
// supervisor's own user or root is sent away, and the agent talks to the
// process that it means alone.

func secondName(pid int, start uint64) *net.UnixAddr {
	return &net.UnixAddr{Name: fmt.Sprintf("@covey/supervisor/%d/%d", pid, start), Net: "unix"}
}

// listenByName serves agents that do not find the socket. Without it they have
// a signal, which says stop and no more.
func (s *supervisor) listenByName() {
	l, err := net.ListenUnix("unix", secondName(s.status.Supervisor, s.status.SupervisorStart))
	if err != nil {
		s.log.Warn("no second name: an agent does not find this task when its directory is replaced by a copy", "error", err)
		return
	}
	go s.accept(known{l})
}

// heed ends the task in order when an agent says so that does not find the
// socket: the directory was lost. It may be said again by the next agent.
func (s *supervisor) heed() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, stopSignal)
	for {
		select {
		case <-told:
			s.send(stopOrdered{"stopped; its directory was lost"})
		case <-s.done:
			return
		}
	}
}

// known is a listener that sends strangers away.
type known struct{ *net.UnixListener }

// Accept returns connections of the own user and of root.
func (k known) Accept() (net.Conn, error) {
	for {
		c, err := k.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if who, err := peer(c); err == nil && (who.Uid == 0 || int(who.Uid) == os.Geteuid()) {
			return c, nil
		}
		_ = c.Close()
	}
}

// peer returns who is at the other end: who has connected, or who listens.
func peer(c *net.UnixConn) (who *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	failed := raw.Control(func(fd uintptr) {
		who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(failed, err); err != nil {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	return who, nil
}

// dialByName connects to a supervisor by its second name.
func dialByName(pid int, start uint64) (net.Conn, error) {
	c, err := net.DialUnix("unix", nil, secondName(pid, start))
	if err != nil {
		return nil, fault.Unavailable.Errorf("supervisor does not answer: %w", err)
	}
	who, err := peer(c)
	if err == nil && int(who.Pid) != pid {
		err = fault.Denied.Errorf("process %d listens under the name of supervisor %d", who.Pid, pid)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// reach connects to a task's supervisor: in the task's directory, or by its
// second name where that directory is a copy, whose socket nobody listens on.
func (r *Runtime) reach(e *entry) (net.Conn, error) {
	c, err := dial(e.dir)
	if err == nil {
		return c, nil
	}
	r.mu.Lock()
	st, stop, told := e.status, e.stop, e.told
	r.mu.Unlock()
	if st.Boot != r.boot || !inside.Same(st.Supervisor, st.SupervisorStart) {
		return nil, err
	}
	c, err = dialByName(st.Supervisor, st.SupervisorStart)
	if err != nil && stop != "" && !told && unix.Kill(st.Supervisor, stopSignal) == nil { // of a version that has no second name
		r.mu.Lock()
		e.told = true
		r.mu.Unlock()
	}
	return c, err
}

// sendHome tells a supervisor where the agent has the task's directory.
func sendHome(c net.Conn, dir string) { sendFrame(c, frame{Op: opHome, Version: version, Dir: dir}) }
