package store

import (
	"context"
	"database/sql"
	"sync/atomic"
)

// checkpointAt is how many pages of the write-ahead log are written before
// they are copied into the database: enough that a page which changes in every
// commit is copied once for many of them.
const checkpointAt = 8192 // 32 MiB

// A checkpointer copies the write-ahead log into the database beside the
// commits, which go on meanwhile, then what they have added in a short pause:
// only a log that is copied to its end begins anew.
type checkpointer struct {
	store *SQLite
	db    *sql.DB
	pages atomic.Int64
	due   chan struct{}
	ctx   context.Context //nolint:containedctx // it ends the goroutine, and nothing else
	end   context.CancelFunc
	done  chan struct{}
}

func (s *SQLite) startCheckpoints() (*checkpointer, error) {
	db, err := s.pool(1, "cache_size(-2048)")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &checkpointer{store: s, db: db, due: make(chan struct{}, 1), ctx: ctx, end: cancel, done: make(chan struct{})}
	go c.run()
	return c, nil
}

// wrote counts pages that a commit has written.
func (c *checkpointer) wrote(pages int) {
	if c.pages.Add(int64(pages)) < checkpointAt {
		return
	}
	select {
	case c.due <- struct{}{}:
	default: // one is due already
	}
}

func (c *checkpointer) run() {
	defer close(c.done)
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.due:
			c.pages.Store(0)
			if err := c.both(); err != nil && c.ctx.Err() == nil {
				c.store.cfg.Log.Warn("the write-ahead log grows", "error", c.store.explain("copy it into the database", err))
			}
		}
	}
}

func (c *checkpointer) both() error {
	if err := c.copy(); err != nil {
		return err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return c.copy()
}

func (c *checkpointer) copy() error {
	var blocked, pages, copied int
	return c.db.QueryRowContext(c.ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&blocked, &pages, &copied)
}

// stop ends the goroutine and waits for it. A second call does nothing.
func (c *checkpointer) stop() {
	c.end()
	<-c.done
	if err := c.db.Close(); err != nil {
		c.store.cfg.Log.Warn("a connection did not close", "error", err)
	}
}
