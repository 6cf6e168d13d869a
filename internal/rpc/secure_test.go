package rpc

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/trust"
)

// TestSecureAtOnce: however the words of an agent are cut into records, all of
// them are heard, although nothing follows.
func TestSecureAtOnce(t *testing.T) {
	const each, many = 64, 120 // bytes of a message: where eight end, what is read ahead ends too
	h := helloToWire(hello())
	h.Wire = Wire
	word := &pb.SessionRequest{Session: "s", N: 1}
	word.Session += strings.Repeat("s", each-len(envelope(0, mustMarshal(t, word))))
	h.Session = word.GetSession()
	first := envelope(0, mustMarshal(t, &pb.SessionRequest{Hello: h, Session: word.GetSession()}))
	var words []byte
	for i := range many {
		word.N = uint64(i + 1)
		words = append(words, envelope(0, mustMarshal(t, word))...)
	}
	for what, size := range map[string]int{"one record": len(words), "a record for each": each, "a record for eight": 8 * each, "a record for a byte": 1, "records that end anywhere": 300} {
		s := serveTLS(t)
		conn, in := rawSecure(t, s)
		if _, err := conn.Write(first); err != nil {
			t.Fatal(err)
		}
		if err := readEnvelope(in, maxReport, &pb.SessionResponse{}); err != nil {
			t.Fatal(err)
		}
		if n := len(envelope(0, mustMarshal(t, word))); n != each {
			t.Fatalf("a word has %d bytes; want %d", n, each)
		}
		for rest := words; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := conn.Write(rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		go func() { _, _ = io.Copy(io.Discard, in) }()
		waitFor(t, func() bool { return s.said() == many })
		t.Logf("%s: all were heard", what)
	}
}

// rawSecure asks by TLS for a session, and returns it behind the head of the answer.
func rawSecure(t *testing.T, s *secured) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{
		RootCAs: trust.Pool(s.authority.Certificate()), Time: s.clock.now, NextProtos: []string{directProtocol}, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
		Certificates: []tls.Certificate{*s.cert(s.authority, "uid-1", "m1", agentToken)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	head := append([]string{"POST " + api.AgentServiceSessionProcedure + " HTTP/1.1", "Host: 127.0.0.1"}, asksDirect...)
	if _, err = io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s", resp.Status, b)
	}
	return conn, in
}

// TestSecureNoTLS: who speaks HTTP without TLS hears that the port wants it,
// however much it says.
func TestSecureNoTLS(t *testing.T) {
	s := serveTLS(t)
	for range 50 {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, err = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: here\r\nX: "+strings.Repeat("x", 10_000)+"\r\n\r\n")
		got, bad := io.ReadAll(conn)
		_ = conn.Close()
		if err != nil || bad != nil || !strings.Contains(string(got), trust.WantsTLS) {
			t.Fatalf("it heard %q, %v, %v; want %q, and the end in order", got, err, bad, trust.WantsTLS)
		}
	}
}

// sips is a connection that gives its bytes in bits of any size, and tells how
// many were taken.
type sips struct {
	net.Conn
	in    *bytes.Reader
	r     *rand.Rand
	taken int
}

func (s *sips) Read(b []byte) (int, error) {
	n, err := s.in.Read(b[:min(len(b), 1+s.r.IntN(40))])
	s.taken += n
	return n, err
}

// TestRecords: of any bytes, a reader gets all, and never some of a record
// before it has had the last of the one before.
func TestRecords(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var text []byte
		ends := map[int]bool{}
		for range r.IntN(8) {
			n := r.IntN(300)
			text = append(text, 23, 3, 3, byte(n>>8), byte(n))
			for range n {
				text = append(text, byte(r.IntN(256)))
			}
			ends[len(text)] = true
		}
		from := &sips{in: bytes.NewReader(text), r: r}
		in := &records{Conn: from}
		var got []byte
		for {
			b := make([]byte, 1+r.IntN(600))
			before := from.taken
			n, err := in.Read(b)
			got = append(got, b[:n]...)
			for at := before + 1; at < from.taken; at++ {
				if ends[at] {
					t.Fatalf("one reading took the bytes %d to %d; a record ends at %d", before, from.taken, at)
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
		}
		if !bytes.Equal(got, text) {
			t.Fatalf("got %d bytes; want the %d that were sent", len(got), len(text))
		}
	}
}

// short is a listener that is out of files for a moment, and then breaks.
type short struct {
	net.Listener
	left int
	then error
}

func (s *short) Accept() (net.Conn, error) {
	if s.left--; s.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return nil, s.then
}

// TestSecureAccept: a connection that cannot be taken is said, and the next one
// is waited for; a listener that is broken ends the server.
func TestSecureAccept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := newAuthority(t).Present([]string{"127.0.0.1"}, time.Now, quiet)
	if err != nil {
		t.Fatal(err)
	}
	s := NewTLSServer(http.NotFoundHandler(), p)
	var said bytes.Buffer
	s.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(&said, nil), slog.LevelWarn)
	broken := errors.New("the listener broke")
	if err = ServeTLS(s, &short{Listener: l, left: 2, then: broken}); !errors.Is(err, broken) {
		t.Errorf("the server ended with %v; want %v", err, broken)
	}
	if n := strings.Count(said.String(), "a connection was not taken"); n != 2 {
		t.Errorf("it said that a connection was not taken %d times; want 2:\n%s", n, &said)
	}
}
