package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
)

// lockWait is how long the lock of a server that was killed may live on: a
// child that it was just starting has it too, until it becomes its program.
const lockWait = 2 * time.Second

// LockDir takes a data directory for this process, wherever its databases are,
// until the file that it returns is closed. An error of kind Conflict says which
// process has it.
func LockDir(dir string) (io.Closer, error) { return acquire(filepath.Join(dir, "server.lock")) }

// acquire takes the lock file at path for this process: the kernel gives it
// back when the process ends, however it ends. The file says who has it.
func acquire(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the operator names it
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return nil, full(dir, "open the database", err)
	case err != nil:
		return nil, fault.Denied.Errorf("the directory %s cannot be written to: %w; give it to the user who runs the server, or name another", dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for deadline := time.Now().Add(lockWait); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 200))
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.Denied.Errorf("the file %s cannot be locked: %w; keep the database on a local disk", path, err)
		}
		return nil, fault.Conflict.Errorf("another server uses the directory %s: %s; stop it, or use another directory", dir, strings.TrimSpace(string(holder)))
	}
	if err := sign(f); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return nil, full(dir, "open the database", err)
		}
		return nil, fault.Denied.Errorf("the file %s cannot be written: %w", path, err)
	}
	return f, nil
}

// sign writes who has the lock.
func sign(f *os.File) error {
	host, err := os.Hostname()
	if err != nil {
		host = "an unnamed host"
	}
	if err = f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("pid "+strconv.Itoa(os.Getpid())+" on "+host+"\n"), 0)
	return err
}
