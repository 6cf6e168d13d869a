package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// As the real agent has them.
const (
	fullEvery   = 30 * time.Second
	firstRetry  = 50 * time.Millisecond
	lastRetry   = 2 * time.Second
	slowRetry   = 5 * time.Second
	factsAtOnce = 20
)

// simulated is one agent: the real mind and the real session, and a machine
// on which a task runs as soon as it is told to.
type simulated struct {
	uid    string
	self   machine.Machine
	client *rpc.Agent
	source string // of its usage facts
	begun  *atomic.Int64

	mu      sync.Mutex
	mind    *agent.Agent
	session *rpc.Session // nil: none is open
	n       uint64       // orders taken in the session
	running []task.ID
	began   map[task.ID]unit.Tick
	facts   []state.Fact // not acknowledged yet
	fact    uint64       // the number of the last one
	unsent  int          // index in facts of the first that was not sent in this session
	full    time.Time    // when it last said everything
}

// look is there for the server's questions, as the real agent is.
func (a *simulated) look(ctx context.Context) {
	for ctx.Err() == nil {
		_ = a.client.Look(ctx, a.self.ID, func(context.Context, rpc.Question) (rpc.LookAnswer, error) {
			return rpc.LookAnswer{}, fault.NotFound.Errorf("a simulated machine has no files")
		})
		select {
		case <-ctx.Done():
		case <-time.After(lastRetry/2 + rand.N(lastRetry/2)):
		}
	}
}

// run holds sessions with the server until ctx ends, as the real agent does.
func (a *simulated) run(ctx context.Context) {
	wait, moves := firstRetry, 0
	for ctx.Err() == nil {
		open, err := a.talk(ctx)
		if errors.Is(err, context.Canceled) {
			return
		}
		switch {
		case open > rpc.Silence:
			wait, moves = firstRetry, 0
		case open == 0 && fault.Of(err) == fault.Timeout:
			wait = max(wait, slowRetry)
		}
		if errors.Is(err, rpc.ErrMoved) {
			if moves++; moves <= 2*len(a.client.Servers()) { // somebody may know the leader
				wait = firstRetry
			}
		}
		wait = max(wait, 2*rpc.RetryAfter(err)) // half of it is by lot
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(wait*2, lastRetry)
	}
}

// talk is one session. It returns how long it was open, and why it ended.
func (a *simulated) talk(ctx context.Context) (open time.Duration, err error) {
	a.mu.Lock()
	h := control.Hello{UID: a.uid, Machine: a.self, Seen: obeyed(a.mind.Seen()), Since: obeyed(a.mind.Since())}
	a.mu.Unlock()
	s, err := a.client.Session(ctx, h)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	began := time.Now()
	a.mu.Lock()
	a.session, a.n, a.unsent = s, 0, 0
	a.mind.Open()
	err = a.obey(s.Peer().Orders)
	if err == nil {
		err = a.say(true)
	}
	a.mu.Unlock()
	for err == nil {
		var o rpc.Orders
		if o, err = s.Recv(); err == nil {
			a.mu.Lock()
			err = a.obey(o)
			a.mu.Unlock()
		}
	}
	a.mu.Lock()
	a.session = nil
	a.mu.Unlock()
	return time.Since(began), err
}

func obeyed(s agent.Seen) control.Seen {
	return control.Seen{Epoch: s.Epoch, Rev: state.Rev(s.Rev)}
}

// obey carries orders out: at once, and without fail.
func (a *simulated) obey(o rpc.Orders) error {
	a.n++
	deeds, err := a.mind.Obey(agent.Orders{UID: o.UID, Epoch: o.Epoch, Rev: uint64(o.Rev), N: a.n, Orders: o.Orders})
	if err != nil {
		return err
	}
	for i, d := range deeds {
		switch d.Verb {
		case task.Run:
			a.begun.Add(1)
			a.running = append(a.running, d.ID)
			a.began[d.ID] = unit.TickAt(time.Now())
			a.mind.See(task.Sighting{ID: d.ID, Config: d.Config, Resources: resourcesOf(o.Orders, i, d.ID), Ports: d.Ports, State: task.Running})
		case task.Stop:
			a.end(d.ID, task.Killed, d.Reason)
		case task.Forget:
		}
	}
	for source, seq := range o.Acks {
		for source == a.source && len(a.facts) > 0 && a.facts[0].Seq <= seq {
			a.facts, a.unsent = a.facts[1:], max(0, a.unsent-1)
		}
	}
	return a.say(false)
}

// resourcesOf finds what an order gives to a task; most deeds stand where
// their orders do.
func resourcesOf(orders []task.Order, guess int, id task.ID) unit.Resources {
	if guess < len(orders) && orders[guess].ID == id {
		return orders[guess].Resources
	}
	for _, o := range orders {
		if o.ID == id {
			return o.Resources
		}
	}
	return unit.Resources{}
}

// end lets a task end, with the fact of what it used.
func (a *simulated) end(id task.ID, to task.State, why string) {
	at := -1
	for i := range a.running {
		if a.running[i] == id {
			at = i
		}
	}
	if at < 0 {
		return
	}
	a.running[at] = a.running[len(a.running)-1]
	a.running = a.running[:len(a.running)-1]
	now := unit.TickAt(time.Now())
	from := max(a.began[id], now.FloorHour())
	delete(a.began, id)
	a.mind.See(task.Sighting{ID: id, State: to, Reason: why})
	used := ledger.Used{Task: id, From: from, To: max(from, now), CPU: int64(now-from) * 20, RAM: int64(now-from) * 24}
	a.fact++
	a.facts = append(a.facts, state.Fact{Source: a.source, Seq: a.fact, Payload: ledger.EncodeUsed([]ledger.Used{used})})
}

// say tells the leader what is news, or everything.
func (a *simulated) say(full bool) error {
	if a.session == nil {
		return nil
	}
	m := control.Message{Full: full, Sightings: a.mind.Report(full), Obeyed: state.Rev(a.mind.Seen().Rev)}
	if full {
		self := a.self
		m.Machine, a.full = &self, time.Now()
	}
	if n := min(len(a.facts), a.unsent+factsAtOnce); n > a.unsent {
		m.Facts, a.unsent = a.facts[a.unsent:n:n], n
	}
	if len(m.Sightings) == 0 && len(m.Facts) == 0 && !full {
		return nil
	}
	return a.session.Send(m)
}

// finish ends one of its tasks, as a program that fails does. It is false when
// there is none.
func (a *simulated) finish() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.running) == 0 || a.session == nil {
		return false
	}
	a.end(a.running[rand.IntN(len(a.running))], task.Failed, "exit status 1")
	if a.say(false) != nil {
		a.session.Close()
	}
	return true
}

// pulse says everything when it is time.
func (a *simulated) pulse(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session != nil && now.Sub(a.full) >= fullEvery && a.say(true) != nil {
		a.session.Close()
	}
}
