package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// vanish watches for many machines that go out of reach at once: that is a
// broken network far more often than as many broken machines.
type vanish struct {
	gone  map[machine.ID]unit.Tick
	since unit.Tick // paused since then; 0: not paused
	slow  unit.Tick // tasks are given up at a bounded rate, counted from here; 0: no bound
	until unit.Tick // the bound ends then
	why   string
}

// remember works out what a leader that begins at s must know of machines that
// vanished before its time: the rows say when each of them went.
func remember(s *state.Snapshot, steady unit.Tick, cfg Config) vanish {
	v := vanish{gone: map[machine.ID]unit.Tick{}}
	_, _, machines := s.Len()
	var went []unit.Tick
	for m := range s.Machines() {
		if age := s.At - m.Since; !m.Up && !m.Leaving && age < 2*cfg.VanishPause {
			v.gone[m.ID] = steady - age
			went = append(went, steady-age)
		}
	}
	slices.Sort(went)
	first := 0
	for i, at := range went {
		for at-went[first] > cfg.VanishWindow {
			first++
		}
		if many(i-first+1, machines, cfg) {
			v.pause(at, i-first+1, machines, cfg)
		}
	}
	if v.since != 0 && steady-v.since >= cfg.VanishPause {
		v = vanish{slow: steady, until: v.since + 2*cfg.VanishPause}
	}
	return v
}

// many reports whether so many machines do not break at once by themselves.
func many(gone, machines int, cfg Config) bool {
	return gone >= cfg.VanishLeast && int64(gone)*100 > int64(machines)*cfg.VanishShare
}

func (v *vanish) pause(now unit.Tick, gone, machines int, cfg Config) {
	v.since = now
	v.why = fmt.Sprintf("%d of %d machines went out of reach within a minute: their tasks are not started elsewhere until they return, or for %v", gone, machines, cfg.VanishPause.Duration().Round(time.Second))
}

// copy returns what an aborted turn leaves of v.
func (v *vanish) copy() vanish {
	c := *v
	c.gone = maps.Clone(v.gone)
	return c
}

func (v *vanish) down(now unit.Tick, id machine.ID) {
	if v.gone == nil {
		v.gone = map[machine.ID]unit.Tick{}
	}
	v.gone[id] = now
}

func (v *vanish) up(id machine.ID) { delete(v.gone, id) }

// judge begins and ends the pause. machines is how many there are in all.
func (v *vanish) judge(now unit.Tick, machines int, cfg Config) {
	recent := 0
	for id, at := range v.gone {
		switch {
		case now-at <= cfg.VanishWindow:
			recent++
		case v.since == 0:
			delete(v.gone, id)
		}
	}
	switch {
	case v.since == 0 && many(recent, machines, cfg):
		v.pause(now, recent, machines, cfg)
	case v.since != 0 && len(v.gone) < cfg.VanishLeast:
		*v = vanish{}
	case v.since != 0 && now-v.since >= cfg.VanishPause:
		*v = vanish{slow: now, until: now + cfg.VanishPause}
	}
}

// giveUp is how many tasks of vanished machines may be given up in a turn.
func (v *vanish) giveUp(now unit.Tick, cfg Config) int {
	switch {
	case v.since != 0:
		return 0
	case v.slow == 0 || now >= v.until:
		v.slow = 0
		return cfg.TurnChanges
	default:
		n := int((now-v.slow)/second) * cfg.ResumeRate
		if n > 0 {
			v.slow += (now - v.slow) / second * second
		}
		return n
	}
}

// resume ends the pause by an operator's act.
func (v *vanish) resume(now unit.Tick, cfg Config) {
	*v = vanish{slow: now, until: now + cfg.VanishPause}
}

// pending reports whether time alone changes what may be given up.
func (v *vanish) pending() bool { return v.since != 0 || v.slow != 0 }

// disown reports why a task that no row knows must be held instead of
// stopped. It may be stopped only where the cluster remembers its end: an
// attempt that was numbered and is over. An attempt that was never numbered
// here proves that something was forgotten. Empty: it may be stopped.
func (t *Turn) disown(id task.ID) string {
	in, ok := t.draft.Snapshot().Instance(instanceOf(id))
	if !ok || in.Attempt < id.Attempt {
		return "the cluster has no memory of starting it"
	}
	return ""
}

func sortedIDs[V any](set map[task.ID]V) []task.ID {
	return slices.SortedFunc(maps.Keys(set), task.ID.Compare)
}

func sortedMachines(orders map[machine.ID][]task.Order, acks map[machine.ID]map[string]uint64) []machine.ID {
	ids := slices.Collect(maps.Keys(orders))
	for id := range acks {
		if _, both := orders[id]; !both {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, cmp.Compare)
	return ids
}
