package runtime

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// diskUse is what a directory tree takes.
type diskUse struct {
	bytes   int64
	partial bool // time ran out: bytes is a lower bound
	tooDeep bool
}

const (
	maxDepth   = 200       // directories within directories
	entryBytes = 256       // counted for each entry, so that empty files are not free
	maxOpen    = 4096      // descriptors looked at for deleted files
	timeEvery  = 256       // entries between two looks at the clock
	maxLinked  = 1_000_000 // files of several names that are told apart
)

type inode struct {
	dev, ino uint64
}

type walk struct {
	use      diskUse
	deadline time.Time
	seen     map[inode]struct{}
	entries  int
}

// measure adds up the blocks of a tree without following links or leaving its
// file system, each file once. Deleted files that the given processes hold open
// count too: they take space until they are closed.
func measure(dir string, pids []int, deadline time.Time) diskUse {
	w := walk{deadline: deadline, seen: map[inode]struct{}{}}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return w.use
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		_ = unix.Close(fd)
		return w.use
	}
	w.dir(fd, 0)
	w.deleted(pids, uint64(st.Dev)) //nolint:unconvert // its type differs by architecture
	return w.use
}

// dir adds a directory and closes its descriptor.
func (w *walk) dir(fd, depth int) {
	f := os.NewFile(uintptr(fd), "dir")
	defer f.Close() //nolint:errcheck // only read
	for {
		entries, err := f.ReadDir(512)
		for _, e := range entries {
			if w.late() {
				return
			}
			w.entry(fd, e.Name(), depth)
		}
		if err != nil || len(entries) == 0 {
			return
		}
	}
}

func (w *walk) late() bool {
	if w.entries++; w.entries%timeEvery == 0 && time.Now().After(w.deadline) {
		w.use.partial = true
	}
	return w.use.partial
}

func (w *walk) entry(fd int, name string, depth int) {
	var st unix.Stat_t
	if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return // gone meanwhile
	}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR && !w.first(uint64(st.Dev), st.Ino) { //nolint:unconvert // by architecture
		return
	}
	w.use.bytes += st.Blocks*512 + entryBytes
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return
	}
	if depth >= maxDepth {
		w.use.tooDeep = true
		return
	}
	sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		w.dir(sub, depth+1)
	}
}

// first reports whether a file of several names is met for the first time.
func (w *walk) first(dev, ino uint64) bool {
	k := inode{dev, ino}
	if _, ok := w.seen[k]; ok {
		return false
	}
	if len(w.seen) < maxLinked {
		w.seen[k] = struct{}{}
	}
	return true
}

// deleted adds files that have no name any more.
func (w *walk) deleted(pids []int, dev uint64) {
	looked := 0
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		names, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, n := range names {
			if looked++; looked > maxOpen {
				return
			}
			to, err := os.Readlink(dir + "/" + n.Name())
			if err != nil || !strings.HasSuffix(to, " (deleted)") {
				continue
			}
			st, err := os.Stat(dir + "/" + n.Name())
			if err != nil || !st.Mode().IsRegular() {
				continue
			}
			if raw, ok := st.Sys().(*syscall.Stat_t); ok && uint64(raw.Dev) == dev && w.first(dev, raw.Ino) { //nolint:unconvert // by architecture
				w.use.bytes += raw.Blocks * 512
			}
		}
	}
}

// removeTree deletes a directory that a task has filled, however deep it
// nested: what is too deep to walk with few open files is first moved up.
func removeTree(dir string) error {
	for pass := range 10_000 {
		err := removeShallow(dir, pass)
		if !errors.Is(err, errDeep) {
			return err
		}
	}
	return fmt.Errorf("remove %s: nested too deeply", dir)
}

var errDeep = errors.New("nested too deeply")

func removeShallow(dir string, pass int) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	r := remover{top: fd, pass: pass}
	if err := r.empty(fd, 0); err != nil {
		return err
	}
	return os.Remove(dir)
}

type remover struct{ top, pass int }

// empty deletes what is in a directory and closes its descriptor.
func (r *remover) empty(fd, depth int) error {
	f := os.NewFile(uintptr(fd), "dir")
	defer f.Close() //nolint:errcheck // only read
	for {
		names, end := f.Readdirnames(512)
		for _, n := range names {
			if err := r.remove(fd, n, depth); err != nil {
				return err
			}
		}
		if len(names) == 0 || end != nil {
			return nil
		}
	}
}

func (r *remover) remove(fd int, name string, depth int) error {
	err := unix.Unlinkat(fd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if chmod := unix.Fchmodat(fd, name, 0o700, 0); chmod == nil { // one of our own that was locked
			sub, err = unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if depth >= maxDepth {
		_ = unix.Close(sub)
		if err := unix.Renameat(fd, name, r.top, fmt.Sprintf("%%deep-%d-%d", os.Getpid(), r.pass)); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		return errDeep
	}
	if err := r.empty(sub, depth+1); err != nil {
		return err
	}
	if err := unix.Unlinkat(fd, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
