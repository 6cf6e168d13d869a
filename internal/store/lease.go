package store

import (
	"context"
	"errors"
	"io"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// Acquire makes holder the leader and returns its new epoch, or an error of
// kind Conflict that names who leads.
func (s *SQLite) Acquire(ctx context.Context, holder string) (machine.Epoch, error) {
	var e machine.Epoch
	err := s.term(ctx, "take the lead", func(w *writer, t state.Term) (state.Term, error) {
		incarnation, err := w.incarnation()
		if err != nil {
			return t, err
		}
		t, err = t.Acquire(holder, incarnation, s.now(), unit.FromDuration(s.cfg.TTL))
		e = t.Epoch
		return t, err
	})
	if err != nil {
		return machine.Epoch{}, err
	}
	return e, nil
}

// Renew prolongs the lease; an error of kind Conflict says it is lost.
func (s *SQLite) Renew(ctx context.Context, holder string, e machine.Epoch) error {
	return s.term(ctx, "renew the lease", func(_ *writer, t state.Term) (state.Term, error) {
		return t.Renew(holder, e, s.now(), unit.FromDuration(s.cfg.TTL))
	})
}

// Release gives the lease up.
func (s *SQLite) Release(ctx context.Context, holder string, e machine.Epoch) error {
	return s.term(ctx, "give up the lease", func(_ *writer, t state.Term) (state.Term, error) {
		return t.Release(holder, e)
	})
}

// term replaces the term by what next makes of it.
func (s *SQLite) term(ctx context.Context, doing string, next func(w *writer, t state.Term) (state.Term, error)) error {
	return s.transact(ctx, doing, func(w *writer) error {
		_, t, err := w.meta()
		if err != nil {
			return err
		}
		if t, err = next(w, t); err != nil {
			return err
		}
		return w.setTerm(t)
	})
}

// incarnation reads the cluster's, 0 if there is no cluster yet.
func (w *writer) incarnation() (uint64, error) {
	key := []byte(state.ClusterKey())
	row, err := w.row("SELECT value FROM cluster WHERE key = ?", 1, key)
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sealed, _ := row[0].([]byte)
	value, err := w.seal.open(key, sealed)
	if err != nil {
		return 0, err
	}
	c, err := state.DecodeCluster(value)
	return c.Incarnation, err
}

func (s *SQLite) now() unit.Tick { return unit.TickAt(s.cfg.Now()) }
