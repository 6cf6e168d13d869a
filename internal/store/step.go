package store

import (
	"cmp"
	"context"
	"database/sql"
	"math"
	"slices"
	"sync"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// A commit writes what it makes of the rows in one piece, a step, at the end
// of a table; each row it would otherwise have to write dirties a page of its
// own. Steps wait until many of them are merged into the tables at once, and
// until then count more than the tables.

// stepFormat is the version of a step's block, its first byte. A version that
// writes another one, or rows of a further table, guards it as 0002_step.sql
// does.
const stepFormat = 1

// encodeRows returns the block that holds rows, nil if there are none.
func encodeRows(rows []state.Row) []byte {
	if len(rows) == 0 {
		return nil
	}
	return appendRows(append(make([]byte, 0, 1+rowsSize(rows)), stepFormat), rows)
}

// decodeRows yields the rows of a block. They share its memory.
func decodeRows(block []byte, yield func(state.Row)) error {
	if len(block) == 0 || block[0] != stepFormat {
		return fault.Invalid.Errorf("it is of another format than %d, that of a newer version; start that one", stepFormat)
	}
	return (&scanner{rest: block[1:]}).rows(yield)
}

// split parts the rows that are written to their table at once from those that
// wait in a step. Whoever asks for the lead reads the cluster's row.
func split(rows []state.Row) (now, wait []state.Row) {
	direct := func(r state.Row) bool { return r.Table == state.ClusterTable }
	if !slices.ContainsFunc(rows, direct) {
		return nil, rows
	}
	for _, r := range rows {
		if direct(r) {
			now = append(now, r)
		} else {
			wait = append(wait, r)
		}
	}
	return now, wait
}

// endedRows returns ended tasks as rows.
func endedRows(ended []task.Task) []state.Row {
	rows := make([]state.Row, 0, len(ended))
	for _, t := range ended {
		rows = append(rows, state.Row{Table: state.TaskTable, Key: state.TaskKey(t.ID), Value: state.EncodeTask(state.Task{Task: t})})
	}
	return rows
}

// A backlog knows what waits in steps: how much it is, and which tasks ended,
// since the history of a job is asked for at any time. A task is in it until
// after it is in the table, so who looks here first misses none.
type backlog struct {
	mu    sync.Mutex
	rows  int
	steps []stepped // in order of rev
	ended map[job.Key][]task.Task
}

type stepped struct {
	rev   state.Rev
	rows  int
	ended []task.ID
}

// add notes a step.
func (b *backlog) add(rev state.Rev, rows int, ended []task.Task) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := stepped{rev: rev, rows: rows}
	for _, t := range ended {
		s.ended = append(s.ended, t.ID)
		if b.ended == nil {
			b.ended = make(map[job.Key][]task.Task)
		}
		b.ended[t.ID.Job] = append(b.ended[t.ID.Job], t)
	}
	b.steps, b.rows = append(b.steps, s), b.rows+rows
}

// drop forgets the steps up to upTo, which are in the tables.
func (b *backlog) drop(upTo state.Rev) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for ; n < len(b.steps) && b.steps[n].rev <= upTo; n++ {
		b.rows -= b.steps[n].rows
		for _, id := range b.steps[n].ended {
			left := b.ended[id.Job][1:] // they came in this order
			if b.ended[id.Job] = left; len(left) == 0 {
				delete(b.ended, id.Job)
			}
		}
	}
	b.steps = slices.Clone(b.steps[n:])
}

// last returns the last step, 0 if there is none, and past whether those up to
// upTo are in the tables.
func (b *backlog) last() state.Rev {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.steps) == 0 {
		return 0
	}
	return b.steps[len(b.steps)-1].rev
}

func (b *backlog) past(upTo state.Rev) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.steps) == 0 || b.steps[0].rev > upTo
}

// size returns how many steps wait, and how many rows and ended tasks are in them.
func (b *backlog) size() (steps, rows int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.steps), b.rows
}

// history returns the ended tasks in it that are asked for, newest first.
func (b *backlog) history(q state.HistoryQuery) (out []task.Task) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.ended[q.Job] {
		if q.Instance < 0 || t.ID.Instance == q.Instance {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, newestFirst)
	return out
}

func newestFirst(a, b task.Task) int {
	return cmp.Or(cmp.Compare(b.Since, a.Since), b.ID.Compare(a.ID))
}

// newest merges two lists of ended tasks, newest first, each of them once.
func newest(a, b []task.Task, limit int) []task.Task {
	if len(a) == 0 {
		return b
	}
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, newestFirst)
	all = slices.CompactFunc(all, func(x, y task.Task) bool { return newestFirst(x, y) == 0 })
	return all[:min(limit, len(all))]
}

// recall fills the backlog with what the last run of the server left.
func (s *SQLite) recall(ctx context.Context) error {
	const doing = "read the steps that wait"
	rows, err := s.read.QueryContext(ctx, "SELECT rev, rows, ended FROM step ORDER BY rev")
	if err != nil {
		return s.explain(doing, err)
	}
	defer func() { _ = rows.Close() }()
	seal := newSealer()
	for rows.Next() {
		var rev int64
		var n int
		var sealed []byte
		if err := rows.Scan(&rev, &n, &sealed); err != nil {
			return s.explain(doing, err)
		}
		var ended []task.Task
		err := openRows(seal, rev, sealed, func(r state.Row) error {
			t, err := state.DecodeTask(r.Key, r.Value)
			ended = append(ended, t.Task)
			return err
		})
		if err != nil {
			return s.damaged(doing, err)
		}
		s.backlog.add(state.Rev(rev), n, ended)
	}
	if err := rows.Err(); err != nil {
		return s.explain(doing, err)
	}
	return nil
}

// openRows yields what a sealed block of the step of a revision holds, if there is one.
func openRows(seal *sealer, rev int64, sealed []byte, yield func(state.Row) error) error {
	if sealed == nil {
		return nil
	}
	block, err := seal.open(nil, sealed)
	var first error
	if err == nil {
		err = decodeRows(block, func(r state.Row) {
			if first == nil {
				first = yield(r)
			}
		})
	}
	if err = cmp.Or(err, first); err != nil {
		return fault.Of(err).Errorf("the step of revision %d: %w", rev, err)
	}
	return nil
}

// waiting is what some steps come to: of each row the last, in the order of
// [state.Tables] and keys, and the tasks that ended.
type waiting struct {
	upTo  state.Rev // the last of the steps; 0: there are none
	rows  []state.Row
	ended []task.Task
}

// waiting reads the steps that wait, in order, until they hold limit rows.
func (s *SQLite) waiting(ctx context.Context, tx *sql.Tx, limit int) (waiting, error) {
	const doing = "read the steps that wait"
	w := waiting{}
	rows, err := tx.QueryContext(ctx, "SELECT rev, ended, block FROM step ORDER BY rev")
	if err != nil {
		return w, s.explain(doing, err)
	}
	defer func() { _ = rows.Close() }()
	order, seal := tableOrder(), newSealer()
	for len(w.rows)+len(w.ended) < limit && rows.Next() {
		var rev int64
		var ended, block []byte
		if err := rows.Scan(&rev, &ended, &block); err != nil {
			return w, s.explain(doing, err)
		}
		err := openRows(seal, rev, ended, func(r state.Row) error {
			t, err := state.DecodeTask(r.Key, r.Value)
			w.ended = append(w.ended, t.Task)
			return err
		})
		if err == nil {
			err = openRows(seal, rev, block, func(r state.Row) error {
				if _, ok := order[r.Table]; !ok {
					return fault.Invalid.Errorf("%v is not known; start the newer version that wrote it", r.Table)
				}
				w.rows = append(w.rows, r)
				return nil
			})
		}
		switch {
		case err == nil:
			w.upTo = state.Rev(rev)
		case fault.Of(err) == fault.Invalid:
			return w, err
		default:
			return w, s.damaged(doing, err)
		}
	}
	if err := rows.Err(); err != nil {
		return w, s.explain(doing, err)
	}
	w.rows = lastOfEach(w.rows, order)
	return w, nil
}

// tableOrder says at which place each table is loaded.
func tableOrder() map[state.Table]int {
	order := make(map[state.Table]int)
	for i, t := range state.Tables() {
		order[t] = i
	}
	return order
}

// lastOfEach returns the last row of each key, sorted.
func lastOfEach(rows []state.Row, order map[state.Table]int) []state.Row {
	slices.SortStableFunc(rows, func(a, b state.Row) int {
		return cmp.Or(cmp.Compare(order[a.Table], order[b.Table]), cmp.Compare(a.Key, b.Key))
	})
	out := rows[:0]
	for i := range rows {
		if i+1 == len(rows) || rows[i].Table != rows[i+1].Table || rows[i].Key != rows[i+1].Key {
			out = append(out, rows[i])
		}
	}
	return out
}

// allSteps is no limit.
const allSteps = math.MaxInt
