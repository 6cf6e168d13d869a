package rpc

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
)

// An AgentConfig says how an agent reaches its server.
type AgentConfig struct {
	URL        string      // http://HOST:PORT on loopback, else https://HOST:PORT
	Credential string      // what [Agent.Join] returned; empty before
	Version    string      // of the agent, for people
	TLS        *tls.Config // nil: the system's authorities
}

// An Agent is an agent's way to its server. Its methods may be called by
// several goroutines at once.
type Agent struct {
	cfg    AgentConfig
	client api.AgentServiceClient
	conns  *http.Transport
}

// DialAgent returns a way to the server. It opens no connection: the calls do,
// whenever there is none.
func DialAgent(cfg AgentConfig) (*Agent, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fault.Invalid.Errorf("server %.100q is no address; want a URL such as http://127.0.0.1:8081", cfg.URL)
	}
	if u.Scheme == "http" && !loopback(hostOf(u.Host)) {
		return nil, fault.Invalid.Errorf("server %.100q is reached over a network; want https://, since http:// is for loopback only", cfg.URL)
	}
	var p http.Protocols // streams in both directions need HTTP/2
	p.SetHTTP2(u.Scheme == "https")
	p.SetUnencryptedHTTP2(u.Scheme == "http")
	a := &Agent{cfg: cfg, conns: &http.Transport{
		Protocols: &p, TLSClientConfig: cfg.TLS, TLSHandshakeTimeout: 10 * time.Second,
		DialContext:     (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		IdleConnTimeout: time.Minute,
		HTTP2:           &http.HTTP2Config{SendPingTimeout: Silence, PingTimeout: 5 * time.Second},
	}}
	a.client = api.NewAgentServiceClient(&http.Client{Transport: a.conns}, cfg.URL, connect.WithReadMaxBytes(maxReport))
	return a, nil
}

// Close drops connections that nothing uses.
func (a *Agent) Close() { a.conns.CloseIdleConnections() }

// A Joined agent has a credential of its own.
type Joined struct {
	Credential string
	UID        string // of the cluster
	Name       string // of the cluster
}

// Join trades a join token for the credential of a machine. The token is used
// up, whether or not the answer arrives.
func (a *Agent) Join(ctx context.Context, token string, m machine.ID) (Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	req := connect.NewRequest(&pb.JoinRequest{Machine: string(m)})
	req.Header().Set("Authorization", "Bearer "+token)
	resp, err := a.client.Join(ctx, req)
	if err != nil {
		return Joined{}, FromWire(err)
	}
	return Joined{resp.Msg.GetCredential(), resp.Msg.GetClusterUid(), resp.Msg.GetClusterName()}, nil
}

// A Session is an agent's life at its server, as the agent sees it. Send and
// Recv may be called at the same time; each of them by one goroutine.
type Session struct {
	stream *connect.BidiStreamForClient[pb.SessionRequest, pb.SessionResponse]
	end    context.CancelCauseFunc
	done   <-chan struct{}
	cause  func() error
	idle   *time.Timer // ends the session when nothing comes
	name   string
	peer   Peer

	mu   sync.Mutex // one sends at a time, in the order of n
	n    uint64
	sent time.Time
}

// A Peer is what a server says of itself when it lets an agent in.
type Peer struct {
	Wire    uint32
	Version string
	Orders  Orders // its term, revision and cluster UID
}

// Session opens a session: it says hello and waits for the server's word. The
// session lives until ctx ends, Close is called or the connection breaks. If
// h.Session is empty, a name is drawn. An error of kind Conflict says that the
// agent belongs to another cluster, or is too old or too new.
func (a *Agent) Session(ctx context.Context, h control.Hello) (*Session, error) {
	if h.Session == "" {
		h.Session = rand.Text()
	}
	ctx, end := context.WithCancelCause(ctx)
	s := &Session{
		stream: a.client.Session(ctx), end: end, done: ctx.Done(), name: h.Session,
		cause: func() error { return context.Cause(ctx) },
	}
	closeWith(ctx, s.stream)
	s.idle = time.AfterFunc(Silence, func() {
		end(fault.Timeout.Errorf("the server was silent for %v", Silence))
	})
	s.stream.RequestHeader().Set("Authorization", "Bearer "+a.cfg.Credential)
	hello := helloToWire(h)
	hello.Wire, hello.Version = Wire, text(a.cfg.Version)
	_ = s.send(&pb.SessionRequest{Hello: hello, Session: h.Session}) // receive says why it failed
	first, err := s.receive()
	if err != nil {
		s.Close()
		return nil, err
	}
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
	return s.send(messageToWire(m))
}

// Recv waits for the next orders. Signs of life are not shown.
func (s *Session) Recv() (Orders, error) {
	for {
		m, err := s.receive()
		if err != nil {
			return Orders{}, err
		}
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
	err = FromWire(err)
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
