package control_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const (
	second = unit.Hour / 3600
	epoch  = 525_960 * unit.Hour // midnight, 1 January 2030
)

// world is a cluster of one leader, a store in memory, and machines that do as
// they are told at once, unless a scenario says otherwise.
type world struct {
	t     testing.TB
	cfg   control.Config
	store *state.Mem
	copy  *state.Mem
	loop  *control.Loop
	clock control.Clock

	now    unit.Tick // steady
	skew   unit.Tick // what the wall shows beyond it
	inputs []input   // of the next turn
	due    unit.Tick // of the next turn; 0: none
	refuse bool      // the next commit
	nodes  map[machine.ID]*node
	out    strings.Builder
	brief  bool // count records and orders only
	turns  int
	sent   int // orders, in all
	most   int // records of the largest turn

	unproved bool // the store does not answer whether the loop leads
	leases   bool // show which leases are prolonged
}

func (w *world) prove() {
	if !w.unproved {
		w.loop.Prove(w.now)
	}
}

type input struct {
	name string
	do   func(*control.Turn) error
}

// node is a machine.
type node struct {
	row     machine.Machine
	opens   int
	session string
	n       uint64
	seen    control.Seen
	since   control.Seen // the same of the first orders that it remembers
	silent  bool         // nothing goes out
	manual  bool         // orders are shown and not carried out
	hole    bool         // it refuses every task
	tasks   map[task.ID]task.Sighting
	beats   unit.Tick
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, cfg: control.Defaults(), store: &state.Mem{}, now: epoch, nodes: map[machine.ID]*node{}}
	w.lead()
	w.input("birth", func(t *control.Turn) error {
		_, err := t.Do(control.Birth{Cluster: state.Cluster{Name: "west", UID: "uid", Incarnation: 1}})
		return err
	})
	w.turn()
	w.out.Reset()
	return w
}

// lead makes a new leader from what the store holds.
func (w *world) lead() {
	w.t.Helper()
	e, err := w.store.Acquire(context.Background(), "leader")
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := state.Restore(func(yield func(state.Row) error) (state.Head, error) {
		return w.store.Load(context.Background(), yield)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.clock = control.Clock{}
	w.clock.Since(s.At, w.now)
	w.loop = control.New(s, e, w.now, w.cfg)
	w.inputs, w.due = nil, w.now+1
	for _, n := range w.nodes {
		n.session = ""
	}
}

func (w *world) input(name string, do func(*control.Turn) error) {
	w.inputs = append(w.inputs, input{name, do})
}

func (w *world) printf(format string, args ...any) { fmt.Fprintf(&w.out, format+"\n", args...) }

// stamp is the time that records show, to 10 ms: two turns are a tick apart.
func stamp(at unit.Tick) string {
	return (at - epoch).Duration().Round(10 * time.Millisecond).String()
}

// turn takes one turn with the inputs that wait, and as many as are busy after it.
func (w *world) turn() {
	for range 10_000 {
		if !w.once() {
			return
		}
	}
	w.t.Fatal("the loop stays busy")
}

func (w *world) once() (busy bool) {
	w.turns++
	w.due = 0
	w.prove()
	t := w.loop.Begin(w.clock.Read(w.now+w.skew, w.now), w.now)
	for _, in := range w.inputs {
		if err := in.do(t); err != nil {
			w.printf("%s: %v: %v", in.name, fault.Of(err), err)
		}
	}
	b, err := t.End()
	if err != nil {
		w.t.Fatalf("turn: %v", err)
	}
	if !b.Empty() {
		if w.refuse {
			w.refuse = false
			w.loop.Abort(t)
			w.printf("the commit was refused; %d records are void", len(b.Records))
			for _, n := range w.nodes {
				n.session = ""
			}
			w.due = w.now + 1
			return false
		}
		if err := w.store.Commit(context.Background(), b); err != nil {
			w.t.Fatalf("commit: %v", err)
		}
	}
	w.inputs = nil
	r := w.loop.Commit(t)
	w.show(b, r)
	for _, id := range r.Drop {
		if n := w.nodes[id]; n != nil {
			n.session = ""
		}
	}
	for _, s := range r.Sends {
		w.sent += len(s.Orders)
		w.deliver(s)
	}
	w.plan(r)
	return r.Busy || len(w.inputs) > 0
}

func (w *world) plan(r control.Result) {
	at := func(x unit.Tick) {
		if w.due == 0 || x < w.due {
			w.due = max(x, w.now+1)
		}
	}
	if r.Next != 0 {
		at(w.now + r.Next - w.clock.Told())
	}
	if r.Steady != 0 {
		at(r.Steady)
	}
}

// deliver brings orders to a machine, which carries them out at once.
func (w *world) deliver(s control.Send) {
	n := w.nodes[s.Machine]
	if n == nil || n.session == "" {
		return
	}
	n.seen = control.Seen{Epoch: w.loop.Epoch(), Rev: w.loop.Snapshot().Rev}
	if n.since == (control.Seen{}) {
		n.since = n.seen
	}
	if n.manual || n.silent {
		return
	}
	var news []task.Sighting
	for _, o := range s.Orders {
		if x, changed := n.obey(o); changed {
			news = append(news, x)
		}
	}
	if len(news) > 0 {
		w.say(n, control.Message{Sightings: news})
	}
}

func (n *node) obey(o task.Order) (task.Sighting, bool) {
	x, known := n.tasks[o.ID]
	switch {
	case o.Verb == task.Forget:
		delete(n.tasks, o.ID)
		return x, false
	case o.Verb == task.Run && !known && n.hole:
		return task.Sighting{ID: o.ID, Config: o.Config, State: task.Lost, Reason: "refused: it starts nothing"}, true
	case o.Verb == task.Run && !known:
		x = task.Sighting{ID: o.ID, Config: o.Config, Resources: o.Resources, Ports: o.Ports, State: task.Running}
	case o.Verb == task.Stop && !x.State.Terminal():
		x.ID, x.State, x.Reason = o.ID, task.Killed, ""
	}
	n.tasks[o.ID] = x
	return x, true
}

// say gives a message of a machine's session to the next turn.
func (w *world) say(n *node, m control.Message) {
	if m.Session == "" {
		m.Session = n.session
	}
	if m.N == 0 {
		n.n++
		m.N = n.n
	}
	id := n.row.ID
	w.input("message of "+string(id), func(t *control.Turn) error { return t.Hear(id, m) })
}

func (n *node) all() []task.Sighting {
	var out []task.Sighting
	for _, id := range slices.SortedFunc(maps.Keys(n.tasks), task.ID.Compare) {
		out = append(out, n.tasks[id])
	}
	return out
}

// hello opens a session of a machine.
func (w *world) hello(n *node, uid string) {
	n.opens++
	n.n = 0
	n.session = fmt.Sprintf("%s-%d", n.row.ID, n.opens)
	n.beats = w.now
	h := control.Hello{Session: n.session, UID: uid, Machine: n.row, Seen: n.seen, Since: n.since}
	w.input("hello of "+string(n.row.ID), func(t *control.Turn) error { return t.Hello(h) })
}

// join opens a session and says everything.
func (w *world) join(n *node) {
	w.hello(n, "uid")
	if !n.manual {
		w.say(n, control.Message{Full: true, Sightings: n.all()})
	}
}

// pass lets time go by. Machines that are not silent send a heartbeat every
// 3 s, and dial again when they have no session.
func (w *world) pass(d unit.Tick) {
	end := w.now + d
	for {
		next := end
		if w.due != 0 {
			next = min(next, w.due)
		}
		for _, n := range w.nodes {
			if !n.silent {
				next = min(next, n.beats+3*second)
			}
		}
		w.now = max(w.now, next)
		for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
			w.beat(w.nodes[id])
		}
		if len(w.inputs) > 0 || w.due != 0 && w.due <= w.now {
			w.turn()
		}
		if w.now >= end {
			return
		}
	}
}

func (w *world) beat(n *node) {
	if n.silent || w.now < n.beats+3*second {
		return
	}
	n.beats = w.now
	w.prove()
	if n.session == "" || !w.loop.Heartbeat(n.row.ID, n.session, w.now) {
		w.join(n)
	}
}

// show prints what a turn gave.
func (w *world) show(b *state.Batch, r control.Result) {
	w.most = max(w.most, len(b.Records))
	if w.brief {
		w.showBrief(b, r)
		return
	}
	for i := range b.Records {
		w.printf("%s", describe(&b.Records[i]))
	}
	for _, id := range r.Drop {
		w.printf("%s: its session is over", id)
	}
	for _, s := range r.Sends {
		if w.leases && s.Leased != 0 {
			w.printf("%s <- LEASED by message %d", s.Machine, s.Leased)
		}
		for _, o := range s.Orders {
			line := fmt.Sprintf("%s <- %v %v", s.Machine, o.Verb, o.ID)
			if o.Reason != "" {
				line += ": " + o.Reason
			}
			w.printf("%s", line)
		}
		if s.Bye {
			w.printf("%s <- BYE", s.Machine)
		}
		for _, src := range slices.Sorted(maps.Keys(s.Acks)) {
			w.printf("%s <- ACK %s %d", s.Machine, src, s.Acks[src])
		}
	}
	if r.Busy {
		w.printf("busy")
	}
}

func (w *world) showBrief(b *state.Batch, r control.Result) {
	n := map[string]int{}
	for i := range b.Records {
		if x := b.Records[i].Task; x != nil {
			n[fmt.Sprintf("%v -> %v", x.Before, x.After.State)]++
		}
	}
	orders := 0
	for _, s := range r.Sends {
		orders += len(s.Orders)
	}
	if len(n) == 0 && orders == 0 {
		return
	}
	line := "turn:"
	for _, k := range slices.Sorted(maps.Keys(n)) {
		line += fmt.Sprintf(" %d %s,", n[k], k)
	}
	w.printf("%s %d orders", line, orders)
}

func describe(r *state.Record) string {
	line := stamp(r.At) + " "
	switch r.Kind {
	case state.TaskRecord:
		x := r.Task.After
		line += fmt.Sprintf("%v %v -> %v", x.ID, r.Task.Before, x.State)
		if x.Machine != "" {
			line += " " + string(x.Machine)
		}
		if x.Reason != "" {
			line += " (" + x.Reason + ")"
		}
	case state.JobRecord:
		line += fmt.Sprintf("job %s: %v", r.Job.Job.Key, r.Job.Job.Instances)
		if r.Job.Dropped {
			line += " dropped (" + r.Job.Reason + ")"
		}
	case state.MachineRecord:
		m := r.Machine.After
		line += fmt.Sprintf("machine %s up=%v, %s free", m.ID, m.Up, r.Machine.Free)
		for _, kept := range []struct {
			how string
			of  unit.Resources
		}{{"keeps", m.Overhead}, {"owes", m.Owed}} {
			if kept.of != (unit.Resources{}) && len(r.Machine.Strays) == 0 { // those show it by their names
				line += fmt.Sprintf(", %s %v", kept.how, kept.of)
			}
		}
		if m.Avoid != "" {
			line += fmt.Sprintf(", avoided until %s for time %d: %s", stamp(m.AvoidUntil), m.Avoided, m.Avoid)
		}
		for _, x := range r.Machine.Strays {
			line += ", stray " + x.ID.String()
		}
	case state.ClusterRecord:
		line += fmt.Sprintf("cluster incarnation %d recovery=%v", r.Cluster.Incarnation, r.Cluster.Recovery)
	case state.QuotaRecord:
		line += fmt.Sprintf("quota of %s: %v", r.Quota.Quota.Role, r.Quota.Quota.Resources)
		if r.Quota.Dropped {
			line += " removed"
		}
	case state.FactRecord:
		line += fmt.Sprintf("fact %s %d", r.Fact.Source, r.Fact.Seq)
	}
	if r.By != "" {
		line += " by " + r.By
	}
	return line
}
