package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/xtaci/smux"

	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/fault"
)

// sharedProtocol names connections that carry sessions of several agents, each
// as a stream that begins and goes on like a connection of its own. Only
// without TLS: with it, a connection is who speaks on it.
//
// HTTP/2 can do the same and needs many times the work for each message: with
// 50,000 agents, more than the two ends have time for.
const sharedProtocol = "covey-sessions"

// maxShares is how many agents may share a connection.
const maxShares = 256

// wantsShared reports whether a request asks for a connection of several
// sessions.
func wantsShared(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.URL.Path == api.AgentServiceSessionProcedure && strings.EqualFold(r.Header.Get("Upgrade"), sharedProtocol)
}

// share serves a connection of several sessions until it ends. Who speaks is
// asked of each of them.
func (s *services) share(w http.ResponseWriter, r *http.Request, h http.Handler) {
	if r.TLS != nil {
		refuse(w, fault.Denied.Errorf("agents share no connections over TLS; want one for each"))
		return
	}
	conn, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, fault.Invalid.Errorf("this connection cannot leave HTTP: %w", err))
		return
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	_ = conn.SetDeadline(time.Time{})
	if err = switchTo(conn, sharedProtocol); err != nil {
		return
	}
	streams, err := smux.Server(ahead{rest.Reader, conn}, smux.DefaultConfig())
	if err != nil {
		return
	}
	defer streams.Close() //nolint:errcheck // nothing is lost
	ctx := context.WithoutCancel(r.Context())
	for {
		stream, err := streams.AcceptStream()
		if err != nil {
			return
		}
		if streams.NumStreams() > maxShares {
			_ = stream.Close() // the agent takes it for a connection that was cut
			continue
		}
		go serveOne(ctx, stream, h, func(what any) {
			_ = s.recovered(ctx, connect.Spec{Procedure: api.AgentServiceSessionProcedure}, nil, what)
		})
	}
}

// ahead is a connection of which something was read already.
type ahead struct {
	*bufio.Reader
	net.Conn
}

func (a ahead) Read(b []byte) (int, error) { return a.Reader.Read(b) }

// sharing is the agents' end: a connection that is opened when a session needs
// one and there is none.
type sharing struct {
	mu      sync.Mutex
	streams *smux.Session // nil: none yet
}

// open returns a stream for one session; the error errOld says that the server
// knows none.
func (s *sharing) open(ctx context.Context, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams != nil {
		if c, err := s.streams.OpenStream(); err == nil {
			return c, nil
		}
		_ = s.streams.Close() // it broke
	}
	var err error
	if s.streams, err = dialShared(ctx, address); err != nil {
		s.streams = nil
		return nil, err
	}
	return s.streams.OpenStream()
}

// drop closes the connection unless a session uses it.
func (s *sharing) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams != nil && s.streams.NumStreams() == 0 {
		_ = s.streams.Close()
	}
}

func dialShared(ctx context.Context, address string) (*smux.Session, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	_ = conn.SetDeadline(time.Now().Add(sendLimit))
	_, err = io.WriteString(conn, "POST "+api.AgentServiceSessionProcedure+" HTTP/1.1\r\nHost: "+address+"\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: "+sharedProtocol+"\r\n\r\n")
	if err == nil {
		err = switched(in)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetDeadline(time.Time{})
	return smux.Client(ahead{in, conn}, smux.DefaultConfig())
}

// switched reads whether the server has taken up the protocol.
func switched(in *bufio.Reader) error {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.Join(errOld, resp.Body.Close())
	}
	return nil
}
