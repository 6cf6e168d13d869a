package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// Commit makes b durable: with one write and one sync of the write-ahead log.
// Its errors are those of [state.Store], and of kind Exhausted when the disk
// is full.
func (s *SQLite) Commit(ctx context.Context, b *state.Batch) error {
	doing := fmt.Sprintf("commit revision %d", b.Rev)
	if err := known(b.Rows); err != nil {
		return err
	}
	var block []byte
	if len(b.Records) > 0 {
		block = state.EncodeRecords(b.Records)
	}
	pages := 0
	err := s.transact(ctx, doing, func(w *writer) error {
		head, term, err := w.meta()
		if err != nil {
			return err
		}
		if err = term.Leads(b.Epoch); err != nil {
			return err
		}
		next, err := head.After(b)
		if err != nil {
			return err
		}
		w.seal.reset(size(b, block))
		if err = w.rows(b.Rows); err != nil {
			return err
		}
		if err = w.records(head, next, block); err != nil {
			return err
		}
		if err = w.ended(b.Ended); err != nil {
			return err
		}
		_, err = w.exec("UPDATE meta SET rev = ?, seq = ?, at = ? WHERE id = 1", int64(next.Rev), int64(next.Seq), int64(next.At))
		pages = w.written()
		return err
	})
	if err != nil {
		return err
	}
	s.checkpoints.wrote(pages)
	return nil
}

// known refuses rows of tables that the database does not have.
func known(rows []state.Row) error {
	tables := state.Tables()
	last := state.Table(0)
	for i := range rows {
		if t := rows[i].Table; t != last {
			if !slices.Contains(tables, t) {
				return fault.Internal.Errorf("a row of %v cannot be stored; there is no such table", t)
			}
			last = t
		}
	}
	return nil
}

// size returns how many bytes the values of b take when they are sealed.
func size(b *state.Batch, block []byte) int {
	n := len(block) + sealSize
	for i := range b.Rows {
		n += len(b.Rows[i].Key) + len(b.Rows[i].Value) + sealSize
	}
	return n
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

func (w *writer) records(head, next state.Head, block []byte) error {
	if block == nil {
		return nil
	}
	_, err := w.exec("INSERT INTO records (last, first, at, block) VALUES (?, ?, ?, ?)",
		int64(next.Seq), int64(head.Seq+1), int64(next.At), w.seal.seal(nil, block))
	return err
}

func (w *writer) ended(ended []task.Task) error {
	args := make([]driver.Value, 0, 5*len(ended))
	for _, t := range ended {
		// Sealed outside the shared buffer, whose size was fixed before.
		one := sealer{table: w.seal.table}
		value := one.seal([]byte(state.TaskKey(t.ID)), state.EncodeTask(state.Task{Task: t}))
		args = append(args, []byte(t.ID.Job), int64(t.Since), int64(t.ID.Instance), int64(t.ID.Attempt), value)
	}
	return w.many(func(rows int) string {
		return "INSERT OR REPLACE INTO history (job, ended, instance, attempt, value) VALUES " + placeholders(rows, 5)
	}, 5, args)
}

// undone reports whether a COMMIT that failed with err did nothing for certain:
// then the log was not written to its end. After any other error the end may
// be there, and be found after a crash.
func undone(err error) bool {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY:
		return true
	default:
		return false
	}
}
