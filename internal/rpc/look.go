package rpc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
)

// Bounds of questions to agents.
const (
	lookLimit    = 10 * time.Second // for an answer
	maxQuestions = 64               // to one machine at once
	maxPiece     = 256 << 10        // bytes of one answer
	maxEntries   = 10_000           // of a folder
	lookIdle     = 30 * time.Second // a stream on which nothing was asked for so long is ended
)

// looks asks agents about their tasks' files. An agent that is asked has one
// stream open, on which questions and answers are told apart by their number.
// It opens it when its session calls for it.
type looks struct {
	idle time.Duration

	mu    sync.Mutex
	peers map[machine.ID]*lookPeer
	calls map[machine.ID]*func()         // of machines with a session
	waits map[machine.ID][]chan struct{} // for a stream that was called for
}

func newLooks() *looks {
	return &looks{idle: lookIdle, peers: map[machine.ID]*lookPeer{}, calls: map[machine.ID]*func(){}, waits: map[machine.ID][]chan struct{}{}}
}

// reachable says how the agent of a machine is called, until what it returns
// is.
func (l *looks) reachable(m machine.ID, call *func()) (gone func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[m] = call
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.calls[m] == call {
			delete(l.calls, m)
		}
	}
}

// lookPeer is one agent's stream.
type lookPeer struct {
	questions chan *pb.LookResponse
	gone      chan struct{} // closed when the stream ends
	slots     chan struct{} // one for each question under way

	mu      sync.Mutex
	last    uint64
	pending map[uint64]chan<- *pb.LookRequest
}

func newLookPeer() *lookPeer {
	return &lookPeer{
		questions: make(chan *pb.LookResponse), gone: make(chan struct{}), slots: make(chan struct{}, maxQuestions),
		pending: map[uint64]chan<- *pb.LookRequest{},
	}
}

// attach makes p the stream of a machine; an earlier one gets no more questions.
func (l *looks) attach(m machine.ID, p *lookPeer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peers[m] = p
	for _, wait := range l.waits[m] {
		close(wait)
	}
	delete(l.waits, m)
}

// retire lets go of a stream on which nothing is asked. It is false when
// somebody asks just now.
func (l *looks) retire(m machine.ID, p *lookPeer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(p.slots) > 0 {
		return false
	}
	if l.peers[m] == p {
		delete(l.peers, m)
	}
	return true
}

func (l *looks) detach(m machine.ID, p *lookPeer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers[m] == p {
		delete(l.peers, m)
	}
}

// ask asks the agent of a machine. A stream that ends before the answer is no
// answer: the agent is called again.
func (l *looks) ask(ctx context.Context, m machine.ID, q Question) (a LookAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	for err = errGone; errors.Is(err, errGone) && ctx.Err() == nil; {
		var p *lookPeer
		if p, err = l.peer(ctx, m, q.Task); err == nil {
			a, err = p.ask(ctx, q)
		}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return a, fault.Timeout.Errorf("machine %s did not answer about task %v in %v", m, q.Task, lookLimit)
	case err != nil:
		return a, err
	case int64(len(a.Data)) > q.Max || len(a.Entries) > maxEntries || a.Next < a.Offset+int64(len(a.Data)):
		return a, fault.Internal.Errorf("machine %s answered about task %v with %d bytes and %d entries; want at most %d and %d", m, q.Task, len(a.Data), len(a.Entries), q.Max, maxEntries)
	}
	return a, nil
}

// peer returns the stream of a machine's agent, which is called if need be.
func (l *looks) peer(ctx context.Context, m machine.ID, about task.ID) (*lookPeer, error) {
	for {
		l.mu.Lock()
		p, call := l.peers[m], l.calls[m]
		if p != nil || call == nil {
			l.mu.Unlock()
			if p == nil {
				return nil, fault.Unavailable.Errorf("the agent of machine %s is not connected, so nobody can look at the files of task %v; try again when covey machine show %s says that it is up", m, about, m)
			}
			return p, nil
		}
		opened := make(chan struct{})
		l.waits[m] = append(l.waits[m], opened)
		l.mu.Unlock()
		(*call)()
		select {
		case <-opened:
		case <-ctx.Done():
			l.mu.Lock()
			if l.waits[m] = slices.DeleteFunc(l.waits[m], func(c chan struct{}) bool { return c == opened }); len(l.waits[m]) == 0 {
				delete(l.waits, m)
			}
			l.mu.Unlock()
			return nil, ctx.Err()
		}
	}
}

func (p *lookPeer) ask(ctx context.Context, q Question) (LookAnswer, error) {
	select {
	case p.slots <- struct{}{}:
	case <-p.gone:
		return LookAnswer{}, errGone
	case <-ctx.Done():
		return LookAnswer{}, ctx.Err()
	}
	defer func() { <-p.slots }()
	answer := make(chan *pb.LookRequest, 1)
	p.mu.Lock()
	p.last++
	id := p.last
	p.pending[id] = answer
	p.mu.Unlock()
	defer p.forget(id)
	select {
	case p.questions <- questionToWire(id, q):
	case <-p.gone:
		return LookAnswer{}, errGone
	case <-ctx.Done():
		return LookAnswer{}, ctx.Err()
	}
	select {
	case a := <-answer:
		return answerFromWire(a)
	case <-p.gone:
		return LookAnswer{}, errGone
	case <-ctx.Done():
		return LookAnswer{}, ctx.Err()
	}
}

var errGone = fault.Unavailable.Errorf("the connection to the machine's agent broke; try again")

func (p *lookPeer) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pending, id)
}

// answered gives an answer to who waits for it, if somebody still does.
func (p *lookPeer) answered(a *pb.LookRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if waiting, ok := p.pending[a.GetId()]; ok {
		delete(p.pending, a.GetId())
		waiting <- a // has room for the only answer
	}
}

// Look holds an agent's stream open and asks it.
func (s *services) Look(ctx context.Context, stream *connect.BidiStream[pb.LookRequest, pb.LookResponse]) error {
	d := deadlinesOf(ctx)
	d.read(time.Now().Add(Silence))
	first, err := stream.Receive()
	if err != nil {
		return ended(err)
	}
	if first.GetMachine() == "" {
		return fault.Invalid.Errorf("the first message names no machine")
	}
	if v := s.b.View(); v.Following != nil {
		return v.Elsewhere()
	}
	m := machine.ID(first.GetMachine())
	p := newLookPeer()
	s.looks.attach(m, p)
	defer s.looks.detach(m, p)
	ctx, cancel := context.WithCancel(ctx)
	heard := make(chan error, 1)
	go func() {
		defer cancel()
		for {
			d.read(time.Now().Add(Silence))
			if ctx.Err() != nil { // after the deadline was set, which wakes who has not looked
				heard <- nil
				return
			}
			a, lost := stream.Receive()
			if lost != nil {
				heard <- ended(lost)
				return
			}
			p.answered(a)
		}
	}()
	retired := false
	retire := func() bool {
		retired = first.GetOnCall() && s.looks.retire(m, p)
		return retired
	}
	err = p.tell(ctx, d, stream, s.looks.idle, retire)
	s.looks.detach(m, p) // before who asks hears that it is gone, and asks again
	close(p.gone)
	cancel()
	d.read(time.Now()) // wakes the receiver up
	if lost := <-heard; err == nil && !retired {
		err = lost
	}
	return err
}

// tell sends questions, and signs of life between them: an answer nobody asked
// for and a question without a number are ignored. When nothing was asked for a
// while, it ends if retire says so.
func (p *lookPeer) tell(ctx context.Context, d deadlines, stream *connect.BidiStream[pb.LookRequest, pb.LookResponse], idle time.Duration, retire func() bool) error {
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	quiet := time.NewTicker(idle)
	defer quiet.Stop()
	if err := stream.Send(&pb.LookResponse{}); err != nil { // says that the stream is taken in
		return err
	}
	for {
		q := &pb.LookResponse{}
		select {
		case <-ctx.Done():
			return nil
		case q = <-p.questions:
			quiet.Reset(idle)
		case <-quiet.C:
			if retire() {
				return nil
			}
			continue
		case <-beat.C:
		}
		d.write(time.Now().Add(sendLimit))
		if err := stream.Send(q); err != nil {
			return err
		}
	}
}
