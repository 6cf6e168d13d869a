package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/trust"
)

// The pace of an agent's streams. Either side gives up when it has heard
// nothing for Silence; a lease outlasts two signs of life.
const (
	Heartbeat = 3 * time.Second  // a sign of life is sent after so long without a message
	Silence   = 10 * time.Second // a stream on which nothing came for so long is dead
	sendLimit = 10 * time.Second // to send one message
)

// Join trades a join token for an agent's credential, and over TLS for its
// first certificate.
func (s *services) Join(ctx context.Context, req *connect.Request[pb.JoinRequest]) (*connect.Response[pb.JoinResponse], error) {
	m := req.Msg.GetMachine()
	if err := named("machine", m); err != nil {
		return nil, err
	}
	secret := NewToken(tenant.Agent)
	c := control.UseJoin{
		Hash:  callerOf(ctx).hash,
		Agent: state.Credential{Hash: HashToken(secret), Kind: tenant.Agent.String(), Subject: m},
	}
	cl := s.b.View().Snapshot.Cluster
	resp := &pb.JoinResponse{Credential: secret, ClusterUid: cl.UID, ClusterName: text(cl.Name)}
	if len(req.Msg.GetCsr()) > 0 { // before the token is used: what is wrong with it uses nothing up
		var err error
		if resp.Certificate, err = s.certify(req.Msg.GetCsr(), trust.Machine{Cluster: cl.UID, ID: m, Credential: c.Agent.Hash}); err != nil {
			return nil, err
		}
	}
	if _, _, err := s.b.Do(ctx, c); err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

// Renew makes a new certificate for a machine.
func (s *services) Renew(ctx context.Context, req *connect.Request[pb.RenewRequest]) (*connect.Response[pb.RenewResponse], error) {
	who := callerOf(ctx)
	m := trust.Machine{Cluster: s.b.View().Snapshot.Cluster.UID, ID: who.Machine, Credential: who.hash}
	cert, err := s.certify(req.Msg.GetCsr(), m)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RenewResponse{Certificate: cert}), nil
}

func (s *services) certify(csr []byte, m trust.Machine) ([]byte, error) {
	if s.opt.TLS == nil {
		return nil, fault.Invalid.Errorf("this server speaks without TLS and makes no certificates; a machine's credential is enough here")
	}
	return s.opt.TLS.Authority().ForMachine(csr, m, s.opt.Now())
}

// Session is the life of an agent here.
func (s *services) Session(ctx context.Context, stream *connect.BidiStream[pb.SessionRequest, pb.SessionResponse]) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return s.converse(ctx, bidi{stream, deadlinesOf(ctx)}, stream.RequestHeader().Get(lostHeader), leave)
}

// Of very many agents that come at once, maxOpening are let in at the same
// time and the others wait: what thousands of goroutines do together nobody
// else gets a word in, and least of all the loop for which they wait.
const (
	maxOpening  = 512
	helloWithin = 5 * time.Second // an agent that is let in says hello
)

// enter waits until an agent may open a session, and returns what to call when
// it has; it may be called again.
func (s *services) enter(ctx context.Context) (leave func(), err error) {
	leave = sync.OnceFunc(func() { <-s.opening })
	select {
	case s.opening <- struct{}{}:
		return leave, nil
	default:
	}
	if s.opt.Crowded != nil {
		s.opt.Crowded()
		defer s.opt.Crowded()
	}
	late := time.NewTimer(sendLimit) // the agent waits no longer
	defer late.Stop()
	select {
	case s.opening <- struct{}{}:
		return leave, nil
	case <-late.C:
	case <-ctx.Done():
	}
	return nil, fault.Timeout.Errorf("the server has too much to do: %d agents are about to be let in; try again in a moment", maxOpening)
}

// A pipe carries the messages of a session. One goroutine receives, and one at
// a time sends.
type pipe interface {
	Receive() (*pb.SessionRequest, error)
	// Send gives up after sendLimit.
	Send(m *pb.SessionResponse) error
	// Until bounds how long Await and Receive wait; a time that has passed wakes
	// them up.
	Until(t time.Time)
	// Await may wait until there is something to receive.
	Await()
}

// bidi is a stream of Connect.
type bidi struct {
	*connect.BidiStream[pb.SessionRequest, pb.SessionResponse]
	deadlines deadlines
}

func (b bidi) Until(t time.Time) { b.deadlines.read(t) }
func (b bidi) Await()            {}

func (b bidi) Send(m *pb.SessionResponse) error {
	b.deadlines.write(time.Now().Add(sendLimit))
	return b.BidiStream.Send(m)
}

// converse holds a session with who is at the other end of a pipe; lost is the
// server that it has not reached before. What is needed only to begin is done by
// functions of its own: the stack of a session lives as long as it does.
func (s *services) converse(ctx context.Context, p pipe, lost string, leave func()) error {
	t, first, err := s.meet(ctx, p, lost)
	leave()
	if err != nil {
		return ended(err)
	}
	defer t.agent.Close()
	return t.run(ctx, first)
}

// meet hears the agent's first message, and lets it in.
func (s *services) meet(ctx context.Context, p pipe, lost string) (*talk, *pb.SessionRequest, error) {
	p.Until(time.Now().Add(helloWithin))
	first, err := p.Receive()
	if err != nil {
		return nil, nil, err
	}
	if err = checkHello(first.GetHello()); err != nil {
		return nil, nil, err
	}
	hello, err := helloFromWire(first.GetHello())
	if err != nil {
		return nil, nil, err
	}
	if err = s.awaitLeading(ctx, lost, hello.Seen.Epoch); err != nil {
		return nil, nil, err
	}
	t := newTalk(s, p, hello)
	t.agent, err = s.b.Attach(ctx, hello, func() { t.want(func(w *words) { w.orders = true }) })
	return t, first, err
}

// checkHello holds a peer to a version that this one understands.
func checkHello(h *pb.Hello) error {
	switch {
	case h == nil:
		return fault.Invalid.Errorf("the first message of a session has no hello")
	case h.GetWire()+1 < Wire || h.GetWire() > Wire+1:
		return fault.Conflict.Errorf("the agent speaks version %d of the wire and this server %d; upgrade the older one", h.GetWire(), Wire)
	case h.GetSession() == "" || len(h.GetSession()) > name.Max:
		return fault.Invalid.Errorf("the session's name has %d bytes; want 1 to %d", len(h.GetSession()), name.Max)
	}
	return nil
}

// ended returns nil when a stream ended as it should.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
