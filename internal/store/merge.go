package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// When steps are merged into the tables, and how.
const (
	mergeRows  = 200_000          // so many rows wait: of a million tasks, several on each page
	mergeSteps = 8192             // or so many commits
	mergeLimit = 4 * mergeRows    // a commit waits for a merge before there are more
	mergeOnce  = 512              // rows in one transaction; commits go on in between
	mergeBusy  = 8 * mergeOnce    // the same, when more waits than one merge takes
	forgetOnce = 64               // steps removed in one transaction
	mergeAgain = time.Second      // after a merge that failed
	mergeClose = 30 * time.Second // how long Close merges
)

// A merger brings the tables up to date with the steps, beside the commits.
// What it writes need not be synced: until the steps are gone, which is written
// after it, they say the same.
type merger struct {
	store *SQLite
	most  int        // rows that one merge takes, and the rest of the last commit
	mu    sync.Mutex // one merge at a time
	write *writer    // of its own, not synced; guarded by the store's mutex
	due   chan struct{}
	ctx   context.Context //nolint:containedctx // it ends the goroutine, and nothing else
	end   context.CancelFunc
	done  chan struct{}
}

func (s *SQLite) startMerger() *merger {
	ctx, cancel := context.WithCancel(context.Background())
	m := &merger{store: s, most: mergeRows, due: make(chan struct{}, 1), ctx: ctx, end: cancel, done: make(chan struct{})}
	go m.run()
	return m
}

// wake begins a merge if enough waits.
func (m *merger) wake() {
	if steps, rows := m.store.backlog.size(); steps < mergeSteps && rows < mergeRows {
		return
	}
	select {
	case m.due <- struct{}{}:
	default: // one is due already
	}
}

func (m *merger) run() {
	defer close(m.done)
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.due:
		}
		if err := m.merge(m.ctx); err != nil && m.ctx.Err() == nil {
			m.store.cfg.Log.Warn("commits wait to be merged into the tables; nothing is lost", "error", err)
			select {
			case <-m.ctx.Done():
			case <-time.After(mergeAgain):
			}
		}
		m.wake()
	}
}

// stop ends the goroutine and waits for it. A second call does nothing.
func (m *merger) stop() {
	m.end()
	<-m.done
}

// all merges every step there is now.
func (m *merger) all(ctx context.Context) error {
	for last := m.store.backlog.last(); !m.store.backlog.past(last); {
		if err := m.merge(ctx); err != nil {
			return err
		}
	}
	return nil
}

// merge merges the oldest steps, as many as hold most rows. It may end
// after any of its transactions: those steps count more than the tables until
// the last of them is gone, and they go in their order.
func (m *merger) merge(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, err := m.read(ctx)
	if err != nil {
		return err
	}
	if w.upTo == 0 {
		m.store.backlog.drop(math.MaxUint64) // whatever it was, it is not there
		return nil
	}
	once := mergeOnce
	if _, rows := m.store.backlog.size(); rows > mergeRows+mergeRows/2 {
		once = mergeBusy
	}
	for some := range slices.Chunk(w.rows, once) {
		if err = m.transact(ctx, func(w *writer) error { return w.merge(some) }); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(w.ended, once) {
		if err = m.transact(ctx, func(w *writer) error { return w.ended(some) }); err != nil {
			return err
		}
	}
	for more := true; more; {
		err = m.transact(ctx, func(to *writer) error {
			n, bad := to.exec("DELETE FROM step WHERE rev IN (SELECT rev FROM step WHERE rev <= ? ORDER BY rev LIMIT ?)", int64(w.upTo), int64(forgetOnce))
			more = n == forgetOnce
			return bad
		})
		if err != nil {
			return err
		}
	}
	m.store.backlog.drop(w.upTo)
	return nil
}

// read returns what is to be merged.
func (m *merger) read(ctx context.Context) (waiting, error) {
	tx, err := m.store.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return waiting{}, m.store.explain("read the steps that wait", err)
	}
	defer func() { _ = tx.Rollback() }()
	return m.store.waiting(ctx, tx, m.most)
}

// transact runs f between BEGIN and COMMIT on the connection that is not
// synced. If a COMMIT fails, whether it happened does not matter.
func (m *merger) transact(ctx context.Context, f func(w *writer) error) error {
	const doing = "merge commits into the tables"
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.Unavailable.Errorf("%s: the database is closed", doing)
	}
	if err := ctx.Err(); err != nil {
		return s.explain(doing, err)
	}
	if m.write == nil {
		w, err := s.connect(ctx, "synchronous(NORMAL)", "cache_size(-16384)")
		if err != nil {
			return err
		}
		m.write = w
	}
	_, err := m.write.exec("BEGIN IMMEDIATE")
	if err == nil {
		err = f(m.write)
	}
	if err == nil {
		_, err = m.write.exec("COMMIT")
	}
	if err != nil {
		m.write = s.undo(m.write)
		return s.explain(doing, err)
	}
	s.checkpoints.wrote(m.write.written())
	return nil
}

// merge writes rows to their tables.
func (w *writer) merge(rows []state.Row) error {
	size := 0
	for i := range rows {
		size += len(rows[i].Key) + len(rows[i].Value) + sealSize
	}
	w.seal.reset(size)
	return w.rows(rows)
}

// rows writes the rows, those of one table that follow each other at once.
func (w *writer) rows(rows []state.Row) error {
	put := make([]driver.Value, 0, 2*len(rows))
	var del []driver.Value
	for i := range rows {
		r := &rows[i]
		key := w.seal.key(r.Key)
		if r.Value == nil {
			del = append(del, key)
		} else {
			put = append(put, key, w.seal.seal(key, r.Value))
		}
		if i+1 < len(rows) && rows[i+1].Table == r.Table {
			continue
		}
		table := r.Table.String()
		if err := w.many(upsert(table), 2, put); err != nil {
			return err
		}
		if err := w.many(remove(table), 1, del); err != nil {
			return err
		}
		put, del = put[:0], del[:0]
	}
	return nil
}

// ended writes ended tasks to the history.
func (w *writer) ended(ended []task.Task) error {
	args := make([]driver.Value, 0, 5*len(ended))
	one := sealer{table: w.seal.table}
	for _, t := range ended {
		value := one.seal([]byte(state.TaskKey(t.ID)), state.EncodeTask(state.Task{Task: t}))
		args = append(args, []byte(t.ID.Job), int64(t.Since), int64(t.ID.Instance), int64(t.ID.Attempt), value)
		one.buf = nil // the next one must not move it
	}
	return w.many(func(rows int) string {
		return "INSERT OR REPLACE INTO history (job, ended, instance, attempt, value) VALUES " + placeholders(rows, 5)
	}, 5, args)
}

// upsert and remove make statements for a number of rows of a table.
func upsert(table string) func(rows int) string {
	return func(rows int) string {
		return fmt.Sprintf("INSERT INTO %s (key, value) VALUES %s ON CONFLICT (key) DO UPDATE SET value = excluded.value", table, placeholders(rows, 2))
	}
}

func remove(table string) func(rows int) string {
	return func(rows int) string {
		return fmt.Sprintf("DELETE FROM %s WHERE key IN %s", table, placeholders(1, rows))
	}
}
