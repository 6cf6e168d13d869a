package store

import (
	"context"
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/covey-platform/covey/internal/fault"
)

// code returns SQLite's result code for err, 0 if it has none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// explain gives err a kind, and says what was being done and what to do.
// It is for errors after which nothing has happened; one that has a kind
// already is returned as it is.
func (s *SQLite) explain(doing string, err error) error {
	if fault.Of(err) != fault.Internal {
		return err
	}
	path := s.cfg.Path
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Unavailable.Errorf("%s: it was ended early: %w", doing, err)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return full(filepath.Dir(path), doing, err)
	}
	switch code(err) & 0xff {
	case sqlite3.SQLITE_FULL:
		return full(filepath.Dir(path), doing, err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return s.damaged(doing, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH:
		return fault.Denied.Errorf("%s: the database %s cannot be written: %w; give it and its directory to the user who runs the server", doing, path, err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fault.Unavailable.Errorf("%s: another program has held the database %s for %v: %w; end it", doing, path, busy, err)
	case sqlite3.SQLITE_INTERRUPT:
		return fault.Unavailable.Errorf("%s: it was ended early: %w", doing, err)
	case sqlite3.SQLITE_IOERR:
		if isFull(filepath.Dir(path)) { // as of the index of the log, which has no error of its own for this
			return full(filepath.Dir(path), doing, err)
		}
		return fault.Internal.Errorf("%s: the disk under %s fails: %w; look at the kernel's log, then replace the disk", doing, path, err)
	default:
		return fault.Internal.Errorf("%s: the database %s: %w", doing, path, err)
	}
}

func (s *SQLite) damaged(doing string, err error) error {
	return fault.Internal.Errorf("%s: the database %s is damaged: %w; stop the server and restore the database from a backup", doing, s.cfg.Path, err)
}

// isFull reports whether a file system has not even the room for an index of
// SQLite's log, which grows by 32 KiB.
func isFull(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Bavail)*st.Bsize < 64<<10
}

func full(dir, doing string, err error) error {
	return fault.Exhausted.Errorf("%s: the disk under %s is full: %w; nothing was changed. Make room there, and it works again", doing, dir, err)
}
