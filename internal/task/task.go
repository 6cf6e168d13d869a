// Package task is the life of one attempt to run one instance of a job.
//
// A task is a value and its life is a function, [Step]. Step never fails,
// never blocks and never looks at a clock: an event that makes no sense in the
// present state leaves the task as it was and returns the effects that bring a
// stray runner back in line. The states, the legal steps and their effects are
// Aurora's (TaskStateMachine.java); the whole machine is printed, state by
// event, in testdata/step.golden: review that file, not this code.
package task

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// An ID names a task inside its cluster. It is derived, never drawn, and never
// used twice: Attempt is a counter of the instance that only grows.
type ID struct {
	Job      job.Key
	Instance int32
	Attempt  uint32 // from 1
}

// String returns role/env/name/instance.attempt.
func (id ID) String() string {
	return string(id.Job) + "/" + strconv.Itoa(int(id.Instance)) + "." + strconv.FormatUint(uint64(id.Attempt), 10)
}

// Compare orders IDs by job, instance and attempt.
func (id ID) Compare(o ID) int {
	if c := strings.Compare(string(id.Job), string(o.Job)); c != 0 { // cmp.Compare would also ask whether they equal themselves
		return c
	}
	if c := cmp.Compare(id.Instance, o.Instance); c != 0 {
		return c
	}
	return cmp.Compare(id.Attempt, o.Attempt)
}

// ParseID reads what [ID.String] wrote.
func ParseID(s string) (ID, error) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return ID{}, badID(s)
	}
	in, at, ok := strings.Cut(s[i+1:], ".")
	instance, err1 := strconv.ParseUint(in, 10, 31)
	attempt, err2 := strconv.ParseUint(at, 10, 32)
	if !ok || err1 != nil || err2 != nil || attempt == 0 {
		return ID{}, badID(s)
	}
	id := ID{job.Key(s[:i]), int32(instance), uint32(attempt)}
	if id.String() != s {
		return ID{}, badID(s)
	}
	return id, id.Job.Validate()
}

func badID(s string) error {
	return fault.Invalid.Errorf("task id %.100q; want role/env/name/instance.attempt, such as www-data/prod/hello/0.1", s)
}

// A Task is one attempt. After a terminal state it never runs again; a
// replacement is a new task with the next attempt number. It is kept small
// because there are a million of them: what happened to it is in the records.
type Task struct {
	ID        ID
	Config    job.Hash       // what it runs
	Resources unit.Resources // what it reserves, from its config
	State     State
	Machine   machine.ID // set from Assigned on
	Ports     []uint16   // one for each of the config's ports, in order; set with Machine
	GPUs      []uint16   // the numbers of the machine's GPUs that it has; empty, though it has some, if nobody chose them
	Room      machine.ID // while Pending: the machine on which others are being stopped for it
	RoomUntil unit.Tick  // it is its room until then
	Created   unit.Tick
	Since     unit.Tick // when State was entered
	Ran       unit.Tick // when it was first Running; 0 if it never was
	Failures  int32     // failures of this instance so far, this task's included
	Wanted    bool      // KILLING is in its history: someone asked for its end
	Reason    string    // why it is in State, for people; at most [MaxReason] bytes
}

// MaxReason bounds the reason in a row, in bytes.
const MaxReason = 120

// A State is a point in a task's life.
type State uint8

// The states, with Aurora's names.
const (
	Init        State = iota // before it exists
	Throttled                // waits out a delay after an early death
	Pending                  // waits for a machine
	Assigned                 // has a machine, which has not answered
	Starting                 // its machine prepares it
	Running                  // runs, and is healthy if anyone checks
	Finished                 // ended well
	Failed                   // ended badly
	Killed                   // ended because it was told to
	Lost                     // nobody knows; its machine is gone
	Preempting               // is being stopped for a task that matters more
	Restarting               // is being stopped to be started anew
	Draining                 // is being stopped because its machine is wanted
	Killing                  // is being stopped
	Partitioned              // its machine is out of reach, but may return
	Deleted                  // is no longer remembered
)

// States is the number of states.
const States = int(Deleted) + 1

var stateNames = [States]string{
	"INIT", "THROTTLED", "PENDING", "ASSIGNED", "STARTING", "RUNNING", "FINISHED", "FAILED", "KILLED", "LOST",
	"PREEMPTING", "RESTARTING", "DRAINING", "KILLING", "PARTITIONED", "DELETED",
}

// String returns the bare name, such as RUNNING.
func (s State) String() string {
	if int(s) < States {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE(%d)", uint8(s))
}

// ParseState reads what [State.String] wrote.
func ParseState(s string) (State, bool) {
	for i, n := range stateNames {
		if n == s {
			return State(i), true
		}
	}
	return 0, false
}

// Terminal reports whether a task in state s will never run again.
func (s State) Terminal() bool { return s >= Finished && s <= Lost || s == Deleted }

// Placed reports whether a task in state s holds its resources on a machine.
func (s State) Placed() bool {
	switch s {
	case Assigned, Starting, Running, Preempting, Restarting, Draining, Killing, Partitioned:
		return true
	default:
		return false
	}
}

// Stopping reports whether a task in state s has been told to end.
func (s State) Stopping() bool {
	return s == Preempting || s == Restarting || s == Draining || s == Killing
}

// Transient reports whether a task may stay in state s for a while only: it is
// LOST when it stays longer (Aurora's transient_task_state_timeout, 5 min).
func (s State) Transient() bool { return s == Assigned || s == Starting || s.Stopping() }
