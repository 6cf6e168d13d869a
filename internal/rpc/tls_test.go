package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/trust"
)

// secured is a server on TLS, with a clock for both ends.
type secured struct {
	*backend
	t         *testing.T
	url       string
	authority *trust.Authority
	present   *trust.Presenter
	clock     *clock
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

var quiet = slog.New(slog.DiscardHandler)

func newAuthority(t *testing.T) *trust.Authority {
	t.Helper()
	a, err := trust.OpenAuthority(t.TempDir(), "dev", start.Time())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func serveTLS(t *testing.T) *secured {
	t.Helper()
	s := &secured{backend: newBackend(t), t: t, authority: newAuthority(t), clock: &clock{at: start.Time().Truncate(time.Second)}}
	var err error
	if s.present, err = s.authority.Present([]string{"127.0.0.1"}, s.clock.now, quiet); err != nil {
		t.Fatal(err)
	}
	s.url = listenTLS(t, s.present, Handler(s.backend, Options{Version: "test", Now: s.clock.now, TLS: s.present}))
	return s
}

// listenTLS serves h as p on a port of loopback and returns its URL.
func listenTLS(t *testing.T, p *trust.Presenter, h http.Handler) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewTLSServer(h, p)
	srv.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	go func() { _ = ServeTLS(srv, l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return "https://" + l.Addr().String()
}

// dial makes an agent that trusts the cluster's authority.
func (s *secured) dial(credential string, cert *tls.Certificate) *Agent {
	s.t.Helper()
	a, err := DialAgent(AgentConfig{
		URL: s.url, Credential: credential, Cert: cert, Roots: trust.Pool(s.authority.Certificate()), Now: s.clock.now, Version: "v1",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(a.Close)
	return a
}

// cert makes a certificate of a machine.
func (s *secured) cert(by *trust.Authority, uid, m, credential string) *tls.Certificate {
	s.t.Helper()
	r, err := trust.NewRequest()
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := by.ForMachine(r.CSR, trust.Machine{Cluster: uid, ID: m, Credential: HashToken(credential)}, s.clock.now())
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := r.Answered(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *secured) session(a *Agent) error {
	x, err := a.Session(s.t.Context(), hello())
	if err == nil {
		x.Close()
	}
	return err
}

// open opens a session that does not outlive a test that waits in vain.
func (s *secured) open(a *Agent) *Session {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	s.t.Cleanup(cancel)
	x, err := a.Session(ctx, hello())
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

// TestTLSLife takes an agent from a join token with a pin to a renewed
// certificate.
func TestTLSLife(t *testing.T) {
	s := serveTLS(t)
	resp, err := api.NewClusterServiceClient(&http.Client{Transport: bearer{adminToken, s.client(nil).Transport}}, s.url).
		CreateToken(t.Context(), connect.NewRequest(&pb.CreateTokenRequest{Kind: "join", Subject: "m1"}))
	if err != nil {
		t.Fatal(err)
	}
	token := resp.Msg.GetToken()
	if got, want := trust.PinOf(token), trust.Pin(s.authority.Certificate()); got != want {
		t.Fatalf("the token %s names %q; want %q", token, got, want)
	}
	stranger, err := DialAgent(AgentConfig{URL: s.url, Now: s.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	j, err := stranger.Join(t.Context(), token, "m1")
	if err != nil {
		t.Fatal(err)
	}
	if j.Root == nil || !j.Root.Equal(s.authority.Certificate()) || j.Cert == nil || j.UID != "uid-1" {
		t.Fatalf("joined %+v", j)
	}
	if _, err = stranger.Join(t.Context(), token, "m1"); fault.Of(err) != fault.Unauthenticated {
		t.Errorf("a used token: %v; want unauthenticated", err)
	}
	if _, err = stranger.Join(t.Context(), joinToken, "m1"); fault.Of(err) != fault.Invalid {
		t.Errorf("a token without a pin: %v; want invalid", err)
	}

	a := s.dial(j.Credential, j.Cert)
	x := s.open(a)
	if at, ok := a.RenewAt(); !ok || !at.Equal(s.clock.now().Add(16*time.Hour)) {
		t.Errorf("to be renewed at %v, %v; want after 16 h", at, ok)
	}
	s.clock.add(16 * time.Hour)
	fresh, err := a.Renew(t.Context(), "m1")
	if err != nil {
		t.Fatal(err)
	}
	if fresh.Leaf.Equal(j.Cert.Leaf) || !fresh.Leaf.NotAfter.Equal(s.clock.now().Add(trust.MachineLife)) {
		t.Errorf("renewed until %v; want a new one until %v", fresh.Leaf.NotAfter, s.clock.now().Add(trust.MachineLife))
	}
	if _, err = x.Recv(); !errors.Is(err, ErrRenewed) {
		t.Errorf("the session ended with %v; want %v", err, ErrRenewed)
	}
	s.clock.add(16 * time.Hour) // the first certificate has ended
	if err = s.session(a); err != nil {
		t.Errorf("with the new certificate: %v", err)
	}
}

// TestTLSExpired holds that a machine whose certificate ended while it was down
// gets another by its credential, and none when that was revoked.
func TestTLSExpired(t *testing.T) {
	s := serveTLS(t)
	a := s.dial(agentToken, s.cert(s.authority, "uid-1", "m1", agentToken))
	x := s.open(a)
	s.clock.add(25 * time.Hour)
	_ = x.Send(control.Message{Full: true})
	_, err := x.Recv()
	if fault.Of(err) != fault.Unauthenticated {
		t.Errorf("the session of a certificate that ended: %v; want unauthenticated", err)
	}
	if err = s.session(a); fault.Of(err) != fault.Unavailable || !strings.Contains(err.Error(), "being renewed") {
		t.Errorf("a session without a certificate: %v; want unavailable", err)
	}
	if _, err = a.Renew(t.Context(), "m1"); err != nil {
		t.Fatal(err)
	}
	if err = s.session(a); err != nil {
		t.Errorf("after renewal: %v", err)
	}
	if _, err = a.Renew(t.Context(), "m2"); fault.Of(err) != fault.Denied {
		t.Errorf("a certificate for another machine: %v; want denied", err)
	}

	// The agent's clock is a day behind: the server refuses what it shows.
	late := &clock{at: s.clock.now()}
	a, err = DialAgent(AgentConfig{
		URL: s.url, Credential: agentToken, Cert: s.cert(s.authority, "uid-1", "m1", agentToken),
		Roots: trust.Pool(s.authority.Certificate()), Now: late.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.clock.add(25 * time.Hour)
	// The server refuses after the handshake: a write that meets the closed
	// connection first hears no words, and the agent tries again, as it does.
	for range 100 {
		if err = s.session(a); err == nil || strings.Contains(err.Error(), "has ended") {
			break
		}
	}
	if fault.Of(err) != fault.Unavailable || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("an ended certificate: %v; want words about it", err)
	}
	if at, ok := a.RenewAt(); !at.IsZero() || !ok {
		t.Errorf("a refused certificate is to be renewed at %v; want now", at)
	}

	if _, _, err = s.Do(t.Context(), control.RevokeCredential{Hash: HashToken(agentToken)}); err != nil {
		t.Fatal(err)
	}
	if _, err = a.Renew(t.Context(), "m1"); fault.Of(err) != fault.Unauthenticated {
		t.Errorf("renewal with a revoked credential: %v; want unauthenticated", err)
	}
}

// TestTLSRevoked holds that a certificate is void with its machine's
// credential, and that an open session ends.
func TestTLSRevoked(t *testing.T) {
	s := serveTLS(t)
	a := s.dial(agentToken, s.cert(s.authority, "uid-1", "m1", agentToken))
	x := s.open(a)
	_, _, err := s.Do(t.Context(), control.RevokeCredential{Hash: HashToken(agentToken)})
	if err != nil {
		t.Fatal(err)
	}
	_ = x.Send(control.Message{Full: true})
	if _, err = x.Recv(); fault.Of(err) != fault.Unauthenticated {
		t.Errorf("the open session: %v; want unauthenticated", err)
	}
	again := s.dial(agentToken, s.cert(s.authority, "uid-1", "m1", agentToken))
	if err = s.session(again); fault.Of(err) != fault.Unauthenticated {
		t.Errorf("a new session: %v; want unauthenticated", err)
	}
}

// TestTLSRefused tries every wrong proof.
func TestTLSRefused(t *testing.T) {
	s := serveTLS(t)
	foreign := newAuthority(t)
	shown, err := s.present.Config().GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, tt := range map[string]struct {
		cert *tls.Certificate
		want fault.Kind
	}{
		"another machine":           {s.cert(s.authority, "uid-1", "m2", otherToken), fault.Denied},
		"another's credential":      {s.cert(s.authority, "uid-1", "m1", otherToken), fault.Unauthenticated},
		"an admin's credential":     {s.cert(s.authority, "uid-1", "ann", adminToken), fault.Unauthenticated},
		"no such credential":        {s.cert(s.authority, "uid-1", "m1", "none"), fault.Unauthenticated},
		"another cluster":           {s.cert(s.authority, "uid-2", "m1", agentToken), fault.Unauthenticated},
		"another authority":         {s.cert(foreign, "uid-1", "m1", agentToken), fault.Unavailable},
		"the server's":              {shown, fault.Unavailable},
		"the right one, to compare": {s.cert(s.authority, "uid-1", "m1", agentToken), fault.Kind(255)},
	} {
		got := fault.Kind(255)
		if err := s.session(s.dial("", tt.cert)); err != nil {
			got = fault.Of(err)
		}
		if got != tt.want {
			t.Errorf("%s: %v; want %v", what, got, tt.want)
		}
	}
	agent, walk := s.client(s.cert(s.authority, "uid-1", "m1", agentToken)), procedures()
	for _, p := range walk { // a machine's certificate lets into nothing of users'
		if service, _, _ := strings.Cut(strings.TrimPrefix(p.path, "/covey.v1."), "/"); service == "AgentService" || p.streaming() {
			continue
		}
		if code := post(t, agent, s.url+p.path, "", string(aimed(p, "m1"))); code != http.StatusForbidden {
			t.Errorf("%s by a machine's certificate: %d; want 403", p.path, code)
		}
	}
	stranger := s.client(nil)
	for what, tt := range map[string]struct {
		client *http.Client
		token  string
		path   string
		want   int
	}{
		"a machine's credential":     {stranger, agentToken, "AgentService/Join", http.StatusUnauthorized},
		"a certificate and a token":  {agent, adminToken, "ClusterService/GetCluster", http.StatusUnauthorized},
		"nothing":                    {stranger, "", "ClusterService/GetCluster", http.StatusUnauthorized},
		"an admin, to compare":       {stranger, adminToken, "ClusterService/GetCluster", http.StatusOK},
		"a request that is no CSR":   {agent, "", "AgentService/Renew", http.StatusBadRequest},
		"an expired token":           {stranger, expiredToken, "ClusterService/GetCluster", http.StatusUnauthorized},
		"a used join token":          {stranger, usedToken, "AgentService/Join", http.StatusUnauthorized},
		"a join token for a session": {stranger, joinToken, "AgentService/Renew", http.StatusForbidden},
	} {
		body := `{"machine":"m1"}`
		if strings.HasPrefix(tt.path, "ClusterService") {
			body = "{}"
		}
		if code := post(t, tt.client, s.url+"/covey.v1."+tt.path, tt.token, body); code != tt.want {
			t.Errorf("%s: %d; want %d", what, code, tt.want)
		}
	}
}

// TestJoinTellsNobodyElse holds that a join token is sent to no server but the
// one that it names.
func TestJoinTellsNobodyElse(t *testing.T) {
	s := serveTLS(t)
	token := trust.WithPin(joinToken, trust.Pin(s.authority.Certificate()))
	foreign := newAuthority(t)
	present := func(a *trust.Authority, names ...string) *trust.Presenter {
		p, err := a.Present(names, s.clock.now, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	// with shows a certificate with other ones behind it.
	with := func(cert *tls.Certificate, chain ...[]byte) *tls.Config {
		c := *cert
		c.Certificate = append([][]byte{cert.Certificate[0]}, chain...)
		return &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"h2"}}
	}
	root := s.authority.Certificate().Raw
	own, err := present(foreign, "127.0.0.1").Config().GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, conf := range map[string]*tls.Config{
		"another authority":                      present(foreign, "127.0.0.1").Config(),
		"another authority, with the pinned one": with(own, root),
		"the pinned one alone":                   with(own, foreign.Certificate().Raw, root),
		"a machine of the cluster":               with(s.cert(s.authority, "uid-1", "m2", otherToken), root),
		"another host":                           present(s.authority, "covey.example.com").Config(),
		"TLS 1.2": func() *tls.Config {
			c := present(s.authority, "127.0.0.1").Config()
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return c
		}(),
	} {
		url, got := record(t, conf)
		var a *Agent
		if a, err = DialAgent(AgentConfig{URL: url, Now: s.clock.now}); err != nil {
			t.Fatal(err)
		}
		_, err = a.Join(t.Context(), token, "m1")
		if fault.Of(err) != fault.Unavailable {
			t.Errorf("%s: %v (%v); want unavailable", what, err, fault.Of(err))
		}
		if n := got(); n != 0 {
			t.Errorf("%s: the server got %d bytes; want none", what, n)
		}
	}
	url, got := record(t, present(s.authority, "127.0.0.1").Config())
	a, err := DialAgent(AgentConfig{URL: url, Now: s.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		waitFor(t, func() bool { return got() > 0 })
		cancel()
	}()
	if _, err := a.Join(ctx, token, "m1"); err == nil || got() == 0 {
		t.Errorf("the right server got %d bytes, %v; want the request", got(), err)
	}
}

// record is a server that answers nothing and counts the bytes that it is sent
// after the handshake.
func record(t *testing.T, c *tls.Config) (url string, got func() int64) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var n atomic.Int64
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = io.Copy(counter{&n}, conn)
			}()
		}
	}()
	return "https://" + l.Addr().String(), n.Load
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// TestTLSNewAuthority holds that a machine whose certificate is of a replaced
// authority gets another by its credential, once it was told whom to believe.
func TestTLSNewAuthority(t *testing.T) {
	s := serveTLS(t)
	for what, cluster := range map[string]string{"of the same name": "dev", "of another name": "old"} {
		old, err := trust.OpenAuthority(t.TempDir(), cluster, start.Time())
		if err != nil {
			t.Fatal(err)
		}
		a := s.dial(agentToken, s.cert(old, "uid-1", "m1", agentToken))
		at, _ := a.RenewAt()
		for range 100 { // until the reason of a refusal is heard, as in TestTLSExpired
			if err = s.session(a); err == nil {
				t.Errorf("an authority %s: its certificate lets in", what)
			}
			if at, _ = a.RenewAt(); at.IsZero() {
				break
			}
		}
		if !at.IsZero() {
			t.Errorf("an authority %s: the certificate is to be renewed at %v; want now", what, at)
		}
		if _, err = a.Renew(t.Context(), "m1"); err != nil {
			t.Errorf("an authority %s: %v", what, err)
		}
		if err = s.session(a); err != nil {
			t.Errorf("an authority %s, renewed: %v", what, err)
		}
	}
}

// TestRenewWithoutTLS holds that a server without TLS makes no certificates.
func TestRenewWithoutTLS(t *testing.T) {
	a := dial(t, serve(t, newBackend(t)), agentToken)
	if _, ok := a.RenewAt(); ok {
		t.Error("a certificate is to be renewed")
	}
	if _, err := a.Renew(t.Context(), "m1"); fault.Of(err) != fault.Invalid {
		t.Errorf("Renew: %v; want invalid", err)
	}
}

// client is an HTTP client with a certificate, or none.
func (s *secured) client(cert *tls.Certificate) *http.Client {
	c := &tls.Config{RootCAs: trust.Pool(s.authority.Certificate()), Time: s.clock.now}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func post(t *testing.T, c *http.Client, url, token, body string) int {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	r.RequestURI = ""
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
