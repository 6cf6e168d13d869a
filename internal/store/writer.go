package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"

	"modernc.org/sqlite"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// A writer is a connection that writes, with its statements prepared. It
// speaks to the driver directly: database/sql takes longer over a row than
// SQLite does. Its errors are the driver's; [SQLite.explain] is for them.
type writer struct {
	db    *sql.DB
	conn  *sql.Conn
	stmts map[string]driver.Stmt
	args  []driver.NamedValue
	seal  *sealer
}

// connect opens a connection that writes.
func (s *SQLite) connect(ctx context.Context, pragmas ...string) (*writer, error) {
	db, err := s.pool(1, append([]string{"cache_size(-8192)", "journal_size_limit(67108864)"}, pragmas...)...)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(s.explain("open", err), db.Close())
	}
	return &writer{db: db, conn: conn, stmts: make(map[string]driver.Stmt), seal: newSealer()}, nil
}

func (w *writer) close() error {
	var errs []error
	for _, st := range w.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, w.conn.Close(), w.db.Close())...)
}

// raw calls f with the driver's connection.
func (w *writer) raw(f func(c driver.ConnPrepareContext) error) error {
	return w.conn.Raw(func(dc any) error {
		c, ok := dc.(driver.ConnPrepareContext)
		if !ok {
			return fault.Internal.Errorf("the SQLite driver cannot prepare statements")
		}
		return f(c)
	})
}

// stmt returns a prepared statement. A statement once begun is not ended
// early, so that its outcome is known: none of them takes long.
func (w *writer) stmt(query string) (driver.Stmt, error) {
	if st, ok := w.stmts[query]; ok {
		return st, nil
	}
	var st driver.Stmt
	err := w.raw(func(c driver.ConnPrepareContext) (err error) {
		st, err = c.PrepareContext(context.Background(), query)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.stmts[query] = st
	return st, nil
}

// exec runs a statement and returns how many rows it changed.
func (w *writer) exec(query string, values ...driver.Value) (int64, error) {
	st, err := w.stmt(query)
	if err != nil {
		return 0, err
	}
	x, ok := st.(driver.StmtExecContext)
	if !ok {
		return 0, fault.Internal.Errorf("the SQLite driver cannot run a prepared statement")
	}
	w.args = w.args[:0]
	for i, v := range values {
		w.args = append(w.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	var res driver.Result
	err = w.raw(func(driver.ConnPrepareContext) (err error) {
		res, err = x.ExecContext(context.Background(), w.args)
		return err
	})
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row runs a query and returns its first row, or [io.EOF].
func (w *writer) row(query string, columns int, values ...driver.Value) (row []driver.Value, err error) {
	st, err := w.stmt(query)
	if err != nil {
		return nil, err
	}
	x, ok := st.(driver.StmtQueryContext)
	if !ok {
		return nil, fault.Internal.Errorf("the SQLite driver cannot run a prepared query")
	}
	args := make([]driver.NamedValue, len(values))
	for i, v := range values {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	row = make([]driver.Value, columns)
	err = w.raw(func(driver.ConnPrepareContext) error {
		rows, bad := x.QueryContext(context.Background(), args)
		if bad != nil {
			return bad
		}
		return errors.Join(rows.Next(row), rows.Close())
	})
	return row, err
}

// written returns the pages written since it was called last.
func (w *writer) written() (pages int) {
	_ = w.conn.Raw(func(dc any) error {
		if st, ok := dc.(sqlite.DBStatus); ok {
			pages, _, _ = st.Status(sqlite.DBStatusCacheWrite, true)
		}
		return nil
	})
	return pages
}

// meta reads where the store stands and who leads.
func (w *writer) meta() (state.Head, state.Term, error) {
	row, err := w.row("SELECT rev, seq, at, holder, incarnation, n, until FROM meta WHERE id = 1", 7)
	if err != nil {
		return state.Head{}, state.Term{}, err
	}
	holder, ok := row[3].(string)
	n := make([]int64, 0, 6)
	for i, v := range row {
		if x, isInt := v.(int64); isInt {
			n = append(n, x)
		} else {
			ok = ok && i == 3
		}
	}
	if !ok || len(n) != 6 {
		return state.Head{}, state.Term{}, fault.Internal.Errorf("the table meta is damaged: %v", row)
	}
	return state.Head{Rev: state.Rev(n[0]), Seq: state.Seq(n[1]), At: unit.Tick(n[2])},
		state.Term{
			Holder: holder, Epoch: machine.Epoch{Incarnation: uint64(n[3]), N: uint64(n[4])}, Until: unit.Tick(n[5]),
		}, nil
}

func (w *writer) setTerm(t state.Term) error {
	_, err := w.exec("UPDATE meta SET terms = terms + 1, holder = ?, incarnation = ?, n = ?, until = ? WHERE id = 1",
		t.Holder, int64(t.Epoch.Incarnation), int64(t.Epoch.N), int64(t.Until))
	return err
}

// free ends the lease, whoever holds it.
func (w *writer) free() error {
	_, err := w.exec("UPDATE meta SET terms = terms + 1, holder = '' WHERE id = 1 AND holder <> ''")
	return err
}

// transact runs f between BEGIN and COMMIT. If it returns an error that is not
// of kind Timeout, nothing has happened.
func (s *SQLite) transact(ctx context.Context, doing string, f func(w *writer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.Unavailable.Errorf("%s: the database is closed", doing)
	}
	if err := ctx.Err(); err != nil {
		return s.explain(doing, err)
	}
	if s.write == nil {
		w, err := s.connect(ctx)
		if err != nil {
			return err
		}
		s.write = w
	}
	w := s.write
	_, err := w.exec("BEGIN IMMEDIATE")
	if err == nil {
		err = f(w)
	}
	if err != nil {
		s.write = s.undo(w)
		return s.explain(doing, err)
	}
	if _, err := w.exec("COMMIT"); err != nil {
		s.write = s.undo(w)
		if undone(err) {
			return s.explain(doing, err)
		}
		return fault.Timeout.Errorf("%s: nobody knows whether it happened: %w; the database %s must be loaded again", doing, err, s.cfg.Path)
	}
	return nil
}

// undo ends a transaction of w that failed, and returns w. If w cannot even do
// that it is closed, which does, and nil is returned.
func (s *SQLite) undo(w *writer) *writer {
	if _, err := w.exec("ROLLBACK"); err == nil {
		return w
	}
	if err := w.close(); err != nil {
		s.cfg.Log.Warn("a broken connection did not close", "path", s.cfg.Path, "error", err)
	}
	return nil
}

// batches are the numbers of rows that one statement takes, largest first.
var batches = [...]int{64, 8, 1}

// many runs a statement that is made for a number of rows over all rows of
// args, which has width values for each.
func (w *writer) many(made func(rows int) string, width int, args []driver.Value) error {
	for _, n := range batches {
		for len(args) >= n*width {
			if _, err := w.exec(made(n), args[:n*width]...); err != nil {
				return err
			}
			args = args[n*width:]
		}
	}
	return nil
}

// placeholders returns rows groups of width question marks.
func placeholders(rows, width int) string {
	group := "(" + strings.Repeat("?, ", width-1) + "?)"
	return strings.Repeat(group+", ", rows-1) + group
}
