package agent

import (
	"time"

	"github.com/covey-platform/covey/internal/task"
)

// An Input is something that happened: one of [Begin], [Tick], [Spawned],
// [SpawnFailed], [Exited], [Probed], [Posted], [Stop], [Violated] and [Renewed].
type Input interface{ input() }

// Begin starts the life, once; what comes later is ignored.
type Begin struct{}

// A Tick says that nothing happened but time; see [Life.Next].
type Tick struct{}

// Spawned answers [Spawn]: the process lives. The shell answers every Spawn
// with either Spawned or [SpawnFailed].
type Spawned struct {
	Process string
	Run     int
}

// SpawnFailed answers [Spawn]: the process never lived. It counts as a failed
// run, unless Platform says that the machine is to blame (no cgroup, no
// sandbox): then the whole task fails, because a second try would not help.
type SpawnFailed struct {
	Process  string
	Run      int
	Why      string // for people, such as "no such file: /bin/bsh"
	Platform bool
}

// Exited says that a run ended: by Signal when that is not 0, otherwise with
// exit status Code.
type Exited struct {
	Process string
	Run     int
	Code    int
	Signal  int
}

// Probed answers [Probe]. An answer to any but the latest one is ignored.
type Probed struct {
	Seq     int
	OK      bool
	Snoozed bool   // nobody asked because the sandbox holds .healthchecksnooze: counts as healthy
	Why     string // when not OK, for people
}

// Posted says that a [Post] was answered or failed: the wait begins.
type Posted struct{}

// Stop asks the task to end, in order. While it is ending already, for
// whatever cause, it changes nothing.
type Stop struct{ Reason string }

// Violated says that the task passed a limit of memory or disk: everything is
// killed at once and no final process runs.
type Violated struct{ Reason string }

// Renewed prolongs the lease of an exclusive task. One that comes when the
// lease is over changes nothing.
type Renewed struct{ Until time.Duration }

func (Renewed) input()     {}
func (Begin) input()       {}
func (Tick) input()        {}
func (Spawned) input()     {}
func (SpawnFailed) input() {}
func (Exited) input()      {}
func (Probed) input()      {}
func (Posted) input()      {}
func (Stop) input()        {}
func (Violated) input()    {}

// An Action is something for the shell to do: one of [Spawn], [Probe], [Post],
// [Signal], [Report] and [End].
type Action interface{ action() }

// Spawn starts a process. Runs of a process are numbered from 1 and never
// overlap.
type Spawn struct {
	Process string
	Run     int
}

// Probe asks whether the task is healthy, as its configuration says. After
// Timeout the answer is not waited for; the shell must give up by then.
type Probe struct {
	Seq     int // from 1
	Timeout time.Duration
}

// Post sends an empty HTTP POST to the task on its own machine.
type Post struct {
	Port    uint16
	Path    string
	Timeout time.Duration
}

// A Signal goes to a whole process tree.
type Signal struct {
	Process string // empty: to every process that lives
	Sig     Sig
}

// A Sig is a signal that a [Life] sends.
type Sig uint8

// The signals.
const (
	Term Sig = iota // SIGTERM
	Kill            // SIGKILL
)

// String returns TERM or KILL.
func (s Sig) String() string {
	if s == Kill {
		return "KILL"
	}
	return "TERM"
}

// Report tells the cluster of a new state: [task.Starting] or [task.Running].
type Report struct {
	State  task.State
	Reason string // for people; may be empty
}

// End is the last action: nothing of the task lives. State is
// [task.Finished], [task.Failed], [task.Killed] or, of an exclusive task whose
// lease ended, [task.Lost].
type End struct {
	State  task.State
	Reason string // for people; may be empty
}

func (Spawn) action()  {}
func (Probe) action()  {}
func (Post) action()   {}
func (Signal) action() {}
func (Report) action() {}
func (End) action()    {}
