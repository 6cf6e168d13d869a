package server

import (
	"context"
	"errors"
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
	company *store.Company
	log     *slog.Logger
	head    func() (uid string, head state.Head, leads bool)
	stands  func(ctx context.Context) (state.Head, error) // the store, whatever this server knows

	mu    sync.Mutex
	meter *store.Meter // of the cluster, once its UID is known
}

const (
	meterStep  = 10_000 // records in one transaction
	meterEvery = 5 * time.Second
	meterEarly = maxTail / 5 // so many records are taken in at once, while they are in memory
)

// run takes in what is new now and then, until ctx ends: on the leader, so that
// servers do not get in each other's way. news is closed at the next commit.
func (m *metering) run(ctx context.Context, news func() <-chan struct{}) error {
	defer m.rest()
	_, done, _ := m.head()
	for {
		if !m.wait(ctx, done.Seq, news) {
			return nil
		}
		var leads bool
		if _, done, leads = m.head(); !leads {
			continue
		}
		if _, err := m.upTo(ctx, done.Seq); err != nil && ctx.Err() == nil {
			m.log.ErrorContext(ctx, "metering stands still; bills are refused until it goes on", "error", err)
		}
	}
}

// restLimit bounds how long a server that ends waits for its meter.
const restLimit = 10 * time.Second

// rest leaves the meter whole.
func (m *metering) rest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.meter == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), restLimit)
	defer cancel()
	if err := m.meter.Rest(ctx); err != nil {
		m.log.DebugContext(ctx, "the meter was not written whole", "error", err)
	}
}

// wait waits until it is time, or much has happened since done. It is false
// when ctx ends.
func (m *metering) wait(ctx context.Context, done state.Seq, news func() <-chan struct{}) bool {
	late := time.NewTimer(meterEvery)
	defer late.Stop()
	for {
		next := news() // before looking, so that no commit is missed
		if _, head, _ := m.head(); head.Seq >= done+meterEarly {
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

// upTo takes in every record up to seq, and returns the meter.
func (m *metering) upTo(ctx context.Context, seq state.Seq) (*store.Meter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(ctx); err != nil {
		return nil, err
	}
	return m.meter, m.catchUp(ctx, seq)
}

// open finds the meter of the cluster, which has a name by now.
func (m *metering) open(ctx context.Context) error {
	if m.meter != nil {
		return nil
	}
	uid, _, _ := m.head()
	if uid == "" {
		return fault.Unavailable.Errorf("the cluster is being made; try again")
	}
	meter, err := m.company.Meter(ctx, uid)
	if err != nil {
		return err
	}
	m.meter = meter
	head, err := m.stands(ctx)
	if err == nil {
		err = meter.Follows(ctx, head)
	}
	if err != nil {
		m.log.ErrorContext(ctx, "bills are refused", "error", err)
	}
	return nil
}

func (m *metering) catchUp(ctx context.Context, seq state.Seq) error {
	for overtaken := false; ; {
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
		err = m.meter.Take(ctx, recs)
		if errors.Is(err, store.ErrOvertaken) && !overtaken {
			overtaken = true // by who led meanwhile; once more would be two who lead
			continue
		}
		if err != nil {
			return err
		}
	}
}

// at is the last record taken in, for trimming; 0 if it is not known.
func (m *metering) at(ctx context.Context) state.Seq {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open(ctx) != nil {
		return 0
	}
	seq, err := m.meter.Seq(ctx)
	if err != nil {
		return 0
	}
	return seq
}
