package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// chunk is how many rows are read ahead at a time, and ahead how many chunks.
const (
	chunk = 256
	ahead = 8
)

// Load yields every row, in the order of [state.Tables] and keys, and returns
// where the store stands, all as of one moment. It reads ahead while yield
// works: a new leader has nothing else to do with its other core.
func (s *SQLite) Load(ctx context.Context, yield func(state.Row) error) (state.Head, error) {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return state.Head{}, s.explain("load", err)
	}
	defer func() { _ = conn.Close() }()
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return state.Head{}, s.explain("load", err)
	}
	defer func() { _ = tx.Rollback() }()
	head, _, err := s.head(ctx, tx)
	if err != nil {
		return state.Head{}, err
	}
	wait, err := s.waiting(ctx, tx, allSteps)
	if err != nil {
		return state.Head{}, err
	}
	rows := make(chan []state.Row, ahead)
	stop := make(chan struct{})
	var broken error // of the reading; written before rows is closed
	go func() {
		defer close(rows)
		broken = conn.Raw(func(dc any) error { return s.loadTables(ctx, dc, wait.rows, rows, stop) })
	}()
	for some := range rows {
		for i := 0; err == nil && i < len(some); i++ {
			if err = yield(some[i]); err != nil {
				close(stop)
			}
		}
	}
	if err = cmp.Or(err, broken); err != nil {
		return state.Head{}, err
	}
	return head, nil
}

// loadTables sends the rows of every table as the steps that wait make them,
// until stop is closed. It reads from the driver itself, which is twice as fast
// as through database/sql.
func (s *SQLite) loadTables(ctx context.Context, dc any, wait []state.Row, to chan<- []state.Row, stop <-chan struct{}) error {
	c, ok := dc.(driver.QueryerContext)
	if !ok {
		return fault.Internal.Errorf("the SQLite driver cannot query")
	}
	for _, t := range state.Tables() {
		select {
		case <-stop:
			return nil
		default:
		}
		n := 0
		for n < len(wait) && wait[n].Table == t {
			n++
		}
		doing := "load table " + t.String()
		rows, err := c.QueryContext(ctx, "SELECT key, value FROM "+t.String()+" ORDER BY key", nil)
		if err != nil {
			return s.explain(doing, err)
		}
		l := tableLoad{s: s, doing: doing, table: t, rows: rows, wait: wait[:n], some: make([]state.Row, 0, chunk), to: to, stop: stop}
		err = l.run()
		if e := rows.Close(); err == nil && e != nil {
			err = s.explain(doing, e)
		}
		if err != nil {
			return err
		}
		wait = wait[n:]
	}
	return nil
}

// A tableLoad sends the rows of one table.
type tableLoad struct {
	s     *SQLite
	doing string
	table state.Table
	rows  driver.Rows
	wait  []state.Row // count more than those in the table
	some  []state.Row // to be sent
	to    chan<- []state.Row
	stop  <-chan struct{}
}

func (l *tableLoad) run() error {
	seal := newSealer()
	dest := make([]driver.Value, 2)
	for {
		err := l.rows.Next(dest)
		if errors.Is(err, io.EOF) {
			_ = l.until("", true) && l.send()
			return nil
		}
		if err != nil {
			return l.s.explain(l.doing, err)
		}
		key, _ := dest[0].([]byte)
		sealed, _ := dest[1].([]byte)
		value, err := seal.open(key, sealed)
		if err != nil {
			return l.s.damaged(l.doing, fault.Internal.Errorf("row %.100q: %w", key, err))
		}
		r := state.Row{Table: l.table, Key: string(key), Value: value}
		if !l.until(r.Key, false) {
			return nil
		}
		if len(l.wait) > 0 && l.wait[0].Key == r.Key {
			continue // it comes with the next one
		}
		if !l.add(r) {
			return nil
		}
	}
}

// until adds the waiting rows before key, or all. It is false when stop is closed.
func (l *tableLoad) until(key string, all bool) bool {
	for len(l.wait) > 0 && (all || l.wait[0].Key < key) {
		if r := l.wait[0]; r.Value != nil && !l.add(r) {
			return false
		}
		l.wait = l.wait[1:]
	}
	return true
}

func (l *tableLoad) add(r state.Row) bool {
	l.some = append(l.some, r)
	return len(l.some) < chunk || l.send()
}

func (l *tableLoad) send() bool {
	select {
	case l.to <- l.some:
		l.some = make([]state.Row, 0, chunk)
		return true
	case <-l.stop:
		return false
	}
}

// head reads where the store stands and the first record that is kept.
func (s *SQLite) head(ctx context.Context, tx *sql.Tx) (state.Head, state.Seq, error) {
	var rev, seq, at int64
	var floor sql.NullInt64
	err := tx.QueryRowContext(ctx, "SELECT rev, seq, at, (SELECT first FROM records ORDER BY last LIMIT 1) FROM meta WHERE id = 1").
		Scan(&rev, &seq, &at, &floor)
	if err != nil {
		return state.Head{}, 0, s.explain("read where the store stands", err)
	}
	if !floor.Valid {
		floor.Int64 = seq + 1
	}
	return state.Head{Rev: state.Rev(rev), Seq: state.Seq(seq), At: unit.Tick(at)}, state.Seq(floor.Int64), nil
}

// What one call of Records returns at most, whatever its limit.
const (
	maxRecords      = 10_000
	maxRecordsBytes = 16 << 20 // of blocks; the first one is read in any case
)

// Records returns up to limit records that follow seq after, in order. None
// says that there are none.
func (s *SQLite) Records(ctx context.Context, after state.Seq, limit int) ([]state.Record, error) {
	if limit < 1 {
		return nil, fault.Invalid.Errorf("at most %d records asked for; want 1 or more", limit)
	}
	limit = min(limit, maxRecords)
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, s.explain("read records", err)
	}
	defer func() { _ = tx.Rollback() }()
	head, floor, err := s.head(ctx, tx)
	if err != nil {
		return nil, err
	}
	if err = head.Kept(after, floor); err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, "SELECT last, block FROM records WHERE last > ? ORDER BY last", int64(after))
	if err != nil {
		return nil, s.explain("read records", err)
	}
	defer func() { _ = rows.Close() }()
	var out []state.Record
	seal, bytes := newSealer(), 0
	for len(out) < limit && bytes < maxRecordsBytes && rows.Next() {
		var last int64
		var sealed []byte
		if err := rows.Scan(&last, &sealed); err != nil {
			return nil, s.explain("read records", err)
		}
		bytes += len(sealed)
		records, err := openBlock(seal, last, sealed)
		if err != nil {
			return nil, s.damaged("read records", err)
		}
		for i := range records {
			if records[i].Seq > after && len(out) < limit {
				out = append(out, records[i])
			}
		}
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read records", err)
	}
	return out, nil
}

// openBlock reads the records of one commit.
func openBlock(seal *sealer, last int64, sealed []byte) ([]state.Record, error) {
	b, err := seal.open(nil, sealed)
	if err == nil {
		var records []state.Record
		if records, err = state.DecodeRecords(b); err == nil {
			return records, nil
		}
	}
	return nil, fault.Internal.Errorf("the block that ends with record %d: %w", last, err)
}

// openEnded reads an ended task.
func openEnded(seal *sealer, id task.ID, sealed []byte) (task.Task, error) {
	key := state.TaskKey(id)
	value, err := seal.open([]byte(key), sealed)
	if err == nil {
		var t state.Task
		if t, err = state.DecodeTask(key, value); err == nil {
			return t.Task, nil
		}
	}
	return task.Task{}, fault.Internal.Errorf("task %v: %w", id, err)
}

// History returns ended tasks, newest first.
func (s *SQLite) History(ctx context.Context, q state.HistoryQuery) ([]task.Task, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	wait := s.backlog.history(q) // before the table, so that none is missed
	query := "SELECT instance, attempt, value FROM history WHERE job = ? AND (? < 0 OR instance = ?)" +
		" ORDER BY ended DESC, instance DESC, attempt DESC LIMIT ?"
	rows, err := s.read.QueryContext(ctx, query, []byte(q.Job), q.Instance, q.Instance, q.Limit)
	if err != nil {
		return nil, s.explain("read history", err)
	}
	defer func() { _ = rows.Close() }()
	var out []task.Task
	seal := newSealer()
	for rows.Next() {
		id := task.ID{Job: q.Job}
		var sealed []byte
		if err := rows.Scan(&id.Instance, &id.Attempt, &sealed); err != nil {
			return nil, s.explain("read history", err)
		}
		t, err := openEnded(seal, id, sealed)
		if err != nil {
			return nil, s.damaged("read history", err)
		}
		out = append(out, t)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read history", err)
	}
	return newest(wait, out, q.Limit), nil
}
