package server

import (
	"context"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/rpc"
)

// TestBusy: whom the queue has no room for is told when to come again, and that
// nothing has happened; what an agent says waits in line instead.
func TestBusy(t *testing.T) {
	l := newLooper(nil, "dev", "test", newStats(), nil)
	l.inLine = time.Millisecond
	b := &backend{looper: l}
	for range maxQueue {
		l.inputs <- input{}
	}
	for range maxAsked {
		l.asked <- input{}
	}
	_, _, err := b.Do(t.Context(), control.KillJob{Key: "a/prod/b"})
	if fault.Of(err) != fault.Exhausted || rpc.RetryAfter(err) != comeAgain {
		t.Errorf("a command: %v (%v), again after %v; want exhausted, and after %v", err, fault.Of(err), rpc.RetryAfter(err), comeAgain)
	}
	if _, err = b.Attach(t.Context(), control.Hello{}, func() {}); fault.Of(err) != fault.Exhausted || rpc.RetryAfter(err) != comeAgain {
		t.Errorf("an agent that comes: %v; want exhausted", err)
	}
	if len(l.inputs) != maxQueue || len(l.asked) != maxAsked {
		t.Errorf("%d and %d wait; want none more", len(l.inputs), len(l.asked))
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() {
		_, err := (&session{l: l}).Hear(ctx, control.Message{Full: true})
		over <- err
	}()
	if _, _, err = b.Do(t.Context(), control.KillJob{Key: "a/prod/b"}); fault.Of(err) != fault.Exhausted {
		t.Errorf("another command: %v; want exhausted", err)
	}
	cancel()
	if err := <-over; fault.Of(err) != fault.Unavailable {
		t.Errorf("%v; want unavailable, since the connection is gone", err)
	}
	if _, _, err = b.Do(ctx, control.KillJob{Key: "a/prod/b"}); err == nil {
		t.Error("no error for who is gone")
	}
}

// TestCommandsFirst: a command is in the next turn, however much agents have to
// say, and what they say has the rest of it.
func TestCommandsFirst(t *testing.T) {
	l := newLooper(nil, "dev", "test", newStats(), nil)
	said, asked := 0, 0
	for range maxQueue {
		l.inputs <- input{done: func(error) { said++ }}
	}
	for range 100 {
		l.asked <- input{done: func(error) { asked++ }}
	}
	finish(l.gather(<-l.inputs), nil)
	if said != maxInputs-100 || asked != 100 {
		t.Errorf("a turn takes in %d messages and %d commands; want %d and all 100", said, asked, maxInputs-100)
	}
}
