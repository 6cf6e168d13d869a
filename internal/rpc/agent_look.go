package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
)

// maxAnswers bounds the questions that an agent works on at once.
const maxAnswers = 8

// call has Look open its stream, unless it is open.
func (a *Agent) call() {
	select {
	case a.called <- struct{}{}:
	default:
	}
}

// hold has Look keep its stream open, or wait until it is called: older servers
// do not call.
func (a *Agent) hold(open bool) {
	a.mu.Lock()
	a.calls = !open
	a.mu.Unlock()
	if open {
		a.call()
	}
}

// awaitCall waits until the server of a session has questions, or does not say
// when it has.
func (a *Agent) awaitCall(ctx context.Context) error {
	a.mu.Lock()
	calls := a.calls
	a.mu.Unlock()
	if !calls {
		return nil
	}
	select {
	case <-a.called:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Look answers the server's questions about a machine's tasks until ctx ends
// or the connection breaks, and says why. It holds a stream open only while the
// server has questions. answer is called by up to eight goroutines at once, with
// a context that ends with the question; its error goes to who asked, with its
// kind.
func (a *Agent) Look(ctx context.Context, m machine.ID, answer func(context.Context, Question) (LookAnswer, error)) error {
	for {
		if err := a.awaitCall(ctx); err != nil {
			return err
		}
		err := a.looked(ctx, m, answer)
		if !errors.Is(err, errAsked) {
			a.call() // the question still waits, and so that this is tried again
			return err
		}
	}
}

// errAsked ends a stream on which the server has nothing to ask any more.
var errAsked = fault.Unavailable.Errorf("the server has nothing to ask any more")

// asked says why the server ended the stream in order: it will call again, or
// it is one that does not and goes away.
func (a *Agent) asked() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls {
		return errAsked
	}
	return fault.Unavailable.Errorf("the server ended the stream of questions")
}

// looked holds one stream of questions until it ends.
func (a *Agent) looked(ctx context.Context, m machine.ID, answer func(context.Context, Question) (LookAnswer, error)) error {
	w, err := a.certified()
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(errClosed)
	idle := time.AfterFunc(Silence, func() {
		end(fault.Timeout.Errorf("the server was silent for %v", Silence))
	})
	defer idle.Stop()
	stream := w.client.Look(ctx)
	closeWith(ctx, stream)
	w.endWith(ctx, end)
	a.sign(stream.RequestHeader())
	l := &looker{stream: stream, end: end, answer: answer}
	_ = l.send(&pb.LookRequest{Machine: string(m), OnCall: true}) // Receive says why it failed
	go l.beat(ctx)
	var busy sync.WaitGroup
	defer busy.Wait()
	slots := make(chan struct{}, maxAnswers)
	for {
		q, err := stream.Receive()
		if err != nil {
			cause := context.Cause(ctx)
			if cause != nil {
				err = cause
			} else if errors.Is(err, io.EOF) {
				return a.asked()
			}
			err = a.judge(err)
			end(err)
			return err
		}
		idle.Reset(Silence)
		if q.GetId() == 0 {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		busy.Go(func() {
			defer func() { <-slots }()
			l.reply(ctx, q)
		})
	}
}

// looker is the open stream. Many goroutines answer, one at a time sends.
type looker struct {
	stream *connect.BidiStreamForClient[pb.LookRequest, pb.LookResponse]
	end    context.CancelCauseFunc
	answer func(context.Context, Question) (LookAnswer, error)
	mu     sync.Mutex
}

func (l *looker) reply(ctx context.Context, p *pb.LookResponse) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	q, err := questionFromWire(p)
	var a LookAnswer
	if err == nil {
		a, err = l.answer(ctx, q)
	}
	_ = l.send(answerToWire(p.GetId(), a, err)) // a broken stream is noticed by who receives
}

func (l *looker) send(m *pb.LookRequest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	late := time.AfterFunc(sendLimit, func() {
		l.end(fault.Timeout.Errorf("the server took nothing in for %v", sendLimit))
	})
	defer late.Stop()
	return l.stream.Send(m)
}

func (l *looker) beat(ctx context.Context) {
	t := time.NewTicker(Heartbeat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			_ = l.send(&pb.LookRequest{}) // as above
		}
	}
}
