package control

import (
	"iter"
	"maps"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// hold keeps a new leader from numbering and placing tasks before the machines
// have spoken. If its database is an old copy, they know, and they run tasks
// under numbers that it does not remember.
type hold struct {
	until  unit.Tick           // at the latest; 0: nothing is held
	soon   unit.Tick           // then one machine's word is enough
	silent map[machine.ID]bool // machines that were up and have not said what they run
	spoke  bool                // one has
}

// wait begins a hold at steady, for a leader that begins at s.
func wait(s *state.Snapshot, steady unit.Tick, cfg Config) hold {
	h := hold{until: steady + cfg.StartGrace, soon: steady + cfg.StartHold, silent: map[machine.ID]bool{}}
	for m := range s.Machines() {
		if m.Up || m.Leaving { // one that has left in order may know more than an old copy as well
			h.silent[m.ID] = true
		}
	}
	if s.Cluster.Recovery {
		h.until = steady + cfg.RecoveryGrace
	}
	return h
}

// lone returns until when a leader that begins at s fills no slot of an
// exclusive job; 0: no such job is known. A former leader may have held a task
// of the slot that no row knows, and may go on telling its machine that the
// task may live: for as long as a proof of leading is good and a lease lasts.
func lone(s *state.Snapshot, steady unit.Tick, cfg Config) unit.Tick {
	if !anyExclusive(s) {
		return 0
	}
	return steady + cfg.StartGrace
}

// anyExclusive reports whether a job wants one task per instance at most. A
// leader that does not know yet that its database is an old copy may know of
// an instance and not of its task, which a machine that has not spoken runs.
func anyExclusive(s *state.Snapshot) bool {
	for range exclusiveJobs(s) {
		return true
	}
	return false
}

func exclusiveJobs(s *state.Snapshot) iter.Seq[state.Job] {
	return func(yield func(state.Job) bool) {
		for j := range s.Jobs("") {
			if cfg, ok := s.Config(j.Config); ok && cfg.Exclusive && !yield(j) {
				return
			}
		}
	}
}

// exclusiveSlots is the delta of a leader that has not filled the slots of
// exclusive jobs yet.
func exclusiveSlots(s *state.Snapshot) state.Delta {
	d := state.NewDelta()
	for j := range exclusiveJobs(s) {
		for in := range s.Instances(j.Key) {
			d.Slots[in.Slot] = true
		}
	}
	return d
}

func (h *hold) copy() hold {
	c := *h
	c.silent = maps.Clone(h.silent)
	return c
}

// heard notes that a machine has said what it runs.
func (h *hold) heard(id machine.ID) {
	if h.until != 0 {
		delete(h.silent, id)
		h.spoke = true
	}
}

// over ends the hold when it is time. In a recovery, machines may run tasks
// that the copy does not even know of.
func (h *hold) over(steady unit.Tick, recovery bool) bool {
	enough := !recovery && (len(h.silent) == 0 || h.spoke && steady >= h.soon)
	if h.until == 0 || steady < h.until && !enough {
		return false
	}
	*h = hold{}
	return true
}

// next is when time alone may end the hold, 0 if there is none.
func (h *hold) next(recovery bool) unit.Tick {
	if h.until != 0 && h.spoke && !recovery {
		return min(h.until, h.soon)
	}
	return h.until
}

// Warm ends the hold of a leader whose state is known to be no old copy, because
// it has followed the one before it commit by commit or knows where that one
// stood last: so the machines need not be asked first.
// Slots of exclusive jobs wait all the same: tasks that are held are in no commit.
func (l *Loop) Warm() {
	if !l.snap.Cluster.Recovery {
		l.hold = hold{}
	}
}

// Settled reports whether this leader starts tasks: either it has heard the
// machines, or its state is known to be no old copy.
func (l *Loop) Settled() bool { return l.hold.until == 0 }
