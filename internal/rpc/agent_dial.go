package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/trust"
)

// An AgentConfig says how an agent reaches its server.
type AgentConfig struct {
	URL        string           // http://HOST:PORT on loopback, else https://HOST:PORT
	Others     []string         // further servers of the cluster, in the same form
	Credential string           // what [Agent.Join] returned; empty before
	Version    string           // of the agent, for people
	Roots      *x509.CertPool   // https: who may sign the server's certificate; nil: nobody, until the machine joined
	Cert       *tls.Certificate // https: the machine's own; nil: it is yet to be renewed
	Now        func() time.Time // nil: the wall clock
	// Beside, if set, is an agent of the same server whose connections are used
	// as well. Without TLS only: with it, a connection is who speaks on it.
	Beside *Agent

	// Renewed is called, if set, when the leader has prolonged the machine's
	// lease by a message that was sent at the time sent of Steady, a clock that
	// nobody sets. It must return soon.
	Renewed func(sent time.Duration)
	Steady  func() time.Duration
}

// An Agent is an agent's way to its server. Its methods may be called by
// several goroutines at once.
type Agent struct {
	cfg    AgentConfig
	secure bool // by TLS

	mu      sync.Mutex
	way     *way
	cert    *tls.Certificate // nil: there is none, or the server refused it
	servers []string         // of the cluster, as far as they are known
	lost    string           // the server that was not reached last; empty: none
	calls   bool             // the server of the last session calls for Look; true before the first
	called  chan struct{}    // holds one: it has called
}

// A way is a bundle of connections to one server on which the machine proves
// itself by one certificate.
type way struct {
	url    string
	client api.AgentServiceClient
	conns  *http.Transport
	over   chan struct{} // closed when another way is used instead
	moved  bool          // to another server; set before over is closed

	sessions http.RoundTripper // for sessions on connections of their own
	shared   http.RoundTripper // for those of agents that share some
	sharing  sharing
	old      atomic.Bool // the server does not know them
}

// DialAgent returns a way to the server. It opens no connection: the calls do,
// whenever there is none.
func DialAgent(cfg AgentConfig) (*Agent, error) {
	secure, err := address(cfg.URL)
	if err != nil {
		return nil, err
	}
	for _, o := range cfg.Others {
		if also, err := address(o); err != nil {
			return nil, err
		} else if also != secure {
			return nil, fault.Invalid.Errorf("servers %.100q and %.100q are reached in different ways; want https:// for all, or http:// on loopback", cfg.URL, o)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Steady == nil {
		began := time.Now()
		cfg.Steady = func() time.Duration { return time.Since(began) }
	}
	if cfg.Roots == nil {
		cfg.Roots = x509.NewCertPool()
	}
	a := &Agent{cfg: cfg, secure: secure, cert: cfg.Cert, calls: true, called: make(chan struct{}, 1)}
	a.learn(append([]string{cfg.URL}, cfg.Others...))
	if cfg.Beside == nil {
		a.way = a.open(cfg.URL, a.config(cfg.Cert))
		return a, nil
	}
	if a.secure || cfg.Beside.secure || cfg.URL != cfg.Beside.cfg.URL {
		return nil, fault.Invalid.Errorf("agents share connections only to one server, and without TLS")
	}
	a.way, _ = cfg.Beside.current()
	return a, nil
}

// address reports whether the server at a URL is reached by TLS.
func address(server string) (secure bool, err error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return false, fault.Invalid.Errorf("server %.100q is no address; want a URL such as http://127.0.0.1:8081", server)
	}
	if u.Scheme == "http" && !loopback(hostOf(u.Host)) {
		return false, fault.Invalid.Errorf("server %.100q is reached over a network; want https://, since http:// is for loopback only", server)
	}
	return u.Scheme == "https", nil
}

// config is TLS on which the machine shows cert, if any.
func (a *Agent) config(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: a.cfg.Roots, Time: a.cfg.Now}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return c
}

func (a *Agent) open(server string, c *tls.Config) *way {
	var p http.Protocols // streams in both directions need HTTP/2
	p.SetHTTP2(a.secure)
	p.SetUnencryptedHTTP2(!a.secure)
	w := &way{url: server, over: make(chan struct{}), conns: &http.Transport{
		Protocols: &p, TLSClientConfig: c, TLSHandshakeTimeout: 10 * time.Second,
		DialContext:     (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		IdleConnTimeout: time.Minute,
		HTTP2:           &http.HTTP2Config{SendPingTimeout: Silence, PingTimeout: 5 * time.Second},
	}}
	w.sessions = ownConnections(a.secure, c)
	w.shared = directly(func(ctx context.Context, _, address string) (net.Conn, error) { return w.sharing.open(ctx, address) })
	w.client = api.NewAgentServiceClient(&http.Client{Transport: trust.Explained{Next: w.conns}}, server, connect.WithReadMaxBytes(maxReport))
	return w
}

// ErrRenewed ends the streams of a machine whose certificate was renewed; new
// ones are opened with the new one.
var ErrRenewed = fault.Unavailable.Errorf("the machine's certificate was renewed; open a new stream")

// ErrMoved ends the streams of a machine that turned to another server of its
// cluster.
var ErrMoved = fault.Unavailable.Errorf("another server leads; open a new stream")

// endWith ends a stream's context when its way is no longer used.
func (w *way) endWith(ctx context.Context, end context.CancelCauseFunc) {
	go func() {
		select {
		case <-w.over:
			if w.moved {
				end(ErrMoved)
			} else {
				end(ErrRenewed)
			}
		case <-ctx.Done():
		}
	}()
}

// Close drops connections that nothing uses.
func (a *Agent) Close() {
	w, _ := a.current()
	w.conns.CloseIdleConnections()
	w.sharing.drop()
}

func (a *Agent) current() (*way, *tls.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.way, a.cert
}

// use shows another certificate from now on, or none.
func (a *Agent) use(cert *tls.Certificate) {
	a.mu.Lock()
	old := a.way
	a.way, a.cert = a.open(old.url, a.config(cert)), cert
	a.mu.Unlock()
	close(old.over)
	old.conns.CloseIdleConnections()
}

// drop stops showing a certificate that the server refused.
func (a *Agent) drop(cert *tls.Certificate) {
	if _, now := a.current(); now == cert && cert != nil {
		a.use(nil)
	}
}

// certified returns the way on which the machine can prove itself, or says
// that there is none yet.
func (a *Agent) certified() (*way, error) {
	w, cert := a.current()
	if a.secure && (cert == nil || trust.Expired(cert.Leaf, a.cfg.Now()) != nil) {
		return nil, fault.Unavailable.Errorf("this machine has no certificate that is good now; it is being renewed")
	}
	return w, nil
}

// sign puts the machine's credential into the headers of a call without TLS.
func (a *Agent) sign(h http.Header) {
	if !a.secure {
		h.Set("Authorization", "Bearer "+a.cfg.Credential)
	}
}

// judge returns an error of a call with its kind. When the server refused the
// machine's certificate, another is to be had with the credential: or not, when
// that one is void too.
func (a *Agent) judge(err error) error {
	problem := trust.ProblemOf(err)
	refused := problem != nil && problem.Refused()
	if refused || a.secure && connect.CodeOf(err) == connect.CodeUnauthenticated {
		_, cert := a.current()
		a.drop(cert)
	}
	if problem != nil {
		return fault.Unavailable.Errorf("%w", problem)
	}
	return FromWire(err)
}

// A Joined agent has a credential of its own.
type Joined struct {
	Credential string
	UID        string            // of the cluster
	Name       string            // of the cluster
	Cert       *tls.Certificate  // https: the machine's first certificate
	Root       *x509.Certificate // https: by what the server is known from now on; nil: by the Roots that were given
}

// Join trades a join token for the credential of a machine. The token is used
// up, whether or not the answer arrives. Over TLS it is sent to none but a
// server whose certificate goes back to what the token names, or without a name
// in it, to the Roots.
func (a *Agent) Join(ctx context.Context, token string, m machine.ID) (Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	w, _ := a.current()
	req := &pb.JoinRequest{Machine: string(m)}
	var pinned *trust.Pinned
	var wanted trust.Request
	if a.secure {
		pin := trust.PinOf(token)
		if pin == "" && a.cfg.Roots.Equal(x509.NewCertPool()) {
			return Joined{}, fault.Invalid.Errorf("the join token names no authority, so that %s cannot be verified; make the token at that server with covey token create --kind join, or name the authority with --ca-file", a.cfg.URL)
		}
		if pin != "" {
			pinned = trust.NewPinned(pin, hostOf(strings.TrimPrefix(w.url, "https://")), a.cfg.Now)
			w = a.open(w.url, pinned.Config())
			defer w.conns.CloseIdleConnections()
		}
		var err error
		if wanted, err = trust.NewRequest(); err != nil {
			return Joined{}, err
		}
		req.Csr = wanted.CSR
	}
	call := connect.NewRequest(req)
	call.Header().Set("Authorization", "Bearer "+token)
	resp, err := patiently(ctx, func() (*connect.Response[pb.JoinResponse], error) { return w.client.Join(ctx, call) })
	if err != nil {
		return Joined{}, a.judge(err)
	}
	j := Joined{Credential: resp.Msg.GetCredential(), UID: resp.Msg.GetClusterUid(), Name: resp.Msg.GetClusterName()}
	if pinned != nil {
		j.Root = pinned.Root()
	}
	if a.secure {
		if j.Cert, err = wanted.Answered(resp.Msg.GetCertificate()); err != nil {
			return Joined{}, err
		}
	}
	return j, nil
}

// RenewAt returns when the machine's certificate is to be renewed; the zero
// time when that is now. Without TLS there is none, and ok is false.
func (a *Agent) RenewAt() (at time.Time, ok bool) {
	_, cert := a.current()
	if cert == nil {
		return time.Time{}, a.secure
	}
	return trust.RenewAt(cert.Leaf), a.secure
}

// Renew gets a new certificate, with a new key, and uses it from now on: open
// streams end with [ErrRenewed]. A machine without a certificate that is good
// proves itself by its credential.
func (a *Agent) Renew(ctx context.Context, m machine.ID) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	wanted, err := trust.NewRequest()
	if err != nil {
		return nil, err
	}
	call := connect.NewRequest(&pb.RenewRequest{Machine: string(m), Csr: wanted.CSR})
	a.sign(call.Header())
	w, err := a.certified()
	if err != nil {
		w, _ = a.current()
		w = a.open(w.url, a.config(nil))
		defer w.conns.CloseIdleConnections()
		call.Header().Set("Authorization", "Bearer "+a.cfg.Credential)
	}
	resp, err := patiently(ctx, func() (*connect.Response[pb.RenewResponse], error) { return w.client.Renew(ctx, call) })
	if err != nil {
		return nil, a.judge(err)
	}
	cert, err := wanted.Answered(resp.Msg.GetCertificate())
	if err != nil {
		return nil, err
	}
	a.use(cert)
	return cert, nil
}
