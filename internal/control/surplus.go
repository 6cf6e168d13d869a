package control

import (
	"fmt"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// surplus bounds how many tasks are stopped that no act of a user explains:
// those that run though the cluster remembers their end. A machine that comes
// back has some; many at once may as well mean that the cluster is wrong.
type surplus struct {
	told map[task.ID]unit.Tick // which were told to stop, and when first, by the steady clock
}

// may reports whether a task may be told to stop now. One that was told before
// may be told again, and counts once.
func (s *surplus) may(id task.ID, now unit.Tick, limit int, cfg Config) bool {
	if _, again := s.told[id]; again {
		return true
	}
	recent := 0
	for x, at := range s.told {
		switch age := now - at; {
		case age < cfg.StopWindow:
			recent++
		case age >= cfg.StopMemory:
			delete(s.told, x)
		}
	}
	if recent >= limit && !fault.Planted("stops-unbounded") {
		return false
	}
	s.note(id, now)
	return true
}

func (s *surplus) note(id task.ID, now unit.Tick) {
	if s.told == nil {
		s.told = map[task.ID]unit.Tick{}
	}
	s.told[id] = now
}

// stopSurplus tells a machine to stop a task that is over as far as the
// cluster knows; or holds the task, when too many were told so just now. Its
// machine shows it again within half a minute, and it has another chance.
func (t *Turn) stopSurplus(from machine.ID, s task.Sighting) {
	l := t.loop
	_, live, _ := t.draft.Snapshot().Len()
	limit := max(l.cfg.StopLeast, live*l.cfg.StopShare/100)
	if !l.surplus.may(s.ID, t.steady, limit, l.cfg) {
		why := fmt.Sprintf("it was replaced or killed, but %d such tasks were stopped within a minute, of %d in all: this one stops later, or by covey cluster resume", limit, live)
		l.held[s.ID] = Held{Sighting: s, Machine: from, Why: why, Surplus: true}
		return
	}
	t.unheld = append(t.unheld, s.ID)
	t.send(from, task.Order{ID: s.ID, Verb: task.Stop, Reason: "it is not wanted any more: it was replaced or its job was killed while its machine was out of reach"})
}

// heldSurplus counts the tasks that wait for their stop.
func (l *Loop) heldSurplus() int {
	n := 0
	for _, h := range l.held {
		if h.Surplus {
			n++
		}
	}
	return n
}
