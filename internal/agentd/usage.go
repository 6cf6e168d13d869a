package agentd

import (
	"time"

	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
	"github.com/covey-platform/covey/internal/wall"
)

// sample reads the counters of every living task, and at the turn of an hour
// cuts what was used up to it.
func (d *daemon) sample(now time.Time) {
	turned := d.hourTurned(now)
	at := unit.TickAt(wall.At(now))
	for id, s := range d.live {
		c, err := d.rt.Usage(id)
		if err != nil {
			continue // it has just ended: its last word comes with its status
		}
		d.journal.sample(id, at, unit.TickAt(wall.At(s.StartedAt)), c.CPUNanos, c.RAM, c.Disk)
	}
	d.sampled = now
	if !turned {
		return
	}
	if err := d.journal.cutAll(at.FloorHour()); err != nil {
		d.log.Error("usage was not written down", "error", err)
	}
}

// ended makes the last facts of a task, with its final counters. A task that
// is seen again, by a new agent, has been told of already or is told of now.
func (d *daemon) ended(s runtime.Status) {
	if s.EndedAt.IsZero() || d.book.told(s.ID) {
		return
	}
	d.journal.sample(s.ID, unit.TickAt(wall.At(s.EndedAt)), unit.TickAt(wall.At(s.StartedAt)), s.CPUNanos, s.MaxRAM, s.Disk)
	if err := d.journal.end(s.ID); err != nil {
		d.log.Error("usage was not written down", "task", s.ID.String(), "error", err)
		return
	}
	d.book.tell(s.ID)
}

// failure is a task that could not be started.
type failure struct {
	id    task.ID
	state task.State
	why   string
}
