package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
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
	now, wait := split(b.Rows)
	rows, ended := encodeRows(wait), encodeRows(endedRows(b.Ended))
	if err := s.pace(ctx); err != nil {
		return err
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
		w.seal.reset(len(block) + len(rows) + len(ended) + 3*sealSize + rowsSize(now))
		if err = w.rows(now); err != nil {
			return err
		}
		if err = w.step(next.Rev, len(wait)+len(b.Ended), ended, rows); err != nil {
			return err
		}
		if err = w.records(head, next, block); err != nil {
			return err
		}
		_, err = w.exec("UPDATE meta SET rev = ?, seq = ?, at = ? WHERE id = 1", int64(next.Rev), int64(next.Seq), int64(next.At))
		pages = w.written()
		return err
	})
	if err != nil {
		return err
	}
	if n := len(wait) + len(b.Ended); n > 0 {
		s.backlog.add(b.Rev, n, b.Ended)
		s.merger.wake()
	}
	s.checkpoints.wrote(pages)
	return nil
}

// pace lets a commit wait when commits have been faster than their merging for
// long, so that what a restart reads stays bounded.
func (s *SQLite) pace(ctx context.Context) error {
	if _, rows := s.backlog.size(); rows < mergeLimit {
		return nil
	}
	return s.merger.merge(ctx)
}

// step writes what a commit makes of the rows, and which tasks it ends.
func (w *writer) step(rev state.Rev, n int, ended, rows []byte) error {
	if n == 0 {
		return nil
	}
	var sealed [2]driver.Value
	for i, block := range [...][]byte{ended, rows} {
		if block != nil {
			sealed[i] = w.seal.seal(nil, block)
		}
	}
	_, err := w.exec("INSERT INTO step (rev, rows, ended, block) VALUES (?, ?, ?, ?)", int64(rev), int64(n), sealed[0], sealed[1])
	return err
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

func (w *writer) records(head, next state.Head, block []byte) error {
	if block == nil {
		return nil
	}
	_, err := w.exec("INSERT INTO records (last, first, at, block) VALUES (?, ?, ?, ?)",
		int64(next.Seq), int64(head.Seq+1), int64(next.At), w.seal.seal(nil, block))
	return err
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
