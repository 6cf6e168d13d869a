package store

import (
	"cmp"
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// pgChunk is how many rows are handed over at a time, and ahead how many such
// are read while the first of them is worked on.
const (
	pgChunk = 1024
	ahead   = 8
)

// Load yields every row, in the order of [state.Tables] and keys, and returns
// where the store stands, all as of one moment. It reads ahead while yield works.
func (s *Postgres) Load(ctx context.Context, yield func(state.Row) error) (state.Head, error) {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return state.Head{}, s.explain("load", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	head, _, err := s.meta(ctx, tx, "")
	if err != nil {
		return state.Head{}, s.explain("load", err)
	}
	rows := make(chan []state.Row, ahead)
	stop := make(chan struct{})
	var broken error // of the reading; written before rows is closed
	go func() {
		defer close(rows)
		broken = s.loadTables(ctx, tx, rows, stop)
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

// loadTables sends the rows of every table, until stop is closed.
func (s *Postgres) loadTables(ctx context.Context, tx pgx.Tx, to chan<- []state.Row, stop <-chan struct{}) error {
	for _, t := range state.Tables() {
		doing := "load table " + t.String()
		rows, err := tx.Query(ctx, "SELECT key, value FROM "+t.String()+" ORDER BY key")
		if err != nil {
			return s.explain(doing, err)
		}
		err = s.loadTable(doing, t, rows, to, stop)
		rows.Close()
		if errors.Is(err, errStopped) {
			return nil
		}
		if err = cmp.Or(err, s.explain(doing, rows.Err())); err != nil {
			return err
		}
	}
	return nil
}

var errStopped = errors.New("the reader wants no more")

func (s *Postgres) loadTable(doing string, t state.Table, rows pgx.Rows, to chan<- []state.Row, stop <-chan struct{}) error {
	seal := newSealer()
	some := make([]state.Row, 0, pgChunk)
	var room []byte // the rows' values: what the driver shows is gone with the next row
	for {
		more := rows.Next()
		if more {
			raw := rows.RawValues()
			value, err := seal.open(raw[0], raw[1])
			if err != nil {
				return pgDamaged(s.name, doing, fault.Internal.Errorf("row %.100q: %w", raw[0], err))
			}
			if cap(room)-len(room) < len(value) {
				room = make([]byte, 0, max(len(value), 128<<10))
			}
			n := len(room)
			room = append(room, value...)
			some = append(some, state.Row{Table: t, Key: string(raw[0]), Value: room[n:len(room):len(room)]})
		}
		if len(some) < pgChunk && more {
			continue
		}
		select {
		case to <- some:
			some = make([]state.Row, 0, pgChunk)
		case <-stop:
			return errStopped
		}
		if !more {
			return nil
		}
	}
}

// reading is a transaction for a question that is bounded in time.
func (s *Postgres) reading(ctx context.Context, doing string, f func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, pgAsk)
	defer cancel()
	err := pgx.BeginTxFunc(ctx, s.read, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error { return f(ctx, tx) })
	return s.explain(doing, err)
}

// Records returns up to limit records that follow seq after, in order. None
// says that there are none.
func (s *Postgres) Records(ctx context.Context, after state.Seq, limit int) (out []state.Record, err error) {
	if limit < 1 {
		return nil, fault.Invalid.Errorf("at most %d records asked for; want 1 or more", limit)
	}
	limit = min(limit, maxRecords)
	err = s.reading(ctx, "read records", func(ctx context.Context, tx pgx.Tx) error {
		out, err = s.records(ctx, tx, after, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Postgres) records(ctx context.Context, tx pgx.Tx, after state.Seq, limit int) ([]state.Record, error) {
	head, _, err := s.meta(ctx, tx, "")
	if err != nil {
		return nil, err
	}
	floor := int64(head.Seq) + 1
	err = tx.QueryRow(ctx, "SELECT first FROM records ORDER BY last LIMIT 1").Scan(&floor)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	if err = head.Kept(after, state.Seq(floor)); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, "SELECT last, block FROM records WHERE last > $1 ORDER BY last LIMIT $2", int64(after), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []state.Record
	seal, bytes := newSealer(), 0
	for len(out) < limit && bytes < maxRecordsBytes && rows.Next() {
		var last int64
		var sealed []byte
		if err := rows.Scan(&last, &sealed); err != nil {
			return nil, err
		}
		bytes += len(sealed)
		records, err := openBlock(seal, last, sealed)
		if err != nil {
			return nil, pgDamaged(s.name, "read records", err)
		}
		for i := range records {
			if records[i].Seq > after && len(out) < limit {
				out = append(out, records[i])
			}
		}
	}
	return out, rows.Err()
}

// History returns ended tasks, newest first.
func (s *Postgres) History(ctx context.Context, q state.HistoryQuery) ([]task.Task, error) {
	const doing = "read history"
	if err := q.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pgAsk)
	defer cancel()
	rows, err := s.read.Query(ctx, "SELECT instance, attempt, value FROM history WHERE job = $1 AND ($2 < 0 OR instance = $2)"+
		" ORDER BY ended DESC, instance DESC, attempt DESC LIMIT $3", []byte(q.Job), q.Instance, q.Limit)
	if err != nil {
		return nil, s.explain(doing, err)
	}
	defer rows.Close()
	var out []task.Task
	seal := newSealer()
	for rows.Next() {
		id := task.ID{Job: q.Job}
		var sealed []byte
		if err := rows.Scan(&id.Instance, &id.Attempt, &sealed); err != nil {
			return nil, s.explain(doing, err)
		}
		t, err := openEnded(seal, id, sealed)
		if err != nil {
			return nil, pgDamaged(s.name, doing, err)
		}
		out = append(out, t)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain(doing, err)
	}
	return out, nil
}
