package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// node is a machine: its processes outlive its agent, its disk outlives both.
type node struct {
	w    *World
	id   machine.ID
	n    int
	spec machine.Machine
	on   bool      // the machine has power
	up   bool      // its agent runs
	away bool      // no message gets through
	mute bool      // what it says does not get through
	lag  unit.Tick // how much later it hears what it is told
	life int       // counts the agent's lives and the machine's

	narrow bool       // what is long does not get through
	hole   task.State // how every task ends on it before it runs; Init: it starts them
	retell bool       // the machine is not what the leader was told

	procs map[task.ID]*proc // on disk: what ran here and was not forgotten
	bound []*proc           // those that live under the lease, and may have ended
	begun map[task.ID]bool  // tasks whose start is under way; true: they are to stop as soon as it is done

	mind    *agent.Agent
	seen    agent.Seen // on disk
	since   agent.Seen // on disk
	obeyed  machine.Epoch
	session string  // empty: none
	to      *leader // whom it dialled
	count   uint64
	opens   int
	heard   unit.Tick
	lease   agent.Lease

	journal []state.Fact // on disk: not acknowledged yet
	facts   uint64       // on disk: blocks made so far
	dirs    int          // how many directories were lost
}

type proc struct {
	sighting task.Sighting
	stopping bool
	cut      unit.Tick     // what it used before was told
	ended    unit.Tick     // 0: it lives
	until    time.Duration // an exclusive task's lease, by the machine's clock
}

func (p *proc) alive() bool { return !p.sighting.State.Terminal() }

// reserve is what a machine keeps back for its agent and the supervisors at least.
var reserve = unit.Resources{CPU: 250, RAM: 256 << 20, Disk: 1 << 30}

func newNode(w *World, i int) *node {
	n := &node{w: w, n: i, id: machine.ID(fmt.Sprintf("m%02d", i)), procs: map[task.ID]*proc{}}
	n.spec = machine.Machine{
		ID: n.id, Host: "127.0.0.1",
		Attributes: []machine.Attribute{{Name: "host", Value: string(n.id)}, {Name: "rack", Value: fmt.Sprintf("r%d", i%4)}},
		Capacity:   unit.Resources{CPU: 8000, RAM: 16 << 30, Disk: 100 << 30},
		Overhead:   reserve,
		Ports:      machine.PortRange{From: 31000, To: 31099},
	}
	return n
}

// boot starts the machine and its agent.
func (n *node) boot() {
	if n.on {
		return
	}
	n.on = true
	n.life++
	n.spec.Boot = fmt.Sprintf("%s-%d", n.id, n.life)
	n.spawn()
}

// crash takes the power away: every process is gone with no exit status.
func (n *node) crash() {
	if !n.on {
		return
	}
	n.kill()
	n.on, n.bound, n.since = false, nil, agent.Seen{}
	for id, p := range n.procs {
		if p.alive() {
			n.w.stats.Ends++
		}
		delete(n.procs, id)
	}
}

// spawn starts the agent: it finds the tasks that are there.
func (n *node) spawn() {
	if !n.on || n.up {
		return
	}
	n.up = true
	n.life++
	n.mind, n.lease, n.begun = agent.New("uid", n.seen, n.since), agent.Lease{}, map[task.ID]bool{}
	for _, id := range slices.SortedFunc(maps.Keys(n.procs), task.ID.Compare) {
		n.mind.See(n.procs[id].sighting)
	}
	n.session = ""
	n.dial()
	n.tick(3*Second, n.heartbeat)
	n.tick(Minute, n.full)
	n.tick(10*Minute, n.cutUsage)
}

// kill ends the agent, not the tasks.
func (n *node) kill() {
	if n.up {
		n.up = false
		n.life++
		n.session = ""
	}
}

func (n *node) mend() {
	n.away, n.mute, n.narrow, n.lag, n.hole = false, false, false, 0, task.Init
	if n.on {
		n.spawn()
	} else {
		n.boot()
	}
	n.shrink(unit.Resources{})
	n.grow(unit.Resources{})
}

// tick calls f every d, at a random phase, as long as the agent lives.
func (n *node) tick(d unit.Tick, f func()) {
	life := n.life
	var again func()
	again = func() {
		if n.life == life {
			f()
			n.w.after(d, again)
		}
	}
	n.w.after(n.w.jitter(d), again)
}

// cut breaks the connection; the agent notices soon.
func (n *node) cut() {
	session := n.session
	n.w.after(n.w.jitter(Second), func() { n.reset(session) })
}

// hangUp is the leader's end of a session that has run out.
func (n *node) hangUp(session string) {
	n.w.tell(n, func() { n.reset(session) })
}

// reset ends a session on the agent's side; it dials again.
func (n *node) reset(session string) {
	if n.up && n.session == session {
		n.session = ""
		life := n.life
		n.w.after(n.w.jitter(2*Second), func() {
			if n.life == life && n.session == "" {
				n.dial()
			}
		})
	}
}

// dial says hello, and again as long as nobody answers.
func (n *node) dial() {
	n.opens++
	n.count = 0
	n.session = fmt.Sprintf("%s-%d", n.id, n.opens)
	n.heard = 0
	n.mind.Open()
	h := control.Hello{Session: n.session, UID: "uid", Machine: n.spec, Seen: seen(n.mind.Seen()), Since: seen(n.mind.Since())}
	n.to = n.w.leader
	if n.w.zombie != nil && n.seen != (agent.Seen{}) && n.w.chance(3) { // who remembers no leader cannot tell one of the past
		n.to = n.w.zombie
	}
	to := n.to
	n.w.hear(n, func() { to.hello(n, h) })
	session := n.session
	n.w.after(5*Second, func() {
		if n.session == session && n.heard == 0 {
			n.reset(session)
		}
	})
}

func seen(s agent.Seen) control.Seen { return control.Seen{Epoch: s.Epoch, Rev: state.Rev(s.Rev)} }

func (n *node) heartbeat() {
	session := n.session
	if session != "" && n.heard != 0 {
		to, sent := n.to, n.clock()
		n.w.hear(n, func() { to.beat(n, session, sent) })
	}
}

func (n *node) full() { n.say(true) }

// say sends what is news, or everything, and the facts that nobody has acknowledged.
func (n *node) say(full bool) {
	if n.session == "" || n.heard == 0 {
		return
	}
	n.count++
	m := control.Message{Session: n.session, N: n.count, Full: full, Sightings: n.mind.Report(full), Obeyed: state.Rev(n.mind.Seen().Rev)}
	if full {
		m.Facts = slices.Clone(n.journal[:min(len(n.journal), 50)])
	}
	if full || n.retell {
		spec := n.spec
		m.Machine, n.retell = &spec, false
	}
	if n.narrow && len(m.Sightings)+len(m.Facts) > 5 {
		return
	}
	to, sent := n.to, n.clock()
	n.w.hear(n, func() { to.hear(n, m, sent) })
}

// obey carries out the leader's orders.
func (n *node) obey(session string, o agent.Orders, acks map[string]uint64) {
	if !n.up || session == "" || session != n.session {
		return
	}
	first := n.heard == 0
	n.heard = n.w.now
	deeds, err := n.mind.Obey(o)
	if err != nil {
		n.reset(session) // a leader of the past
		return
	}
	if o.Epoch.Compare(n.obeyed) < 0 {
		n.w.fail("machine %s obeyed term %v after %v", n.id, o.Epoch, n.obeyed)
	}
	n.obeyed = o.Epoch
	n.seen, n.since = n.mind.Seen(), n.mind.Since()
	for _, d := range deeds {
		n.do(d, o)
	}
	for src, upTo := range acks {
		n.journal = slices.DeleteFunc(n.journal, func(f state.Fact) bool { return f.Source == src && f.Seq <= upTo })
	}
	if first {
		n.say(true)
	}
}

func (n *node) do(d agent.Deed, o agent.Orders) {
	switch d.Verb {
	case task.Run:
		n.run(d, o)
	case task.Stop:
		n.w.truth.stopped(n, d)
		n.stop(d.ID)
	case task.Forget:
		delete(n.procs, d.ID)
	}
}

// run starts a task: it prepares, runs, and ends as chance has it.
func (n *node) run(d agent.Deed, o agent.Orders) {
	s := task.Sighting{ID: d.ID, Config: d.Config, Ports: d.Ports, GPUs: d.GPUs, State: task.Starting}
	for _, x := range o.Orders {
		if x.ID == d.ID {
			s.Resources = x.Resources
		}
	}
	switch {
	case n.hole != task.Init:
		n.refuse(s, n.hole, "it starts nothing")
		return
	case n.w.chance(100) && !n.w.calm: // the pool refuses: nobody's failure
		n.refuse(s, task.Lost, "refused: no room")
		return
	}
	if !n.w.exclusive[d.Config] {
		n.launch(s, o.Epoch, 0)
		return
	}
	g, ok := n.lease.Grant(n.clock())
	life := n.life
	n.begun[d.ID] = false
	n.w.after(n.prepare(), func() {
		if n.life != life {
			return
		}
		if n.begun[d.ID] { // what it is told of a task it does in order
			defer n.stop(d.ID)
		}
		delete(n.begun, d.ID)
		until, still := n.lease.Extend(n.clock(), g)
		if !ok || !still {
			s.State, s.Reason = task.Lost, "refused: no lease"
			n.mind.See(s)
			n.say(false)
			return
		}
		n.launch(s, o.Epoch, until)
	})
}

// prepare returns how long it takes until a task can start. That may be long,
// and take all that the machine has, so that it is not heard for a while.
func (n *node) prepare() unit.Tick {
	if n.w.calm || !n.w.chance(200) {
		return n.w.jitter(2 * Second)
	}
	n.w.after(Second, func() { n.away = true })
	n.w.after(Minute/2+n.w.jitter(Minute/2), func() { n.away = false })
	return Minute/2 + n.w.jitter(Minute)
}

// launch starts a task's processes.
func (n *node) launch(s task.Sighting, e machine.Epoch, until time.Duration) {
	n.w.truth.started(n, s.ID, e)
	n.w.alone(n, s.ID, s.Config)
	n.w.fits(n, s)
	n.w.stats.Starts++
	d, p := s, &proc{sighting: s, cut: n.w.now}
	n.procs[d.ID] = p
	if until != 0 {
		n.bind(d.ID, p, until)
	}
	if !n.w.calm && n.w.chance(1000) {
		n.wipe()
	}
	n.show(p)
	n.w.after(n.w.jitter(2*Second), func() { n.move(d.ID, p, task.Running, "") })
	life, end := 20*unit.Hour, task.Finished
	if n.w.chance(12) {
		life, end = 20*Minute, task.Failed
	}
	n.w.after(3*Second+n.w.jitter(life), func() {
		if end == task.Finished || !n.w.calm {
			n.move(d.ID, p, end, "")
		}
	})
}

// stop ends a task within a few seconds, as its agent asked. An exclusive one
// may hang in a system call for much longer.
func (n *node) stop(id task.ID) {
	p := n.procs[id]
	if _, begun := n.begun[id]; begun && p == nil {
		n.begun[id] = true
	}
	if p == nil || p.stopping || !p.alive() {
		return
	}
	p.stopping = true
	last := 3 * Second
	if p.until != 0 && !n.w.calm && n.w.chance(5) {
		last = 20 * Minute
	}
	n.w.after(n.w.jitter(last), func() { n.move(id, p, task.Killed, "") })
}

// move takes a process to another state, whether an agent watches or not.
func (n *node) move(id task.ID, p *proc, to task.State, why string) {
	if n.procs[id] != p || !p.alive() || p.stopping && to == task.Running {
		return
	}
	to, why = p.endsAs(to, why)
	p.sighting.State, p.sighting.Reason = to, why
	if to.Terminal() {
		n.w.stats.Ends++
		p.ended = n.w.now
		n.fact(p)
	}
	n.show(p)
}

func (n *node) show(p *proc) {
	if n.up {
		n.mind.See(p.sighting)
		n.say(false)
	}
}

func (n *node) sayIfUp() {
	if n.up {
		n.say(false)
	}
}

// cutUsage makes a fact of what lives, as an agent does every hour.
func (n *node) cutUsage() {
	var live []*proc
	for _, id := range slices.SortedFunc(maps.Keys(n.procs), task.ID.Compare) {
		if n.procs[id].alive() {
			live = append(live, n.procs[id])
		}
	}
	n.fact(live...)
}

// fact makes a block of what tasks used since they were cut last.
func (n *node) fact(of ...*proc) {
	var used []ledger.Used
	for _, p := range of {
		used = append(used, p.use(n.w.now)...)
	}
	if len(used) == 0 {
		return
	}
	var sum ledger.Amounts
	for _, u := range used {
		sum, _ = sum.Add(u.Amounts())
	}
	n.facts++
	f := state.Fact{Source: n.source(), Seq: n.facts, Payload: ledger.EncodeUsed(used)}
	n.journal = append(n.journal, f)
	n.w.truth.made[f.Source] = n.facts
	n.w.bill.made[f.Source] = append(n.w.bill.made[f.Source], sum)
}

// use returns what a task has used, cut at full hours: half of its cores, all
// of its memory.
func (p *proc) use(now unit.Tick) []ledger.Used {
	var out []ledger.Used
	for p.cut < now {
		to := min(now, p.cut.FloorHour()+unit.Hour)
		d, r := int64(to-p.cut), p.sighting.Resources
		out = append(out, ledger.Used{Task: p.sighting.ID, From: p.cut, To: to, CPU: r.CPU / 2 * d, RAM: r.RAM / unit.MiB * d})
		p.cut = to
	}
	return out
}

// shrink tells the leader that others use some of the machine.
func (n *node) shrink(foreign unit.Resources) {
	n.spec.Foreign = foreign
	if n.up {
		n.say(true)
	}
}

// grow has the agent and the supervisors take as much, or their reserve when
// that is more. The leader hears of it at once, or else with all the rest.
func (n *node) grow(taken unit.Resources) {
	n.spec.Overhead, n.retell = reserve.Max(taken), true
	if n.up {
		n.say(false)
	}
}
