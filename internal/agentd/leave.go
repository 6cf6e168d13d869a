package agentd

import (
	"context"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
)

// An agent that is told to stop its tasks leaves the cluster in order: it says
// that it takes no more, stops what runs, tells how each task ended and what it
// used, and when all of that is durable at the server it says goodbye: from
// then on the machine is down, and nobody pays for its tasks. Every wait has an
// end; what could not be told is told at the next start.

// shutdownReason marks tasks that were stopped with their machine.
const shutdownReason = "its machine was told to stop every task"

// leavingReason is that of tasks that came too late.
const leavingReason = "refused: its machine was told to stop every task"

// How long an agent's end may take.
const (
	stopWithin  = 60 * time.Second // for the tasks to stop
	tellWithin  = 8 * time.Second  // then for the server to take in how they ended
	hurryWithin = 3 * time.Second  // for either, when somebody is in a hurry
)

// departure is how far the agent's end has come. Its zero value has not begun.
type departure struct {
	late    <-chan time.Time // it ends then, whatever is missing
	stopped bool             // nothing lives
	hurried bool
	bye     bool // said in this session
	over    bool // the server has taken in the goodbye
}

// leave begins the agent's end.
func (d *daemon) leave() {
	if d.leaving.Swap(true) {
		return
	}
	d.depart.late = time.After(stopWithin)
	d.say(true)
	for id := range d.live {
		d.hands.stop(id, shutdownReason)
	}
	for id := range d.starting { // after its start, in the same queue
		d.hands.stop(id, shutdownReason)
	}
}

// hurry kills what has not stopped yet, and waits for the server less.
func (d *daemon) hurry() {
	d.leave()
	d.depart.hurried = true
	d.depart.late = time.After(hurryWithin)
	for id := range d.live {
		d.hands.kill(id, shutdownReason)
	}
	for id := range d.starting {
		d.hands.kill(id, shutdownReason)
	}
}

// departed takes the next step of the agent's end, and reports whether that
// was the last.
func (d *daemon) departed() bool {
	g := &d.depart
	if !d.leaving.Load() || len(d.live)+len(d.starting) > 0 {
		return false
	}
	if !g.stopped {
		g.stopped = true
		g.late = time.After(tellWithin)
		if g.hurried {
			g.late = time.After(hurryWithin)
		}
	}
	if !g.bye && d.session != nil && d.mind.Len() == 0 && len(d.journal.kept.Blocks) == 0 {
		self := d.describe()
		g.bye = d.session.put(control.Message{Full: true, Bye: true, Machine: &self})
	}
	return g.over
}

// late ends the agent though something is missing.
func (d *daemon) late(ctx context.Context) error {
	if left := len(d.live) + len(d.starting); left > 0 {
		return fault.Timeout.Errorf("%d tasks did not stop in time; they are still running", left)
	}
	d.log.WarnContext(ctx, "the server has not taken in how every task ended; it is told at the next start, and counts them as running until then", "tasks", d.mind.Len())
	return errStopped
}

var errStopped = fault.Unavailable.Errorf("every task of this machine was stopped")

// Stopped reports whether an agent ended because it had stopped every task.
func Stopped(err error) bool { return err == errStopped } //nolint:errorlint // it is never wrapped
