// Package converge decides which tasks should exist: one live task in every
// slot that a job wants filled, none in a slot that nobody wants, a new one
// where one was lost. It looks at what changed, never at everything, and says
// when it must look again though nothing changes.
package converge

import (
	"cmp"
	"fmt"
	"maps"

	"github.com/google/btree"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// transientTimeout is how long a task may be between two states before it
// counts as lost, over and above what its config allows for stopping
// (Aurora's -transient_task_state_timeout).
const transientTimeout = 5 * unit.Hour / 60

// exclusiveWait is how long an exclusive task is PARTITIONED at least. A task
// of a machine that is out of reach is dead by then: its lease ended before the
// machine was taken for lost. One that its machine has forgotten dies meanwhile.
const exclusiveWait = 10 * unit.Hour / 3600

// An Index remembers when tasks are due. Make one with [NewIndex], keep it up
// with [Index.Fold]; it is never stored, one scan makes it again.
type Index struct {
	due    *btree.BTreeG[timer]
	parted *btree.BTreeG[timer] // the same of partitioned tasks, which control may hold back
	of     map[task.ID]alarm
}

type alarm struct {
	at     unit.Tick
	parted bool
}

type timer struct {
	at unit.Tick
	id task.ID
}

// NewIndex makes the index of s in one scan.
func NewIndex(s *state.Snapshot) *Index {
	before := func(a, b timer) bool { return cmp.Or(cmp.Compare(a.at, b.at), a.id.Compare(b.id)) < 0 }
	x := &Index{due: btree.NewG(32, before), parted: btree.NewG(32, before), of: map[task.ID]alarm{}}
	for t := range s.Tasks() {
		x.put(s, t)
	}
	return x
}

// Fold takes into account what d says has changed up to s.
func (x *Index) Fold(s *state.Snapshot, d state.Delta) {
	for id := range d.Tasks {
		x.set(s, id)
	}
	for at := range d.Slots { // a slot says until when its task waits
		in, _ := s.Instance(at)
		id := task.ID{Job: at.Job, Instance: at.N, Attempt: in.Attempt}
		if _, waits := x.of[id]; waits && in.Live {
			x.set(s, id)
		}
	}
}

func (x *Index) set(s *state.Snapshot, id task.ID) {
	if a, ok := x.of[id]; ok {
		x.tree(a).Delete(timer{a.at, id})
		delete(x.of, id)
	}
	if t, ok := s.Task(id); ok {
		x.put(s, t)
	}
}

// put remembers when a task is due that is not remembered.
func (x *Index) put(s *state.Snapshot, t state.Task) {
	if at, ok := dueAt(s, t); ok {
		a := alarm{at, t.State == task.Partitioned}
		x.of[t.ID] = a
		x.tree(a).ReplaceOrInsert(timer{at, t.ID})
	}
}

func (x *Index) tree(a alarm) *btree.BTreeG[timer] {
	if a.parted {
		return x.parted
	}
	return x.due
}

// Equal reports whether x and o hold the same, for audits.
func (x *Index) Equal(o *Index) bool {
	return maps.Equal(x.of, o.of) && x.due.Len() == o.due.Len() && x.parted.Len() == o.parted.Len()
}

// dueAt returns when a task must be looked at though nothing happens to it.
func dueAt(s *state.Snapshot, t state.Task) (unit.Tick, bool) {
	switch {
	case t.State == task.Throttled:
		in, _ := s.Instance(slotOf(t))
		return in.Due, true
	case t.State == task.Partitioned:
		cfg, ok := s.Config(t.Config)
		if !ok || !cfg.Partition.Reschedule && !t.Wanted {
			return 0, false
		}
		return t.Since + partitionWait(cfg), true
	case t.State.Stopping() && exclusive(s, t) && !fault.Planted("exclusive-given-up"):
		return 0, false // while its machine is in reach it may live, however long it takes
	case t.State.Transient() && t.State != task.Starting:
		return t.Since + transientTimeout + stopTime(s, t), true
	default:
		return 0, false
	}
}

// GivenUp returns when a partitioned task counts as lost, so that another may
// take its place; false: it waits for its machine for ever.
func GivenUp(s *state.Snapshot, t state.Task) (unit.Tick, bool) { return dueAt(s, t) }

func partitionWait(cfg *job.Config) unit.Tick {
	if cfg.Exclusive {
		return max(exclusiveWait, seconds(cfg.Partition.DelayS))
	}
	return seconds(cfg.Partition.DelayS)
}

// exclusive reports whether no other task of its instance may live beside t.
func exclusive(s *state.Snapshot, t state.Task) bool {
	cfg, ok := s.Config(t.Config)
	return ok && cfg.Exclusive
}

// stopTime is how long a task may take to stop in order.
func stopTime(s *state.Snapshot, t state.Task) unit.Tick {
	cfg, ok := s.Config(t.Config)
	if !ok {
		return 0
	}
	wait := int64(cfg.Task.FinalizationWait)
	if l := cfg.Lifecycle; l != nil {
		wait += int64(l.GracefulWaitS) + int64(l.ShutdownWaitS)
	}
	return seconds(wait)
}

func seconds(n int64) unit.Tick { return unit.Tick(n) * unit.Hour / 3600 }

func slotOf(t state.Task) state.Slot { return state.Slot{Job: t.ID.Job, N: t.ID.Instance} }

// Limits bounds one Plan.
type Limits struct {
	Changes int  // at most so many changes; the rest comes with the next Plan
	GiveUp  int  // at most so many tasks of machines out of reach are given up
	Hold    bool // no new tasks: those that run have not been told of yet

	// Taken reports slots of which a task lives that nobody knows: an exclusive
	// one is not filled. Nil: there are none.
	Taken func(state.Slot) bool
}

// A Result is what Plan decided.
type Result struct {
	Changes []state.Change
	Next    unit.Tick   // look again then; 0: nothing is due
	More    bool        // the limit was reached: look again at once
	Rest    state.Delta // with More: what it did not look at, or not to the end
	Looked  int         // rows that it looked at
}

// Plan returns what must change so that s holds the tasks that it should. d is
// what has changed since it last looked.
func Plan(s *state.Snapshot, x *Index, d state.Delta, now unit.Tick, lim Limits) Result {
	p := plan{s: s, lim: lim}
	rest := state.NewDelta()
	// Slots before jobs: what was opened is filled before more is opened, so
	// that what waits for the next Plan is named by few jobs, not by their slots.
	for _, at := range sorted(d.Slots, state.Slot.Compare) {
		if p.slot(at); p.out.More {
			rest.Slots[at] = true
		}
	}
	for _, k := range sorted(d.Jobs, job.Key.Compare) {
		if p.job(k); p.out.More {
			rest.Jobs[k] = true
		}
	}
	for _, id := range sorted(d.Machines, cmp.Compare) {
		if p.machine(id); p.out.More {
			rest.Machines[id] = true
		}
	}
	p.timers(x, now)
	if p.out.More {
		p.out.Rest = rest
	}
	return p.out
}

type plan struct {
	s      *state.Snapshot
	lim    Limits
	seen   map[task.ID]bool
	filled map[state.Slot]bool
	known  []state.Instance // of the job that is looked at
	out    Result
}

func (p *plan) full() bool {
	if len(p.out.Changes) >= p.lim.Changes {
		p.out.More = true
	}
	return p.out.More
}

func (p *plan) add(c state.Change) { p.out.Changes = append(p.out.Changes, c) }

// step adds an event of a task, at most one per plan: the next look decides on what it made.
func (p *plan) step(t state.Task, to task.State, why string) {
	if p.seen == nil {
		p.seen = map[task.ID]bool{}
	}
	if p.seen[t.ID] {
		return
	}
	p.seen[t.ID] = true
	p.add(state.StepTask{ID: t.ID, Base: t.Rev, Event: task.Event{To: to, Reason: why}})
}

// job opens the slots of a job that were never open and ends what it no longer wants.
func (p *plan) job(k job.Key) {
	if p.full() {
		return
	}
	j, exists := p.s.Job(k)
	p.out.Looked++
	for t := range p.s.TasksOf(k) {
		if p.full() {
			return
		}
		p.out.Looked++
		p.unwanted(t, j, exists)
	}
	if !exists {
		return
	}
	p.known = p.known[:0]
	for in := range p.s.Instances(k) {
		p.known = append(p.known, in)
	}
	known := p.known // in order, as the instances of the job are
	for i := range j.Instances.All() {
		if p.full() {
			return
		}
		p.out.Looked++
		for len(known) > 0 && known[0].N < i {
			known = known[1:]
		}
		if len(known) == 0 || known[0].N != i {
			p.add(state.OpenSlot{Slot: state.Slot{Job: k, N: i}})
			continue
		}
		p.fill(known[0], j)
	}
}

// unwanted ends a task whose slot nobody wants filled.
func (p *plan) unwanted(t state.Task, j state.Job, exists bool) {
	if t.State == task.Killing || t.State == task.Partitioned && t.Wanted {
		return
	}
	if fault.Planted("kill-forgotten") {
		return
	}
	switch {
	case !exists:
		p.step(t, task.Killing, "the job was killed")
	case !j.Instances.Has(t.ID.Instance):
		p.step(t, task.Killing, "the instance was killed")
	}
}

// slot fills an open slot, and keeps at most its last attempt alive.
func (p *plan) slot(at state.Slot) {
	if p.full() {
		return
	}
	p.out.Looked++
	in, ok := p.s.Instance(at)
	if !ok {
		return
	}
	j, exists := p.s.Job(at.Job)
	switch {
	case in.Live:
		t, ok := p.s.Task(task.ID{Job: at.Job, Instance: at.N, Attempt: in.Attempt})
		if ok {
			p.unwanted(t, j, exists)
		}
	case exists && j.Instances.Has(at.N):
		p.fill(in, j)
	}
}

// fill fills an open slot that its job wants filled.
func (p *plan) fill(in state.Instance, j state.Job) {
	if !in.Open || in.Live || p.filled[in.Slot] || p.lim.Hold || p.taken(in.Slot, j) {
		return
	}
	if p.filled == nil {
		p.filled = map[state.Slot]bool{}
	}
	p.filled[in.Slot] = true
	p.add(state.NewTask{Slot: in.Slot, Base: in.Rev})
}

func (p *plan) taken(at state.Slot, j state.Job) bool {
	if p.lim.Taken == nil || !p.lim.Taken(at) {
		return false
	}
	cfg, ok := p.s.Config(j.Config)
	return ok && cfg.Exclusive
}

// machine takes the tasks of a machine that is out of reach as partitioned.
func (p *plan) machine(id machine.ID) {
	if p.full() {
		return
	}
	p.out.Looked++
	m, exists := p.s.Machine(id)
	if exists && m.Up {
		return
	}
	why := fmt.Sprintf("machine %s is out of reach", id)
	for t := range p.s.TasksOn(id) {
		if p.full() {
			return
		}
		p.out.Looked++
		switch t.State {
		case task.Partitioned:
		case task.Assigned:
			p.step(t, task.Lost, why)
		default:
			p.step(t, task.Partitioned, why)
		}
	}
}

// timers acts on every task that is due and finds when the next one is.
func (p *plan) timers(x *Index, now unit.Tick) {
	p.ring(x.due, now, func() bool { return true })
	p.ring(x.parted, now, func() bool { return p.lim.GiveUp > 0 }) // or the pool is half gone: they wait until control lets them go
}

func (p *plan) ring(due *btree.BTreeG[timer], now unit.Tick, may func() bool) {
	due.Ascend(func(d timer) bool {
		p.out.Looked++
		if d.at > now {
			if p.out.Next == 0 || d.at < p.out.Next {
				p.out.Next = d.at
			}
			return false
		}
		if !may() || p.full() {
			return false
		}
		if t, ok := p.s.Task(d.id); ok {
			p.due(t)
		}
		return true
	})
}

func (p *plan) due(t state.Task) {
	switch {
	case t.State == task.Throttled:
		p.step(t, task.Pending, "")
	case t.State == task.Partitioned:
		p.lim.GiveUp--
		p.step(t, task.Lost, t.Reason)
	case t.State == task.Assigned && exclusive(p.s, t):
		p.step(t, task.Restarting, fmt.Sprintf("was %v for too long on %s, which must say that it does not run", t.State, t.Machine))
	case t.State.Transient():
		p.step(t, task.Lost, fmt.Sprintf("was %v for too long on %s", t.State, t.Machine))
	}
}
