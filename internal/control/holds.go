package control

import (
	"time"

	"github.com/covey-platform/covey/internal/converge"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// Holds says what a leader does not start yet as of its last commit, for
// people. The zero value holds nothing back.
type Holds struct {
	All       Hold // any task
	Exclusive Hold // tasks of exclusive jobs

	paused string                // why tasks of vanished machines are not given up
	taken  map[state.Slot]string // slots with a task that is held, and where that is
}

// A Hold is why something waits.
type Hold struct {
	Why   string    // empty: it does not
	Until unit.Tick // at the latest, by the time of the records; 0: no time ends it, or none is known yet
}

// String says why and until when; it is empty when nothing waits.
func (h Hold) String() string {
	if h.Why == "" || h.Until == 0 {
		return h.Why
	}
	return h.Why + ", until " + clock(h.Until) + " at the latest"
}

// clock is a time of day for people, in whole seconds that are over by then.
func clock(at unit.Tick) string { return at.Time().Add(time.Second - 1).Format("15:04:05 UTC") }

// Holds returns what the loop holds back as of the last commit.
func (l *Loop) Holds() Holds {
	h := Holds{paused: l.vanish.why}
	at := func(steady unit.Tick) unit.Tick {
		if l.told == 0 {
			return 0 // no turn has said yet what the time is
		}
		return l.told + steady - l.steady
	}
	if l.hold.until != 0 {
		h.All = Hold{"a leader has just begun, and first hears from the machines what they run", at(l.hold.until)}
		if l.snap.Cluster.Recovery {
			h.All.Why = "the cluster was restored from an old copy, and first hears from the machines what they run"
		}
	}
	if l.lone != 0 {
		h.Exclusive = Hold{"its job is exclusive and a leader has just begun: the former one may still let a task of it run", at(l.lone)}
	}
	for id, x := range l.held {
		if h.taken == nil {
			h.taken = map[state.Slot]string{}
		}
		at := instanceOf(id)
		if text := "its job is exclusive, and " + id.String() + " runs on " + string(x.Machine) + ", where it is held (see covey cluster show)"; h.taken[at] == "" || text < h.taken[at] {
			h.taken[at] = text
		}
	}
	return h
}

// Of says why no task is numbered or placed in a slot, of a job that runs cfg;
// empty: nothing holds it back.
func (h Holds) Of(at state.Slot, cfg *job.Config) string {
	switch {
	case cfg == nil || !cfg.Exclusive:
		return h.All.String()
	case h.Exclusive.Why != "" && h.Exclusive.Until >= h.All.Until:
		return h.Exclusive.String()
	case h.All.Why != "":
		return h.All.String()
	}
	return h.taken[at]
}

// Partitioned says how long a task waits for its machine to return before
// another may take its place.
func (h Holds) Partitioned(s *state.Snapshot, t state.Task) string {
	at, ever := converge.GivenUp(s, t)
	switch {
	case !ever:
		return "it waits for its machine, as its partition_policy says"
	case h.paused != "":
		return "it is not given up: " + h.paused
	}
	return "unless its machine returns, it is given up at " + clock(at)
}
