package runtime

import (
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"

	"github.com/covey-platform/covey/internal/fault"
)

// A logDir is where the logs of a task are, and which are being written.
type logDir struct {
	mu   sync.Mutex
	root *os.Root
	open []*logFile
}

// file begins a log.
func (d *logDir) file(dir, stream string, p jobProcess) *logFile {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := newLogFile(d.root, dir, stream, p)
	d.open = append(d.open, l)
	return l
}

// done forgets logs that are closed.
func (d *logDir) done(closed []*logFile) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = slices.DeleteFunc(d.open, func(l *logFile) bool { return slices.Contains(closed, l) })
}

// move lets the logs go on in another directory, which may hold copies of what
// they were at an earlier moment. It returns what went wrong; the logs go on
// there all the same.
func (d *logDir) move(root *os.Root) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.root
	d.root = root
	var failed []error
	for _, l := range d.open {
		if err := l.move(root); err != nil {
			failed = append(failed, err)
		}
	}
	if old != nil {
		failed = append(failed, old.Close())
	}
	return errors.Join(failed...)
}

// move brings what was written since the copy was made over to it, as far as
// it is in the file that is open, and goes on there. If the file was rotated
// meanwhile, what is in neither is lost, and the stream closes up.
func (l *logFile) move(root *os.Root) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.root = root
	starts, err := rotated(root, l.dir, l.stream)
	if err != nil {
		return err
	}
	at := path.Join(l.dir, l.stream)
	start, have := int64(0), fileSize(root, at)
	if n := len(starts); n > 0 {
		start = starts[n-1] + fileSize(root, at+"."+strconv.FormatInt(starts[n-1], 10))
	}
	if start != l.start && have > 0 {
		if err = root.Rename(at, at+"."+strconv.FormatInt(start, 10)); err != nil {
			return fault.Unavailable.Errorf("log: %w", err)
		}
		starts = append(starts, start)
		start, have = start+have, 0
	}
	old, size := l.f, l.size
	l.old, l.start, l.size, l.f = starts, start, have, nil
	if old == nil {
		return nil
	}
	defer old.Close() //nolint:errcheck // it was written, and is read to its end
	if l.open(); l.f == nil || have >= size {
		return nil
	}
	r, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(old.Fd()))) // it may have no name any more
	if err != nil {
		return fault.Unavailable.Errorf("log: %w", err)
	}
	defer r.Close() //nolint:errcheck // only read
	n, err := io.Copy(l.f, io.NewSectionReader(r, have, size-have))
	l.size += n
	if err != nil {
		l.dropped += size - have - n
		return fault.Unavailable.Errorf("log: %w", err)
	}
	return nil
}

// fileSize is the size of a file, 0 if there is none.
func fileSize(root *os.Root, name string) int64 {
	st, err := root.Lstat(name)
	if err != nil || !st.Mode().IsRegular() {
		return 0
	}
	return st.Size()
}
