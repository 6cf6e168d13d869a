package rpc

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
)

// fleet lets n agents share connections to url, and returns them with their
// machines.
func fleet(t *testing.T, b *backend, url string, n int) ([]*Agent, []machine.ID) {
	t.Helper()
	var first *Agent
	agents, ids := make([]*Agent, n), make([]machine.ID, n)
	for i := range n {
		var err error
		if i%(maxShares/2) == 0 {
			if first, err = DialAgent(AgentConfig{URL: url}); err != nil {
				t.Fatal(err)
			}
			share := &first.way.sharing
			t.Cleanup(func() {
				waitFor(t, func() bool { share.drop(); return share.streams == nil || share.streams.IsClosed() })
			})
		}
		ids[i] = machine.ID(fmt.Sprintf("f%03d", i))
		token := "covey_agent_" + string(ids[i])
		if _, _, err := b.Do(t.Context(), credential(token, "agent", string(ids[i]), 0, false)); err != nil {
			t.Fatal(err)
		}
		if agents[i], err = DialAgent(AgentConfig{URL: url, Credential: token, Beside: first}); err != nil {
			t.Fatal(err)
		}
	}
	return agents, ids
}

func open(t *testing.T, a *Agent, id machine.ID) *Session {
	t.Helper()
	s, err := a.Session(t.Context(), control.Hello{UID: "uid-1", Machine: aMachine(id)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestShared: agents share one connection, on which each is asked who it is; when
// it breaks, all of their sessions end, and new ones open another.
func TestShared(t *testing.T) {
	const n = 20
	w := &ways{}
	b := newBackend(t)
	w.next = Handler(b, Options{Now: func() time.Time { return start.Time() }})
	var conns atomic.Int64
	ts := httptest.NewUnstartedServer(w)
	ts.Config = NewServer(w)
	var kept net.Conn
	ts.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateHijacked {
			kept = c
			conns.Add(1)
		}
	}
	ts.Start()
	t.Cleanup(func() {
		_ = kept.Close()
		ts.Close()
	})
	agents, ids := fleet(t, b, ts.URL, n)
	sessions := make([]*Session, n)
	for round := range int64(2) {
		before := b.said()
		for i, a := range agents {
			sessions[i] = open(t, a, ids[i])
			if err := sessions[i].Send(control.Message{Full: true}); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, func() bool { return b.said() == before+n })
		if got := conns.Load(); got != round+1 {
			t.Errorf("round %d: %d connections so far; want one a round", round, got)
		}
		if _, err := agents[0].Session(t.Context(), control.Hello{UID: "uid-1", Machine: aMachine(ids[1])}); fault.Of(err) != fault.Denied {
			t.Errorf("an agent that speaks for another: %v; want denied", err)
		}
		if err := sessions[1].Send(control.Message{}); err != nil {
			t.Errorf("a session beside the one that was denied: %v", err)
		}
		_ = kept.Close()
		for i, s := range sessions {
			if _, err := s.Recv(); err == nil {
				t.Errorf("session of %s: no error; want that the connection broke", ids[i])
			}
		}
	}
}

// TestSharedOlder: a server that knows no shared connections has the sessions
// as streams of HTTP/2.
func TestSharedOlder(t *testing.T) {
	w := &ways{old: true}
	b, _ := listenWays(t, w, false)
	agents, ids := fleet(t, b, w.url, 3)
	for i, a := range agents {
		open(t, a, ids[i])
	}
	if got, want := w.all(), []string{"HTTP/1.1 Session", "HTTP/2.0 Session", "HTTP/2.0 Session", "HTTP/2.0 Session"}; !slices.Equal(got, want) {
		t.Errorf("the server saw %q; want %q", got, want)
	}
}

// slowDoor is a backend that lets agents in when it is told to.
type slowDoor struct {
	*backend
	open   chan struct{}
	inside atomic.Int64
}

func (b *slowDoor) Attach(ctx context.Context, h control.Hello, news func()) (AgentSession, error) {
	b.inside.Add(1)
	<-b.open
	b.inside.Add(-1)
	return b.backend.Attach(ctx, h, news)
}

// TestOpenings: of many agents that come at once, maxOpening are let in at the
// same time; the others wait for their turn and then come in.
func TestOpenings(t *testing.T) {
	const n = maxOpening + 20
	b := &slowDoor{backend: newBackend(t), open: make(chan struct{})}
	crowded := make(chan struct{}, 100)
	agents, ids := fleet(t, b.backend, serveServices(t, newServices(b, Options{
		Now: func() time.Time { return start.Time() },
		Crowded: func() {
			select {
			case crowded <- struct{}{}:
			default:
			}
		},
	})), n)
	in := make(chan error, n)
	for i, a := range agents {
		go func() {
			s, err := a.Session(t.Context(), control.Hello{UID: "uid-1", Machine: aMachine(ids[i])})
			if err == nil {
				t.Cleanup(s.Close)
			}
			in <- err
		}()
	}
	waitFor(t, func() bool { return b.inside.Load() == maxOpening })
	<-crowded // the others say so
	most := int64(0)
	for range n {
		b.open <- struct{}{}
		most = max(most, b.inside.Load())
	}
	for range n {
		if err := <-in; err != nil {
			t.Error(err)
		}
	}
	if most > maxOpening {
		t.Errorf("%d were about to be let in at once; want %d at most", most, maxOpening)
	}
}
