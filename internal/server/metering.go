package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/meter"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/unit"
)

// usageMeter is what a bill asks.
type usageMeter interface {
	Usage(ctx context.Context, from, to, now unit.Tick, sink meter.Sink) error
}

// metering brings a cluster's records to the company's meter, in order and
// once each: the meter remembers how far it came.
type metering struct {
	records interface {
		Records(ctx context.Context, after state.Seq, limit int) ([]state.Record, error)
	}
	meter *store.Meter
	log   *slog.Logger

	mu sync.Mutex
}

const (
	meterStep  = 10_000 // records in one transaction
	meterEvery = 5 * time.Second
	meterEarly = maxTail / 5 // so many records are taken in at once, while they are in memory
)

// run takes in what is new now and then, until ctx ends. news is closed at the
// next commit.
func (m *metering) run(ctx context.Context, head func() state.Seq, news func() <-chan struct{}) error {
	done := head()
	for {
		if !m.wait(ctx, done, head, news) {
			return nil
		}
		done = head()
		if err := m.catchUp(ctx, done); err != nil && ctx.Err() == nil {
			m.log.ErrorContext(ctx, "metering stands still; bills are refused until it goes on", "error", err)
		}
	}
}

// wait waits until it is time, or much has happened since done. It is false
// when ctx ends.
func (m *metering) wait(ctx context.Context, done state.Seq, head func() state.Seq, news func() <-chan struct{}) bool {
	late := time.NewTimer(meterEvery)
	defer late.Stop()
	for {
		next := news() // before looking, so that no commit is missed
		if head() >= done+meterEarly {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-late.C:
			return true
		case <-next:
		}
	}
}

// catchUp takes in every record up to seq.
func (m *metering) catchUp(ctx context.Context, seq state.Seq) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		at, err := m.meter.Seq(ctx)
		if err != nil || at >= seq {
			return err
		}
		recs, err := m.records.Records(ctx, at, meterStep)
		if err != nil {
			return fault.Of(err).Errorf("records to be metered: %w", err)
		}
		if len(recs) == 0 {
			return nil
		}
		if err := m.meter.Take(ctx, recs); err != nil {
			return err
		}
	}
}

// at is the last record taken in, for trimming; 0 if it is not known.
func (m *metering) at(ctx context.Context) state.Seq {
	seq, err := m.meter.Seq(ctx)
	if err != nil {
		return 0
	}
	return seq
}
