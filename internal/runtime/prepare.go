package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

type jobProcess = job.Process

const snoozeFile = ".healthchecksnooze" // in the sandbox, as Thermos has it

// initPids are the threads of init, which count towards its task's pids.
const initPids = 16

// makePlan says what init shall do.
func (s *supervisor) makePlan() inside.Plan {
	c := s.rec.Config.Task
	p := inside.Plan{
		Isolated: s.rec.Isolated,
		Root:     s.rec.Root,
		Sandbox:  filepath.Join(s.dir, sandboxDir),
		Scratch:  filepath.Join(s.dir, scratchDir),
		Hide:     s.rec.Hide,
		ShmBytes: c.Resources.RAM,
		Shell:    shell(),
		Until:    s.rec.Until,
	}
	user := s.rec.User
	if !s.rec.Reduced {
		l := loginFor(user)
		p.Login = &l
	}
	p.Env = append(inside.Environment(user, p.Inside(), p.Shell, s.rec.Zone), gpuEnvironment(s.rec.GPUs)...)
	for _, q := range c.Processes {
		p.Processes = append(p.Processes, inside.Command{Name: q.Name, Cmdline: q.Cmdline})
	}
	if h := s.rec.Config.Health; h != nil && h.Shell != nil {
		p.ShellCheck = h.Shell.Command
	}
	return p
}

func shell() string {
	for _, sh := range []string{"/bin/bash", "/usr/bin/bash"} {
		if _, err := os.Stat(sh); err == nil {
			return sh
		}
	}
	return "/bin/sh"
}

// prepare begins all that must be done before the first process: the sandbox,
// then at the same time the cgroups, the init and the artifacts. Each of the
// three is answered by one [prepared].
func (s *supervisor) prepare() {
	if !s.grouped {
		if err := s.over.add(os.Getpid()); err != nil {
			s.log.Warn("supervisor's own cgroup", "error", err)
		}
	}
	warm, cool := s.within(warmFor)
	s.cool = cool
	go s.over.warm(os.Getpid(), warm.Done())
	s.waiting = 3
	if err := s.makeSandbox(); err != nil {
		s.prepared(prepared{err})
		return
	}
	s.grouping.Add(1)
	go func() {
		err := s.makeGroup()
		s.grouping.Done() // before the loop is told, which may have ended
		s.send(prepared{err})
	}()
	go func() { s.send(prepared{s.fetchArtifacts()}) }()
	h, err := startInit(&s.plan)
	if err != nil {
		s.prepared(prepared{err})
		return
	}
	s.init = h
	s.status.Pid = h.pid
	if st, ok := inside.ReadProcess(h.pid); ok {
		s.status.Start = st.Start
	}
	go s.hearInit()
	s.changed()
}

func (s *supervisor) makeGroup() error {
	if err := s.group.mkdir(); err != nil {
		return err
	}
	t := s.rec.Config.Task
	pids := int64(t.PidsLimit)
	if pids == 0 {
		pids = DefaultPids
	}
	return s.group.limit(limits{cpuMilli: t.Resources.CPU, ram: t.Resources.RAM, pids: pids + initPids})
}

// prepared counts the preparations down. When all is there, init moves into
// the task's cgroups and the life begins: until then everything that runs is
// ours, and counts as overhead.
func (s *supervisor) prepared(p prepared) {
	if s.begun || s.ended != nil {
		return
	}
	if p.err != nil {
		s.ended = &agent.End{State: task.Failed, Reason: p.err.Error()}
		return
	}
	if s.waiting--; s.waiting > 0 {
		return
	}
	defer s.cool()
	if err := s.group.add(s.init.pid); err != nil {
		s.ended = &agent.End{State: task.Failed, Reason: err.Error()}
		return
	}
	s.begun = true
	if s.elsewhere != "" {
		s.settle(s.elsewhere)
	}
	s.step(agent.Begin{})
}

// makeSandbox makes the directories that the task will see.
func (s *supervisor) makeSandbox() error {
	err := s.makeDirs(s.plan.Sandbox)
	if err != nil {
		return err
	}
	if s.logs.root, err = os.OpenRoot(filepath.Join(s.plan.Sandbox, job.LogsDir)); err != nil {
		return fault.Unavailable.Errorf("sandbox: %w", err)
	}
	s.box, err = hold(s.plan.Sandbox)
	return err
}

func (s *supervisor) makeDirs(box string) error {
	uid, gid := -1, -1
	if l := s.plan.Login; l != nil {
		uid, gid = int(l.UID), int(l.GID)
	}
	for _, d := range []struct {
		path string
		mode os.FileMode
		own  bool
	}{
		{box, 0o700, true},
		{filepath.Join(box, job.LogsDir), 0o755, false},
		{filepath.Join(box, job.TmpDir), 0o777 | os.ModeSticky, true},
	} {
		err := os.Mkdir(d.path, 0o700)
		if errors.Is(err, os.ErrExist) {
			err = nil
		}
		if err == nil && d.own && uid >= 0 {
			err = os.Chown(d.path, uid, gid)
		}
		if err == nil {
			err = os.Chmod(d.path, d.mode)
		}
		if err != nil {
			return fault.Unavailable.Errorf("sandbox: %w", err)
		}
	}
	return nil
}

// initHandle is the supervisor's hold on a task's init.
type initHandle struct {
	pid      int
	isolated bool
	p        *inside.Packets
	gone     bool
	exit     chan struct{} // closed when it has ended
}

// startInit starts the same binary as init. It runs on a thread that stays,
// since the kernel kills init when the thread that started it dies.
func startInit(plan *inside.Plan) (*initHandle, error) {
	ours, theirs, err := inside.Pair()
	if err != nil {
		return nil, err
	}
	file, err := planFile(plan)
	if err != nil {
		return nil, errors.Join(err, theirs.Close(), ours.Close())
	}
	cmd := exec.Command("/proc/self/exe", inside.Arg) //nolint:noctx,gosec // our own binary; it ends with the task
	cmd.Args[0] = "covey"
	cmd.Env = []string{"GOMAXPROCS=2"}
	cmd.Stderr = os.Stderr //nolint:forbidigo // the supervisor's log, for a panic
	cmd.ExtraFiles = []*os.File{theirs, file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if plan.Isolated {
		cmd.SysProcAttr.Cloneflags = isolation
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	h := &initHandle{p: ours, isolated: plan.Isolated, exit: make(chan struct{})}
	began := make(chan error)
	go func() {
		goruntime.LockOSThread() // never unlocked
		began <- cmd.Start()
		_ = cmd.Wait() // how init ended says nothing
		close(h.exit)
		select {}
	}()
	err = <-began
	err = errors.Join(err, theirs.Close(), file.Close())
	if err != nil {
		return nil, errors.Join(fault.Unavailable.Errorf("start init: %w", err), ours.Close())
	}
	h.pid = cmd.Process.Pid
	return h, nil
}

// planFile puts the plan into a file without a name.
func planFile(plan *inside.Plan) (*os.File, error) {
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fault.Unavailable.Errorf("plan: %w", err)
	}
	f := os.NewFile(uintptr(fd), "plan")
	err = json.NewEncoder(f).Encode(plan)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fault.Internal.Errorf("plan: %w", err), f.Close())
	}
	return f, nil
}

// tell sends an order. What init cannot hear, its death will answer.
func (h *initHandle) tell(o inside.Order, fds ...int) {
	if h != nil && !h.gone {
		_ = h.p.Send(o, fds...)
	}
}

// hearInit passes on what init says, until it is gone.
func (s *supervisor) hearInit() {
	buf := make([]byte, inside.MaxPacket)
	for {
		n := inside.Note{}
		fds, err := s.init.p.Receive(&n, buf)
		n.Pidfd = -1
		if err == nil && len(fds) > 0 {
			n.Pidfd = fds[0]
			fds = fds[1:]
		}
		inside.CloseAll(fds)
		if err != nil {
			s.send(initGone{fault.Unavailable.Errorf("init died before it was ready: %w", err)})
			return
		}
		s.send(n)
	}
}

// end makes sure that init, and with it the namespace, is gone.
func (h *initHandle) end() {
	if h == nil {
		return
	}
	_ = h.p.Close()
	if h.isolated {
		inside.Kill(h.pid) // all of its namespace dies with it
	}
	for _, patience := range []time.Duration{6 * time.Second, 5 * time.Second} {
		select {
		case <-h.exit:
			return
		case <-time.After(patience):
			inside.Kill(h.pid)
		}
	}
}

// overRAM is what a task is told that held more memory than it may.
func overRAM(limit int64, how string) string {
	return fmt.Sprintf("memory limit %s exceeded (%s)", unit.RAM.Format(limit), how)
}

// gpuEnvironment tells the libraries of GPUs which ones the task has. It is
// what they go by, and no wall: the devices of others can still be opened.
func gpuEnvironment(gpus []uint16) []string {
	if len(gpus) == 0 {
		return nil
	}
	names := make([]string, 0, len(gpus))
	for _, g := range gpus {
		names = append(names, strconv.Itoa(int(g)))
	}
	list := strings.Join(names, ",")
	return []string{"CUDA_VISIBLE_DEVICES=" + list, "NVIDIA_VISIBLE_DEVICES=" + list}
}
