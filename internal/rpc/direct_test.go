package rpc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/trust"
)

// ways notes how the calls of agents come in. With old it is a server that
// knows nothing of sessions on connections of their own.
type ways struct {
	next http.Handler
	old  bool
	url  string // where it is served without TLS

	mu   sync.Mutex
	seen []string
}

func (w *ways) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	what := r.Proto + " " + r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if wantsDirect(r) {
		what += " direct"
	}
	w.mu.Lock()
	w.seen = append(w.seen, what)
	w.mu.Unlock()
	if w.old {
		r.Header.Del("Upgrade")
	}
	w.next.ServeHTTP(rw, r)
}

func (w *ways) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// TestDirect: an agent's session has a connection of its own where the server
// knows how, and a stream of HTTP/2 where it does not.
func TestDirect(t *testing.T) {
	for _, tt := range []struct {
		name   string
		old    bool
		secure bool
		want   []string
	}{
		{"plain", false, false, []string{"HTTP/1.1 Session direct", "HTTP/1.1 Session direct"}},
		{"TLS", false, true, []string{"HTTP/1.1 Session direct", "HTTP/1.1 Session direct"}},
		{"plain, an older server", true, false, []string{"HTTP/1.1 Session direct", "HTTP/2.0 Session", "HTTP/2.0 Session"}},
		{"TLS, an older server", true, true, []string{"HTTP/2.0 Session", "HTTP/2.0 Session"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &ways{old: tt.old}
			b, a := listenWays(t, w, tt.secure)
			for range 2 {
				before := b.said()
				s, err := a.Session(t.Context(), hello())
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Send(control.Message{Full: true}); err != nil {
					t.Fatal(err)
				}
				waitFor(t, func() bool { return b.said() == before+1 })
				s.Close()
			}
			if got := w.all(); !slices.Equal(got, tt.want) {
				t.Errorf("the server saw %q; want %q", got, tt.want)
			}
		})
	}
}

// listenWays serves a cluster behind w, and returns it with an agent of m1.
func listenWays(t *testing.T, w *ways, secure bool) (*backend, *Agent) {
	t.Helper()
	if !secure {
		b := newBackend(t)
		w.next = Handler(b, Options{Now: func() time.Time { return start.Time() }})
		ts := httptest.NewUnstartedServer(w)
		ts.Config = NewServer(w)
		ts.Start()
		t.Cleanup(ts.Close)
		w.url = ts.URL
		return b, dial(t, ts.URL, agentToken)
	}
	s := serveTLS(t)
	w.next = Handler(s.backend, Options{Now: s.clock.now, TLS: s.present})
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewTLSServer(w, s.present)
	if w.old {
		srv.TLSConfig, srv.TLSNextProto = s.present.Config(), nil
	}
	go func() { _ = ServeTLS(srv, l) }()
	t.Cleanup(func() { _ = srv.Close() })
	s.url = "https://" + l.Addr().String()
	return s.backend, s.dial(agentToken, s.cert(s.authority, "uid-1", "m1", agentToken))
}

// rawSession asks for a session as words and returns the connection, behind
// the head of the answer.
func rawSession(t *testing.T, url, token string, more ...string) (conn net.Conn, in *bufio.Reader, status int) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	head := append([]string{"POST " + api.AgentServiceSessionProcedure + " HTTP/1.1", "Host: localhost", "Authorization: Bearer " + token}, more...)
	_, _ = io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n")
	in = bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return conn, in, resp.StatusCode
}

var asksDirect = []string{"Connection: Upgrade", "Upgrade: " + directProtocol}

// TestDirectRefused: who may not have a session is told so before there is one,
// with the kind of the error.
func TestDirectRefused(t *testing.T) {
	url := serve(t, newBackend(t))
	for _, tt := range []struct {
		what, token string
		head        []string
		status      int
	}{
		{"nobody's token", "garbage", asksDirect, http.StatusUnauthorized},
		{"an admin's token", adminToken, asksDirect, http.StatusForbidden},
		{"a page of another site", agentToken, append(slices.Clone(asksDirect), "Origin: http://elsewhere.example"), http.StatusForbidden},
		{"another protocol", agentToken, []string{"Connection: Upgrade", "Upgrade: websocket"}, http.StatusHTTPVersionNotSupported},
		{"the agent's, to compare", agentToken, asksDirect, http.StatusSwitchingProtocols},
	} {
		if _, _, status := rawSession(t, url, tt.token, tt.head...); status != tt.status {
			t.Errorf("%s: %d; want %d", tt.what, status, tt.status)
		}
	}
}

// TestDirectTLSOnly: a connection for sessions by TLS takes nothing else.
func TestDirectTLSOnly(t *testing.T) {
	s := serveTLS(t)
	for what, request := range map[string]string{
		"another call":    "POST /covey.v1.ClusterService/GetCluster HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + adminToken + "\r\n\r\n",
		"no upgrade":      "POST " + api.AgentServiceSessionProcedure + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"no request":      "hello\r\n\r\n",
		"a head no end":   "POST / HTTP/1.1\r\nX: " + strings.Repeat("x", 2*maxHead),
		"nobody's upgrad": "POST " + api.AgentServiceSessionProcedure + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + strings.Join(asksDirect, "\r\n") + "\r\n\r\n",
	} {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{
			RootCAs: trust.Pool(s.authority.Certificate()), Time: s.clock.now, NextProtos: []string{directProtocol}, MinVersion: tls.VersionTLS13,
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(conn, request)
		got, err := io.ReadAll(conn)
		if errors.Is(err, context.DeadlineExceeded) || bytes.Contains(got, []byte("200")) || bytes.Contains(got, []byte("101")) {
			t.Errorf("%s: %q, %v; want a refusal, or the end of the connection", what, got, err)
		}
		_ = conn.Close()
	}
}

// envelope is a message as it goes over the wire.
func envelope(flags byte, data []byte) []byte {
	out := append([]byte{flags, 0, 0, 0, 0}, data...)
	binary.BigEndian.PutUint32(out[1:], uint32(len(data)))
	return out
}

// TestDirectBadInput: what no agent sends ends the session with an error that
// says why, and the server lives on.
func TestDirectBadInput(t *testing.T) {
	h := helloToWire(hello())
	h.Wire = Wire
	first, err := proto.Marshal(&pb.SessionRequest{Hello: h, Session: "x"})
	if err != nil {
		t.Fatal(err)
	}
	h.Session = "x"
	good, _ := proto.Marshal(&pb.SessionRequest{Hello: h, Session: "x"})
	h.Machine.Id = "m2"
	other, _ := proto.Marshal(&pb.SessionRequest{Hello: h, Session: "x"})
	huge := []byte{0, 0xff, 0xff, 0xff, 0xff}
	for _, tt := range []struct {
		what string
		send []byte
		want connect.Code
	}{
		{"another machine", envelope(0, other), connect.CodePermissionDenied},
		{"no name of the session", envelope(0, first), connect.CodeInvalidArgument},
		{"no hello", envelope(0, nil), connect.CodeInvalidArgument},
		{"no message", envelope(0, []byte("\xff\xff\xff")), connect.CodeInvalidArgument},
		{"a message without end", huge, connect.CodeResourceExhausted},
		{"flags", envelope(1, good), connect.CodeInvalidArgument},
		{"a later message without end", append(envelope(0, good), huge...), connect.CodeResourceExhausted},
		{"later words of another session", slices.Concat(envelope(0, good), envelope(0, mustMarshal(t, &pb.SessionRequest{Session: "y", N: 1}))), connect.CodeAborted},
	} {
		conn, in, status := rawSession(t, serve(t, newBackend(t)), agentToken, asksDirect...)
		if status != http.StatusSwitchingProtocols {
			t.Fatal(status)
		}
		_, _ = conn.Write(tt.send)
		err := error(nil)
		for err == nil {
			err = readEnvelope(in, maxReport, &pb.SessionResponse{})
		}
		if connect.CodeOf(err) != tt.want {
			t.Errorf("%s: %v; want %v", tt.what, err, tt.want)
		}
	}
}

func mustMarshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDirectLastWords: an agent that is told why its session ends hears it,
// however much it says itself just then.
func TestDirectLastWords(t *testing.T) {
	for range 20 {
		b := newBackend(t)
		s, err := dial(t, serve(t, b), agentToken).Session(t.Context(), hello())
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			for s.Send(control.Message{Full: true}) == nil {
				continue
			}
		}()
		waitFor(t, func() bool { return b.said() > 3 })
		if _, _, err = b.Do(t.Context(), control.RevokeCredential{Hash: HashToken(agentToken)}); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = s.Recv()
		}
		if fault.Of(err) != fault.Unauthenticated {
			t.Fatalf("the session ended with %v; want unauthenticated", err)
		}
		<-over
	}
}

// TestDirectCost: a session in which nothing is said has one goroutine at the
// server, however it came in, and by TLS that waits where its stack is small.
func TestDirectCost(t *testing.T) {
	const many = 30
	b := newBackend(t)
	url, byTLS := serve(t, b), serveTLS(t)
	cert := byTLS.cert(byTLS.authority, "uid-1", "m1", agentToken)
	var sessions []*Session
	for range many {
		for _, agent := range []*Agent{dial(t, url, agentToken), byTLS.dial(agentToken, cert)} {
			s, err := agent.Session(t.Context(), hello())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			sessions = append(sessions, s)
		}
	}
	in := func(function string) int {
		var out bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&out, 2)
		n := 0
		for g := range strings.SplitSeq(out.String(), "\n\n") {
			if strings.Contains(g, function) {
				n++
			}
		}
		return n
	}
	waitFor(t, func() bool {
		for _, a := range sessions { // what came with the first words is read otherwise
			if err := a.send(&pb.SessionRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		return in("rpc.(*direct).run") == 2*many && in("rpc.(*records).wait") == many && in("http.(*conn).serve") == 0 && in("rpc.(*talk).tell(") == 0
	})
}

// hearAll takes in what the server says until the session is over.
func hearAll(s *Session) {
	for {
		if _, err := s.Recv(); err != nil {
			return
		}
	}
}

// TestLookOnCall: the stream for questions is there when somebody asks, and
// gone when nobody does; no question is lost between the two.
func TestLookOnCall(t *testing.T) {
	b := newBackend(t)
	sv := newServices(b, Options{})
	sv.looks.idle = 2 * time.Millisecond
	agent := dial(t, serveServices(t, sv), agentToken)
	s, err := agent.Session(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go hearAll(s)
	go func() {
		_ = agent.Look(t.Context(), "m1", func(_ context.Context, q Question) (LookAnswer, error) {
			return LookAnswer{Data: []byte(q.Path), Next: int64(len(q.Path)), EOF: true}, nil
		})
	}()
	open := func() bool {
		sv.looks.mu.Lock()
		defer sv.looks.mu.Unlock()
		return sv.looks.peers["m1"] != nil
	}
	if open() {
		t.Error("the stream is open before anybody asked")
	}
	id := task.ID{Job: "www-data/prod/hello", Attempt: 1}
	for i := range 100 {
		a, err := sv.looks.ask(t.Context(), "m1", Question{Task: id, What: Read, Path: "abc", Max: 10})
		if err != nil || string(a.Data) != "abc" {
			t.Fatalf("question %d: %+v, %v", i, a, err)
		}
		if i%10 == 0 {
			waitFor(t, func() bool { return !open() })
		}
	}
}

// FuzzEnvelope: no bytes make the reader panic, or read more than its limit.
func FuzzEnvelope(f *testing.F) {
	f.Add(envelope(0, nil))
	f.Add(envelope(0, []byte{8, 1}))
	f.Add(envelope(2, []byte(`{"error":{"code":"aborted","message":"x"},"metadata":{"covey-leader":["y"]}}`)))
	f.Add(envelope(2, []byte(`{}`)))
	f.Add([]byte{0, 0, 0, 1})
	f.Add(endEnvelope(fault.Conflict.Errorf("x")))
	f.Fuzz(func(_ *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for readEnvelope(r, 1<<10, &pb.SessionResponse{}) == nil {
			continue
		}
	})
}

// TestEnd: how a stream ended is the same at the other end.
func TestEnd(t *testing.T) {
	read := func(err error) error {
		return readEnvelope(bytes.NewReader(endEnvelope(err)), maxReport, &pb.SessionResponse{})
	}
	if err := read(nil); !errors.Is(err, io.EOF) {
		t.Errorf("in order: %v; want %v", err, io.EOF)
	}
	for _, c := range codes {
		err := read(c.kind.Errorf("some words"))
		if got := FromWire(err); !connect.IsWireError(err) || fault.Of(got) != c.kind || got.Error() != "some words" {
			t.Errorf("%v: got %v (%v)", c.kind, got, fault.Of(got))
		}
	}
	leader, servers, ok := elsewhereFromWire(read(View{Servers: []Server{{URL: "http://a", Leads: true}, {URL: "http://b"}}}.Elsewhere()))
	if !ok || leader != "http://a" || len(servers) != 2 {
		t.Errorf("elsewhere: %q, %q, %v", leader, servers, ok)
	}
}
