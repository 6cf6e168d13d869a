package agentd

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// reach is how far back the book of orders goes, in a file of it: it is lost
// with the book, and void when the computer has restarted, since then an old
// copy of the directory is not noticed.
type reach struct {
	Boot  string     `json:"boot"`
	Since agent.Seen `json:"since"`
}

const reachFile = "since.json" // no task's name ends so: an id has slashes

// since returns how far back the book goes; zero: that is not known.
func (b *book) since(boot string) agent.Seen {
	var r reach
	data, err := os.ReadFile(filepath.Join(b.dir, reachFile))
	if err != nil || json.Unmarshal(data, &r) != nil || r.Boot != boot {
		return agent.Seen{}
	}
	return r.Since
}

// begin notes how far back the book goes.
func (b *book) begin(boot string, since agent.Seen) error {
	data, err := json.Marshal(reach{Boot: boot, Since: since})
	if err != nil {
		return fault.Internal.Errorf("%w", err)
	}
	return replaceFile(filepath.Join(b.dir, reachFile), data, false)
}

// recall returns how far back this agent remembers what it was told to run. A
// memory that may be an old copy of itself is none.
func (d *daemon) recall(boot string) agent.Seen {
	if d.oldCopy || d.missing != "" {
		return agent.Seen{}
	}
	return d.book.since(boot)
}

// reach writes down where a memory begins that has just begun. If that fails,
// the next agent begins anew, and what was on its way to it is placed again.
func (d *daemon) reach() {
	since := d.mind.Since()
	if since == *d.since.Load() {
		return
	}
	d.since.Store(&since)
	if err := d.book.begin(d.self.Boot, since); err != nil {
		d.log.Error("how far back this agent remembers could not be written down", "error", err)
	}
}

// seeGone tells of the tasks that this machine was told to run, and of which it
// has no directory any more: nobody knows how they ended.
func (d *daemon) seeGone(shown map[task.ID]bool) {
	for id := range d.book.entries {
		if shown[id] {
			continue
		}
		x := d.book.sighting(id)
		x.State, x.Reason = task.Lost, "its directory was lost: it may have run, and ended"
		d.mind.See(x)
	}
}

func obeyed(s *agent.Seen) control.Seen {
	return control.Seen{Epoch: s.Epoch, Rev: state.Rev(s.Rev)}
}
