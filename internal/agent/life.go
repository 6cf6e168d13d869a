// Package agent is the machine's side, without the machine: what runs there
// next, when to ask whether it is healthy, and in which order it is stopped.
//
// A [Life] is the run of one task. It has no goroutine, clock, file or process
// of its own: a shell tells it what happened and when, and carries out the
// actions that it answers with. For every sequence of inputs it promises that
// a process starts only after all its predecessors succeeded, that [End] is the
// last action and comes only when no process lives, and that the waits between
// a [Stop] and the last SIGKILL are bounded by the job's configuration.
//
// The rules are those of Aurora's Thermos and its health checker.
package agent

import (
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
)

// A LifeSpec says what a [Life] runs. Its templates are expanded; see [Expand].
type LifeSpec struct {
	Task      job.Task
	Health    *job.Health        // nil: running is healthy. So is an HTTP check on a port the task does not have, as in Aurora
	Lifecycle *job.HTTPLifecycle // nil, or on a port the task does not have: no HTTP requests before signals
	Ports     map[string]uint16  // the task's ports by name
	Until     time.Duration      // an exclusive task's lease ends then, unless it is renewed; 0: it has none
}

// A Stage is a part of a task's run. Stages only follow each other.
type Stage uint8

// The stages. The names are Thermos's, and between ACTIVE and CLEANING two more
// for the HTTP part of the stop order.
const (
	StageNew        Stage = iota // nothing was begun
	StageActive                  // the ordinary processes run
	StageQuitting                // the graceful endpoint was asked
	StageAborting                // the shutdown endpoint was asked
	StageCleaning                // what lives got SIGTERM
	StageFinalizing              // the final processes run
	StageKilling                 // what lives got SIGKILL
	StageEnded                   // nothing lives, and nothing ever will
)

var stageNames = [...]string{"NEW", "ACTIVE", "QUITTING", "ABORTING", "CLEANING", "FINALIZING", "KILLING", "ENDED"}

// String returns the bare name, such as ACTIVE.
func (s Stage) String() string {
	if int(s) < len(stageNames) {
		return stageNames[s]
	}
	return "STAGE"
}

// A Life is the run of one task on its machine, from [Begin] to [End]. It is
// not safe for use by several goroutines.
type Life struct {
	lifecycle *job.HTTPLifecycle // nil when there is nobody to ask
	port      uint16             // of lifecycle
	maxFailed int                // the task fails when so many processes failed; 0 is never
	wait      time.Duration      // between SIGTERM and SIGKILL, final processes included

	graph   graph
	health  health
	now     time.Duration
	stage   Stage
	due     time.Duration // when the stage ends at the latest; from StageQuitting on
	running bool          // RUNNING was reported
	until   time.Duration // the lease of an exclusive task; 0: none
	outcome task.State    // why the task leaves StageActive; the first cause holds
	reason  string
	actions []Action // of the present step
}

// NewLife plans the task. It refuses, with kind Invalid, a graph that could
// never be run ([job.Task.ValidatePlan]) and a health check without an interval
// or timeout.
func NewLife(s LifeSpec) (*Life, error) {
	if err := s.Task.ValidatePlan(); err != nil {
		return nil, err
	}
	if w := s.Task.FinalizationWait; w < 0 {
		return nil, fault.Invalid.Errorf("finalization_wait is %d s; want 0 or more", w)
	}
	l := &Life{
		maxFailed: int(s.Task.MaxFailures),
		wait:      seconds(s.Task.FinalizationWait),
		graph:     newGraph(s.Task),
		until:     s.Until,
	}
	if h := s.Health; h != nil && (h.HTTP == nil || job.PortOf(s.Ports, h.HTTP.Port) != 0) {
		if err := validHealth(h); err != nil {
			return nil, err
		}
		l.health = newHealth(h)
	}
	if c := s.Lifecycle; c != nil {
		if p := job.PortOf(s.Ports, c.Port); p != 0 {
			l.lifecycle, l.port = c, p
		}
	}
	return l, nil
}

// Step takes one input and returns what is to be done, in order. now is the
// monotonic time since the supervisor started; it never goes back (an earlier
// one counts as the latest seen). What makes no sense, such as the exit of a
// run that is not alive, changes nothing but may let time pass.
func (l *Life) Step(now time.Duration, in Input) []Action {
	l.now = max(l.now, now)
	l.actions = nil
	if l.stage == StageEnded {
		return nil
	}
	if l.until != 0 && l.now >= l.until { // before the input: a renewal that comes late renews nothing
		l.lapsed()
	}
	l.take(in)
	for l.turn() {
	}
	return l.actions
}

// Next returns when to send a [Tick] if nothing else happens before; false when
// only an input of another kind can move the life on. After a step it is later
// than the step's time.
func (l *Life) Next() (time.Duration, bool) {
	var n earliest
	switch l.stage {
	case StageActive:
		n.addIf(l.graph.nextStart(l.now, false))
		n.addIf(l.health.next())
	case StageQuitting, StageAborting, StageCleaning, StageKilling:
		n.add(l.due)
	case StageFinalizing:
		n.add(l.due)
		n.addIf(l.graph.nextStart(l.now, true))
	case StageNew, StageEnded:
	}
	if l.until != 0 && l.stage != StageKilling && l.stage != StageEnded {
		n.add(l.until)
	}
	return n.at, n.ok
}

// Stage returns where the life is.
func (l *Life) Stage() Stage { return l.stage }

// Processes returns the state of every process, in the task's order.
func (l *Life) Processes() []ProcessStatus { return l.graph.statuses() }

// take notes what happened.
func (l *Life) take(in Input) {
	switch in := in.(type) {
	case Begin:
		if l.stage == StageNew {
			l.stage = StageActive
			l.do(Report{State: task.Starting})
		}
	case Tick:
	case Spawned:
		if l.graph.spawned(in.Process, in.Run) {
			l.started(in.Process)
		}
	case SpawnFailed:
		if l.graph.spawnFailed(in, l.settles()) && in.Platform && l.stage == StageActive {
			l.leave(task.Failed, "could not start process "+in.Process+": "+in.Why)
			l.clean()
		}
	case Exited:
		if l.graph.exited(in, l.settles()) {
			l.seen()
		}
	case Probed:
		l.health.answered(l.now, in)
	case Posted:
		l.posted()
	case Stop:
		l.stop(in.Reason)
	case Violated:
		l.violated(in.Reason)
	case Renewed:
		if l.until != 0 && l.now < l.until {
			l.until = max(l.until, in.Until)
		}
	}
}

// settles reports whether an exit now counts as success or failure of its
// process; otherwise the process was told to go.
func (l *Life) settles() bool { return l.stage == StageActive || l.stage == StageFinalizing }

// started is called when a run is known to live. One that was asked for
// before the stop order went out gets the signal it missed.
func (l *Life) started(process string) {
	l.seen()
	switch l.stage {
	case StageCleaning:
		l.do(Signal{Process: process, Sig: Term})
	case StageKilling:
		l.do(Signal{Process: process, Sig: Kill})
	default:
	}
}

// seen is called when the task has its first process: it runs, or its health
// is asked for from now on.
func (l *Life) seen() {
	if l.stage != StageActive || l.running {
		return
	}
	if l.health.on {
		l.health.start(l.now)
		return
	}
	l.running = true
	l.do(Report{State: task.Running})
}

// turn does what the present stage asks for, and reports whether another stage
// was reached, which then has its turn.
func (l *Life) turn() bool {
	before := l.stage
	switch l.stage {
	case StageActive:
		l.active()
	case StageQuitting, StageAborting:
		l.escalate()
	case StageCleaning:
		l.cleaning()
	case StageFinalizing:
		l.finalizing()
	case StageKilling:
		l.killing()
	case StageNew, StageEnded:
	}
	return l.stage != before
}

// active runs the ordinary processes until the task's end is known.
func (l *Life) active() {
	if l.checkHealth(); l.stage != StageActive {
		return
	}
	switch g := &l.graph; {
	case l.maxFailed > 0 && g.failed() >= l.maxFailed:
		l.leave(task.Failed, g.whyFailed())
	case g.stuck(false) != "":
		l.leave(task.Failed, g.stuck(false))
	case g.complete(false):
		l.leave(task.Finished, "")
	default:
		l.spawn(false)
		return
	}
	l.clean()
}

// checkHealth asks, counts, and acts on the verdict.
func (l *Life) checkHealth() {
	h := &l.health
	if p, ok := h.probe(l.now); ok {
		l.do(p)
	}
	if h.healthy && !l.running {
		l.running = true
		l.do(Report{State: task.Running, Reason: "healthy"})
	}
	if h.failed != "" {
		l.leave(task.Failed, "Health check failed: "+h.failed)
		l.clean()
	}
}

// spawn starts what may run now.
func (l *Life) spawn(final bool) {
	for _, s := range l.graph.start(l.now, final) {
		l.do(s)
	}
}

// leave notes why the task ends; the first cause holds.
func (l *Life) leave(s task.State, reason string) {
	if l.outcome == task.Init {
		l.outcome, l.reason = s, reason
	}
}

func (l *Life) do(a Action) { l.actions = append(l.actions, a) }

// earliest is the first of some times.
type earliest struct {
	at time.Duration
	ok bool
}

func (e *earliest) add(t time.Duration) {
	if !e.ok || t < e.at {
		e.at, e.ok = t, true
	}
}

func (e *earliest) addIf(t time.Duration, ok bool) {
	if ok {
		e.add(t)
	}
}

func seconds(s int32) time.Duration { return time.Duration(s) * time.Second }
