package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// Acquire makes holder the leader and returns its new epoch, or an error of
// kind Conflict that names who leads. Transactions that the last leader has not
// ended are ended by the database before.
func (s *Postgres) Acquire(ctx context.Context, holder string) (machine.Epoch, error) {
	const doing = "take the lead"
	// First a look that locks nothing: servers ask several times a second.
	t, _, now, err := s.term(ctx, s.pool, "")
	if err != nil {
		return machine.Epoch{}, s.explain(doing, err)
	}
	if _, err = t.Acquire(holder, 0, now, 0); err != nil {
		return machine.Epoch{}, err
	}
	if t.Holder != "" && t.Holder != holder {
		if err = s.oust(ctx, t.Holder); err != nil {
			return machine.Epoch{}, s.explain(doing, err)
		}
	}
	err = s.transact(ctx, doing, func(tx pgx.Tx) error {
		incarnation, bad := s.incarnation(ctx, tx)
		if bad != nil {
			return bad
		}
		old, until, now, bad := s.term(ctx, tx, " FOR UPDATE")
		if bad != nil {
			return bad
		}
		if t, bad = old.Acquire(holder, incarnation, now, unit.FromDuration(s.cfg.TTL)); bad != nil {
			return bad
		}
		return s.setTerm(ctx, tx, t, until)
	})
	if err != nil {
		return machine.Epoch{}, err
	}
	return t.Epoch, nil
}

// oust ends what the server that led has under way in the database: it may
// stand still in the middle of a commit, and nobody else could commit then.
func (s *Postgres) oust(ctx context.Context, holder string) error {
	_, err := s.pool.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"+
		" WHERE datname = current_database() AND usename = current_user AND application_name = $1 AND xact_start IS NOT NULL AND pid <> pg_backend_pid()",
		"covey "+holder)
	return err
}

// Renew prolongs the lease; an error of kind Conflict says it is lost. It does
// not wait for a commit that is under way.
func (s *Postgres) Renew(ctx context.Context, holder string, e machine.Epoch) error {
	return s.transact(ctx, "renew the lease", func(tx pgx.Tx) error {
		// The lease's row first: who takes the lead has changed both by then.
		if _, err := tx.Exec(ctx, "SELECT FROM lease WHERE id = 1 FOR UPDATE"); err != nil {
			return err
		}
		t, _, now, err := s.term(ctx, tx, "")
		if err != nil {
			return err
		}
		if t, err = t.Renew(holder, e, now, unit.FromDuration(s.cfg.TTL)); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE lease SET until = $1 WHERE id = 1", int64(t.Until))
		return err
	})
}

// Release gives the lease up.
func (s *Postgres) Release(ctx context.Context, holder string, e machine.Epoch) error {
	return s.transact(ctx, "give up the lease", func(tx pgx.Tx) error {
		t, until, _, err := s.term(ctx, tx, " FOR UPDATE")
		if err != nil {
			return err
		}
		if t, err = t.Release(holder, e); err != nil {
			return err
		}
		return s.setTerm(ctx, tx, t, until)
	})
}

// Leader returns who leads, as far as the database knows. Nobody may, although
// a holder is named, once its lease has run out.
func (s *Postgres) Leader(ctx context.Context) (state.Term, error) {
	t, _, now, err := s.term(ctx, s.pool, "")
	if err != nil {
		return t, s.explain("ask who leads", err)
	}
	if now >= t.Until {
		t.Holder = ""
	}
	return t, nil
}

// term reads the term, and the time now.
func (s *Postgres) term(ctx context.Context, q pgQuerier, lock string) (t state.Term, until int64, now unit.Tick, err error) {
	_, t, err = s.meta(ctx, q, lock)
	if err != nil {
		return t, 0, 0, err
	}
	var micros int64
	err = q.QueryRow(ctx, "SELECT until, "+pgNow+" FROM lease WHERE id = 1"+lock).Scan(&until, &micros)
	t.Until = unit.Tick(until)
	return t, until, s.now(micros), err
}

func (s *Postgres) setTerm(ctx context.Context, tx pgx.Tx, t state.Term, until int64) error {
	_, err := tx.Exec(ctx, "UPDATE meta SET holder = $1, incarnation = $2, n = $3 WHERE id = 1", t.Holder, int64(t.Epoch.Incarnation), int64(t.Epoch.N))
	if err == nil && until != int64(t.Until) {
		_, err = tx.Exec(ctx, "UPDATE lease SET until = $1 WHERE id = 1", int64(t.Until))
	}
	return err
}

// incarnation reads the cluster's, 0 if there is no cluster yet.
func (s *Postgres) incarnation(ctx context.Context, tx pgx.Tx) (uint64, error) {
	key := []byte(state.ClusterKey())
	var sealed []byte
	err := tx.QueryRow(ctx, "SELECT value FROM cluster WHERE key = $1", key).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	value, err := newSealer().open(key, sealed)
	if err != nil {
		return 0, pgDamaged(s.name, "read the cluster", err)
	}
	c, err := state.DecodeCluster(value)
	return c.Incarnation, err
}

// transact runs f in a transaction of a connection of its own. It is for what
// may be done again: after an error nobody knows whether it was done.
func (s *Postgres) transact(ctx context.Context, doing string, f func(tx pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, s.pool, f)
	if err == nil || fault.Of(err) != fault.Internal {
		return err
	}
	return s.explain(doing, err)
}
