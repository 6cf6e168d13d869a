package rpc

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
)

// crowd is a cluster that is too busy for the first commands and sessions.
type crowd struct {
	*backend
	busy int
}

func (c *crowd) full() error {
	if c.busy--; c.busy >= 0 {
		return Busy(time.Second, "too much to do: %d", c.busy)
	}
	return nil
}

func (c *crowd) Do(ctx context.Context, x control.Command) (control.Answer, state.Seq, error) {
	if err := c.full(); err != nil {
		return control.Answer{}, 0, err
	}
	return c.backend.Do(ctx, x)
}

func (c *crowd) Attach(ctx context.Context, h control.Hello, news func()) (AgentSession, error) {
	if err := c.full(); err != nil {
		return nil, err
	}
	return c.backend.Attach(ctx, h, news)
}

// TestBusyAgent: an agent that joins comes again by itself; one that opens a
// session hears when to.
func TestBusyAgent(t *testing.T) {
	c := &crowd{newBackend(t), 2}
	a := dial(t, serve(t, c), "")
	j, err := a.Join(t.Context(), joinToken, "m1")
	if err != nil || c.busy != -1 {
		t.Fatalf("join: %v, with %d refusals left; want it to come again", err, c.busy)
	}
	for way, busy := range map[string]func(*Agent){"a connection of its own": func(*Agent) {}, "HTTP/2": func(a *Agent) { a.way.old.Store(true) }} {
		a = dial(t, serve(t, c), j.Credential)
		busy(a)
		c.busy = 1
		if _, err = a.Session(t.Context(), hello()); fault.Of(err) != fault.Exhausted || RetryAfter(err) != time.Second || err.Error() != "too much to do: 0" {
			t.Errorf("%s: %v (%v), again after %v; want exhausted, and after a second", way, err, fault.Of(err), RetryAfter(err))
		}
		s, err := a.Session(t.Context(), hello())
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
}

// TestBusyWire: what a server says of when to come again is believed within
// bounds, and only of a server that is busy.
func TestBusyWire(t *testing.T) {
	for after, want := range map[string]time.Duration{"3": 3 * time.Second, "86400": maxRetryAfter, "0": 0, "-1": 0, "soon": 0, "": 0} {
		w := connect.NewWireError(connect.CodeResourceExhausted, errors.New("x"))
		w.Meta().Set(retryHeader, after)
		if got := RetryAfter(FromWire(w)); got != want {
			t.Errorf("%q: again after %v; want %v", after, got, want)
		}
	}
	w := connect.NewWireError(connect.CodeInternal, errors.New("x"))
	w.Meta().Set(retryHeader, "3")
	if err := FromWire(w); RetryAfter(err) != 0 || fault.Of(err) != fault.Internal {
		t.Errorf("another error: %v", err)
	}
}
