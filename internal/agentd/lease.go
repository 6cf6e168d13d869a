package agentd

import (
	"context"
	"sync"
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/runtime"
)

// lease is the machine's lease for exclusive tasks. It is renewed by the
// goroutine of the connection, so that an agent that is busy keeps its tasks.
type lease struct {
	mu    sync.Mutex
	lease agent.Lease
	wake  chan struct{}
}

func newLease() *lease { return &lease{wake: make(chan struct{}, 1)} }

// renewed takes in that the leader acknowledged a message sent at sent.
func (l *lease) renewed(sent time.Duration) {
	l.mu.Lock()
	more := l.lease.Renew(runtime.BootTime(), sent)
	l.mu.Unlock()
	if !more {
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lease) grant() (agent.Grant, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lease.Grant(runtime.BootTime())
}

func (l *lease) extend(g agent.Grant) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lease.Extend(runtime.BootTime(), g)
}

// run tells the tasks of renewals.
func (l *lease) run(ctx context.Context, rt *runtime.Runtime) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		}
		if g, ok := l.grant(); ok {
			rt.Renew(g.Until)
		}
	}
}
