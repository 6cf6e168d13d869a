// Package inside is what runs inside a task's namespaces: process 1 of the
// task, which makes the file system that the task sees, gives up privileges and
// starts the task's processes; and how its supervisor speaks to it.
//
// A program that imports this package is an init when it is started with
// [Arg]. It becomes that while its packages are being initialised, before those
// that this one does not need: a start of the whole program takes twice the
// time, and every task starts one. So this package imports little, and nothing
// whose path sorts behind its own and which takes long or needs what does: no
// net, no path/filepath, no log/slog. A test holds it to that.
package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// The descriptors that an init is started with.
const (
	initSocketFD = 3
	initPlanFD   = 4

	maxPlan = 16 << 20 // bytes
)

// Arg is the argument under which a program that imports this package becomes
// an init.
const Arg = "__init"

func init() { //nolint:gochecknoinits // becoming an init before the rest of the program is initialised is the point
	if args := os.Args; len(args) != 2 || args[1] != Arg { //nolint:forbidigo // there is no main yet
		return
	}
	code := make(chan int)
	go func() { code <- run(os.Stderr) }() //nolint:forbidigo // the supervisor's log
	os.Exit(<-code)                        //nolint:forbidigo // main shall not run
}

// run is process 1 of a task's namespaces. It puts together the file system
// that the task sees, starts processes when the supervisor says so, reaps
// everything, and when the supervisor is gone ends, which ends all. It returns
// the exit code of the program.
func run(stderr io.Writer) int {
	unix.CloseOnExec(initSocketFD)
	unix.CloseOnExec(initPlanFD)
	CloseStrangers(initPlanFD)
	heed()
	Shrug(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	p, err := PacketsOf(initSocketFD)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "init:", err)
		return 1
	}
	in := &initProcess{sup: p, live: map[int]Order{}, kick: make(chan struct{}, 1)}
	if err := in.prepare(); err != nil {
		_ = p.Send(Note{Op: "fault", Why: err.Error()})
		return 1
	}
	if p.Send(Note{Op: "ready"}) != nil {
		return 1
	}
	go in.reap()
	if in.plan.Until != 0 {
		go in.lapse()
	}
	in.obey()
	if !in.plan.Isolated {
		in.killAll()
	}
	return 0
}

// initProcess is the state of an init.
type initProcess struct {
	sup     *Packets
	plan    Plan
	spawner spawner
	null    *os.File
	kick    chan struct{} // a child was started
	until   atomic.Int64  // the lease of an exclusive task
	doom    Doom          // likewise, without namespaces

	mu   sync.Mutex
	live map[int]Order // by pid
}

// prepare does all that needs privileges.
func (in *initProcess) prepare() error {
	f := os.NewFile(initPlanFD, "plan")
	err := json.NewDecoder(io.LimitReader(f, maxPlan)).Decode(&in.plan)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return fault.Internal.Errorf("plan: %w", err)
	}
	unix.Umask(0o022)
	if err = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fault.Unavailable.Errorf("no core dumps: %w", err)
	}
	if err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fault.Unavailable.Errorf("not dumpable: %w", err)
	}
	if in.plan.Isolated {
		err = buildRoot(&in.plan)
	} else if err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		err = fault.Unavailable.Errorf("become reaper: %w", err)
	}
	if err != nil {
		return err
	}
	if in.null, err = os.OpenFile("/dev/null", os.O_RDWR, 0); err != nil {
		return fault.Unavailable.Errorf("%w", err)
	}
	if err = in.bound(); err != nil {
		return err
	}
	in.spawner, err = newSpawner(in.plan.Login)
	return err
}

// bound begins the lease of an exclusive task.
func (in *initProcess) bound() (err error) {
	in.until.Store(int64(in.plan.Until))
	if in.plan.Until == 0 || in.plan.Isolated {
		return nil
	}
	if in.doom, err = NewDoom(); err != nil {
		return err
	}
	return in.doom.At(in.plan.Until + KernelAfter)
}

// renew prolongs the lease, unless it is over.
func (in *initProcess) renew(until time.Duration) {
	if was := in.until.Load(); was == 0 || int64(BootTime()) >= was || int64(until) <= was {
		return
	}
	in.until.Store(int64(until))
	if !in.plan.Isolated {
		_ = in.doom.At(until + KernelAfter) // it was set once, so it can be
	}
}

// lapse ends everything when the lease is over and the supervisor has not: it
// may stand still.
func (in *initProcess) lapse() {
	for {
		left := time.Duration(in.until.Load()) + InitAfter - BootTime()
		if left <= 0 {
			break
		}
		time.Sleep(left)
	}
	_ = in.sup.Close() // obey returns, process 1 ends, and with it its namespace
}

// obey carries out orders until the supervisor is gone.
func (in *initProcess) obey() {
	buf := make([]byte, MaxPacket)
	for {
		var o Order
		fds, err := in.sup.Receive(&o, buf)
		if err != nil {
			CloseAll(fds)
			return
		}
		switch o.Op {
		case "spawn", "check":
			in.spawn(o, fds)
		case "signal":
			in.signal(o)
		case "signal-all":
			in.signalAll(unix.Signal(o.Sig))
		case "lease":
			in.renew(o.Until)
		case "sandbox":
			if err := in.resettle(o, fds); err != nil {
				_ = in.sup.Send(Note{Op: "unsettled", Why: err.Error()}) // its loss is seen by the next Receive
			}
		}
		CloseAll(fds)
	}
}

func (in *initProcess) spawn(o Order, fds []int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	about := Note{Name: o.Name, Run: o.Run, Check: o.Op == "check", Pidfd: -1}
	argv, err := in.argv(o)
	if err == nil && len(fds) != 2 {
		err = fault.Internal.Errorf("a spawn came with %d descriptors; want 2", len(fds))
	}
	var pid, pidfd int
	if err == nil {
		pid, pidfd, err = in.spawner.start(command{
			argv: argv, env: in.plan.Env, dir: in.plan.Inside(),
			files:  []uintptr{in.null.Fd(), uintptr(fds[0]), uintptr(fds[1])},
			orphan: !in.plan.Isolated,
		})
	}
	if err != nil {
		about.Op, about.Why = "failed", err.Error()
		_ = in.sup.Send(about) // its loss is seen by obey
		return
	}
	// When memory is short the kernel should choose the task's processes, not its init.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("500"), 0o644) //nolint:gosec // a file of the kernel's
	in.live[pid] = o
	about.Op = "started"
	var rights []int
	if pidfd >= 0 {
		rights = []int{pidfd}
	}
	_ = in.sup.Send(about, rights...)
	CloseAll(rights)
	select {
	case in.kick <- struct{}{}:
	default:
	}
}

// argv returns what to execute for an order.
func (in *initProcess) argv(o Order) ([]string, error) {
	cmdline, ok := in.plan.ShellCheck, o.Op == "check"
	for _, p := range in.plan.Processes {
		if o.Op == "spawn" && p.Name == o.Name {
			cmdline, ok = p.Cmdline, true
		}
	}
	if !ok {
		return nil, fault.Internal.Errorf("no process %q in the plan", o.Name)
	}
	shell := in.plan.Shell
	if inline(cmdline) {
		return []string{shell, "-c", profile + cmdline}, nil
	}
	script, err := in.script(o, cmdline)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(cmdline, "#!") {
		return []string{shell, "-c", profile + `exec "$0"`, script}, nil
	}
	return []string{shell, "-c", profile + `. "$0"`, script}, nil
}

// script writes a command line into a file that the task can run, not change.
func (in *initProcess) script(o Order, cmdline string) (string, error) {
	dir := "/run"
	if !in.plan.Isolated {
		dir = in.plan.Scratch
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fault.Unavailable.Errorf("script: %w", err)
		}
	}
	file := path.Join(dir, fmt.Sprintf("process-%d-%d", in.index(o), o.Run))
	if err := os.WriteFile(file, []byte(cmdline), 0o755); err != nil { //nolint:gosec // executable by the task
		return "", fault.Unavailable.Errorf("script: %w", err)
	}
	return file, os.Chmod(file, 0o755) //nolint:gosec // whatever the umask
}

func (in *initProcess) index(o Order) int {
	for i, p := range in.plan.Processes {
		if o.Op == "spawn" && p.Name == o.Name {
			return i
		}
	}
	return -1
}

// reap waits for every child, also for those that others left behind.
func (in *initProcess) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			<-in.kick
		default:
			in.reaped(pid, ws)
		}
	}
}

func (in *initProcess) reaped(pid int, ws syscall.WaitStatus) {
	in.mu.Lock()
	defer in.mu.Unlock()
	o, ok := in.live[pid]
	if !ok {
		return
	}
	delete(in.live, pid)
	n := Note{Op: "exited", Name: o.Name, Run: o.Run, Check: o.Op == "check"}
	if ws.Signaled() {
		n.Signal = int(ws.Signal())
	} else {
		n.Code = ws.ExitStatus()
	}
	_ = in.sup.Send(n) // its loss is seen by obey
}

// signal sends a signal to a process's tree: its group, and whatever below it
// has left that.
func (in *initProcess) signal(o Order) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for pid, l := range in.live {
		if l.Name == o.Name && (l.Op == "check") == (o.Name == "") && (o.Run == 0 || l.Run == o.Run) {
			signalTree(pid, unix.Signal(o.Sig))
		}
	}
}

func signalTree(pid int, sig unix.Signal) {
	below := Descendants(pid, Processes())
	_ = unix.Kill(-pid, sig) // gone is as good
	for _, p := range below {
		if p.Session != pid {
			_ = unix.Kill(p.Pid, sig)
		}
	}
}

// signalAll sends a signal to everything below init.
func (in *initProcess) signalAll(sig unix.Signal) {
	if in.plan.Isolated {
		_ = unix.Kill(-1, sig) // all of the namespace but process 1
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, p := range Descendants(os.Getpid(), Processes()) {
		_ = unix.Kill(p.Pid, sig)
	}
}

// killAll ends what is left when no namespace does it for us. Whatever is
// orphaned comes to this process, so nothing can hide; it gives up when
// something forks faster than it can be shot for five seconds.
func (in *initProcess) killAll() {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		left := 0
		for _, p := range Descendants(os.Getpid(), Processes()) {
			if !p.Zombie {
				left++
				Kill(p.Pid)
			}
		}
		if left == 0 {
			return
		}
		goruntime.Gosched()
	}
}
