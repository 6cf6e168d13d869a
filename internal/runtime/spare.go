package runtime

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/runtime/inside"
)

// A spare is a supervisor that has been started before there is a task for
// it, so that a task does not wait for the program to load and for the kernel
// to move it between cgroups. It knows nothing and holds nothing until it is
// given a task's directory, its locked record and its socket; from then on it
// is that task's supervisor as if it had been started for it. It ends when the
// agent does. Agent and spare are one binary, or the spare is not used.
type spare struct {
	cmd    *exec.Cmd
	p      *inside.Packets
	binary os.FileInfo   // what it was started from
	taken  chan struct{} // closed when somebody has taken it from those that wait
	gone   chan struct{} // closed when it has ended
}

// The talk between agent and spare: take (with the descriptors), taken, go. A
// spare that is not told to go has done nothing, so that the task may be given
// to another supervisor.
type spareWord struct {
	Op  string `json:"op"`
	Dir string `json:"dir,omitzero"`
}

const (
	spareTake  = "take"
	spareTaken = "taken"
	spareGo    = "go"

	spareFD     = 3
	spareWithin = 2 * time.Second        // for a spare to answer
	spareRefill = 250 * time.Millisecond // after one was used: first the task, then its successor
	spareRetry  = 5 * time.Second        // after one could not be started, or died
)

// spareTitle stands in place of the directory until there is one. It is as
// long as a directory may become, since a program can overwrite its arguments
// but not lengthen them.
func (r *Runtime) spareTitle() string {
	const longestName = 255
	return "spare" + strings.Repeat(" ", len(r.cfg.Dir)+len(liveDir)+longestName)
}

// keepSpare sees that one spare waits, until the runtime is closed.
func (r *Runtime) keepSpare() {
	for !r.isClosed() {
		sp, err := r.newSpare()
		if err != nil {
			r.log.Warn("no supervisor could be started in advance; the next task starts its own", "error", err)
			r.pause(spareRetry)
			continue
		}
		r.spares <- sp // there is room: nobody else puts one in, and the last was taken out
		select {
		case <-sp.taken:
			r.pause(spareRefill)
			continue
		case <-sp.gone:
			r.log.Warn("a supervisor that waited for a task has died")
		case <-r.closed:
		}
		if sp := r.takeSpare(); sp != nil {
			sp.end()
		}
		r.pause(spareRetry)
	}
}

// takeSpare takes the spare that waits; nil when none does.
func (r *Runtime) takeSpare() *spare {
	select {
	case sp := <-r.spares:
		close(sp.taken)
		return sp
	default:
		return nil
	}
}

func (r *Runtime) newSpare() (*spare, error) {
	binary, err := os.Stat(r.cfg.Self)
	if err != nil {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	ours, theirs, err := inside.Pair()
	if err != nil {
		return nil, err
	}
	said, err := r.openSaid()
	if err != nil {
		return nil, errors.Join(err, theirs.Close(), ours.Close())
	}
	cmd := r.supervisor(r.spareTitle(), said, theirs)
	err = cmd.Start()
	err = errors.Join(err, theirs.Close(), said.Close())
	if err != nil {
		return nil, errors.Join(fault.Unavailable.Errorf("start: %w", err), ours.Close())
	}
	sp := &spare{cmd: cmd, p: ours, binary: binary, taken: make(chan struct{}), gone: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // reaps it; how a task ended stands in its directory
		close(sp.gone)
	}()
	if err := r.groups.of(overheadName).add(cmd.Process.Pid); err != nil {
		sp.end()
		return nil, err
	}
	return sp, nil
}

// supervisor is the command of one, for a task's directory or in advance.
func (r *Runtime) supervisor(dir string, said *os.File, files ...*os.File) *exec.Cmd {
	cmd := exec.Command(r.cfg.Self, SuperviseArg, dir) //nolint:gosec,noctx // our own binary; it outlives every context
	cmd.Args[0] = "covey"
	cmd.Dir = "/"
	cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=single"}
	cmd.Stderr = said
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// handOver gives a task to the spare, if there is one that can have it; it
// reports whether the spare is the task's supervisor now.
func (r *Runtime) handOver(dir string, files ...*os.File) (pid int, ok bool) {
	sp := r.takeSpare()
	if sp == nil {
		return 0, false
	}
	if now, err := os.Stat(r.cfg.Self); err != nil || !sameBinary(now, sp.binary) {
		sp.end() // the binary was replaced: a task is never supervised by an older one than its agent would start
		return 0, false
	}
	given := make(chan struct{})
	defer close(given)
	r.background(func() { r.groups.of(overheadName).warm(sp.cmd.Process.Pid, given) })
	if err := sp.give(dir, files); err != nil {
		sp.end() // before another supervisor gets the task, this one is dead
		r.log.Warn("the supervisor that was started in advance did not take a task; it gets another", "error", err)
		return 0, false
	}
	_ = sp.p.Close()
	return sp.cmd.Process.Pid, true
}

func sameBinary(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (sp *spare) give(dir string, files []*os.File) error {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if err := sp.p.SetDeadline(time.Now().Add(spareWithin)); err != nil {
		return fault.Internal.Errorf("%w", err)
	}
	if err := sp.p.Send(spareWord{Op: spareTake, Dir: dir}, fds...); err != nil {
		return fault.Unavailable.Errorf("%w", err)
	}
	var w spareWord
	if _, err := sp.p.Receive(&w, make([]byte, inside.MaxPacket)); err != nil {
		return fault.Unavailable.Errorf("no answer: %w", err)
	}
	if w.Op != spareTaken {
		return fault.Internal.Errorf("it said %.40q; want %q", w.Op, spareTaken)
	}
	if err := sp.p.Send(spareWord{Op: spareGo}); err != nil {
		return fault.Unavailable.Errorf("%w", err)
	}
	return nil
}

// end ends a spare that has no task, and waits until it is gone.
func (sp *spare) end() {
	_ = sp.p.Close()
	_ = sp.cmd.Process.Kill() // it holds nothing that it could lose
	<-sp.gone
}

// errSpared says that no task came.
var errSpared = fault.Unavailable.Errorf("the agent has gone")

// awaitTask is the life of a spare: it waits until it is given a task.
func awaitTask() (supervised, error) {
	p, err := inside.PacketsOf(spareFD)
	if err != nil {
		return supervised{}, err
	}
	defer p.Close() //nolint:errcheck // nothing is left to be said
	buf := make([]byte, inside.MaxPacket)
	var w spareWord
	fds, err := p.Receive(&w, buf)
	if err != nil || w.Op != spareTake || len(fds) != 3 {
		inside.CloseAll(fds)
		return supervised{}, errSpared
	}
	t := supervised{
		dir: w.Dir, listener: os.NewFile(uintptr(fds[0]), "listener"), lock: os.NewFile(uintptr(fds[1]), "lock"), grouped: true,
	}
	_ = unix.Dup3(fds[2], int(os.Stderr.Fd()), 0) //nolint:forbidigo // the log of supervisors may have been rotated while we waited
	_ = unix.Close(fds[2])
	if err = p.Send(spareWord{Op: spareTaken}); err == nil {
		_, err = p.Receive(&w, buf)
	}
	if err != nil || w.Op != spareGo {
		return supervised{}, errSpared
	}
	retitle(w.Dir)
	return t, nil
}

// retitle writes the task's directory over this program's last argument, for
// those who look at the processes of a machine.
func retitle(dir string) {
	args := os.Args //nolint:forbidigo // not their value but where they lie
	last := args[len(args)-1]
	if len(dir) > len(last) {
		return
	}
	b := unsafe.Slice(unsafe.StringData(last), len(last)) //nolint:gosec // the kernel's copy of the arguments, which is ours to write
	clear(b[copy(b, dir):])
}
