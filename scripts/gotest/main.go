// Command gotest runs `go test` with the arguments it is given and prints what
// a person wants to read: one line for each test, everything that a failed
// test said, and once more at the end each test that was skipped and why. It
// fails when `go test` fails and when not one test ran.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

// patience is how long go test may take to end after it was interrupted.
const patience = 20 * time.Second

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...) //nolint:gosec // who runs this may run go with any argument
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	cmd.Stderr = errs
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := newReport(out)
	readErr := r.read(events)
	if readErr != nil {
		// What is not read would keep go test waiting for its reader.
		readErr = errors.Join(readErr, cmd.Process.Signal(os.Interrupt))
		_, err := io.Copy(io.Discard, events)
		readErr = errors.Join(readErr, err)
	}
	waitErr := cmd.Wait()
	none := r.finish()
	switch {
	case readErr != nil:
		return readErr
	case waitErr != nil:
		return fmt.Errorf("go test: %w", waitErr)
	}
	return none
}
