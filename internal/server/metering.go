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
	records state.Store
	meter   *store.Meter
	log     *slog.Logger

	mu sync.Mutex
}

const (
	meterStep  = 5000 // records in one transaction
	meterEvery = 5 * time.Second
)

// run takes in what is new now and then, until ctx ends.
func (m *metering) run(ctx context.Context, head func() state.Seq) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(meterEvery):
		}
		if err := m.catchUp(ctx, head()); err != nil && ctx.Err() == nil {
			m.log.ErrorContext(ctx, "metering stands still; bills are refused until it goes on", "error", err)
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
