package control

import (
	"slices"

	"github.com/covey-platform/covey/internal/converge"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Turn is one step of the loop: what was said, what was decided, and what
// goes to the machines once that is durable.
type Turn struct {
	loop  *Loop
	draft *state.Draft
	// steady is the clock of leases and retries: nobody sets it, and it begins
	// anywhere. The draft's time is the clock that people read.
	steady    unit.Tick
	wasVanish vanish // as it was before the turn
	wasHold   hold   // the same

	batch *state.Batch
	snap  *state.Snapshot
	delta state.Delta

	waits       sched.Waits
	orders      map[machine.ID][]task.Order
	acks        map[machine.ID]map[string]uint64
	leased      map[machine.ID]uint64 // the message that prolonged a machine's lease last
	drop        []machine.ID
	left        []machine.ID // whose agents have said goodbye
	unheld      []task.ID
	releaseHeld bool
	hurry       bool                  // an operator wants surplus tasks stopped at once
	waiting     func(machine.ID) bool // whose words wait for a later turn; nil: nobody's
	next        unit.Tick
	busy        bool
	looked      int // rows and machines that the engines looked at
}

// A Send is what goes to one machine.
type Send struct {
	Machine machine.ID
	Orders  []task.Order
	Acks    map[string]uint64 // usage facts: source and last block that is durable
	Leased  uint64            // the message that prolonged the lease, told before the orders; 0: none of this turn
	Bye     bool              // its goodbye is durable: the session is over
}

// Begin starts a turn at now, the time that goes into the records. steady is a
// clock that only ever goes on, for leases and retries: a wall clock that jumps
// takes no machine for lost. One turn at a time: end it with [Loop.Commit] or
// [Loop.Abort].
func (l *Loop) Begin(now, steady unit.Tick) *Turn {
	return &Turn{
		loop: l, draft: state.NewDraft(l.snap, now), steady: steady, wasVanish: l.vanish.copy(), wasHold: l.hold.copy(),
		orders: map[machine.ID][]task.Order{}, acks: map[machine.ID]map[string]uint64{}, leased: map[machine.ID]uint64{},
	}
}

// Do carries out a command. When it is refused, nothing of it stays: a command
// finds out all that may speak against it before its first change.
func (t *Turn) Do(c Command) (Answer, error) { return c.do(t) }

func (t *Turn) apply(c state.Change) error { return t.draft.Apply(c) }

// maxRounds bounds how often the engines look at each other's work in a turn.
const maxRounds = 8

// End lets the engines decide and seals the turn. The batch must be durable
// before Commit. An empty batch needs no store.
func (t *Turn) End() (*state.Batch, error) {
	l := t.loop
	t.expire()
	t.release()
	if err := t.conduct(); err != nil {
		return nil, err
	}
	look := l.todo
	if l.hold.over(t.steady, t.draft.Snapshot().Cluster.Recovery) {
		if err := t.renumber(); err != nil {
			return nil, err
		}
		look.Merge(everything(t.draft.Snapshot()))
	}
	if l.lone != 0 && t.steady >= l.lone {
		l.lone, l.busy = 0, true // the scheduler held exclusive tasks back
		look.Merge(exclusiveSlots(t.draft.Snapshot()))
	}
	look.Merge(t.fold())
	var err error
	if l.todo, err = t.think(look); err != nil {
		return nil, err
	}
	t.batch, t.snap, t.delta = t.draft.Seal(l.epoch)
	t.order()
	return t.batch, nil
}

// think lets the engines look at what changed, and at what they changed, until
// nothing does. It returns what is left for the next turn.
func (t *Turn) think(look state.Delta) (state.Delta, error) {
	if t.still(look) {
		t.waits, t.next = t.loop.waits, t.loop.due
		return look, nil
	}
	for range maxRounds {
		made, rest, more, err := t.round(look)
		if err != nil {
			return look, err
		}
		look = made
		if more {
			look.Merge(rest)
			t.busy = true
			break // the rest has its turn after this one
		}
		if none(made) {
			break
		}
	}
	t.busy = t.busy || !none(look)
	return look, nil
}

// still reports whether the engines would see what they saw when they looked
// last, and nothing has come due since: they would decide as they did. That is
// so whenever a machine says again that all is as it was.
func (t *Turn) still(look state.Delta) bool {
	l := t.loop
	return !l.cfg.AlwaysLook && none(look) && t.draft.Empty() && !l.busy && (l.due == 0 || t.draft.Snapshot().At < l.due) &&
		l.hold.until == 0 && t.wasHold.until == 0 && !l.vanish.pending() && !t.wasVanish.pending()
}

// round lets each engine look once at what changed. It returns what they
// changed themselves, and when there is more to do, what they did not look at.
func (t *Turn) round(look state.Delta) (made, rest state.Delta, more bool, err error) {
	l := t.loop
	lim := converge.Limits{Changes: l.cfg.TurnChanges, GiveUp: l.vanish.giveUp(t.steady, l.cfg), Hold: l.hold.until != 0, Taken: l.taken()}
	c := converge.Plan(t.draft.Snapshot(), l.converge, look, t.draft.Snapshot().At, lim)
	t.looked += c.Looked
	if err = t.all(c.Changes); err != nil {
		return made, rest, false, err
	}
	t.next = c.Next
	made = t.fold()
	if l.hold.until != 0 {
		return made, c.Rest, c.More, nil
	}
	changes, waits := sched.Plan(t.draft.Snapshot(), l.sched, t.draft.Snapshot().At, sched.Limits{Placements: l.cfg.TurnChanges, HoldExclusive: l.lone != 0})
	t.looked += waits.Looked
	if err = t.all(changes); err != nil {
		return made, rest, false, err
	}
	t.waits = waits
	if waits.Next != 0 && (t.next == 0 || waits.Next < t.next) {
		t.next = waits.Next
	}
	made.Merge(t.fold())
	return made, c.Rest, c.More || waits.More, nil
}

// fold lets the indexes follow the draft, and returns what changed since they
// did so last. What they saw in an earlier turn they do not look at again.
func (t *Turn) fold() state.Delta {
	changed := t.draft.Changed()
	t.loop.converge.Fold(t.draft.Snapshot(), changed)
	t.loop.sched.Fold(t.draft.Snapshot(), changed)
	t.looked += len(changed.Jobs) + len(changed.Slots) + len(changed.Tasks) + len(changed.Machines)
	return changed
}

func none(d state.Delta) bool {
	return len(d.Jobs)+len(d.Slots)+len(d.Tasks)+len(d.Machines) == 0
}

// all applies changes. An engine that decided on a row of this very draft
// cannot be late, so a refusal is a bug and ends the turn.
func (t *Turn) all(changes []state.Change) error {
	for _, c := range changes {
		if err := t.apply(c); err != nil {
			return fault.Internal.Errorf("an engine's change was refused: %T: %w", c, err)
		}
	}
	return nil
}

// expire takes machines whose agents are silent as out of reach.
func (t *Turn) expire() {
	l := t.loop
	for _, x := range l.lapsed(t.steady) {
		if t.waiting != nil && t.waiting(x.id) {
			l.hear(x.id, t.steady)
			continue
		}
		m, ok := t.draft.Snapshot().Machine(x.id)
		t.drop = append(t.drop, x.id)
		if !ok || !m.Up {
			continue
		}
		m.Up = false
		if err := t.apply(state.PutMachine{Machine: m.Machine, Base: m.Rev}); err == nil {
			l.vanish.down(t.steady, x.id)
		}
	}
	_, _, machines := t.draft.Snapshot().Len()
	l.vanish.judge(t.steady, machines, l.cfg)
}

// Result is what a committed turn gives to the world.
type Result struct {
	Sends   []Send
	Records []state.Record
	Delta   state.Delta
	Drop    []machine.ID // whose sessions are over
	Next    unit.Tick    // take a turn at this time of the records; 0: when something is said
	Steady  unit.Tick    // or at this time of the steady clock; 0: as above
	Busy    bool         // take another turn at once
	Looked  int          // rows and machines that the engines looked at: it follows the change, not the cluster
}

// Commit makes a turn whose batch is durable the loop's present, and returns
// what goes out.
func (l *Loop) Commit(t *Turn) Result {
	l.snap, l.steady, l.told = t.snap, t.steady, t.draft.Snapshot().At
	if l.auditing != nil {
		l.auditing.since.Merge(t.delta)
	}
	l.waits, l.due, l.busy = t.waits, t.next, t.busy
	l.conduct.fold(t.snap, t.batch.Records, t.delta)
	soon := len(l.conduct.verdicts) > 0
	for _, id := range t.unheld {
		soon = l.unhold(id) || soon
	}
	for _, id := range t.drop {
		l.forgetAgent(id)
	}
	r := Result{Records: t.batch.Records, Delta: t.delta, Drop: t.drop, Next: t.next, Busy: t.busy || soon, Looked: t.looked}
	if at := l.conduct.parole; at != 0 && (r.Next == 0 || at < r.Next) {
		r.Next = at
	}
	for _, id := range sortedMachines(t.orders, t.acks) {
		r.Sends = append(r.Sends, Send{id, t.orders[id], t.acks[id], t.leased[id], slices.Contains(t.left, id)})
	}
	if first, ok := l.firstLease(); ok {
		r.Steady = first.at
	}
	if first, ok := l.retries.Min(); ok && (r.Steady == 0 || first.at < r.Steady) {
		r.Steady = first.at
	}
	if at := l.hold.next(l.snap.Cluster.Recovery); at != 0 && (r.Steady == 0 || at < r.Steady) {
		r.Steady = at
	}
	if l.lone != 0 && (r.Steady == 0 || l.lone < r.Steady) {
		r.Steady = l.lone
	}
	if soon := t.steady + second; l.vanish.pending() && (r.Steady == 0 || soon < r.Steady) {
		r.Steady = soon
	}
	return r
}

// Abort drops a turn whose batch was refused and of which nothing happened.
// Every session must be dropped with it: the agents say everything again.
func (l *Loop) Abort(t *Turn) {
	first, proved, surplus, met, lone, conduct := l.first, l.proved, l.surplus, l.met, l.lone, l.conduct
	*l = *New(l.snap, l.epoch, t.steady, l.cfg)
	l.conduct = conduct
	l.met, l.first, l.vanish, l.hold, l.proved, l.surplus, l.lone = met, first, t.wasVanish, t.wasHold, proved, surplus, lone
}

func (l *Loop) forgetAgent(id machine.ID) {
	if a := l.agents[id]; a != nil {
		l.again(id, 0)
		l.unlist(id, a)
		delete(l.agents, id)
	}
	l.letGo(id, nil)
}

// order works out what the machines must be told about the tasks that this
// turn changed, and about those whose orders show no effect.
func (t *Turn) order() {
	for _, id := range sortedIDs(t.delta.Tasks) {
		if x, ok := t.snap.Task(id); ok && x.Machine != "" {
			t.command(x)
		}
	}
	t.remind()
}

func runOrder(x state.Task) task.Order {
	return task.Order{ID: x.ID, Verb: task.Run, Config: x.Config, Resources: x.Resources, Ports: x.Ports, GPUs: x.GPUs}
}

func (t *Turn) send(to machine.ID, o task.Order) {
	for _, have := range t.orders[to] {
		if have.ID == o.ID && have.Verb == o.Verb {
			return
		}
	}
	t.orders[to] = append(t.orders[to], o)
}

// release stops the tasks that were held, after an operator ended a recovery.
// They are held until their machines say that they have ended.
func (t *Turn) release() {
	if !t.releaseHeld && !t.hurry {
		return
	}
	for _, id := range sortedIDs(t.loop.held) {
		h := t.loop.held[id]
		if !t.releaseHeld && !h.Surplus {
			continue
		}
		t.loop.surplus.note(id, t.steady)
		t.send(h.Machine, task.Order{ID: id, Verb: task.Stop, Reason: released(h)})
	}
}

func released(h Held) string {
	switch {
	case h.Surplus:
		return "it is not wanted any more, and an operator had it stopped"
	case h.Sighting.Orphan:
		return "its agent lost its directory, and an operator had it stopped"
	}
	return "nobody claimed it after the recovery: " + h.Why
}

// instanceOf is the job's slot of a task.
func instanceOf(id task.ID) state.Slot { return state.Slot{Job: id.Job, N: id.Instance} }
