package runtime

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/task"
)

// A task may change its sandbox at any moment, also while it is read here.
// Everything below goes through [os.Root], which never leaves the directory
// whatever is a link, and reads regular files only.

const (
	maxChunk = 4 << 20 // bytes of one read
	maxFiles = 10_000  // entries of one listing
)

// A File is an entry of a sandbox.
type File struct {
	Name    string
	Size    int64
	Mode    fs.FileMode
	ModTime time.Time
}

// sandbox opens the sandbox of a task, live, ended or forgotten.
func (r *Runtime) sandbox(id task.ID) (*os.Root, error) {
	for _, dir := range []string{r.liveDir(id), r.endedDir(id)} {
		root, err := os.OpenRoot(filepath.Join(dir, sandboxDir))
		if err == nil {
			return root, nil
		}
		if _, gone := os.Lstat(dir); gone == nil { // it is there, its sandbox is not yet
			return nil, fault.NotFound.Errorf("task %v has no sandbox yet", id)
		}
	}
	return nil, fault.NotFound.Errorf("task %v is not on this machine, or its files were collected", id)
}

func sandboxPath(p string) (string, error) {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return ".", nil
	}
	if !filepath.IsLocal(p) {
		return "", fault.Invalid.Errorf("path %.200q is none in a sandbox", p)
	}
	return p, nil
}

// ListFiles lists a directory of a task's sandbox by name, at most 10,000
// entries. Links are listed, not followed out. Kinds NotFound, Invalid.
func (r *Runtime) ListFiles(id task.ID, p string) ([]File, error) {
	p, err := sandboxPath(p)
	if err != nil {
		return nil, err
	}
	root, err := r.sandbox(id)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only a directory
	d, err := root.OpenFile(p, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileErr(p, err)
	}
	defer d.Close() //nolint:errcheck // only read
	entries, err := d.ReadDir(maxFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fileErr(p, err)
	}
	out := make([]File, 0, len(entries))
	for _, e := range entries {
		st, err := root.Lstat(path.Join(p, e.Name()))
		if err != nil {
			continue // gone meanwhile
		}
		out = append(out, File{e.Name(), st.Size(), st.Mode(), st.ModTime()})
	}
	slices.SortFunc(out, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// ReadFile reads at most max bytes of a file in a task's sandbox. At the end
// it returns no bytes. Kinds NotFound; Invalid: it is no regular file.
func (r *Runtime) ReadFile(id task.ID, p string, offset int64, maxBytes int) ([]byte, error) {
	p, err := sandboxPath(p)
	if err != nil {
		return nil, err
	}
	root, err := r.sandbox(id)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only a directory
	f, err := openRegular(root, p)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return readAt(f, max(offset, 0), maxBytes)
}

func readAt(f *os.File, offset int64, maxBytes int) ([]byte, error) {
	b := make([]byte, min(max(maxBytes, 0), maxChunk))
	n, err := f.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	return b[:n], nil
}

// openRegular opens a file to read. It does not wait for the writer of a pipe.
func openRegular(root *os.Root, p string) (*os.File, error) {
	f, err := root.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileErr(p, err)
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fault.Invalid.Errorf("%s is no regular file", p), f.Close())
	}
	return f, nil
}

func fileErr(p string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.NotFound.Errorf("no file %s in the sandbox", p)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), strings.Contains(err.Error(), "escapes"):
		return fault.Invalid.Errorf("%s cannot be read: %w", p, err)
	default:
		return fault.Unavailable.Errorf("%s: %w", p, err)
	}
}

// A Chunk is a piece of a log.
type Chunk struct {
	Data   []byte
	Offset int64 // in the stream; later than asked for when that was rotated away
	Next   int64 // where to go on
	EOF    bool  // nothing follows, now or later
}

// LogChunk reads at most max bytes of what a run of a process has written to
// [Stdout] or [Stderr], from an offset in the stream on, whatever has been
// rotated; a negative offset counts from its end. run 0 is the latest, -1 the
// one before, and so on. Kinds NotFound: no such task, process or run; Invalid.
func (r *Runtime) LogChunk(id task.ID, process string, run int, stream string, offset int64, maxBytes int) (Chunk, error) {
	if stream != Stdout && stream != Stderr {
		return Chunk{}, fault.Invalid.Errorf("stream %.20q; want stdout or stderr", stream)
	}
	st, err := r.StatusOf(id)
	if err != nil {
		return Chunk{}, err
	}
	i := slices.IndexFunc(st.Processes, func(p Process) bool { return p.Name == process })
	if i < 0 {
		return Chunk{}, fault.NotFound.Errorf("process %.80q of task %v has not run", process, id)
	}
	p := st.Processes[i]
	if run <= 0 {
		run += p.Run
	}
	if run < 1 || run > p.Run {
		return Chunk{}, fault.NotFound.Errorf("process %s of task %v had %d runs", process, id, p.Run)
	}
	// Looked at before the file is: what is written later is not missed.
	over := st.Ended || run < p.Run
	root, err := r.sandbox(id)
	if err != nil {
		return Chunk{}, err
	}
	defer root.Close() //nolint:errcheck // only a directory
	c, end, err := readStream(root, path.Join(job.LogsDir, name.Escape(process), strconv.Itoa(run)), stream, offset, maxBytes)
	c.EOF = err == nil && over && c.Next >= end
	return c, err
}

// StatusOf finds a task's status, forgotten or not. Kind NotFound: no such task.
func (r *Runtime) StatusOf(id task.ID) (Status, error) {
	r.mu.Lock()
	e := r.tasks[id]
	r.mu.Unlock()
	if e != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		return e.status, nil
	}
	st, err := readStatus(r.endedDir(id), exitFile)
	if err != nil {
		return Status{}, fault.NotFound.Errorf("task %v is not on this machine, or its files were collected", id)
	}
	return st, nil
}

// piece is one file of a stream.
type piece struct {
	f           *os.File
	start, size int64
}

// readStream reads from the files of a stream as if they were one. end is
// where the stream ends now.
func readStream(root *os.Root, dir, stream string, offset int64, maxBytes int) (c Chunk, end int64, err error) {
	pieces, err := openStream(root, dir, stream)
	defer func() {
		for _, p := range pieces {
			_ = p.f.Close()
		}
	}()
	if err != nil {
		return Chunk{}, 0, err
	}
	if len(pieces) == 0 {
		return Chunk{}, 0, nil // nothing was said yet
	}
	last := pieces[len(pieces)-1]
	end = last.start + last.size
	if offset < 0 {
		offset = max(end+offset, 0)
	}
	offset = min(max(offset, pieces[0].start), end)
	c = Chunk{Offset: offset, Next: offset}
	for _, p := range pieces {
		if c.Next >= p.start+p.size || c.Next < p.start || len(c.Data) >= min(maxBytes, maxChunk) {
			continue
		}
		b, err := readAt(p.f, c.Next-p.start, min(min(maxBytes, maxChunk)-len(c.Data), int(p.start+p.size-c.Next)))
		if err != nil {
			return c, end, err
		}
		c.Data = append(c.Data, b...)
		c.Next += int64(len(b))
	}
	return c, end, nil
}

// openStream opens the files of a stream, oldest first. The current one is
// opened before the others are looked for: if it is rotated in between, it is
// among them, and known again.
func openStream(root *os.Root, dir, stream string) ([]piece, error) {
	current, err := openRegular(root, path.Join(dir, stream))
	if err != nil && fault.Of(err) != fault.NotFound {
		return nil, err
	}
	starts, err := rotated(root, dir, stream)
	if err != nil {
		return nil, errors.Join(err, closeFile(current))
	}
	var out []piece
	for _, start := range starts {
		f, err := openRegular(root, path.Join(dir, stream+"."+strconv.FormatInt(start, 10)))
		if err != nil {
			continue // rotated away meanwhile
		}
		out = addPiece(out, f, start)
	}
	if current == nil {
		return out, nil
	}
	if n := len(out); n > 0 {
		a, err1 := current.Stat()
		b, err2 := out[n-1].f.Stat()
		if err1 == nil && err2 == nil && os.SameFile(a, b) {
			return out, closeFile(current)
		}
		return addPiece(out, current, out[n-1].start+out[n-1].size), nil
	}
	return addPiece(out, current, 0), nil
}

func addPiece(to []piece, f *os.File, start int64) []piece {
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return to
	}
	return append(to, piece{f, start, st.Size()})
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// rotated returns the starts of a stream's rotated files, in order.
func rotated(root *os.Root, dir, stream string) ([]int64, error) {
	d, err := root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fileErr(dir, err)
	}
	defer d.Close() //nolint:errcheck // only read
	names, err := d.Readdirnames(4 * maxBackups)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fileErr(dir, err)
	}
	var starts []int64
	for _, n := range names {
		digits, ok := strings.CutPrefix(n, stream+".")
		start, err := strconv.ParseInt(digits, 10, 64)
		if ok && err == nil && start >= 0 {
			starts = append(starts, start)
		}
	}
	slices.Sort(starts)
	return starts, nil
}
