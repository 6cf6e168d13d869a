package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
)

// lender is a shared store that answers renewals as a test says.
type lender struct {
	sharedStore
	asked atomic.Int64
	renew func(ctx context.Context, n int64) error // of the renewal with that number, from 1
	load  time.Duration                            // how long it takes to read all
}

func (s *lender) Acquire(context.Context, string) (machine.Epoch, error) {
	return machine.Epoch{Incarnation: 1, N: 1}, nil
}

func (s *lender) Renew(ctx context.Context, _ string, _ machine.Epoch) error {
	return s.renew(ctx, s.asked.Add(1))
}

func (s *lender) Load(ctx context.Context, yield func(state.Row) error) (state.Head, error) {
	time.Sleep(s.load)
	cluster := state.Cluster{Name: "dev", UID: "uid", Incarnation: 1}
	return state.Head{Rev: 1}, yield(state.Row{Table: state.ClusterTable, Key: state.ClusterKey(), Value: state.EncodeCluster(cluster)})
}

func (s *lender) Announce(ctx context.Context, _ store.Member) ([]store.Member, error) {
	<-ctx.Done() // of all that a leader does in the database only renewals are answered
	return nil, ctx.Err()
}

func (s *lender) TrimFeed(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestLease: a leader keeps its lease while the database is slow with one
// renewal, fails for a moment, or takes minutes to give it the state; it knows
// that it is lost when another server has it, or when none of its renewals is
// answered, before another one may lead.
func TestLease(t *testing.T) {
	answers := func(context.Context, int64) error { return nil }
	hangs := func(ctx context.Context, _ int64) error {
		<-ctx.Done()
		return ctx.Err()
	}
	slow := func(ctx context.Context, _ int64) error {
		select {
		case <-ctx.Done():
		case <-time.After(renewal + renewal/2):
		}
		return ctx.Err()
	}
	for name, x := range map[string]struct {
		load  time.Duration
		renew func(ctx context.Context, n int64) error
		lost  time.Duration // since it was taken, at the latest; 0: it is kept
		why   string
	}{
		"answers":            {renew: answers},
		"the state is large": {load: 5 * time.Minute, renew: answers},
		"every third renewal hangs": {renew: func(ctx context.Context, n int64) error {
			if n%3 == 1 {
				return hangs(ctx, n)
			}
			return nil
		}},
		"takes as long as the period": {renew: slow},
		"fails for a moment": {renew: func(_ context.Context, n int64) error {
			if n == 5 || n == 6 {
				return fault.Unavailable.Errorf("no connection")
			}
			return nil
		}},
		"hangs":              {renew: hangs, lost: leaseTTL, why: "the lease was renewed 3s ago"},
		"fails":              {renew: func(context.Context, int64) error { return errors.New("the disk is full") }, lost: leaseTTL, why: "the lease was renewed 3s ago"},
		"another one has it": {renew: func(context.Context, int64) error { return fault.Conflict.Errorf("b leads") }, why: "b leads", lost: time.Microsecond},
		"another one has it later, with the state half read": {load: time.Minute, why: "b leads", lost: time.Minute, renew: func(_ context.Context, n int64) error {
			if n == 30 {
				return fault.Conflict.Errorf("b leads")
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &lender{renew: x.renew, load: x.load}
				l := newLooper(s, "dev", "me", newStats(), slog.New(slog.DiscardHandler))
				began := time.Now()
				if err := l.begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err := l.lead(ctx)
				took := time.Since(began)
				switch {
				case x.lost == 0 && !errors.Is(err, context.DeadlineExceeded):
					t.Errorf("it led for %v, then: %v; want that it leads as long as it wants", took, err)
				case x.lost != 0 && (err == nil || !strings.Contains(err.Error(), x.why) || took > x.lost+time.Millisecond):
					t.Errorf("it led for %v, then: %v; want %v at most, and then: %s", took, err, x.lost, x.why)
				}
				cancel()
				synctest.Wait()
				if err = l.fresh(); (err == nil) != (x.lost == 0) && x.why != "b leads" {
					t.Errorf("in the end the lease is: %v", err)
				}
			})
		})
	}
}
