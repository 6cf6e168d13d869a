package server

import (
	"context"
	"log/slog"
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
	for range maxComing {
		l.coming <- input{}
	}
	_, _, err := b.Do(t.Context(), control.KillJob{Key: "a/prod/b"})
	if fault.Of(err) != fault.Exhausted || rpc.RetryAfter(err) != comeAgain {
		t.Errorf("a command: %v (%v), again after %v; want exhausted, and after %v", err, fault.Of(err), rpc.RetryAfter(err), comeAgain)
	}
	if _, err = b.Attach(t.Context(), control.Hello{}, func() {}); fault.Of(err) != fault.Exhausted || rpc.RetryAfter(err) != comeAgain {
		t.Errorf("an agent that comes: %v; want exhausted", err)
	}
	if len(l.inputs) != maxQueue || len(l.asked) != maxAsked || len(l.coming) != maxComing {
		t.Errorf("%d, %d and %d wait; want none more", len(l.inputs), len(l.asked), len(l.coming))
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

// TestCommandsFirst: a command is in the next turn, however many agents come
// and however much they have to say; then those that come are, and what is said
// has the rest of the turn.
func TestCommandsFirst(t *testing.T) {
	l := newLooper(nil, "dev", "test", newStats(), nil)
	said, came, asked := 0, 0, 0
	for range maxQueue {
		l.inputs <- input{done: func(error) { said++ }}
	}
	for range maxComing {
		l.coming <- input{done: func(error) { came++ }}
	}
	for range 100 {
		l.asked <- input{done: func(error) { asked++ }}
	}
	finish(l.gather(<-l.inputs), nil)
	if said != maxInputs-100-maxComing || came != maxComing || asked != 100 {
		t.Errorf("a turn takes in %d messages, %d agents and %d commands; want %d, all %d and all 100", said, came, asked, maxInputs-100-maxComing, maxComing)
	}
}

// TestDeaf: a loop that slept, and one before whose door agents stand in line,
// take no agent for silent; the latter so now and then, for as long as they do.
func TestDeaf(t *testing.T) {
	l := newLooper(nil, "dev", "test", newStats(), slog.New(slog.DiscardHandler))
	now := time.Now()
	for i, step := range []struct {
		after, slept time.Duration
		crowded      bool
		want         bool
	}{
		{after: 0, slept: time.Second},
		{after: time.Second, slept: stall + 1, want: true},
		{after: time.Second, slept: time.Second, crowded: true, want: true},
		{after: time.Second, slept: time.Second, crowded: true},
		{after: crowdEvery, slept: time.Second, want: true}, // it was crowded since
		{after: crowdEvery, slept: time.Second},
	} {
		now = now.Add(step.after)
		if step.crowded {
			l.crowded.Store(true)
		}
		if got := l.deaf(t.Context(), now, step.slept); got != step.want {
			t.Errorf("step %d: got %v; want %v", i, got, step.want)
		}
	}
}
