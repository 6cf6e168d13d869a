package server

import (
	"context"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/rate"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
	"github.com/covey-platform/covey/internal/wall"
)

// backend is the cluster as the wire needs it.
type backend struct {
	*looper
	metering *metering
	book     rate.Book
	eval     *evaluator
}

var _ rpc.Backend = (*backend)(nil)

// doLimit bounds a command when its caller does not.
const doLimit = 30 * time.Second

func (b *backend) Do(ctx context.Context, c control.Command) (control.Answer, state.Seq, error) {
	ctx, cancel := context.WithTimeout(ctx, doLimit)
	defer cancel()
	var ans control.Answer
	err := b.request(ctx, b.asked, func(t *control.Turn) (err error) {
		ans, err = t.Do(c)
		return err
	})
	if err != nil {
		return control.Answer{}, 0, err
	}
	return ans, b.View().Snapshot.Seq, nil
}

func (b *backend) Records(ctx context.Context, after state.Seq, limit int) ([]state.Record, error) {
	if records, ok := b.tail.after(after, limit); ok {
		return records, nil
	}
	return b.store.Records(ctx, after, limit)
}

func (b *backend) Published() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.published
}

func (b *backend) History(ctx context.Context, q state.HistoryQuery) ([]task.Task, error) {
	return b.store.History(ctx, q)
}

func (b *backend) Attach(ctx context.Context, h control.Hello, news func()) (rpc.AgentSession, error) {
	ctx, cancel := context.WithTimeout(ctx, doLimit)
	defer cancel()
	s, err := b.attach(ctx, h, news)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (b *backend) Evaluate(ctx context.Context, bundle rpc.Bundle) (string, job.Job, error) {
	return b.eval.evaluate(ctx, bundle)
}

// Bill works out what [from, to) cost. It is cut at the hour's end after to,
// and at now.
func (b *backend) Bill(ctx context.Context, by ledger.By, from, to unit.Tick) (ledger.Statement, error) {
	return b.statement(ctx, b.book, by, from, to)
}

func (b *backend) statement(ctx context.Context, book rate.Book, by ledger.By, from, to unit.Tick) (ledger.Statement, error) {
	m, uid, err := b.metered(ctx)
	if err != nil {
		return ledger.Statement{}, err
	}
	from, to = from.FloorHour(), ceilHour(to)
	bill, err := rate.NewBill(book, uid, by, from, to)
	if err != nil {
		return ledger.Statement{}, err
	}
	if err := m.Usage(ctx, from, to, unit.TickAt(b.wall()), bill); err != nil {
		return ledger.Statement{}, err
	}
	return bill.Statement()
}

// Usage works out what was reserved and used in [from, to), as [backend.Bill]
// does, for which it needs no price: the book may have gaps.
func (b *backend) Usage(ctx context.Context, by ledger.By, from, to unit.Tick) (rows []ledger.Row, platform ledger.Amounts, err error) {
	free := rate.Book{Currency: b.book.Currency, Prices: []rate.Price{{From: rate.Always, To: rate.Forever}}}
	s, err := b.statement(ctx, free, by, from, to)
	if err != nil {
		return nil, platform, err
	}
	return s.Rows, s.Platform, nil
}

func (b *backend) metered(ctx context.Context) (usageMeter, string, error) {
	m, err := b.metering.upTo(ctx, b.View().Snapshot.Seq)
	return m, b.View().Snapshot.Cluster.UID, err
}

func ceilHour(t unit.Tick) unit.Tick {
	if f := t.FloorHour(); f != t {
		return f + unit.Hour
	}
	return t
}

// wall is the clock on the wall.
func (l *looper) wall() time.Time { return wall.Now() }

// cutLast cuts s around its last slash.
func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// addToken makes sure that the token with a hash lets an admin in.
func (b *backend) addToken(ctx context.Context, hash, user string) error {
	if _, ok := b.View().Snapshot.Credential(hash); ok {
		return nil
	}
	_, _, err := b.Do(ctx, control.AddCredential{Credential: state.Credential{Hash: hash, Kind: "admin", Subject: user}})
	if err != nil {
		return fault.Of(err).Errorf("the admin token could not be stored: %w", err)
	}
	return nil
}
