package rpc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/fault"
)

// directProtocol names sessions on a connection of their own: what the request
// asks to upgrade to, and over TLS the protocol of the connection.
//
// A connection of HTTP/2 with one stream costs a server 50 KiB: three
// goroutines, and buffers for what hardly ever comes. These cost a tenth, and
// carry the same bytes.
const directProtocol = "covey-session"

const (
	directHead   = 10 * time.Second // to send the head of the request
	directBuffer = 512              // bytes read ahead: a sign of life has fewer
	maxHead      = 64 << 10         // bytes of the head
	lastWords    = 2 * time.Second  // to hear how the session ended
)

// wantsDirect reports whether a request asks for a session of its own.
func wantsDirect(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.URL.Path == api.AgentServiceSessionProcedure && strings.EqualFold(r.Header.Get("Upgrade"), directProtocol)
}

// upgrade lets an agent in as the gate does, and leaves HTTP.
func (s *services) upgrade(w http.ResponseWriter, r *http.Request) {
	stays, held := w.(*headWriter)
	ctx := r.Context()
	if !held {
		ctx = context.WithoutCancel(ctx) // it ends with the request
	}
	leave, err := s.enter(ctx)
	if err != nil {
		refuse(w, err)
		return
	}
	opened := false
	defer func() {
		if !opened {
			leave()
		}
	}()
	known, err := s.gate(context.WithValue(ctx, connKey{}, r.TLS), connect.Spec{Procedure: api.AgentServiceSessionProcedure, StreamType: connect.StreamTypeBidi}, connect.Peer{}, r.Header)
	if err != nil {
		refuse(w, FromWire(err))
		return
	}
	conn, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, fault.Invalid.Errorf("this connection cannot leave HTTP: %w", err))
		return
	}
	d := &direct{s: s, who: callerOf(known), conn: conn, lost: r.Header.Get(lostHeader)}
	d.who.seen = &admission{}
	// What was read ahead comes first; then the large buffer is let go.
	d.from = tail{Reader: conn, more: true}
	var ahead io.Reader = &d.from
	if n := rest.Reader.Buffered(); n > 0 {
		early, _ := rest.Peek(n)
		ahead = io.MultiReader(bytes.NewReader(bytes.Clone(early)), &d.from)
	}
	d.in = bufio.NewReaderSize(ahead, directBuffer)
	if c, ok := conn.(*tls.Conn); ok {
		d.below, _ = c.NetConn().(*records)
	}
	opened = true
	if held {
		stays.then = func() { d.run(ctx, leave) }
		return
	}
	go d.run(ctx, leave) // so that what HTTP holds for the request is let go
}

// direct is a session's connection, after HTTP. It is a [pipe].
type direct struct {
	s     *services
	who   caller
	conn  net.Conn
	in    *bufio.Reader
	from  tail     // what in reads
	below *records // what TLS reads; nil: it is not known, or there is none
	lost  string
}

// tail knows whether its reader may have more at hand: it has not, when it gave
// less than was asked for.
type tail struct {
	io.Reader
	more bool
}

func (t *tail) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	t.more = n == len(b)
	return n, err
}

// run holds the session until it is over.
func (d *direct) run(ctx context.Context, leave func()) {
	defer leave()
	defer d.conn.Close() //nolint:errcheck // nothing is lost
	defer func() {
		if what := recover(); what != nil {
			d.end(d.s.recovered(ctx, connect.Spec{Procedure: api.AgentServiceSessionProcedure}, nil, what))
		}
	}()
	_ = d.conn.SetDeadline(time.Now().Add(sendLimit))
	if switchTo(d.conn, directProtocol) != nil {
		return
	}
	d.end(d.s.converse(ctx, d, d.lost, leave))
}

// switchTo says that a connection leaves HTTP.
func switchTo(w io.Writer, protocol string) error {
	_, err := io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
	return err
}

// end tells the agent how the session ended, and waits a moment until it has
// heard: a connection that is closed while the agent still speaks takes the
// last words with it.
func (d *direct) end(err error) {
	_ = d.conn.SetWriteDeadline(time.Now().Add(sendLimit))
	if _, lost := d.conn.Write(endEnvelope(err)); lost != nil {
		return
	}
	if c, ok := d.conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		_ = d.conn.SetReadDeadline(time.Now().Add(lastWords))
		_, _ = io.Copy(io.Discard, d.conn)
	}
}

func (d *direct) Until(t time.Time) { _ = d.conn.SetReadDeadline(t) }

// Await waits for the head of a message. Where a goroutine waits decides how
// large its stack is for as long as the agent is silent: Go halves those of
// which less than a quarter is used, and here that is so much less than in
// Receive that the stack has half the size. TLS would take four times as much:
// it is not asked while it has nothing.
func (d *direct) Await() { // what is wrong is seen by Receive
	if d.below != nil && d.in.Buffered() == 0 && !d.from.more {
		_ = d.below.wait()
		return
	}
	_, _ = d.in.Peek(envelopeHead)
}

// Receive reads a message and asks whether it is allowed.
func (d *direct) Receive() (*pb.SessionRequest, error) {
	m := &pb.SessionRequest{}
	if err := readEnvelope(d.in, maxReport, m); err != nil {
		return nil, err
	}
	if err := d.s.still(d.who); err != nil {
		return nil, err
	}
	return m, allow(d.who, api.AgentServiceSessionProcedure, m)
}

// Send sends a message to who may still have it.
func (d *direct) Send(m *pb.SessionResponse) error {
	if err := d.s.still(d.who); err != nil {
		return err
	}
	_ = d.conn.SetWriteDeadline(time.Now().Add(sendLimit))
	return writeEnvelope(d.conn, m)
}

// serveOne serves a connection of its own, or a stream that stands for one: one
// request, and then what the handler makes of it. A bug in that ends the
// connection, and is told.
func serveOne(ctx context.Context, conn net.Conn, h http.Handler, bug func(what any)) {
	// A server that ends does not wait for sessions.
	stays := context.AfterFunc(ctx, func() { _ = conn.Close() })
	over := func() {
		stays()
		_ = conn.Close()
	}
	w := &headWriter{conn: conn, header: http.Header{}}
	w.serve(ctx, h, bug)
	if w.then == nil {
		over()
		return
	}
	go func() { // with a stack that has not grown yet
		defer over()
		w.then()
	}()
}

// headWriter answers the one request of a connection, unless that is taken
// over.
type headWriter struct {
	conn   net.Conn
	in     *bufio.Reader
	header http.Header
	wrote  bool
	then   func() // who took it over
}

func (w *headWriter) serve(ctx context.Context, h http.Handler, bug func(what any)) {
	defer func() { w.in, w.header = nil, nil }()
	_ = w.conn.SetDeadline(time.Now().Add(directHead))
	w.in = bufio.NewReaderSize(io.LimitReader(w.conn, maxHead), directBuffer)
	r, err := http.ReadRequest(w.in)
	if err != nil {
		return
	}
	r.RemoteAddr, r.Body = w.conn.RemoteAddr().String(), http.NoBody
	if c, ok := w.conn.(*tls.Conn); ok {
		state := c.ConnectionState()
		r.TLS = &state
	}
	if !wantsDirect(r) {
		refuse(w, fault.Denied.Errorf("a connection of protocol %s is for sessions of agents; want h2 for all else", directProtocol))
		return
	}
	defer func() {
		if what := recover(); what != nil {
			bug(what)
		}
	}()
	h.ServeHTTP(w, r.WithContext(ctx))
}

func (w *headWriter) Header() http.Header { return w.header }

func (w *headWriter) WriteHeader(status int) {
	if w.wrote {
		return
	}
	w.wrote = true
	w.header.Set("Connection", "close")
	head := "HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\n"
	if _, err := io.WriteString(w.conn, head); err == nil {
		_ = w.header.Write(w.conn)
		_, _ = io.WriteString(w.conn, "\r\n")
	}
}

func (w *headWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.conn.Write(b)
}

// Hijack hands the connection to its caller.
func (w *headWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(w.in, bufio.NewWriterSize(w.conn, 16)), nil
}
