package store

import (
	"context"
	"database/sql"

	"golang.org/x/sync/errgroup"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Load yields every row, in the order of [state.Tables] and keys, and returns
// where the store stands, all as of one moment.
func (s *SQLite) Load(ctx context.Context, yield func(state.Row) error) (state.Head, error) {
	return s.load(ctx, func(l *loading) error {
		for _, t := range state.Tables() {
			if err := l.table(ctx, t, yield); err != nil {
				return err
			}
		}
		return nil
	})
}

// LoadBeside is Load for who has several cores, and nothing else to do: the rows
// of slots and those of tasks, which are nearly all, come last, from two
// goroutines at the same time.
func (s *SQLite) LoadBeside(ctx context.Context, yield func(state.Row) error) (state.Head, error) {
	return s.load(ctx, func(l *loading) error {
		for _, t := range state.Tables() {
			if t == state.InstanceTable || t == state.TaskTable {
				continue
			}
			if err := l.table(ctx, t, yield); err != nil {
				return err
			}
		}
		g, both := errgroup.WithContext(ctx)
		g.Go(func() error { return l.table(both, state.InstanceTable, yield) })
		g.Go(func() error { return l.table(both, state.TaskTable, yield) })
		return g.Wait()
	})
}

// loading is what there is to read at one moment.
type loading struct {
	s     *SQLite
	pages *pages
	roots map[string]uint32 // where each table begins
	wait  map[state.Table][]state.Row
}

func (l *loading) table(ctx context.Context, t state.Table, yield func(state.Row) error) error {
	root := l.roots[t.String()]
	if root == 0 {
		return l.s.damaged("load table "+t.String(), fault.Internal.Errorf("it is not there"))
	}
	w := tableWalk{s: l.s, table: t, wait: l.wait[t], yield: yield}
	return w.run(ctx, l.pages, root)
}

// load lets tables be read in one transaction, and returns where the store stands.
func (s *SQLite) load(ctx context.Context, read func(*loading) error) (state.Head, error) {
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
	l := loading{s: s, wait: map[state.Table][]state.Row{}}
	wait, err := s.waiting(ctx, tx, allSteps)
	if err != nil {
		return state.Head{}, err
	}
	for rows := wait.rows; len(rows) > 0; rows = rows[len(l.wait[rows[0].Table]):] {
		n := 1
		for n < len(rows) && rows[n].Table == rows[0].Table {
			n++
		}
		l.wait[rows[0].Table] = rows[:n]
	}
	if l.roots, err = s.roots(ctx, tx); err != nil {
		return state.Head{}, err
	}
	var failed error // as it is: what the driver's connection returns is taken for its own
	err = conn.Raw(func(dc any) (err error) {
		if l.pages, err = openPages(ctx, dc); err != nil {
			return err
		}
		failed = read(&l)
		return l.pages.close()
	})
	if failed != nil {
		return state.Head{}, failed
	}
	if err != nil {
		return state.Head{}, s.explain("load", err)
	}
	return head, nil
}

// roots returns the first page of each table.
func (s *SQLite) roots(ctx context.Context, tx *sql.Tx) (map[string]uint32, error) {
	const doing = "find the tables"
	rows, err := tx.QueryContext(ctx, "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'")
	if err != nil {
		return nil, s.explain(doing, err)
	}
	defer func() { _ = rows.Close() }()
	out := map[string]uint32{}
	for rows.Next() {
		var name string
		var root uint32
		if err := rows.Scan(&name, &root); err != nil {
			return nil, s.explain(doing, err)
		}
		out[name] = root
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain(doing, err)
	}
	return out, nil
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
