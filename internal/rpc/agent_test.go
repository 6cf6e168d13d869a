package rpc

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

func dial(t *testing.T, url, credential string) *Agent {
	t.Helper()
	a, err := DialAgent(AgentConfig{URL: url, Credential: credential, Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// TestAgentLife takes an agent from its join token to a task that runs.
func TestAgentLife(t *testing.T) {
	b := newBackend(t)
	url := serve(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	joined, err := dial(t, url, "").Join(ctx, joinToken, "m1")
	if err != nil {
		t.Fatal(err)
	}
	if joined.UID != "uid-1" || joined.Name != "dev" || joined.Credential == "" {
		t.Fatalf("joined %+v", joined)
	}
	if _, err = dial(t, url, "").Join(ctx, joinToken, "m1"); fault.Of(err) != fault.Unauthenticated {
		t.Fatalf("a used token: %v; want unauthenticated", err)
	}

	s, err := dial(t, url, joined.Credential).Session(ctx, hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if p := s.Peer(); p.Wire != Wire || p.Version != "test" || p.Orders.UID != "uid-1" || p.Orders.Epoch.N != 1 {
		t.Errorf("the server says %+v of itself", p)
	}
	if err = s.Send(control.Message{Full: true}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return b.said() == 1 })
	if _, _, err = b.Do(ctx, control.CreateJob{Job: aJob(1), By: "ann"}); err != nil {
		t.Fatal(err)
	}
	o, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Orders) != 1 || o.Orders[0].Verb != task.Run || len(o.Configs[o.Orders[0].Config]) == 0 || len(o.Orders[0].Ports) != 1 {
		t.Fatalf("orders %+v; want one to run, with its config and port", o)
	}
	run := o.Orders[0]
	seen := task.Sighting{ID: run.ID, Config: run.Config, Resources: run.Resources, Ports: run.Ports, State: task.Running, Reason: "up"}
	if err = s.Send(control.Message{Sightings: []task.Sighting{seen}, Facts: []state.Fact{{Source: "m1/j", Seq: 1, Payload: []byte("x")}}}); err != nil {
		t.Fatal(err)
	}
	if o, err = s.Recv(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]uint64{"m1/j": 1}, o.Acks); diff != "" {
		t.Errorf("acks (-want +got):\n%s", diff)
	}
	if x, ok := b.View().Snapshot.Task(run.ID); !ok || x.State != task.Running || x.Reason != "up" {
		t.Errorf("the task is %+v; want it running", x)
	}
}

func TestSessionRefused(t *testing.T) {
	b := newBackend(t)
	url := serve(t, b)
	foreign, other, unnamed := hello(), hello(), hello()
	foreign.UID = "uid-2"
	other.Machine.ID = "m2"
	unnamed.Machine.Host = string(make([]byte, maxText+1))
	for _, tt := range []struct {
		what       string
		credential string
		hello      control.Hello
		want       fault.Kind
	}{
		{"no credential", "", hello(), fault.Unauthenticated},
		{"garbage", "garbage", hello(), fault.Unauthenticated},
		{"an admin's token", adminToken, hello(), fault.Denied},
		{"a join token", joinToken, hello(), fault.Denied},
		{"another machine", agentToken, other, fault.Denied},
		{"another cluster", agentToken, foreign, fault.Conflict},
		{"a text without end", agentToken, unnamed, fault.Invalid},
	} {
		_, err := dial(t, url, tt.credential).Session(t.Context(), tt.hello)
		if fault.Of(err) != tt.want {
			t.Errorf("%s: %v (%v); want %v", tt.what, err, fault.Of(err), tt.want)
		}
	}
}

// TestSessionFacts holds that an agent sends facts of its own machine only.
func TestSessionFacts(t *testing.T) {
	for source, want := range map[string]fault.Kind{"m2/j": fault.Denied, "m11/j": fault.Denied, "": fault.Denied} {
		b := newBackend(t)
		s, err := dial(t, serve(t, b), agentToken).Session(t.Context(), hello())
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(control.Message{Full: true, Facts: []state.Fact{{Source: source, Seq: 1}}})
		if _, err = s.Recv(); fault.Of(err) != want {
			t.Errorf("facts of %q: %v; want %v", source, err, want)
		}
		s.Close()
	}
}

// TestSessionEnds holds that the agent hears when the server lets it go, and
// the server when the agent is gone.
func TestSessionEnds(t *testing.T) {
	b := newBackend(t)
	a := dial(t, serve(t, b), agentToken)
	s, err := a.Session(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.sessions["m1"].end()
	delete(b.sessions, "m1")
	b.mu.Unlock()
	if _, err = s.Recv(); fault.Of(err) != fault.Unavailable {
		t.Errorf("the server let it go: %v; want unavailable", err)
	}
	s, err = a.Session(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err = s.Recv(); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v; want %v", err, errClosed)
	}
}

// TestLook asks an agent many things at once.
func TestLook(t *testing.T) {
	b := newBackend(t)
	sv := newServices(b, Options{})
	url := serveServices(t, sv)
	id := task.ID{Job: "www-data/prod/hello", Attempt: 1}
	if _, err := sv.looks.ask(t.Context(), "m1", Question{Task: id, What: List, Max: 10}); fault.Of(err) != fault.Unavailable {
		t.Errorf("without an agent: %v; want unavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	agent := dial(t, url, agentToken)
	session, err := agent.Session(ctx, hello())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	go hearAll(session)
	go func() {
		over <- agent.Look(ctx, "m1", func(_ context.Context, q Question) (LookAnswer, error) {
			if q.Path == "no" {
				return LookAnswer{}, fault.NotFound.Errorf("no such file")
			}
			return LookAnswer{Data: []byte(q.Path), Offset: q.Offset, Next: q.Offset + int64(len(q.Path)), EOF: true}, nil
		})
	}()
	got := make(chan error, 50)
	for i := range 50 {
		go func() {
			path := string(rune('a' + i%26))
			a, err := sv.looks.ask(t.Context(), "m1", Question{Task: id, What: Read, Path: path, Offset: int64(i), Max: 10})
			if err == nil && (string(a.Data) != path || a.Next != int64(i)+1) {
				err = fault.Internal.Errorf("asked for %s at %d, got %+v", path, i, a)
			}
			got <- err
		}()
	}
	for range 50 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	_, err = sv.looks.ask(t.Context(), "m1", Question{Task: id, What: Read, Path: "no", Max: 10})
	if fault.Of(err) != fault.NotFound || err.Error() != "no such file" {
		t.Errorf("a file that is not there: %v (%v)", err, fault.Of(err))
	}
	if _, err = sv.looks.ask(t.Context(), "m1", Question{Task: id, What: Read, Path: "too much", Max: 1}); fault.Of(err) != fault.Internal {
		t.Errorf("an answer beyond what was asked for: %v; want internal", err)
	}
	cancel()
	if err = <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("Look ended with %v; want %v", err, context.Canceled)
	}
}

// waitFor polls until f holds.
func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited 10 s in vain")
		}
	}
}

// TestBeside: agents share connections to one server, and only without TLS.
func TestBeside(t *testing.T) {
	plain, err := DialAgent(AgentConfig{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	beside, err := DialAgent(AgentConfig{URL: "http://127.0.0.1:1", Beside: plain})
	if err != nil || beside.way.conns != plain.way.conns {
		t.Errorf("%v; want the connections of the other agent", err)
	}
	for _, url := range []string{"https://127.0.0.1:1", "http://127.0.0.1:2"} {
		if _, err := DialAgent(AgentConfig{URL: url, Beside: plain}); fault.Of(err) != fault.Invalid {
			t.Errorf("%s beside http://127.0.0.1:1: %v; want invalid", url, err)
		}
	}
}

// TestSessionLease: a message that prolonged the lease is acknowledged, with
// the time at which it was sent; nothing is while the leader may not lead.
func TestSessionLease(t *testing.T) {
	b := newBackend(t)
	now := time.Duration(0)
	renewed := make(chan time.Duration, 10)
	a, err := DialAgent(AgentConfig{
		URL: serve(t, b), Credential: agentToken, Steady: func() time.Duration { now += time.Second; return now },
		Renewed: func(sent time.Duration) { renewed <- sent },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	s, err := a.Session(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() { _, _ = s.Recv() }()
	want := func(what time.Duration) {
		t.Helper()
		select {
		case got := <-renewed:
			if got != what {
				t.Errorf("renewed by what was sent at %v; want %v", got, what)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not renewed; want by what was sent at %v", what)
		}
	}
	for i, doubts := range []bool{false, true, false} {
		b.doubts.Store(doubts)
		if err := s.Send(control.Message{Full: true}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return b.said() == i+1 })
		if !doubts {
			want(time.Duration(i+1) * time.Second)
		}
	}
	if len(renewed) > 0 {
		t.Errorf("renewed %d times more", len(renewed))
	}
}

// TestSessionLeaseWord: an agent that says much is told now and then that its
// lease goes on, and of the last message for certain.
func TestSessionLeaseWord(t *testing.T) {
	const n = 300
	b := newBackend(t)
	now := time.Duration(0)
	var words, last atomic.Int64
	a, err := DialAgent(AgentConfig{
		URL: serve(t, b), Credential: agentToken, Steady: func() time.Duration { now++; return now },
		Renewed: func(sent time.Duration) { words.Add(1); last.Store(int64(sent)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	s, err := a.Session(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() { _, _ = s.Recv() }()
	began := time.Now()
	for range n {
		if err := s.Send(control.Message{Full: true}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return last.Load() >= n })
	if got, most := words.Load(), 4+2*int64(time.Since(began)/leaseWord); got > most && most < n {
		t.Errorf("%d words for %d messages in %v; want %d at most", got, n, time.Since(began), most)
	}
}

// TestSessionLeaseFirst: an agent knows of its lease before it sees the orders
// that came with it.
func TestSessionLeaseFirst(t *testing.T) {
	b := newBackend(t)
	b.doubts.Store(true) // nothing is acknowledged beside the orders
	renewed := make(chan time.Duration, 10)
	a, err := DialAgent(AgentConfig{
		URL: serve(t, b), Credential: agentToken, Steady: func() time.Duration { return time.Second },
		Renewed: func(sent time.Duration) { renewed <- sent },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	s, err := a.Session(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(control.Message{Full: true}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return b.said() == 1 })
	b.mu.Lock()
	b.sessions["m1"].put(Orders{UID: "uid-1", Leased: 1, Orders: []task.Order{{ID: task.ID{Job: "a/prod/b", Attempt: 1}, Verb: task.Stop}}})
	b.mu.Unlock()
	for {
		o, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Orders) > 0 {
			break
		}
	}
	if len(renewed) != 1 {
		t.Errorf("the lease was renewed %d times by when the orders were seen; want once", len(renewed))
	}
}

// One name is for one agent: a second one is refused while the first is alive,
// and its token stays good.
func TestJoinRival(t *testing.T) {
	b := newBackend(t)
	url := serve(t, b)
	s, err := dial(t, url, agentToken).Session(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err = dial(t, url, "").Join(t.Context(), joinToken, "m1"); fault.Of(err) != fault.Conflict || !strings.Contains(err.Error(), "--machine") {
		t.Errorf("a join as a machine that is alive: %v; want a conflict that says what to do", err)
	}
	clone := hello()
	clone.Machine.Boot = "boot-2"
	if _, err = dial(t, url, agentToken).Session(t.Context(), clone); fault.Of(err) != fault.Conflict {
		t.Errorf("a session from another computer: %v; want a conflict", err)
	}
	if err = s.Send(control.Message{Full: true}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return b.said() == 1 }) // and the first one's goes on
	if _, err = dial(t, url, "").Join(t.Context(), joinToken, "m3"); err != nil {
		t.Errorf("the token after the refusal: %v", err)
	}
	if err := b.turn(func(t *control.Turn) error { return t.Hello(hello()) }); err != nil {
		t.Errorf("the same computer again: %v", err)
	}
}
