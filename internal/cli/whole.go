package cli

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
)

// WriteWhole writes a file that a user named. It is made beside its name and
// moved there when it is whole; where a link leads elsewhere, there. What is no
// file to be moved away, such as /dev/stdout or a pipe, is written to as it is.
// An error of kind Invalid: it cannot be written at all; Exhausted: not to its end.
func WriteWhole(name string, mode fs.FileMode, write func(io.Writer) error) error {
	f, err := begin(name)
	if err != nil {
		return fault.Invalid.Errorf("%s cannot be written: %w", name, cause(err))
	}
	w := bufio.NewWriterSize(f.File, 1<<16)
	if err = write(w); err != nil {
		f.drop()
		return err
	}
	if err = w.Flush(); err == nil {
		err = f.finish(mode)
	}
	if err != nil {
		f.drop()
		return fault.Exhausted.Errorf("%s is not written to its end: %w", name, cause(err))
	}
	return nil
}

// begun is a file that is being written.
type begun struct {
	*os.File
	to string // where it is to be moved; empty: it is there already
}

// begin opens what is to be written to.
func begin(name string) (f begun, err error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return f, errors.New("it is a folder; want a file")
	case err == nil && (!info.Mode().IsRegular() || ofKernel(name)):
		f.File, err = os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0) //nolint:gosec // the user's own choice
		return f, err
	case err == nil:
		if f.to, err = filepath.EvalSymlinks(name); err != nil {
			return f, err
		}
	default:
		f.to = name
	}
	f.File, err = os.CreateTemp(filepath.Dir(f.to), ".covey-*") // for its owner alone
	return f, err
}

// finish puts the file into its place.
func (f begun) finish(mode fs.FileMode) error {
	if f.to == "" {
		return f.Close()
	}
	for _, step := range []func() error{func() error { return f.Chmod(mode) }, f.Sync, f.Close, func() error { return os.Rename(f.Name(), f.to) }} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// drop leaves nothing of the file.
func (f begun) drop() {
	_ = f.Close()
	if f.to != "" {
		_ = os.Remove(f.Name())
	}
}

// cause is an error of the system without the name of a temporary file.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok {
		return le.Err
	}
	return err
}

// ofKernel reports whether a name is the kernel's, behind which an open file
// may be: /dev/stdout, /proc/self/fd/1.
func ofKernel(name string) bool {
	at, err := filepath.Abs(name)
	return err == nil && (strings.HasPrefix(at, "/dev/") || strings.HasPrefix(at, "/proc/"))
}
