// Package store keeps a cluster in a database: what Commit acknowledged
// survives a crash of the program and a cut of the power, whole.
//
// [SQLite] is the store of one server: one file beside which nothing runs. It
// fits a cluster of up to about a million tasks and needs no care. How it
// keeps its promises, and how fast, is in docs/design/store.md.
package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver that is called sqlite

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
)

// A Config says where a store is. Path and Now must be set.
type Config struct {
	Path string           // of the database; its directory exists and is writable
	Now  func() time.Time // for leases
	TTL  time.Duration    // how long a lease lasts; 0: [DefaultTTL]
	Log  *slog.Logger     // nil: nothing is logged
}

// DefaultTTL is how long a lease lasts, as an agent's does.
const DefaultTTL = 10 * time.Second

const (
	readers      = 4                // connections that read
	busy         = 5 * time.Second  // how long a statement waits for another program's lock
	openDeadline = 10 * time.Minute // for upgrading the tables of a large database
)

// SQLite is a [state.Store] and a [state.Lease] in one file. Its methods may
// be called by several goroutines at once.
type SQLite struct {
	cfg  Config
	lock *os.File
	read *sql.DB

	mu     sync.Mutex // serialises writing
	write  *writer    // nil until a connection is opened anew
	sweep  string     // the job where the next Trim goes on
	closed bool

	checkpoints *checkpointer
	backlog     backlog
	merger      *merger
}

var (
	_ state.Store = (*SQLite)(nil)
	_ state.Lease = (*SQLite)(nil)
)

// Open opens the database, which it creates or upgrades if needed, and keeps
// every other server out until [SQLite.Close]. An error is of kind Denied if
// the directory is missing or not writable, Conflict if a server uses the
// database, Exhausted if the disk is full, Invalid if it is no database of
// this program or of a format too new for it, and Internal if it is damaged.
func Open(ctx context.Context, cfg Config) (*SQLite, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if err = usable(cfg.Path); err != nil {
		return nil, err
	}
	lock, err := acquire(cfg.Path + ".lock")
	if err != nil {
		return nil, err
	}
	private(cfg.Path)
	s := &SQLite{cfg: cfg, lock: lock}
	ctx, cancel := context.WithTimeout(ctx, openDeadline)
	defer cancel()
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (c Config) complete() (Config, error) {
	if c.Path == "" || c.Now == nil {
		return c, fault.Internal.Errorf("a store needs a path and a clock")
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return c, fault.Denied.Errorf("the path %s of the database cannot be followed: %w", c.Path, err)
	}
	c.Path = path
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// usable reports why no database can be kept at path.
func usable(path string) error {
	dir := filepath.Dir(path)
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Denied.Errorf("the directory %s for the database does not exist; create it, or name another", dir)
	case err != nil:
		return fault.Denied.Errorf("the directory %s for the database cannot be used: %w", dir, err)
	case !info.IsDir():
		return fault.Denied.Errorf("%s is no directory; name one for the database", dir)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fault.Denied.Errorf("%s is no file; name another path for the database", path)
	}
	return nil
}

// private sees that the database is for its owner alone, also when its
// directory is not: it holds what every job runs. What is wrong with the path
// shows when it is opened.
func private(path string) {
	if f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err == nil { //nolint:gosec // the operator names it
		_ = f.Close()
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		if info, err := os.Stat(p); err == nil && info.Mode().Perm()&0o077 != 0 {
			_ = os.Chmod(p, info.Mode().Perm()&^0o077)
		}
	}
}

func (s *SQLite) open(ctx context.Context) error {
	if err := s.upgrade(ctx); err != nil {
		return err
	}
	w, err := s.connect(ctx)
	if err != nil {
		return err
	}
	s.write = w
	// Nobody else has the lock, so whoever led is gone.
	if err = w.free(); err != nil {
		return s.explain("give up the lease of the last run", err)
	}
	s.read, err = s.pool(readers, "query_only(1)", "cache_size(-4096)")
	if err != nil {
		return err
	}
	s.checkpoints, err = s.startCheckpoints()
	if err != nil {
		return err
	}
	if err = s.recall(ctx); err != nil {
		return err
	}
	s.merger = s.startMerger()
	s.merger.wake()
	return syncDir(filepath.Dir(s.cfg.Path))
}

// pool returns connections to the database.
func (s *SQLite) pool(size int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_pragma": append([]string{
		"busy_timeout(" + ms(busy) + ")", "journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(0)",
	}, pragmas...)}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: s.cfg.Path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, s.explain("open", err)
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// Close ends the store. What was committed stays; a second call does nothing.
func (s *SQLite) Close() error {
	if s.merger != nil {
		s.merger.stop()
		s.tidy()
	}
	if s.checkpoints != nil {
		s.checkpoints.stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.close())
		s.write = nil
	}
	if s.merger != nil && s.merger.write != nil {
		errs = append(errs, s.merger.write.close())
	}
	if err := errors.Join(append(errs, s.lock.Close())...); err != nil {
		return s.explain("close", err)
	}
	return nil
}

// tidy leaves the database with every commit in the tables, as versions before
// the steps know it. It may fail: the steps are as good.
func (s *SQLite) tidy() {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), mergeClose)
	defer cancel()
	if err := s.merger.all(ctx); err != nil {
		s.cfg.Log.Warn("the last commits stay beside the tables; the next start reads them there", "error", err)
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator names it
	if err != nil {
		return fault.Denied.Errorf("the directory %s cannot be read: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fault.Internal.Errorf("the directory %s cannot be made durable: %w", dir, err)
	}
	return nil
}
