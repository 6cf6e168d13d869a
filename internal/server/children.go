package server

import (
	"context"
	"errors"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
)

// Bounds of a child's life.
const (
	childRestart = 500 * time.Millisecond // a child that died is started again after this
	agentStop    = 75 * time.Second       // an agent that was told to stop, with its tasks, is killed after this
	serverStop   = 10 * time.Second       // likewise a server, which has nothing to wait for
	startTries   = 3                      // for a server that has never answered; the one before may still be ending
	stopTries    = 2                      // for an agent that was dead when it was to stop its tasks
	insistEvery  = 20 * time.Millisecond
)

// stopTasks makes an agent stop every task and end, killTasks makes it kill them.
const (
	stopTasks = syscall.SIGUSR2
	killTasks = syscall.SIGUSR1
)

// keep runs a child process until ctx ends, and starts it again when it dies.
// The children are in a process group of their own, so that Ctrl-C reaches dev
// alone, and they end when dev does: end is how they are asked to.
func (d *dev) keep(ctx context.Context, what string, end syscall.Signal, args func() ([]string, error)) error {
	// The death signal follows the thread that started the child.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	ended := false
	for tries := 1; ctx.Err() == nil; tries++ {
		began := time.Now()
		var err error
		if ended, err = d.child(ctx, end, args, nil); err != nil && ctx.Err() == nil {
			if end != stopTasks && !d.began.Load() {
				if no := hopeless(what, err); tries == startTries || fault.Of(no) == fault.Invalid {
					return no
				}
			}
			d.cfg.Log.WarnContext(ctx, "a part of the platform ended and is started again", "part", what, "error", err)
		}
		if ctx.Err() == nil {
			pause := max(0, childRestart-time.Since(began))
			select {
			case <-ctx.Done():
			case <-time.After(max(pause, 50*time.Millisecond)):
			}
		}
	}
	if end == stopTasks && !ended { // it was dead at the end, and has not stopped its tasks yet
		d.dismiss(ctx, what, args)
	}
	return nil
}

// dismiss starts an agent to have it stop its tasks and end.
func (d *dev) dismiss(ctx context.Context, what string, args func() ([]string, error)) {
	ended := false
	for try := 0; try < stopTries && !ended && !d.leave.Load(); try++ {
		again, now := context.WithCancel(context.WithoutCancel(ctx))
		var err error
		if ended, err = d.child(again, stopTasks, args, now); !ended {
			d.cfg.Log.WarnContext(ctx, "the tasks of an agent are not stopped yet", "part", what, "error", err)
		}
		now()
	}
}

// hopeless is the error of a part that does not start, of the kind that it had
// itself. What it was, it has said.
func hopeless(what string, err error) error {
	kind := fault.Internal
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		switch e.ExitCode() {
		case cli.InvalidParameter:
			kind = fault.Invalid
		case cli.APIError:
			kind = fault.Conflict
		case cli.NotAllowed:
			kind = fault.Denied
		}
	}
	return kind.Errorf("the %s does not start (%w); the lines above say why", what, err)
}

// child runs a child process to its end. It is asked to end when ctx ends;
// ended reports that it did so in order. started, if set, is called when it
// has been started.
func (d *dev) child(ctx context.Context, end syscall.Signal, args func() ([]string, error), started func()) (ended bool, err error) {
	a, err := args()
	if err != nil {
		return false, err
	}
	cmd := exec.CommandContext(ctx, d.cfg.Self, a...) //nolint:gosec // this very program
	cmd.Stdout, cmd.Stderr = d.cfg.Err, d.cfg.Err
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	over := make(chan struct{})
	defer close(over)
	cmd.Cancel = func() error {
		if end != stopTasks || d.leave.Load() {
			return cmd.Process.Signal(syscall.SIGTERM)
		}
		go d.insist(cmd.Process, over)
		return nil
	}
	cmd.WaitDelay = serverStop
	if end == stopTasks {
		cmd.WaitDelay = agentStop
	}
	cmd.Env = os.Environ()
	if err = cmd.Start(); err != nil {
		return false, err
	}
	if started != nil {
		started()
	}
	err = cmd.Wait()
	return ctx.Err() != nil && cmd.ProcessState.Success(), err
}

// insist tells an agent to stop its tasks, or to kill them. It may have been
// started just now, so it is told again until over: until the program asks for
// the signal, Go's runtime swallows it, and before there is a runtime the kernel
// would kill.
func (d *dev) insist(p *os.Process, over <-chan struct{}) {
	for {
		sig := stopTasks
		if d.hurry.Load() {
			sig = killTasks
		}
		if handles(p.Pid, sig) {
			_ = p.Signal(sig) // an error means that it has ended
		}
		select {
		case <-over:
			return
		case <-time.After(insistEvery):
		}
	}
}

// handles reports whether a process has a handler for a signal.
func handles(pid int, sig syscall.Signal) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(status), "\nSigCgt:")
	mask, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	n, err := strconv.ParseUint(mask, 16, 64)
	return err == nil && n&(1<<(sig-1)) != 0
}
