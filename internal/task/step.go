package task

import (
	"fmt"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// An Event says that a task should be, or was seen, in state To.
type Event struct {
	To      State
	At      unit.Tick
	Machine machine.ID // for Assigned
	Ports   []uint16   // for Assigned
	GPUs    []uint16   // for Assigned: which ones
	Reason  string     // for people; cut to [MaxReason] bytes
}

// A Policy is what a task's config says about its end.
type Policy struct {
	Service     bool  // runs again for ever
	MaxFailures int32 // ad hoc: give up after so many; -1 is never
}

// An Effect is what the world must do after a step.
type Effect uint8

// The effects, Aurora's.
const (
	Kill              Effect = iota // tell the machine to stop it
	Reschedule                      // its instance wants a new task
	IncrementFailures               // count a failure of its instance
	TransitionToLost                // step on to Lost at once
	Delete                          // forget it: nothing ever ran
)

var effectNames = [...]string{"KILL", "RESCHEDULE", "INCREMENT_FAILURES", "TRANSITION_TO_LOST", "DELETE"}

// String returns the effect as Aurora spells it.
func (e Effect) String() string {
	if int(e) < len(effectNames) {
		return effectNames[e]
	}
	return fmt.Sprintf("EFFECT(%d)", uint8(e))
}

// A Result says what became of an event.
type Result uint8

// The results.
const (
	Done    Result = iota // the task moved
	Noop                  // it was there already
	Illegal               // it cannot; effects may still be wanted
)

// rule is one legal step. again names the reason for a replacement, if any.
type rule struct {
	effects []Effect
	again   again
}

// again says when a step is followed by a replacement.
type again uint8

const (
	never      again = iota
	always           // the instance still wants a task
	ifService        // for a service
	ifAllowed        // for a service, or below the job's failures
	ifUnwanted       // unless someone asked for its end
)

var (
	plain   = rule{}
	stop    = rule{effects: []Effect{Kill}}
	replace = rule{again: always}
	ended   = rule{again: ifService}
	broke   = rule{effects: []Effect{IncrementFailures}, again: ifAllowed}
	lose    = rule{effects: []Effect{Kill}, again: always}
	giveUp  = rule{effects: []Effect{TransitionToLost}}
	forget  = rule{effects: []Effect{Delete}}
)

// life holds every legal step: life[from][to]. What is absent is illegal. The
// rows follow Aurora's TaskStateMachine; step_test.go holds them to its cases.
var life = map[State]map[State]rule{
	Init:      {Throttled: plain, Pending: plain},
	Throttled: {Pending: plain, Killing: forget},
	Pending:   {Assigned: plain, Killing: forget},
	Assigned: {
		Starting: plain, Running: plain, Finished: ended, Failed: broke, Killed: replace, Lost: lose,
		Preempting: stop, Restarting: stop, Draining: stop, Killing: stop,
	},
	Starting: {
		Running: plain, Finished: ended, Failed: broke, Killed: replace, Lost: replace, Partitioned: plain,
		Preempting: stop, Restarting: stop, Draining: stop, Killing: stop,
	},
	Running: {
		Finished: ended, Failed: broke, Killed: replace, Lost: replace, Partitioned: plain,
		Preempting: stop, Restarting: stop, Draining: stop, Killing: stop,
	},
	Preempting: {Finished: replace, Failed: replace, Killed: replace, Lost: lose, Killing: plain, Partitioned: giveUp},
	Restarting: {Finished: replace, Failed: replace, Killed: replace, Lost: lose, Killing: plain, Partitioned: giveUp},
	Draining:   {Finished: replace, Failed: replace, Killed: replace, Lost: lose, Killing: plain, Partitioned: giveUp},
	Killing:    {Finished: plain, Failed: plain, Killed: plain, Lost: plain, Partitioned: giveUp, Deleted: forget},
	Partitioned: {
		Assigned: plain, Starting: plain, Running: plain, Finished: ended, Failed: broke,
		Lost:       {effects: []Effect{Kill}, again: ifUnwanted},
		Preempting: giveUp, Restarting: giveUp, Draining: giveUp, Killing: giveUp,
	},
	Finished: {Deleted: forget},
	Failed:   {Deleted: forget},
	Killed:   {Deleted: forget},
	Lost:     {Deleted: forget},
}

// Step returns t after e, what the world must do about it, and what became of
// the event. When the result is not Done, t is unchanged; a runner that claims
// to run what must not run is still told to stop.
func Step(t Task, e Event, p Policy) (Task, []Effect, Result) {
	if t.State == e.To {
		return t, nil, Noop
	}
	r, ok := life[t.State][e.To]
	if !ok {
		if claimsToRun(e.To) && (t.State.Terminal() || t.State.Stopping()) {
			return t, []Effect{Kill}, Illegal
		}
		return t, nil, Illegal
	}
	effects := append([]Effect(nil), r.effects...)
	if r.counts() {
		t.Failures++
	}
	if r.again.holds(t, p) {
		effects = append(effects, Reschedule)
	}
	if e.To == Killing {
		t.Wanted = true
	}
	if t.State == Pending {
		t.Room, t.RoomUntil = "", 0
	}
	if e.To == Assigned && e.Machine != "" {
		t.Machine, t.Ports, t.GPUs = e.Machine, e.Ports, e.GPUs
	}
	if e.To == Running && t.Ran == 0 {
		t.Ran = e.At
	}
	t.State, t.Since, t.Reason = e.To, e.At, Clip(e.Reason)
	return t, effects, Done
}

func (r rule) counts() bool { return slices.Contains(r.effects, IncrementFailures) }

func (a again) holds(t Task, p Policy) bool {
	switch a {
	case always:
		return true
	case ifService:
		return p.Service
	case ifAllowed:
		return p.Service || p.MaxFailures == -1 || t.Failures < p.MaxFailures
	case ifUnwanted:
		return !t.Wanted && !fault.Planted("lost-forever")
	case never:
	}
	return false
}

func claimsToRun(s State) bool { return s == Assigned || s == Starting || s == Running }

// Clip cuts s to MaxReason bytes, at a rune.
func Clip(s string) string {
	if len(s) <= MaxReason {
		return s
	}
	n := MaxReason - len("...")
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n] + "..."
}
