package agentd

import (
	"context"
	"hash/fnv"
	"log/slog"
	"net"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/task"
)

// hands carry out deeds beside the thinking: those on one task one after the
// other, those on different ones side by side.
type hands struct {
	rt     *runtime.Runtime
	log    *slog.Logger
	queues [8]chan func(context.Context)
	failed chan failure
}

const maxDeeds = 4096 // that wait for one hand

func newHands(rt *runtime.Runtime, log *slog.Logger) *hands {
	h := &hands{rt: rt, log: log, failed: make(chan failure, maxDeeds)}
	for i := range h.queues {
		h.queues[i] = make(chan func(context.Context), maxDeeds)
	}
	return h
}

func (h *hands) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, q := range h.queues {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case f := <-q:
					f(ctx)
				}
			}
		})
	}
	return g.Wait()
}

// put queues a deed. A queue that is full is a machine that cannot keep up: a
// stop that was not done the leader orders again.
func (h *hands) put(id task.ID, f func(context.Context)) bool {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(id.String()))
	select {
	case h.queues[sum.Sum32()%uint32(len(h.queues))] <- f:
		return true
	default:
		h.log.Warn("too many orders at once; one was not carried out", "task", id.String())
		return false
	}
}

// start begins a task. until gives the end of its lease.
func (h *hands) start(s runtime.Spec, until func() (time.Duration, bool)) {
	put := h.put(s.ID, func(ctx context.Context) {
		err := portsFree(ctx, s.Ports)
		var ok bool
		if s.Until, ok = until(); err == nil && !ok {
			err = fault.Unavailable.Errorf("it is exclusive, and its lease ended before it could start")
		}
		if err == nil {
			err = h.rt.Start(ctx, s)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		h.log.WarnContext(ctx, "a task was not started", "task", s.ID.String(), "error", err)
		f := failure{id: s.ID, state: task.Lost, why: "refused: " + err.Error()}
		if fault.Of(err) == fault.Invalid {
			f.state, f.why = task.Failed, err.Error()
		}
		select {
		case h.failed <- f:
		case <-ctx.Done():
		}
	})
	if put {
		return
	}
	select {
	case h.failed <- failure{id: s.ID, state: task.Lost, why: "refused: the machine has too many orders at once"}:
	default: // the leader gives it up in a while
	}
}

func (h *hands) stop(id task.ID, reason string) {
	h.put(id, func(ctx context.Context) {
		if err := h.rt.Stop(ctx, id, reason); err != nil && fault.Of(err) != fault.NotFound && ctx.Err() == nil {
			h.log.WarnContext(ctx, "a task was not told to stop; the leader will ask again", "task", id.String(), "error", err)
		}
	})
}

func (h *hands) kill(id task.ID, reason string) {
	h.put(id, func(ctx context.Context) {
		if err := h.rt.Kill(ctx, id, reason); err != nil && fault.Of(err) != fault.NotFound && ctx.Err() == nil {
			h.log.WarnContext(ctx, "a task was not killed", "task", id.String(), "error", err)
		}
	})
}

func (h *hands) forget(id task.ID) {
	h.put(id, func(ctx context.Context) {
		if err := h.rt.Forget(ctx, id); err != nil && fault.Of(err) != fault.NotFound && ctx.Err() == nil {
			h.log.WarnContext(ctx, "a task was not put away", "task", id.String(), "error", err)
		}
	})
}

// portsFree refuses a task whose ports some other program on the machine has
// taken: it is placed anew, with others.
func portsFree(ctx context.Context, ports map[string]uint16) error {
	var lc net.ListenConfig
	for name, p := range ports {
		l, err := lc.Listen(ctx, "tcp", ":"+strconv.Itoa(int(p)))
		if err != nil {
			return fault.Unavailable.Errorf("port %s (%d) is taken by another program", name, p)
		}
		if err := l.Close(); err != nil {
			return fault.Unavailable.Errorf("port %s (%d): %w", name, p, err)
		}
	}
	return nil
}
