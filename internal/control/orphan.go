package control

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// orphaned is why an orphan is held.
const orphaned = "its agent lost its directory: it runs unwatched until covey cluster recover stops it"

// orphan answers a sighting of a task that lives where its row says, while its
// agent has no directory of it. Nobody sees any more whether it is well or how
// it ends, so another attempt takes its place, and it is held as a stray. What
// somebody has stopped before is told so again. It reports whether the task is
// a stray now.
func (t *Turn) orphan(from machine.ID, x state.Task, s task.Sighting) (stray bool) {
	if x.State.Stopping() {
		t.send(from, task.Order{ID: s.ID, Verb: task.Stop, Reason: x.Reason})
		return false
	}
	t.hold(from, s, orphaned)
	if t.lingers(x) { // exclusive: nobody renews its lease, and until that ends there is no other
		return false
	}
	e := task.Event{To: task.Lost, Reason: "its agent lost its directory; it may run on"}
	return t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: e, Gone: fault.Planted("orphan-gone")}) == nil
}
