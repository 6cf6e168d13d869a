package rpc

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/trust"
)

const (
	handshakes = 10 * time.Second       // for each
	comeBack   = 100 * time.Millisecond // after a connection that could not be taken
)

// ServeTLS serves what comes to l until s is shut down or closed. s is of
// [NewTLSServer].
//
// Sessions of agents are not left to s: where a goroutine waits decides how
// large its stack is, and below what net/http and crypto/tls have on theirs it is four
// times what a session needs.
func ServeTLS(s *http.Server, l net.Listener) error {
	d := &doorway{Listener: l, s: s, conf: s.TLSConfig.Clone(), ready: make(chan net.Conn), broken: make(chan error), closed: make(chan struct{})}
	go d.watch()
	return s.Serve(d)
}

// doorway is a listener by TLS. It gives its server what speaks HTTP/2, and
// holds the sessions itself.
type doorway struct {
	net.Listener
	s      *http.Server
	conf   *tls.Config
	ready  chan net.Conn
	broken chan error
	once   sync.Once
	closed chan struct{}
}

// Accept returns a connection by TLS after its handshake.
func (d *doorway) Accept() (net.Conn, error) {
	select {
	case c := <-d.ready:
		return c, nil
	case err := <-d.broken:
		return nil, err
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *doorway) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

// watch takes connections until the doorway is closed. One that cannot be
// taken, for want of files, is not the last.
func (d *doorway) watch() {
	for {
		c, err := d.Listener.Accept()
		if err == nil {
			go d.enter(c)
			continue
		}
		var passing interface{ Temporary() bool }
		if errors.As(err, &passing) && passing.Temporary() {
			d.printf("a connection was not taken: %v", err)
			select {
			case <-d.closed:
				return
			case <-time.After(comeBack):
			}
			continue
		}
		select {
		case d.broken <- err:
		case <-d.closed:
		}
		return
	}
}

// enter shakes hands, and shows the connection where it belongs.
func (d *doorway) enter(c net.Conn) {
	in := &records{Conn: c}
	conn := tls.Server(in, d.conf)
	_ = conn.SetDeadline(time.Now().Add(handshakes))
	if err := conn.HandshakeContext(context.Background()); err != nil {
		d.refuse(c, err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	if conn.ConnectionState().NegotiatedProtocol == directProtocol {
		go d.session(conn)
		return
	}
	in.free = true
	select {
	case d.ready <- conn:
	case <-d.closed:
		_ = conn.Close()
	}
}

// refuse ends a connection whose handshake failed. Who speaks HTTP without TLS
// is told so, and gets a moment to hear it: what closes a connection that is
// still spoken to takes the answer with it.
func (d *doorway) refuse(c net.Conn, err error) {
	var head tls.RecordHeaderError
	if errors.As(err, &head) && head.Conn != nil && looksLikeHTTP(head.RecordHeader) {
		_, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\n"+trust.WantsTLS+"\n")
		if w, ok := c.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
			_ = c.SetReadDeadline(time.Now().Add(lastWords))
			_, _ = io.CopyN(io.Discard, c, maxHead)
		}
	}
	_ = c.Close()
	d.printf("no TLS with %s: %v", c.RemoteAddr(), err)
}

func looksLikeHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}

// session serves a connection whose client asked for a session of its own.
func (d *doorway) session(conn *tls.Conn) {
	ctx := context.Background()
	if d.s.BaseContext != nil {
		ctx = d.s.BaseContext(d)
	}
	serveOne(ctx, conn, d.s.Handler, func(what any) {
		d.printf("a bug of the server ended a connection: %v", what)
	})
}

func (d *doorway) printf(format string, args ...any) {
	if d.s.ErrorLog != nil {
		d.s.ErrorLog.Printf(format, args...)
	}
}

// records is a connection from which crypto/tls reads no more than the record
// that it asks for, so that what it has not read is still the kernel's to tell of.
type records struct {
	net.Conn
	head [recordHead]byte
	have int  // bytes of head
	rest int  // bytes of the record
	free bool // it reads what it likes
}

const recordHead = 5 // kind, version, and two bytes of length

func (r *records) Read(b []byte) (int, error) {
	if r.free || len(b) == 0 {
		return r.Conn.Read(b)
	}
	if r.rest > 0 {
		n, err := r.Conn.Read(b[:min(len(b), r.rest)])
		r.rest -= n
		return n, err
	}
	n, err := r.Conn.Read(b[:min(len(b), recordHead-r.have)])
	copy(r.head[r.have:], b[:n])
	if r.have += n; r.have == recordHead {
		r.have, r.rest = 0, int(binary.BigEndian.Uint16(r.head[recordHead-2:]))
	}
	return n, err
}

// wait waits until there is something to read, its end included, or until the
// deadline for reading.
func (r *records) wait() error {
	c, ok := r.Conn.(syscall.Conn)
	if !ok {
		return fault.Internal.Errorf("a connection of type %T, which cannot be waited for", r.Conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(readable)
}

func readable(fd uintptr) bool {
	var b [1]byte
	_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
}
