package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// maxOrders bounds the orders that may wait for a slow agent before its session
// ends: a new one begins with everything.
const maxOrders = 20_000

// session is an agent's session, between its connection and the loop.
type session struct {
	l       *looper
	machine machine.ID
	name    string
	news    func()       // the agent takes what waits
	saying  atomic.Int32 // words of the agent that wait for a turn

	mu      sync.Mutex
	waiting *rpc.Orders // what comes while it waits is added to it
	ended   bool
}

// Attach lets an agent in; see [rpc.Backend].
func (l *looper) attach(ctx context.Context, h control.Hello, news func()) (*session, error) {
	s := &session{l: l, machine: h.Machine.ID, name: h.Session, news: news}
	err := l.request(ctx, l.coming, func(t *control.Turn) error {
		if ctx.Err() != nil { // it did not wait for its turn, and comes anew
			return fault.Timeout.Errorf("the agent has gone: %w", context.Cause(ctx))
		}
		if err := t.Hello(h); err != nil {
			return err
		}
		if old := l.sessions[s.machine]; old != nil {
			old.end()
		}
		l.sessions[s.machine] = s
		return nil
	})
	if err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// Hear takes in a message; see [rpc.AgentSession].
func (s *session) Hear(ctx context.Context, m control.Message) (leased bool, err error) {
	s.saying.Add(1)
	defer s.saying.Add(-1)
	if len(m.Sightings) == 0 && len(m.Facts) == 0 && m.Machine == nil && !m.Full {
		return s.beat(ctx)
	}
	now := unit.TickAt(s.l.wall())
	for _, f := range m.Facts {
		if err = checkFact(s.machine, f, now); err != nil {
			return false, err
		}
	}
	err = s.l.ask(ctx, func(t *control.Turn) error {
		heard := t.Hear(s.machine, m)
		leased = t.Leased(s.machine)
		return heard
	})
	return leased && err == nil, err
}

// future is how far a fact may lie ahead of this server's clock.
const future = unit.Hour / 12

// checkFact refuses what no meter could read, and facts of other machines.
func checkFact(from machine.ID, f state.Fact, now unit.Tick) error {
	if src, _, _ := cutLast(f.Source); src != string(from) {
		return fault.Denied.Errorf("machine %s sends usage facts of %.80q", from, f.Source)
	}
	facts, err := ledger.DecodeUsed(f.Payload)
	if err != nil {
		return fault.Invalid.Errorf("machine %s: %w", from, err)
	}
	for _, u := range facts {
		if u.To > now+future {
			return fault.Invalid.Errorf("machine %s: usage of %v lies in the future; set the machine's clock", from, u.Task)
		}
	}
	return nil
}

// beat prolongs the lease without a turn.
func (s *session) beat(ctx context.Context) (leased bool, err error) {
	alive := make(chan [2]bool, 1)
	in := input{
		beat: func(l *control.Loop, now unit.Tick) {
			alive <- [2]bool{l.Heartbeat(s.machine, s.name, now), l.Leased(s.machine, now)}
		},
		done: func(error) { alive <- [2]bool{} },
	}
	select {
	case s.l.inputs <- in:
	case <-ctx.Done():
		return false, fault.Unavailable.Errorf("the server has too much to do: %w", context.Cause(ctx))
	case <-s.l.ended:
		return false, errEnded
	}
	select {
	case ok := <-alive:
		if !ok[0] {
			return false, fault.Conflict.Errorf("machine %s has no such session; say hello again", s.machine)
		}
		return ok[1], nil
	case <-ctx.Done():
		return false, fault.Unavailable.Errorf("no answer from the loop: %w", context.Cause(ctx))
	case <-s.l.ended:
		return false, errEnded
	}
}

// speaks reports whether an agent has said something that waits for its turn.
func (l *looper) speaks(id machine.ID) bool {
	s := l.sessions[id]
	return s != nil && s.saying.Load() > 0
}

// Take gives what the machine must be told; see [rpc.AgentSession].
func (s *session) Take() (o rpc.Orders, some, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting != nil {
		o, some, s.waiting = *s.waiting, true, nil
	}
	return o, some, s.ended
}

// Close says that the connection is gone. The machine's lease runs on.
func (s *session) Close() {
	s.end()
	in := input{do: func(t *control.Turn) error {
		if s.l.sessions[s.machine] == s {
			delete(s.l.sessions, s.machine)
		}
		t.Bye(s.machine, s.name)
		return nil
	}, done: func(error) {}}
	select {
	case s.l.inputs <- in:
	default: // the lease ends it
	}
}

// end has the agent told that the session is over, after what waits.
func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.news()
}

// put hands orders on. It is false when the agent does not take them.
func (s *session) put(o rpc.Orders) bool {
	if !s.add(o) {
		return false
	}
	s.news()
	return true
}

func (s *session) add(o rpc.Orders) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return true
	}
	if s.waiting != nil {
		o = after(*s.waiting, o)
	}
	if len(o.Orders) > maxOrders {
		return false
	}
	s.waiting = &o
	return true
}

// after returns what says first and then o, at once.
func after(first, o rpc.Orders) rpc.Orders {
	o.Orders = append(slices.Clip(first.Orders), o.Orders...)
	o.Configs = both(first.Configs, o.Configs)
	o.Acks = both(first.Acks, o.Acks) // a later one says more
	o.Leased = max(o.Leased, first.Leased)
	o.Bye = o.Bye || first.Bye
	return o
}

func both[K comparable, V any](first, then map[K]V) map[K]V {
	if len(first) == 0 {
		return then
	}
	maps.Copy(first, then)
	return first
}

// configs returns those that the orders name. Nobody remembers who was sent
// which: over a year of releases that would only grow, on both sides.
func configs(snap *state.Snapshot, orders []task.Order) map[job.Hash][]byte {
	var out map[job.Hash][]byte
	for _, o := range orders {
		if o.Verb != task.Run || out[o.Config] != nil {
			continue
		}
		if out == nil {
			out = map[job.Hash][]byte{}
		}
		out[o.Config] = snap.ConfigBytes(o.Config)
	}
	return out
}
