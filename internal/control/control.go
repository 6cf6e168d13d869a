// Package control is the cluster's loop. It is the only code that calls the
// engines, and it calls them in the order of the work: what should exist, then
// where it runs. It takes what users, agents and the clock say, one [Turn] at a
// time; a turn changes nothing until its batch is durable and [Loop.Commit] is
// called. It knows no goroutine, no clock and no store.
package control

import (
	"github.com/google/btree"

	"github.com/covey-platform/covey/internal/converge"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Config bounds a loop. Its zero value is not usable; see [Defaults].
type Config struct {
	AgentLease   unit.Tick // an agent that is silent for longer is out of reach
	StartGrace   unit.Tick // how much longer after a new leader began
	StartHold    unit.Tick // a new leader starts nothing new before, unless all machines have spoken
	Retry        unit.Tick // an order that shows no effect is sent again after this
	TurnChanges  int       // changes that the engines may add to one turn
	VanishShare  int64     // percent of the machines, vanished within VanishWindow, that pause rescheduling
	VanishLeast  int       // but not fewer machines than this
	VanishWindow unit.Tick
	VanishPause  unit.Tick // rescheduling resumes after this, at a bounded rate
	ResumeRate   int       // tasks given up in one second then
	// RecoveryGrace is how long after a restore was noticed nothing new is
	// started, so that what runs is told of first and adopted.
	RecoveryGrace unit.Tick
	// Proof is for how long after a leader has proved to the store that it leads
	// it tells agents that their leases go on. It and the time that an agent
	// makes of that (8 s) are together less than StartGrace and AgentLease, which
	// the next leader waits before it takes a machine for lost.
	Proof unit.Tick
	// An exclusive task is ordered where the lease was prolonged by a message of
	// at most this age: less than the time that the agent makes of it.
	Cover unit.Tick
	// Tasks that run though the cluster remembers their end are stopped, within
	// StopWindow at most StopShare percent of the live tasks, or StopLeast. One
	// that was told to stop counts once for StopMemory.
	StopShare  int
	StopLeast  int
	StopWindow unit.Tick
	StopMemory unit.Tick
	// AlwaysLook has the engines look in every turn, also when nothing has changed
	// and nothing is due. It changes no decision: tests hold the two to one answer.
	AlwaysLook bool
}

// Defaults returns the limits that the design promises.
func Defaults() Config {
	return Config{
		AgentLease: 10 * second, StartGrace: 20 * second, StartHold: 3 * second, Retry: 15 * second, TurnChanges: 4_000,
		VanishShare: 30, VanishLeast: 5, VanishWindow: 60 * second, VanishPause: 600 * second, ResumeRate: 50,
		RecoveryGrace: 20 * second, Proof: 10 * second, Cover: 5 * second,
		StopShare: 10, StopLeast: 5, StopWindow: 60 * second, StopMemory: 600 * second,
	}
}

const second = unit.Hour / 3600

// A Loop drives one cluster. It belongs to one goroutine.
type Loop struct {
	cfg   Config
	epoch machine.Epoch
	snap  *state.Snapshot
	first state.Rev // the revision at which this leader began

	converge *converge.Index
	sched    *sched.Index
	waits    sched.Waits
	todo     state.Delta // what the engines have not looked at yet
	due      unit.Tick   // when they must look though nothing changes, by the time of the records; 0: never
	busy     bool        // they have not looked at all that they should
	agents   map[machine.ID]*agent
	leases   *btree.BTreeG[lease] // one of each agent; it may have been prolonged since, see [Loop.lapsed]
	retries  *btree.BTreeG[lease] // machines that hold tasks between two states
	held     map[task.ID]Held
	met      map[machine.ID]bool // machines that have said hello in this term
	vanish   vanish
	hold     hold
	lone     unit.Tick // no slot of an exclusive job is filled before, by the steady clock; 0: it is over
	auditing *Audit    // of the indexes; nil: none is under way
	surplus  surplus
	conduct  conduct
	steady   unit.Tick // of the turn that was committed last
	told     unit.Tick // the same moment by the time of the records; 0: none was
	proved   unit.Tick // when it was certain last that this leader leads, by the steady clock; 0: never
}

// agent is what the loop remembers of an agent's session. It is not durable:
// an agent that meets a new leader says everything again.
type agent struct {
	session  string
	n        uint64    // the last message taken in
	since    state.Rev // what was ordered until then it may have run and forgotten
	opened   unit.Tick // when the session began
	told     bool      // it has said everything in this session
	boot     string    // of the computer that said hello last in this term; empty: none has
	until    unit.Tick // its lease ends then
	listed   unit.Tick // where it stands among the leases: until, or what that was earlier; 0: nowhere
	retry    unit.Tick // its orders are looked at again then; 0: no need
	looked   unit.Tick // what came due until then, by the time of the records, was told again
	leased   unit.Tick // when a message of this session prolonged its lease last; 0: none has
	withheld bool      // an exclusive task waits for its lease
	covered  unit.Tick // from then on what it is told comes after the news of that
}

// Held is a task that runs though the cluster does not know it, and that is
// left alone until an operator decides.
type Held struct {
	Sighting task.Sighting
	Machine  machine.ID
	Why      string
	Surplus  bool // it is known to be over, and waits for its stop
}

// New returns the loop of a leader that begins its term e at s. steady is a
// clock that no one sets; see [Loop.Begin].
func New(s *state.Snapshot, e machine.Epoch, steady unit.Tick, cfg Config) *Loop {
	o := Foresee(s)
	for _, part := range o.Parts() {
		part()
	}
	return o.New(e, steady, cfg)
}

// New returns the loop of a leader that begins its term e at the snapshot of o,
// whose parts are done. An outlook makes one loop.
func (o *Outlook) New(e machine.Epoch, steady unit.Tick, cfg Config) *Loop {
	s := o.snap
	l := &Loop{
		cfg: cfg, epoch: e, snap: s, first: s.Rev,
		converge: o.converge, sched: o.sched, todo: o.todo,
		agents: map[machine.ID]*agent{}, leases: leases(), retries: leases(), held: map[task.ID]Held{}, met: map[machine.ID]bool{},
	}
	l.vanish = remember(s, steady, cfg)
	l.conduct = behaviour(s)
	l.hold, l.lone = wait(s, steady, cfg), lone(s, steady, cfg)
	for m := range s.Machines() {
		if m.Up {
			l.hear(m.ID, steady+cfg.StartGrace)
		}
	}
	return l
}

// An Outlook is what a leader works out of the snapshot at which it begins. That
// takes long in a large cluster, so who may have to lead soon does it before,
// and who has several cores on all of them.
type Outlook struct {
	snap     *state.Snapshot
	converge *converge.Index
	sched    *sched.Index
	todo     state.Delta
}

// Foresee begins the outlook of a leader that would begin at s.
func Foresee(s *state.Snapshot) *Outlook { return &Outlook{snap: s} }

// Parts returns what is to be done before [Outlook.New]. They may run at the
// same time.
func (o *Outlook) Parts() []func() {
	return []func(){
		func() { o.sched = sched.NewIndex(o.snap) },
		func() {
			o.converge = converge.NewIndex(o.snap)
			o.todo = everything(o.snap)
		},
	}
}

// Of returns the snapshot that an outlook is of.
func (o *Outlook) Of() *state.Snapshot { return o.snap }

// everything is the delta of a leader that has seen nothing yet. A job stands
// for its instances; only those that no job wants are named.
func everything(s *state.Snapshot) state.Delta {
	d := state.NewDelta()
	for j := range s.Jobs("") {
		d.Jobs[j.Key] = true
	}
	var j state.Job
	var wanted bool
	for in := range s.AllInstances() {
		if in.Job != j.Key {
			j, wanted = s.Job(in.Job)
			j.Key = in.Job
		}
		if in.Live && (!wanted || !j.Instances.Has(in.N)) {
			d.Slots[in.Slot] = true
		}
	}
	for m := range s.Machines() {
		d.Machines[m.ID] = true
	}
	return d
}

// Snapshot returns the cluster as of the last commit.
func (l *Loop) Snapshot() *state.Snapshot { return l.snap }

// Epoch returns the term as agents are told: a restored database counts its
// incarnation up, whatever the store's lease says.
func (l *Loop) Epoch() machine.Epoch {
	return machine.Epoch{Incarnation: l.snap.Cluster.Incarnation, N: l.epoch.N}
}

// Waits returns why tasks wait, as of the last commit.
func (l *Loop) Waits() sched.Waits { return l.waits }

// Held returns the tasks that are left alone though nobody knows them, at
// most limit of them.
func (l *Loop) Held(limit int) []Held {
	var out []Held
	for _, id := range sortedIDs(l.held) {
		if len(out) == limit {
			break
		}
		out = append(out, l.held[id])
	}
	return out
}

// Paused says why rescheduling is paused; it is empty when it is not.
func (l *Loop) Paused() string { return l.vanish.why }

// Prove notes that the store has said that this leader leads: it was asked at
// the steady time asked, so no other had begun by then.
func (l *Loop) Prove(asked unit.Tick) { l.proved = max(l.proved, asked) }

// Leased reports whether what an agent says now prolongs its lease as the agent
// sees it, under which it runs exclusive tasks. A leader that another one may
// have followed does not know who was given the agent's tasks; nor does one
// that has not heard yet which they are.
func (l *Loop) Leased(id machine.ID, steady unit.Tick) bool {
	a := l.agents[id]
	told := a != nil && (a.told || fault.Planted("lease-unheard"))
	leads := l.proved != 0 && steady-l.proved <= l.cfg.Proof || fault.Planted("lease-of-a-former-leader")
	return told && leads
}

// Leased is [Loop.Leased] at the time of the turn.
func (t *Turn) Leased(id machine.ID) bool { return t.loop.Leased(id, t.steady) }

// prolong notes that an agent is told that its lease goes on, and that what it
// is told from a time on comes after that.
func (l *Loop) prolong(id machine.ID, steady, from unit.Tick) {
	a := l.agents[id]
	if !l.covers(id, steady) {
		a.covered = from
	}
	a.leased = steady
}

// covers reports whether an agent may be told to run an exclusive task: it has
// been told that it has a lease, and not long ago. Else it would refuse.
func (l *Loop) covers(id machine.ID, steady unit.Tick) bool {
	a := l.agents[id]
	return a != nil && a.leased != 0 && steady-a.leased <= l.cfg.Cover && steady >= a.covered
}

// again asks for another look at the orders of a machine.
func (l *Loop) again(id machine.ID, at unit.Tick) {
	a := l.agents[id]
	if a == nil || a.retry == at {
		return
	}
	if a.retry != 0 {
		l.retries.Delete(lease{a.retry, id})
	}
	a.retry = at
	if at != 0 {
		l.retries.ReplaceOrInsert(lease{at, id})
	}
}

// Lease returns the term as the store knows it.
func (l *Loop) Lease() machine.Epoch { return l.epoch }
