package agentd

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/task"
)

// TestHandsFull: a start that finds no room in its queue is refused, so that
// the task is placed elsewhere at once; it would never be carried out.
func TestHandsFull(t *testing.T) {
	h := newHands(nil, slog.New(slog.DiscardHandler))
	id := task.ID{Job: "www-data/prod/hello", Attempt: 1}
	for range maxDeeds {
		if !h.put(id, func(context.Context) {}) {
			t.Fatal("a deed was dropped while there was room")
		}
	}
	lease := func() (time.Duration, bool) { return 0, true }
	h.start(runtime.Spec{ID: id}, lease)
	select {
	case f := <-h.failed:
		if f.id != id || f.state != task.Lost || !strings.Contains(f.why, "too many orders") {
			t.Errorf("it failed as %+v; want lost, for too many orders", f)
		}
	default:
		t.Error("the start was dropped without a word")
	}
}
