package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
)

const (
	serverA = "http://127.0.0.1:7001"
	serverB = "http://127.0.0.1:7002"
	serverC = "http://127.0.0.1:7003"
)

func agentOf(t *testing.T, first string, others ...string) *Agent {
	t.Helper()
	a, err := DialAgent(AgentConfig{URL: first, Others: others})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// follows is what a server says that follows leader, as it comes over the wire.
func follows(leader string, servers ...string) error {
	e := elsewhereToWire(&elsewhereError{leader: leader, servers: servers})
	w := connect.NewWireError(e.Code(), errors.New(e.Message()))
	maps.Copy(w.Meta(), e.Meta())
	return fmt.Errorf("session: %w", w)
}

// An agent turns to the leader that it is told of, else to the next server that
// it knows, and stays when it was heard and refused.
func TestMove(t *testing.T) {
	lost := connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))
	for _, c := range []struct {
		name      string
		servers   []string // the first is the one it is with
		err       error
		to        string   // where it is then
		knows     []string // of servers
		unreached string   // what it tells the next server
	}{
		{"the leader is known", []string{serverA, serverB, serverC}, follows(serverC, serverA, serverB, serverC), serverC, []string{serverA, serverB, serverC}, ""},
		{"the leader is new", []string{serverA}, follows(serverB, serverA, serverB), serverB, []string{serverA, serverB}, ""},
		{"nobody leads", []string{serverA, serverB, serverC}, follows(""), serverB, []string{serverA, serverB, serverC}, ""},
		{"the leader cannot be reached so", []string{serverA, serverB}, follows("https://covey.example:1", "https://covey.example:1"), serverB, []string{serverA, serverB}, ""},
		{"it is the only one", []string{serverA}, follows("", serverA), serverA, []string{serverA}, ""},
		{"it says that it leads", []string{serverA, serverB}, follows(serverA, serverA, serverB), serverA, []string{serverA, serverB}, ""},
		{"not reached", []string{serverA, serverB, serverC}, lost, serverB, []string{serverA, serverB, serverC}, serverA},
		{"not reached, and it is the only one", []string{serverA}, lost, serverA, []string{serverA}, serverA},
		{"it had its reasons", []string{serverA, serverB}, connect.NewWireError(connect.CodePermissionDenied, errors.New("void")), serverA, []string{serverA, serverB}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := agentOf(t, c.servers[0], c.servers[1:]...)
			w, _ := a.current()
			moved := a.move(w, c.err)
			now, _ := a.current()
			if now.url != c.to || moved != (c.to != serverA) || moved != (now != w) {
				t.Errorf("it is with %s, and moved is %v; want %s", now.url, moved, c.to)
			}
			select {
			case <-w.over:
				if !moved || !w.moved {
					t.Errorf("streams to the server were ended; want them to go on")
				}
			default:
				if moved {
					t.Error("streams to the old server go on")
				}
			}
			if d := cmp.Diff(c.knows, a.Servers()); d != "" {
				t.Errorf("servers it knows (-want +got):\n%s", d)
			}
			if got := a.unreached(); got != c.unreached {
				t.Errorf("not reached: %q; want %q", got, c.unreached)
			}
		})
	}
}

// Streams that end together turn the agent once, and not past the server that
// the first of them found.
func TestMoveOnce(t *testing.T) {
	a := agentOf(t, serverA, serverB, serverC)
	w, _ := a.current()
	lost := connect.NewError(connect.CodeUnavailable, errors.New("connection reset"))
	if !a.move(w, lost) || a.move(w, lost) || a.move(w, follows(serverC)) {
		t.Error("the second and the third stream moved it again; want the first alone to")
	}
	now, _ := a.current()
	if now.url != serverB {
		t.Errorf("it is with %s; want %s", now.url, serverB)
	}
	// Around the circle, it comes back to the first.
	for _, want := range []string{serverC, serverA} {
		now, _ = a.current()
		a.move(now, lost)
		if now, _ = a.current(); now.url != want {
			t.Errorf("it is with %s; want %s", now.url, want)
		}
	}
	if got := a.unreached(); got != serverC {
		t.Errorf("not reached last: %q; want %s", got, serverC)
	}
	a.reached()
	if got := a.unreached(); got != "" {
		t.Errorf("not reached: %q; want nothing once a server answered", got)
	}
}

// Agents that share one's connections do not move it.
func TestMoveBeside(t *testing.T) {
	a := agentOf(t, serverA, serverB)
	b, err := DialAgent(AgentConfig{URL: serverA, Others: []string{serverB}, Beside: a})
	if err != nil {
		t.Fatal(err)
	}
	w, _ := b.current()
	if b.move(w, connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))) {
		t.Error("it moved connections that are not its own")
	}
}

// What a server says of others is believed within bounds.
func TestLearn(t *testing.T) {
	a := agentOf(t, serverA)
	a.learn([]string{serverB, serverA, serverB, "", "ftp://127.0.0.1:1", "http://covey.example:1", "https://127.0.0.1:7004", "://"})
	if d := cmp.Diff([]string{serverA, serverB}, a.Servers()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	var many []string
	for i := range 2 * maxServers {
		many = append(many, fmt.Sprintf("http://127.0.0.1:%d", 8000+i))
	}
	a.learn(many)
	got := a.Servers()
	if len(got) != maxServers || got[0] != serverA || got[1] != serverB || got[2] != many[0] {
		t.Errorf("it knows %d servers, the first %v; want %d, and the oldest kept", len(got), got[:3], maxServers)
	}
	got[0] = "changed"
	if a.Servers()[0] != serverA {
		t.Error("who asks for the servers can change them")
	}
}

// A session that ended because the agent turned elsewhere says so, and why.
func TestMovedError(t *testing.T) {
	err := fmt.Errorf("session: %w", movedError{fault.Unavailable.Errorf("it was cut: %w", context.DeadlineExceeded)})
	if !errors.Is(err, ErrMoved) || !errors.Is(err, context.DeadlineExceeded) || fault.Of(err) != fault.Unavailable {
		t.Errorf("%v: it is not all that it is", err)
	}
	if errors.Is(errors.New("x"), ErrMoved) {
		t.Error("any error is taken for a move")
	}
}
