package control

import (
	"fmt"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Hello opens an agent's session.
type Hello struct {
	Session string // new for every session
	UID     string // of the cluster that the agent belongs to
	Machine machine.Machine
	Seen    Seen
	// Since is what the agent obeyed first of all that it remembers. What was
	// ordered until then it may have run and forgotten. Zero: it remembers
	// nothing, and its memory begins with this session.
	Since Seen
}

// Seen is the highest leader and revision that an agent has obeyed.
type Seen struct {
	Epoch machine.Epoch
	Rev   state.Rev
}

// A Message is what an agent says in a session: sightings, usage facts, or
// nothing but that it lives. Messages may be lost, doubled, late and out of
// order: N counts them, and what comes after a later one is dropped.
type Message struct {
	Session   string
	N         uint64           // from 1
	Machine   *machine.Machine // what is allocatable has changed; nil: it has not
	Obeyed    state.Rev        // the highest revision of this leader's orders that the agent had obeyed; 0: it does not tell
	Full      bool             // the sightings are everything that is on the machine
	Bye       bool             // the agent has stopped every task and ends: the machine is down
	Sightings []task.Sighting
	Facts     []state.Fact
}

// Hello lets an agent in. Its first message must be full. A machine of another
// cluster is refused; one that has obeyed a later life of this cluster than
// the loop remembers proves that the database was restored from a copy.
func (t *Turn) Hello(h Hello) error {
	l, s := t.loop, t.draft.Snapshot()
	if h.UID != s.Cluster.UID {
		return fault.Conflict.Errorf("machine %s belongs to the cluster with UID %s, and this is %s with UID %s; its tasks are left alone. Point the agent to its own cluster, or give it an empty data directory and a join token", h.Machine.ID, h.UID, s.Cluster.Name, s.Cluster.UID)
	}
	if err := h.Machine.Validate(); err != nil {
		return err
	}
	if err := t.another(h); err != nil {
		return err
	}
	if t.restored(h) {
		if err := t.recover(h.Seen); err != nil {
			return err
		}
	}
	if err := t.machine(h.Machine); err != nil {
		return err
	}
	id := h.Machine.ID
	l.hear(id, t.steady)
	l.vanish.up(id)
	a := l.agents[id]
	a.boot = h.Machine.Boot
	l.met[id] = true
	if a.session != h.Session { // or it came twice
		a.session, a.n, a.told, a.leased = h.Session, 0, false, 0
		a.since, a.opened = t.since(h), t.steady
	}
	t.orders[id] = append([]task.Order(nil), t.orders[id]...) // a welcome, also when there is nothing to do
	return nil
}

// machine takes in what an agent says of its machine. What an operator wants
// of it stays, and that it is avoided; how much of the overhead tasks hold is
// not the agent's to say.
func (t *Turn) machine(m machine.Machine) error {
	old, exists := t.draft.Snapshot().Machine(m.ID)
	m.Up, m.Mode, m.Owed = true, old.Mode, unit.Resources{}
	m.Avoid, m.AvoidUntil, m.Avoided = old.Avoid, old.AvoidUntil, old.Avoided
	if exists && sameMachine(old.Machine, m) {
		return nil
	}
	return t.apply(state.PutMachine{Machine: m, Base: old.Rev})
}

// Heartbeat prolongs the lease of a session without a turn. It is false when
// there is no such session: the agent must say hello again.
func (l *Loop) Heartbeat(from machine.ID, session string, steady unit.Tick) bool {
	a := l.agents[from]
	if a == nil || a.session == "" || a.session != session {
		return false
	}
	l.hear(from, steady)
	if l.Leased(from, steady) {
		l.prolong(from, steady, steady+second) // the news of it is under way by then
	}
	return true
}

// restored reports whether an agent has seen a later life of this cluster than
// the loop began with: then the database is an old copy of itself.
func (t *Turn) restored(h Hello) bool {
	seen := h.Seen
	if fault.Planted("restore-not-noticed") {
		return false
	}
	l := t.loop
	own := machine.Epoch{Incarnation: t.draft.Snapshot().Cluster.Incarnation, N: l.epoch.N}
	switch {
	case seen.Epoch.Incarnation != own.Incarnation:
		return seen.Epoch.Incarnation > own.Incarnation
	case seen.Epoch.N > own.N:
		return true
	case seen.Epoch.N == own.N && !l.met[h.Machine.ID]:
		return true // another leader of this number has told it
	case seen.Epoch.N == own.N:
		return seen.Rev > l.snap.Rev
	default:
		return seen.Rev > l.first
	}
}

// since returns up to which revision a machine may have forgotten what it was
// told to run. Orders of this turn and later ones reach nobody but the agent
// that says hello.
func (t *Turn) since(h Hello) state.Rev {
	switch own := t.draft.Snapshot().Cluster.Incarnation; {
	case h.Since == (Seen{}), h.Since.Epoch.Incarnation > own:
		return t.loop.snap.Rev
	case h.Since.Epoch.Incarnation < own:
		return 0 // what was numbered in an earlier one is not ordered any more in any case
	default:
		return h.Since.Rev
	}
}

// recover begins a new incarnation. Nothing new is started for a while: what
// was started after the copy was taken is told of first.
func (t *Turn) recover(seen Seen) error {
	cl := t.draft.Snapshot().Cluster
	cl.Incarnation, cl.Recovery = max(cl.Incarnation, seen.Epoch.Incarnation)+1, true
	t.loop.hold.until = t.steady + t.loop.cfg.RecoveryGrace
	return t.apply(state.PutCluster{Cluster: cl})
}

// renumber ends the hold of a recovery: another attempt takes the place of
// every task that has no machine by now, and a number of an earlier
// incarnation. It may have had one after the copy was taken.
func (t *Turn) renumber() error {
	first := t.draft.Snapshot().Cluster.FirstAttempt()
	if first <= 1 {
		return nil // there was no earlier incarnation
	}
	var old []state.Task
	for x := range t.draft.Snapshot().Tasks() {
		if (x.State == task.Pending || x.State == task.Throttled) && x.ID.Attempt < first {
			old = append(old, x)
		}
	}
	for _, x := range old {
		e := task.Event{To: task.Killing, Reason: "the database was restored: its number may have been used"}
		if err := t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: e}); err != nil {
			return err
		}
		in, _ := t.draft.Snapshot().Instance(instanceOf(x.ID))
		if err := t.apply(state.OpenSlot{Slot: in.Slot, Base: in.Rev}); err != nil {
			return err
		}
	}
	return nil
}

// place takes in where a task is that waited for a machine when the copy was
// taken from which the database was restored.
func (t *Turn) place(x state.Task, from machine.ID, s task.Sighting) (state.Task, bool) {
	if x.Machine != "" || x.Config != s.Config || !t.draft.Snapshot().Cluster.Recovery {
		return x, false
	}
	for _, to := range []task.State{task.Pending, task.Assigned} {
		if x.State == to {
			continue
		}
		e := task.Event{To: to, Machine: from, Ports: s.Ports, GPUs: s.GPUs, Reason: adopted}
		if t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: e}) != nil {
			return x, false
		}
		x, _ = t.draft.Snapshot().Task(x.ID)
	}
	return x, true
}

// adopted is the reason of tasks that were taken in.
const adopted = "adopted after a restore"

// Hear takes in a message of a session. What it says of tasks becomes steps;
// what contradicts the loop is answered with orders.
func (t *Turn) Hear(from machine.ID, m Message) error {
	l := t.loop
	a := l.agents[from]
	if a == nil || a.session != m.Session {
		return fault.Conflict.Errorf("machine %s has no such session; say hello again", from)
	}
	if m.N <= a.n && !fault.Planted("late-report-accepted") {
		return nil
	}
	a.n = m.N
	l.hear(from, t.steady)
	if m.Machine != nil && m.Machine.ID == from {
		if err := m.Machine.Validate(); err != nil {
			return err
		}
		if err := t.machine(*m.Machine); err != nil {
			return err
		}
	}
	for _, f := range m.Facts {
		if err := t.fact(from, f); err != nil {
			return err
		}
	}
	var strays []task.Sighting
	for _, s := range m.Sightings {
		if t.sight(from, s, m.Obeyed) && !s.State.Terminal() {
			strays = append(strays, s)
		}
	}
	a.told = a.told || m.Full
	t.prolong(from, m.N)
	if m.Full {
		l.hold.heard(from)
		there := seen(m.Sightings)
		t.missing(from, there, m.Obeyed)
		l.letGo(from, there)
	}
	t.strays(from, m, strays)
	if m.Bye {
		return t.depart(from)
	}
	return nil
}

// prolong has the machine told that message n prolonged its lease, before or
// with what this turn orders.
func (t *Turn) prolong(from machine.ID, n uint64) {
	l := t.loop
	if !t.Leased(from) {
		return
	}
	if !l.covers(from, t.steady) {
		t.orders[from] = append([]task.Order(nil), t.orders[from]...) // it is told also when there is nothing to do
	}
	l.prolong(from, t.steady, t.steady)
	t.leased[from] = n
}

// depart takes a machine as down whose agent has stopped every task and ends.
func (t *Turn) depart(from machine.ID) error {
	m, ok := t.draft.Snapshot().Machine(from)
	if !ok {
		return nil
	}
	m.Up, m.Leaving = false, true
	if err := t.apply(state.PutMachine{Machine: m.Machine, Base: m.Rev}); err != nil {
		return err
	}
	t.left, t.drop = append(t.left, from), append(t.drop, from)
	t.orders[from] = append([]task.Order(nil), t.orders[from]...) // the answer, also when there is nothing to do
	return nil
}

// Bye ends a session whose connection was cut. The lease runs on.
func (t *Turn) Bye(from machine.ID, session string) {
	if a := t.loop.agents[from]; a != nil && a.session == session {
		a.session, a.told = "", false
	}
}

func (t *Turn) fact(from machine.ID, f state.Fact) error {
	if err := t.apply(state.TakeFact{Fact: f}); err != nil {
		return err
	}
	if t.acks[from] == nil {
		t.acks[from] = map[string]uint64{}
	}
	t.acks[from][f.Source] = t.draft.Snapshot().Source(f.Source)
	return nil
}

// sight takes in what a machine says about one task. It reports whether the
// task is a stray to the cluster.
func (t *Turn) sight(from machine.ID, s task.Sighting, obeyed state.Rev) (stray bool) {
	x, ok := t.draft.Snapshot().Task(s.ID)
	if ok && x.Machine == "" {
		x, ok = t.place(x, from, s)
	}
	if !ok || x.Machine != from {
		t.stray(from, s)
		return true
	}
	if s.Orphan && !s.State.Terminal() {
		return t.orphan(from, x, s)
	}
	if s.State == x.State {
		if s.State.Terminal() {
			t.send(from, task.Order{ID: s.ID, Verb: task.Forget})
		}
		return false
	}
	to := s.State
	if x.State == task.Running && to == task.Starting {
		return false // an older sighting
	}
	e := task.Event{To: to, Reason: s.Reason}
	if err := t.apply(state.StepTask{ID: s.ID, Base: x.Rev, Event: e, Gone: true}); err != nil {
		if x.State.Stopping() && !to.Terminal() && !crosses(obeyed, x) {
			t.send(from, task.Order{ID: s.ID, Verb: task.Stop, Reason: x.Reason})
		}
		return false
	}
	if to.Terminal() {
		t.send(from, task.Order{ID: s.ID, Verb: task.Forget})
		t.unheld = append(t.unheld, s.ID)
	}
	return false
}

// stray answers a sighting of a task that is not known to be on that machine.
// What has ended may be forgotten. What runs is told to stop, by name, unless
// this cluster was restored from a copy: then it is adopted or held. An orphan
// is held in any case.
func (t *Turn) stray(from machine.ID, s task.Sighting) {
	if s.State.Terminal() {
		t.send(from, task.Order{ID: s.ID, Verb: task.Forget})
		t.unheld = append(t.unheld, s.ID)
		return
	}
	if s.Orphan && !fault.Planted("orphan-stopped") {
		t.hold(from, s, orphaned)
		return
	}
	if t.draft.Snapshot().Cluster.Recovery {
		why, adopted := t.adopt(from, s)
		if adopted {
			t.unheld = append(t.unheld, s.ID)
			return
		}
		t.hold(from, s, why)
		return
	}
	if why := t.disown(s.ID); why != "" {
		t.hold(from, s, why)
		return
	}
	if fault.Planted("stray-ignored") {
		return
	}
	t.stopSurplus(from, s)
}

func (t *Turn) hold(from machine.ID, s task.Sighting, why string) {
	t.loop.held[s.ID] = Held{Sighting: s, Machine: from, Why: why}
}

// adopt takes a running task in when its job still matches. It says why not.
func (t *Turn) adopt(from machine.ID, s task.Sighting) (why string, ok bool) {
	snap := t.draft.Snapshot()
	at := instanceOf(s.ID)
	j, exists := snap.Job(at.Job)
	switch {
	case !exists:
		return "its job is not known", false
	case j.Config != s.Config:
		return "its job has another config", false
	case !j.Instances.Has(at.N):
		return "its job does not have this instance", false
	}
	if in, known := snap.Instance(at); known && !in.Live && in.Attempt >= s.ID.Attempt {
		return "its end is remembered", false
	} else if in.Live {
		older, found := snap.Task(task.ID{Job: at.Job, Instance: at.N, Attempt: in.Attempt})
		if !found || older.ID.Attempt >= s.ID.Attempt || !t.forgo(older) {
			return fmt.Sprintf("its instance has task %d already", in.Attempt), false
		}
	}
	c := state.AdoptTask{Task: task.Task{
		ID: s.ID, Config: s.Config, Resources: s.Resources, Ports: s.Ports, GPUs: s.GPUs, State: s.State, Machine: from,
		Reason: adopted,
	}}
	if err := t.apply(c); err != nil {
		return err.Error(), false
	}
	return "", true
}

// forgo gives up the memory of an attempt that a later one, seen running, has
// replaced since the copy was taken.
func (t *Turn) forgo(x state.Task) bool {
	to := task.Lost
	if !x.State.Placed() {
		to = task.Killing
	}
	return t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: task.Event{To: to, Reason: "a later attempt is running"}}) == nil
}

// letGo forgets what is held on a machine that does not show it any more.
func (l *Loop) letGo(from machine.ID, there map[task.ID]bool) {
	for id, h := range l.held {
		if h.Machine == from && !there[id] {
			l.unhold(id)
		}
	}
}

// unhold forgets that a task is held. It reports whether its slot may be
// filled now.
func (l *Loop) unhold(id task.ID) bool {
	_, held := l.held[id]
	delete(l.held, id)
	at := instanceOf(id)
	in, known := l.snap.Instance(at)
	if !held || !known || !in.Open || in.Live {
		return false
	}
	l.todo.Slots[at] = true
	return true
}

// taken returns which slots have a task that is held, or may have; nil when
// none has.
func (l *Loop) taken() func(state.Slot) bool {
	if l.lone != 0 {
		return func(state.Slot) bool { return true }
	}
	if len(l.held) == 0 {
		return nil
	}
	slots := make(map[state.Slot]bool, len(l.held))
	for id := range l.held {
		slots[instanceOf(id)] = true
	}
	return func(at state.Slot) bool { return slots[at] }
}

// sameMachine compares what an agent says of its machine.
func sameMachine(a, b machine.Machine) bool {
	return a.ID == b.ID && a.Host == b.Host && slices.Equal(a.Attributes, b.Attributes) && a.Capacity == b.Capacity &&
		a.Taken() == b.Taken() && a.Foreign == b.Foreign && a.Ports == b.Ports && a.Mode == b.Mode && a.Up == b.Up && a.Leaving == b.Leaving &&
		a.Boot == b.Boot && slices.Equal(a.Limits, b.Limits)
}
