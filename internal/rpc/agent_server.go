package rpc

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
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
	d := deadlinesOf(ctx)
	d.read(time.Now().Add(Silence))
	first, err := stream.Receive()
	if err != nil {
		return ended(err)
	}
	if err = checkHello(first.GetHello()); err != nil {
		return err
	}
	hello, err := helloFromWire(first.GetHello())
	if err != nil {
		return err
	}
	if err = s.awaitLeading(ctx, stream.RequestHeader().Get(lostHeader), hello.Seen.Epoch); err != nil {
		return err
	}
	agent, err := s.b.Attach(ctx, hello)
	if err != nil {
		return err
	}
	defer agent.Close()
	t := &talk{s: s, stream: stream, deadlines: d, agent: agent, machine: hello.Machine.ID, session: hello.Session, leased: make(chan uint64, 1)}
	return t.run(ctx, first)
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

// talk is an open session. Its receiver runs beside it, and one goroutine
// sends.
type talk struct {
	s         *services
	stream    *connect.BidiStream[pb.SessionRequest, pb.SessionResponse]
	deadlines deadlines
	agent     AgentSession
	machine   machine.ID
	session   string
	leased    chan uint64 // the last message that prolonged the lease, until it is told
}

func (t *talk) run(ctx context.Context, first *pb.SessionRequest) error {
	v := t.s.b.View()
	welcome := ordersToWire(Orders{Epoch: v.Epoch, Rev: v.Snapshot.Rev, UID: v.Snapshot.Cluster.UID})
	welcome.Wire, welcome.Version, welcome.Servers = Wire, text(t.s.opt.Version), v.urls()
	addNext(welcome)
	if err := t.send(welcome); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	heard := make(chan error, 1)
	go func() {
		defer cancel()
		heard <- t.hear(ctx, first)
	}()
	err := t.tell(ctx)
	cancel()
	t.deadlines.read(time.Now()) // wakes the receiver up
	if lost := <-heard; err == nil {
		err = lost
	}
	return err
}

// hear takes in what the agent says until it ends.
func (t *talk) hear(ctx context.Context, m *pb.SessionRequest) error {
	for {
		if m.GetN() != 0 {
			msg, err := messageFromWire(m)
			if err == nil {
				err = t.check(msg)
			}
			leased := false
			if err == nil {
				leased, err = t.agent.Hear(ctx, msg)
			}
			if err != nil {
				return err
			}
			if leased {
				t.acknowledge(msg.N)
			}
		}
		t.deadlines.read(time.Now().Add(Silence))
		var err error
		if m, err = t.stream.Receive(); err != nil {
			return ended(err)
		}
	}
}

// acknowledge has the agent told that a message prolonged its lease; only the
// last one counts.
func (t *talk) acknowledge(n uint64) {
	select {
	case <-t.leased:
	default:
	}
	t.leased <- n // room was made, and nobody else puts
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

// tell sends orders, and signs of life between them.
func (t *talk) tell(ctx context.Context) error {
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case o, ok := <-t.agent.Orders():
			if !ok {
				return fault.Unavailable.Errorf("the server ended the session of machine %s; say hello again", t.machine)
			}
			if err := t.send(ordersToWire(o)); err != nil {
				return err
			}
		case n := <-t.leased:
			if err := t.send(&pb.SessionResponse{Leased: n}); err != nil {
				return err
			}
			beat.Reset(Heartbeat) // it is a sign of life
		case <-beat.C:
			if err := t.send(&pb.SessionResponse{}); err != nil {
				return err
			}
		}
	}
}

func (t *talk) send(m *pb.SessionResponse) error {
	t.deadlines.write(time.Now().Add(sendLimit))
	return t.stream.Send(m)
}

// ended returns nil when a stream ended as it should.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
