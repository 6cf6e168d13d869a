package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/trust"
)

// A clientPipe carries the messages of a session, at the agent's end.
type clientPipe interface {
	Send(m *pb.SessionRequest) error
	Receive() (*pb.SessionResponse, error)
	CloseRequest() error
}

// pipe opens the way for a session: a connection of its own, or a stream of
// HTTP/2 where the server, or something before it, knows only that.
func (a *Agent) pipe(ctx context.Context, w *way) (clientPipe, error) {
	header := http.Header{}
	a.sign(header)
	if lost := a.unreached(); lost != "" {
		header.Set(lostHeader, lost)
	}
	if !w.old.Load() {
		p, err := w.upgrade(ctx, header, a.cfg.Beside != nil)
		switch {
		case err == nil:
			return p, nil
		case connect.IsWireError(err):
			return nil, err
		case !errors.Is(err, errOld):
			return nil, connect.NewError(connect.CodeUnavailable, err) // it was not reached
		}
		w.old.Store(true)
	}
	stream := w.client.Session(ctx)
	maps.Copy(stream.RequestHeader(), header)
	closeWith(ctx, stream)
	return stream, nil
}

// errOld says that the other end knows no sessions on a connection of their own.
var errOld = fault.Invalid.Errorf("the server speaks HTTP/2 only")

// directly returns a transport of connections for sessions.
func directly(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	var p http.Protocols
	p.SetHTTP1(true)
	return &http.Transport{
		Protocols: &p, DialContext: dial, MaxIdleConnsPerHost: -1,
		ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10, ResponseHeaderTimeout: sendLimit,
	}
}

// ownConnections are for a session each.
func ownConnections(secure bool, c *tls.Config) http.RoundTripper {
	dial := &net.Dialer{Timeout: 5 * time.Second}
	t := directly(dial.DialContext)
	if secure {
		c = c.Clone()
		c.NextProtos = []string{directProtocol} // and no other, so that an older server says that it does not know it
		t.DialTLSContext = (&tls.Dialer{NetDialer: dial, Config: c}).DialContext
	}
	return trust.Explained{Next: t}
}

// upgrade opens a connection for one session, or takes part in one; the error
// errOld says that the server has none to give.
func (w *way) upgrade(ctx context.Context, header http.Header, share bool) (clientPipe, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+api.AgentServiceSessionProcedure, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header = header.Clone()
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", directProtocol)
	conns := w.sessions
	if share {
		conns = w.shared
	}
	resp, err := conns.RoundTrip(r)
	if p := trust.ProblemOf(err); p != nil && p.Unspoken() || errors.Is(err, errOld) {
		return nil, errOld
	}
	if err != nil {
		return nil, err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode == http.StatusSwitchingProtocols && ok && resp.Header.Get("Upgrade") == directProtocol {
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		return clientDirect{conn}, nil
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	return nil, refusal(resp)
}

// refusal is why a server did not upgrade: it will not have the caller, or it
// does not know how.
func refusal(resp *http.Response) error {
	var e endError
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil || resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden ||
		json.NewDecoder(bytes.NewReader(data)).Decode(&e) != nil || e.Code == 0 {
		return errOld
	}
	return connect.NewWireError(e.Code, errors.New(e.Message))
}

// clientDirect is a connection of one session.
type clientDirect struct{ io.ReadWriteCloser }

// Send sends a message. A connection that broke is [io.EOF], as it is of a
// stream: who receives hears why.
func (c clientDirect) Send(m *pb.SessionRequest) error {
	if err := writeEnvelope(c, m); err != nil {
		return fmt.Errorf("%w: %w", io.EOF, err)
	}
	return nil
}

func (c clientDirect) CloseRequest() error { return c.Close() }

func (c clientDirect) Receive() (*pb.SessionResponse, error) {
	m := &pb.SessionResponse{}
	err := readEnvelope(c, maxReport, m)
	if err == nil || errors.Is(err, io.EOF) || connect.IsWireError(err) {
		return m, err
	}
	return nil, fault.Unavailable.Errorf("the connection to the server broke: %w", err)
}
