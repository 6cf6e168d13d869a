package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// Trim forgets what q no longer keeps. It visits some of the jobs in each call
// and goes on from there in the next one, until it returns false for more. Days
// of records of which none is kept go whole, each counted as one row.
func (s *Postgres) Trim(ctx context.Context, q state.TrimQuery) (more bool, err error) {
	if q.Limit < 1 {
		return false, fault.Invalid.Errorf("at most %d rows to trim asked for; want 1 or more", q.Limit)
	}
	s.mu.Lock()
	sweep := s.sweep
	s.mu.Unlock()
	left := int64(q.Limit)
	if left, err = s.trimDays(ctx, q, left); err != nil {
		return false, err
	}
	err = s.transact(ctx, "trim", func(tx pgx.Tx) error {
		var bad error
		sweep, left, bad = pgTrim(ctx, tx, q, sweep, left)
		return bad
	})
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	s.sweep = sweep
	s.mu.Unlock()
	return left == 0 || len(sweep) > 0, nil
}

// trimDays drops partitions of records that are over and that nobody needs.
func (s *Postgres) trimDays(ctx context.Context, q state.TrimQuery, left int64) (int64, error) {
	const doing = "trim the records of a day"
	rows, err := s.pool.Query(ctx, "SELECT substr(c.relname, 9)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"+
		" WHERE i.inhparent = 'records'::regclass AND c.relname ~ '^records_[0-9]+$' ORDER BY 1")
	if err != nil {
		return 0, s.explain(doing, err)
	}
	days, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, s.explain(doing, err)
	}
	for _, d := range days {
		if left == 0 || unit.Tick(d+1)*24*unit.Hour > q.RecordsBefore {
			break
		}
		var last int64
		if err = s.pool.QueryRow(ctx, fmt.Sprintf("SELECT coalesce(max(last), 0) FROM records_%d", d)).Scan(&last); err != nil {
			return 0, s.explain(doing, err)
		}
		if state.Seq(last) > q.UpTo {
			break
		}
		// Commits wait while the table is dropped; if they are in the way for
		// long, it is for another time.
		if _, err = s.pool.Exec(ctx, fmt.Sprintf("DROP TABLE records_%d", d)); err != nil {
			return 0, s.explain(doing, err)
		}
		s.mu.Lock()
		delete(s.days, d)
		s.mu.Unlock()
		left--
	}
	return left, nil
}

func pgTrim(ctx context.Context, tx pgx.Tx, q state.TrimQuery, sweep []byte, left int64) ([]byte, int64, error) {
	gone, err := pgDelete(ctx, tx, "DELETE FROM records WHERE last IN (SELECT last FROM records WHERE last <= $1 AND at < $2 ORDER BY last LIMIT $3)",
		int64(q.UpTo), int64(q.RecordsBefore), left)
	if err != nil {
		return nil, 0, err
	}
	if left -= gone; left > 0 {
		gone, err = pgDelete(ctx, tx, "DELETE FROM history WHERE (job, ended, instance, attempt) IN"+
			" (SELECT job, ended, instance, attempt FROM history WHERE ended < $1 ORDER BY ended LIMIT $2)", int64(q.EndedBefore), left)
		if err != nil {
			return nil, 0, err
		}
		left -= gone
	}
	return pgSweep(ctx, tx, q, sweep, left)
}

func pgDelete(ctx context.Context, tx pgx.Tx, query string, args ...any) (int64, error) {
	tag, err := tx.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

// pgSweep removes up to left ended tasks beyond the number that is kept of one
// job, from job on. It returns the job to go on from, empty at the end.
func pgSweep(ctx context.Context, tx pgx.Tx, q state.TrimQuery, job []byte, left int64) ([]byte, int64, error) {
	for range sweepJobs {
		if left == 0 {
			return job, 0, nil
		}
		var key []byte
		err := tx.QueryRow(ctx, "SELECT job FROM history WHERE job >= $1 ORDER BY job LIMIT 1", append([]byte{}, job...)).Scan(&key)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, left, nil
		}
		if err != nil {
			return nil, 0, err
		}
		gone, err := pgDelete(ctx, tx, "DELETE FROM history WHERE (job, ended, instance, attempt) IN"+
			" (SELECT h.job, h.ended, h.instance, h.attempt FROM history h,"+
			" (SELECT ended, instance, attempt FROM history WHERE job = $1 ORDER BY ended DESC, instance DESC, attempt DESC LIMIT 1 OFFSET $2) newest"+
			" WHERE h.job = $1 AND (h.ended, h.instance, h.attempt) <= (newest.ended, newest.instance, newest.attempt) AND h.ended < $3"+
			" ORDER BY h.ended, h.instance, h.attempt LIMIT $4)", key, q.PerJob, int64(q.KeepEnded), left)
		if err != nil {
			return nil, 0, err
		}
		left -= gone
		job = key
		if left > 0 {
			job = append(job, 0) // what follows key at once
		}
	}
	return job, left, nil
}
