package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"time"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
)

// A Session is an agent's life at its server, as the agent sees it. Send and
// Recv may be called at the same time; each of them by one goroutine.
type Session struct {
	agent  *Agent
	way    *way
	stream clientPipe
	end    context.CancelCauseFunc
	done   <-chan struct{}
	cause  func() error
	idle   *time.Timer // ends the session when nothing comes
	name   string
	peer   Peer

	mu   sync.Mutex // one sends at a time, in the order of n
	n    uint64
	sent time.Time

	waiting sync.Mutex
	times   []sending // of messages that the leader has not acknowledged, in order
}

// sending remembers when a message was sent, before it was.
type sending struct {
	n  uint64
	at time.Duration
}

// maxWaiting bounds the messages that wait for their acknowledgement; of more,
// the later ones are forgotten.
const maxWaiting = 1024

// A Peer is what a server says of itself when it lets an agent in.
type Peer struct {
	Wire    uint32
	Version string
	Orders  Orders // its term, revision and cluster UID
}

// Session opens a session: it says hello and waits for the server's word. The
// session lives until ctx ends, Close is called or the connection breaks. If
// h.Session is empty, a name is drawn. An error of kind Conflict says that the
// agent belongs to another cluster, or is too old or too new. [ErrRenewed] ends
// a session whose certificate was renewed.
func (a *Agent) Session(ctx context.Context, h control.Hello) (*Session, error) {
	w, err := a.certified()
	if err != nil {
		return nil, err
	}
	if h.Session == "" {
		h.Session = rand.Text()
	}
	ctx, end := context.WithCancelCause(ctx)
	s := &Session{
		agent: a, way: w, end: end, done: ctx.Done(), name: h.Session,
		cause: func() error { return context.Cause(ctx) },
	}
	w.endWith(ctx, end)
	s.idle = time.AfterFunc(Silence, func() {
		end(fault.Timeout.Errorf("the server was silent for %v", Silence))
	})
	if s.stream, err = a.pipe(ctx, w); err != nil {
		err = s.lost(err)
		s.Close()
		return nil, err
	}
	hello := helloToWire(h)
	hello.Wire, hello.Version = Wire, text(a.cfg.Version)
	addNext(hello)
	_ = s.send(&pb.SessionRequest{Hello: hello, Session: h.Session}) // receive says why it failed
	first, err := s.receive()
	if err != nil {
		s.Close()
		return nil, err
	}
	a.reached()
	a.learn(first.GetServers())
	a.hold(!first.GetCalls())
	s.peer = Peer{Wire: first.GetWire(), Version: first.GetVersion()}
	if s.peer.Orders, err = ordersFromWire(first); err == nil && (s.peer.Wire+1 < Wire || s.peer.Wire > Wire+1) {
		err = fault.Conflict.Errorf("the server speaks version %d of the wire and this agent %d; upgrade the older one", s.peer.Wire, Wire)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	go s.beat()
	return s, nil
}

// note remembers when message n is sent.
func (s *Session) note(n uint64) {
	s.waiting.Lock()
	defer s.waiting.Unlock()
	if len(s.times) < maxWaiting {
		s.times = append(s.times, sending{n, s.agent.cfg.Steady()})
	}
}

// renewed passes on that the leader has prolonged the lease.
func (s *Session) renewed(m *pb.SessionResponse) {
	if m.GetLeased() == 0 {
		return
	}
	var sent time.Duration
	known := false
	s.waiting.Lock()
	for len(s.times) > 0 && s.times[0].n <= m.GetLeased() {
		sent, known = s.times[0].at, true
		s.times = s.times[1:]
	}
	s.waiting.Unlock()
	if known && s.agent.cfg.Renewed != nil {
		s.agent.cfg.Renewed(sent)
	}
}

// closeWith closes the sending side of a stream when ctx ends: HTTP/2 notices
// the end of a context only when it has something to send.
func closeWith(ctx context.Context, stream interface{ CloseRequest() error }) {
	context.AfterFunc(ctx, func() { _ = stream.CloseRequest() })
}

// Peer returns what the server said of itself.
func (s *Session) Peer() Peer { return s.peer }

// Send says something to the server. The session names and numbers it.
func (s *Session) Send(m control.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	m.Session, m.N = s.name, s.n
	s.note(s.n)
	return s.send(messageToWire(m))
}

// Recv waits for the next orders. Signs of life are not shown.
func (s *Session) Recv() (Orders, error) {
	for {
		m, err := s.receive()
		if err != nil {
			return Orders{}, err
		}
		s.renewed(m)
		if m.GetEpoch() == nil {
			continue
		}
		return ordersFromWire(m)
	}
}

// Close ends the session. It may be called again.
func (s *Session) Close() {
	s.idle.Stop()
	s.end(errClosed)
}

var errClosed = fault.Unavailable.Errorf("the session is closed")

// send sends one message; who does not take it in time ends the session.
func (s *Session) send(m *pb.SessionRequest) error {
	late := time.AfterFunc(sendLimit, func() {
		s.end(fault.Timeout.Errorf("the server took nothing in for %v", sendLimit))
	})
	defer late.Stop()
	s.sent = time.Now()
	err := s.stream.Send(m)
	if errors.Is(err, io.EOF) && s.cause() == nil { // who receives hears why
		return fault.Unavailable.Errorf("the server ended the session")
	}
	return s.lost(err)
}

func (s *Session) receive() (*pb.SessionResponse, error) {
	m, err := s.stream.Receive()
	if err != nil {
		return nil, s.lost(err)
	}
	s.idle.Reset(Silence)
	if m.GetLook() {
		s.agent.call()
	}
	return m, nil
}

// lost says why the session ended.
func (s *Session) lost(err error) error {
	if err == nil {
		return nil
	}
	if cause := s.cause(); cause != nil {
		err = cause
	} else if errors.Is(err, io.EOF) {
		err = fault.Unavailable.Errorf("the server ended the session")
	}
	moved := s.way != nil && !errors.Is(err, errClosed) && !errors.Is(err, context.Canceled) && s.agent.move(s.way, err)
	err = s.agent.judge(err)
	if moved {
		err = movedError{err}
	}
	s.end(err)
	return err
}

// beat sends a sign of life when nothing else was said for a while.
func (s *Session) beat() {
	t := time.NewTicker(Heartbeat)
	defer t.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-t.C:
			if s.quiet() {
				_ = s.Send(control.Message{}) // who receives hears why it failed
			}
		}
	}
}

func (s *Session) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.sent) >= Heartbeat-Heartbeat/8
}
