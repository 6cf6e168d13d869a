package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
)

// sweepJobs is how many jobs one Trim looks through for surplus ended tasks.
const sweepJobs = 500

// Trim forgets what q no longer keeps. It visits some of the jobs in each call
// and goes on from there in the next one, until it returns false for more.
func (s *SQLite) Trim(ctx context.Context, q state.TrimQuery) (more bool, err error) {
	if q.Limit < 1 {
		return false, fault.Invalid.Errorf("at most %d rows to trim asked for; want 1 or more", q.Limit)
	}
	if err = s.merger.all(ctx); err != nil { // what ended is counted in the table
		return false, err
	}
	var sweep string
	err = s.transact(ctx, "trim", func(w *writer) error {
		left := int64(q.Limit)
		gone, bad := w.exec(
			"DELETE FROM records WHERE last IN (SELECT last FROM records WHERE last <= ? AND at < ? ORDER BY last LIMIT ?)",
			int64(q.UpTo), int64(q.RecordsBefore), left)
		if bad != nil {
			return bad
		}
		if left -= gone; left > 0 {
			gone, bad = w.exec("DELETE FROM history WHERE (job, ended, instance, attempt) IN"+
				" (SELECT job, ended, instance, attempt FROM history WHERE ended < ? ORDER BY ended LIMIT ?)",
				int64(q.EndedBefore), left)
			if bad != nil {
				return bad
			}
			left -= gone
		}
		sweep, left, bad = w.sweep(q, s.sweep, left)
		more = left == 0 || sweep != ""
		return bad
	})
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	s.sweep = sweep
	s.mu.Unlock()
	return more, nil
}

// sweep removes up to left ended tasks beyond the number that is kept of one
// job, from job on. It returns the job to go on from, empty at the end.
func (w *writer) sweep(q state.TrimQuery, job string, left int64) (string, int64, error) {
	for range sweepJobs {
		if left == 0 {
			return job, 0, nil
		}
		row, err := w.row("SELECT job FROM history WHERE job >= ? ORDER BY job LIMIT 1", 1, []byte(job))
		if errors.Is(err, io.EOF) {
			return "", left, nil
		}
		if err != nil {
			return "", 0, err
		}
		key, _ := row[0].([]byte)
		gone, err := w.surplus(q, key, left)
		if err != nil {
			return "", 0, err
		}
		left -= gone
		job = string(key)
		if left > 0 {
			job += "\x00" // what follows key at once
		}
	}
	return job, left, nil
}

// surplus removes ended tasks of one job.
func (w *writer) surplus(q state.TrimQuery, job []byte, left int64) (int64, error) {
	newest, err := w.row("SELECT ended, instance, attempt FROM history WHERE job = ?"+
		" ORDER BY ended DESC, instance DESC, attempt DESC LIMIT 1 OFFSET ?", 3, job, int64(q.PerJob))
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	args := append([]driver.Value{job}, newest...)
	return w.exec("DELETE FROM history WHERE (job, ended, instance, attempt) IN"+
		" (SELECT job, ended, instance, attempt FROM history"+
		" WHERE job = ? AND (ended, instance, attempt) <= (?, ?, ?) AND ended < ?"+
		" ORDER BY ended, instance, attempt LIMIT ?)", append(args, int64(q.KeepEnded), left)...)
}
