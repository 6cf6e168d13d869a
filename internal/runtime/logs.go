package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/name"
)

// The streams of a process.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Where a logger sends output; see [job.Logger].
const (
	toConsole = "console"
	toBoth    = "both"
	toNone    = "none"
)

// Rotation, unless the logger says otherwise: Aurora's figures.
const (
	defaultLogSize = 100 << 20
	defaultBackups = 5
	maxBackups     = 1000
)

// consoleDir holds the output of all processes that log to the console. No
// process's is called so: an escaped name has '%' before hex digits only.
// Several pumps may append to it: a write is never torn by another.
const consoleDir = "%console"

// runDir returns where a run's logs are, below the logs' directory.
func runDir(process string, run int) string {
	return path.Join(name.Escape(process), strconv.Itoa(run))
}

// pipe returns a pipe that blocks its writer and not its reader.
func pipe() (r *os.File, w int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, 0, fault.Unavailable.Errorf("pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, 0, errors.Join(fault.Unavailable.Errorf("pipe: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), fds[1], nil
}

// openLogs begins to keep the output of a run and returns what to write it
// to. The caller closes both once the process has them.
func (s *supervisor) openLogs(p jobProcess, run int) (out, errs int, err error) {
	if p.Logger.Destination == toNone {
		out, err = unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			errs, err = unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		}
		return out, errs, err
	}
	if out, err = s.keep(p, run, Stdout); err != nil {
		return 0, 0, err
	}
	if errs, err = s.keep(p, run, Stderr); err != nil {
		return 0, 0, errors.Join(err, unix.Close(out))
	}
	return out, errs, nil
}

func (s *supervisor) keep(p jobProcess, run int, stream string) (int, error) {
	r, w, err := pipe()
	if err != nil {
		return 0, err
	}
	var to []*logFile
	if p.Logger.Destination != toConsole {
		to = append(to, s.logs.file(runDir(p.Name, run), stream, p))
	}
	if d := p.Logger.Destination; d == toConsole || d == toBoth {
		to = append(to, s.logs.file(path.Join(consoleDir, "1"), stream, jobProcess{}))
	}
	s.pumps.Go(func() {
		pump(r, to)
		s.logs.done(to)
	})
	return w, nil
}

// pump copies until every writer has closed its end.
func pump(r *os.File, to []*logFile) {
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		for _, f := range to {
			f.write(buf[:n])
		}
		if err != nil {
			break
		}
	}
	_ = r.Close()
	for _, f := range to {
		f.close()
	}
}

// A logFile keeps one stream. A process is never held up by it: what cannot be
// written, as on a full disk, is dropped, counted and said.
//
// When a file has reached its size it becomes stream.START, where START is how
// many bytes of the stream came before it: a reader can tell where it is
// whatever is rotated meanwhile.
type logFile struct {
	dir     string
	stream  string
	limit   int64 // 0: grows
	backups int

	mu   sync.Mutex // guards what follows
	root *os.Root

	f       *os.File
	size    int64 // of f
	start   int64 // bytes of the stream before f
	dropped int64
	old     []int64 // starts of rotated files, oldest first
}

func newLogFile(root *os.Root, dir, stream string, p jobProcess) *logFile {
	l := &logFile{root: root, dir: dir, stream: stream}
	if p.Logger.Rotate {
		l.limit, l.backups = p.Logger.LogSize, int(p.Logger.Backups)
		if l.limit <= 0 {
			l.limit = defaultLogSize
		}
		if l.backups <= 0 {
			l.backups = defaultBackups
		}
		l.backups = min(l.backups, maxBackups)
	}
	return l
}

// open makes the file, if it can. Nothing but a regular file is written to:
// anything else was put there by the task.
func (l *logFile) open() {
	if l.root.MkdirAll(l.dir, 0o755) != nil {
		return
	}
	f, err := l.root.OpenFile(path.Join(l.dir, l.stream), os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return
	}
	l.f = f
}

func (l *logFile) write(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(b) > 0 { // a stream that says nothing has no file
		n := len(b)
		if l.limit > 0 {
			if l.size >= l.limit {
				l.rotate()
			}
			n = int(min(int64(n), max(l.limit-l.size, 1)))
		}
		l.put(b[:n])
		b = b[n:]
	}
}

func (l *logFile) put(b []byte) {
	if l.f == nil {
		l.open()
	}
	if l.f == nil {
		l.dropped += int64(len(b))
		return
	}
	if l.dropped > 0 {
		said := fmt.Sprintf("\n[covey: %d bytes of output were dropped: the disk was full]\n", l.dropped)
		n, err := l.f.WriteString(said)
		l.size += int64(n)
		if err != nil {
			l.dropped += int64(len(b))
			return
		}
		l.dropped = 0
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	if err != nil {
		l.dropped += int64(len(b) - n)
	}
}

func (l *logFile) rotate() {
	if l.f == nil {
		return
	}
	at := path.Join(l.dir, l.stream)
	if l.root.Rename(at, at+"."+strconv.FormatInt(l.start, 10)) != nil {
		return
	}
	l.old = append(l.old, l.start)
	l.start += l.size
	l.size = 0
	_ = l.f.Close()
	l.f = nil
	for len(l.old) > l.backups {
		_ = l.root.Remove(at + "." + strconv.FormatInt(l.old[0], 10)) // gone is as good
		l.old = l.old[1:]
	}
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped > 0 {
		l.put(nil) // the last chance to say so
	}
	if l.f != nil {
		_ = l.f.Close()
	}
}
