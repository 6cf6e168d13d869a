package server

import (
	"context"
	"runtime/debug"
	"sync"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/state"
)

// load reads the whole state, on every core where the store can.
func (l *looper) load(ctx context.Context) (*state.Snapshot, error) {
	defer hush()()
	load := l.store.Load
	if s, ok := l.store.(interface {
		LoadBeside(ctx context.Context, yield func(state.Row) error) (state.Head, error)
	}); ok {
		load = s.LoadBeside
	}
	x := state.NewRestoring()
	head, err := load(ctx, x.Take)
	if err != nil {
		return nil, err
	}
	beside(x.Sums())
	return x.Done(head), nil
}

// hush lets the memory grow fivefold between two collections until what it
// returns is called. While the state is read, most of what is allocated stays:
// to look for the rest again and again takes as long as the reading.
func hush() func() {
	before := debug.SetGCPercent(400)
	return func() { debug.SetGCPercent(before) }
}

// outlook works out on every core what a leader that begins at snap needs, unless
// that was done before.
func (l *looper) outlook(snap *state.Snapshot) *control.Outlook {
	if l.foreseen != nil && l.foreseen.Of() == snap {
		return l.foreseen
	}
	o := control.Foresee(snap)
	beside(o.Parts())
	return o
}

// beside runs functions at the same time, and waits for them.
func beside(parts []func()) {
	var all sync.WaitGroup
	for _, part := range parts {
		all.Go(part)
	}
	all.Wait()
}
