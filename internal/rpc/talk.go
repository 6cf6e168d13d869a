package rpc

import (
	"context"
	"strings"
	"sync"
	"time"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
)

// leaseWord is how often an agent that says much is told that its lease goes on:
// a lease lasts 8 s from a message that was acknowledged.
const leaseWord = 2 * time.Second

// talk is an open session. One goroutine holds it, and waits for what the agent
// says: there are many sessions, most of which are silent most of the time. Who
// has something to tell does so in a goroutine that ends with it.
type talk struct {
	s       *services
	pipe    pipe
	agent   AgentSession
	machine machine.ID
	session string
	beat    *time.Timer

	mu      sync.Mutex
	words   words     // to be told
	telling bool      // somebody is at it, and will look again
	leased  time.Time // when the agent was told last that its lease goes on
	later   bool      // it is told so again when beat fires
	told    sync.Cond
	over    bool // no more is told
	why     error
}

// words is what there is to tell.
type words struct {
	orders bool   // the backend has some, or has ended the session
	leased uint64 // the last message that prolonged the lease; 0: it was told
	beat   bool   // nothing was said for a while
	look   bool   // the agent is called to its stream of questions
}

func newTalk(s *services, p pipe, h control.Hello) *talk {
	t := &talk{s: s, pipe: p, machine: h.Machine.ID, session: h.Session, telling: true}
	t.told.L = &t.mu
	return t
}

// run welcomes the agent, whose words begin with first, and returns when the
// session is over.
func (t *talk) run(ctx context.Context, first *pb.SessionRequest) error {
	call := func() { t.want(func(w *words) { w.look = true }) }
	defer t.s.looks.reachable(t.machine, &call)()
	if err := t.welcome(); err != nil {
		return err
	}
	t.beat = time.AfterFunc(Heartbeat, func() { t.want(func(w *words) { w.beat = true }) })
	defer t.beat.Stop()
	t.tell() // what came up meanwhile
	return t.finish(t.hear(ctx, first))
}

// welcome says who leads.
func (t *talk) welcome() error {
	v := t.s.b.View()
	m := ordersToWire(Orders{Epoch: v.Epoch, Rev: v.Snapshot.Rev, UID: v.Snapshot.Cluster.UID})
	m.Wire, m.Version, m.Servers, m.Calls = Wire, text(t.s.opt.Version), v.urls(), true
	addNext(m)
	return t.pipe.Send(m)
}

// hear takes in what the agent says until the session is over.
func (t *talk) hear(ctx context.Context, m *pb.SessionRequest) error {
	for {
		if err := t.take(ctx, m); err != nil {
			return err
		}
		t.pipe.Until(time.Now().Add(Silence))
		if t.isOver() { // after the deadline was set: stop wakes up who has not looked
			return nil
		}
		t.pipe.Await()
		var err error
		if m, err = t.pipe.Receive(); err != nil {
			return ended(err)
		}
	}
}

// take takes one message in.
func (t *talk) take(ctx context.Context, m *pb.SessionRequest) error {
	n := m.GetN()
	if n == 0 {
		return nil
	}
	msg, err := messageFromWire(m)
	if err == nil {
		err = t.check(msg)
	}
	if err != nil {
		return err
	}
	leased, err := t.agent.Hear(ctx, msg)
	if err == nil && leased && t.prolong(n) {
		t.tell()
	}
	return err
}

// prolong notes that message n has prolonged the lease. It is true when the
// caller must tell: an agent that says much hears of it every leaseWord, or
// with whatever else it is told before.
func (t *talk) prolong(n uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.words.leased = n
	if t.telling || t.over {
		return false
	}
	if wait := time.Until(t.leased.Add(leaseWord)); wait > 0 {
		if !t.later {
			t.later = true
			t.beat.Reset(wait)
		}
		return false
	}
	t.telling = true
	return true
}

// check holds a message to its session and its machine.
func (t *talk) check(m control.Message) error {
	if m.Session != t.session {
		return fault.Conflict.Errorf("machine %s speaks in session %.80q on the stream of %.80q; say hello again", t.machine, m.Session, t.session)
	}
	for _, f := range m.Facts {
		rest, ok := strings.CutPrefix(f.Source, string(t.machine))
		if !ok || rest != "" && named("", rest[:1]) == nil {
			return fault.Denied.Errorf("machine %s sends facts of source %.80q; a source begins with the machine's name", t.machine, f.Source)
		}
	}
	return nil
}

// want has something told, by another goroutine.
func (t *talk) want(note func(*words)) {
	if t.note(note) {
		go t.tell()
	}
}

// note takes down what is to be told. It is true when nobody tells: then the
// caller must.
func (t *talk) note(note func(*words)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	note(&t.words)
	if t.telling || t.over {
		return false
	}
	t.telling = true
	return true
}

// tell tells all that is to be told. The caller has set telling.
func (t *talk) tell() {
	for {
		t.mu.Lock()
		w := t.words
		t.words = words{}
		if t.over || w == (words{}) {
			t.telling = false
			t.told.Broadcast()
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		if err := t.say(w); err != nil {
			t.stop(err)
		}
	}
}

// say sends messages for w.
func (t *talk) say(w words) error {
	if w.orders {
		o, some, over := t.agent.Take()
		if some {
			o.Leased = max(o.Leased, w.leased)
			m := ordersToWire(o)
			m.Look = w.look
			if err := t.send(m); err != nil {
				return err
			}
			w = words{}
		}
		if over {
			return fault.Unavailable.Errorf("the server ended the session of machine %s; say hello again", t.machine)
		}
	}
	if w.leased == 0 && !w.beat && !w.look {
		return nil
	}
	return t.send(&pb.SessionResponse{Leased: w.leased, Look: w.look})
}

func (t *talk) send(m *pb.SessionResponse) error {
	t.mu.Lock()
	wait := Heartbeat // it is a sign of life
	if m.GetLeased() != 0 {
		t.leased, t.later = time.Now(), false
	} else if t.words.leased != 0 {
		wait = leaseWord // what is noted meanwhile
	}
	t.beat.Reset(wait)
	t.mu.Unlock()
	return t.pipe.Send(m)
}

// stop ends the session: no more is told, and nothing more is heard.
func (t *talk) stop(why error) {
	t.mu.Lock()
	t.over, t.why = true, why
	t.mu.Unlock()
	t.pipe.Until(time.Now())
}

func (t *talk) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// finish waits until nobody tells anything, and returns why the session is
// over; heard is why nothing more was heard.
func (t *talk) finish(heard error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	for t.telling {
		t.told.Wait()
	}
	if t.why != nil {
		return t.why
	}
	return heard
}
