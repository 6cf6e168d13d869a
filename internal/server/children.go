package server

import (
	"context"
	"os"
	"os/exec"
	goruntime "runtime"
	"syscall"
	"time"
)

// Bounds of a child's life.
const (
	childRestart = 500 * time.Millisecond // a child that died is started again after this
	childStop    = 75 * time.Second       // a child that was told to stop is killed after this
)

// keep runs a child process until ctx ends, and starts it again when it dies.
// The children are in a process group of their own, so that Ctrl-C reaches dev
// alone, and they end when dev does: end is how they are asked to.
func (d *dev) keep(ctx context.Context, what string, end syscall.Signal, args func() ([]string, error)) error {
	// The death signal follows the thread that started the child.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	for ctx.Err() == nil {
		began := time.Now()
		if err := d.child(ctx, end, args); err != nil && ctx.Err() == nil {
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
	return nil
}

func (d *dev) child(ctx context.Context, end syscall.Signal, args func() ([]string, error)) error {
	a, err := args()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, d.cfg.Self, a...) //nolint:gosec // this very program
	cmd.Stdout, cmd.Stderr = d.cfg.Err, d.cfg.Err
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(end) }
	cmd.WaitDelay = childStop
	cmd.Env = os.Environ()
	return cmd.Run()
}
