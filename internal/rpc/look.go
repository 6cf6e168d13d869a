package rpc

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
)

// Bounds of questions to agents.
const (
	lookLimit    = 10 * time.Second // for an answer
	maxQuestions = 64               // to one machine at once
	maxPiece     = 256 << 10        // bytes of one answer
	maxEntries   = 10_000           // of a folder
)

// looks asks agents about their tasks' files. Each agent that is connected
// holds one stream open, on which questions and answers are told apart by
// their number.
type looks struct {
	mu    sync.Mutex
	peers map[machine.ID]*lookPeer
}

func newLooks() *looks { return &looks{peers: map[machine.ID]*lookPeer{}} }

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
}

func (l *looks) detach(m machine.ID, p *lookPeer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers[m] == p {
		delete(l.peers, m)
	}
}

// ask asks the agent of a machine.
func (l *looks) ask(ctx context.Context, m machine.ID, q Question) (LookAnswer, error) {
	l.mu.Lock()
	p := l.peers[m]
	l.mu.Unlock()
	if p == nil {
		return LookAnswer{}, fault.Unavailable.Errorf("the agent of machine %s is not connected, so nobody can look at the files of task %v; try again when covey machine show %s says that it is up", m, q.Task, m)
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	a, err := p.ask(ctx, q)
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
			a, lost := stream.Receive()
			if lost != nil {
				heard <- ended(lost)
				return
			}
			p.answered(a)
		}
	}()
	err = p.tell(ctx, d, stream)
	close(p.gone)
	cancel()
	d.read(time.Now()) // wakes the receiver up
	if lost := <-heard; err == nil {
		err = lost
	}
	return err
}

// tell sends questions, and signs of life between them: an answer nobody asked
// for and a question without a number are ignored.
func (p *lookPeer) tell(ctx context.Context, d deadlines, stream *connect.BidiStream[pb.LookRequest, pb.LookResponse]) error {
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	if err := stream.Send(&pb.LookResponse{}); err != nil { // says that the stream is taken in
		return err
	}
	for {
		q := &pb.LookResponse{}
		select {
		case <-ctx.Done():
			return nil
		case q = <-p.questions:
		case <-beat.C:
		}
		d.write(time.Now().Add(sendLimit))
		if err := stream.Send(q); err != nil {
			return err
		}
	}
}
