package sim

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// leader is the server's shell: it gathers what is said, takes turns, commits
// them and sends what they give.
type leader struct {
	w     *World
	loop  *control.Loop
	clock control.Clock
	epoch machine.Epoch
	term  int // counts lives, so that events of a former one are void

	inputs  []func(*control.Turn)
	done    []func(error)         // answers that wait for the commit
	acks    []func()              // likewise, for leases
	stops   map[task.ID]unit.Tick // of tasks that no row knows, and when each was told first
	planned unit.Tick             // when the next turn is due; 0: none
	sent    map[machine.ID]uint64
	peers   map[machine.ID]string // sessions, as it sees them
	zombie  bool                  // another one leads, and it does not know
	stuck   bool                  // its store does not answer, and it waits
}

var errNoLeader = errors.New("there is no leader")

func (l *leader) start() {
	if l.loop != nil || l.zombie {
		return
	}
	epoch, err := l.w.disk.acquire()
	if err != nil {
		l.w.fail("acquire: %v", err)
		return
	}
	snap, err := l.w.snapshot()
	if err != nil {
		l.w.fail("load: %v", err)
		return
	}
	l.w.stats.Leaders++
	l.term++
	l.epoch, l.inputs, l.done, l.acks, l.planned = epoch, nil, nil, nil, 0
	l.sent, l.peers = map[machine.ID]uint64{}, map[machine.ID]string{}
	l.stops = map[task.ID]unit.Tick{}
	l.clock = control.Clock{}
	l.clock.Since(snap.At, l.w.now)
	limits := control.Defaults()
	limits.AlwaysLook = l.w.cfg.AlwaysLook
	l.loop = control.New(snap, epoch, l.w.now, limits)
	l.prove()
	if snap.Cluster.UID == "" {
		l.input(func(t *control.Turn) {
			_, err := t.Do(control.Birth{Cluster: state.Cluster{Name: "sim", UID: "uid", Incarnation: 1}})
			if err != nil {
				l.w.fail("birth: %v", err)
			}
		})
	}
	l.plan(l.w.now + 1)
}

// die ends the leader's life: what it had not committed is gone.
func (l *leader) die() {
	if l.loop == nil {
		return
	}
	l.term++
	l.loop, l.inputs = nil, nil
	l.fail(errNoLeader)
	l.cutAll()
	if !l.zombie {
		l.w.disk.crash()
		l.w.after(l.w.jitter(3*Second), l.start)
	}
}

// cutAll breaks every connection.
func (l *leader) cutAll() {
	for _, n := range l.w.nodes {
		if n.to == l {
			n.cut()
		}
	}
	l.peers = map[machine.ID]string{}
}

// pause stops the leader where it is; another one is elected, and for a while
// the former one goes on and believes that it leads.
func (l *leader) pause() {
	if l.loop == nil {
		return
	}
	l.zombie = true
	l.w.leader = &leader{w: l.w}
	l.w.after(1, l.w.leader.start)
	l.w.zombie = l
	l.w.after(Minute, func() {
		l.die()
		if l.w.zombie == l {
			l.w.zombie = nil
		}
	})
}

// cutOff takes its store away from the leader: a commit of it does not come
// back, and another one is elected. Most machines go there; of those whose
// connections hold, it hears that they live, and it answers them.
func (l *leader) cutOff() {
	if l.loop == nil {
		return
	}
	l.zombie, l.stuck = true, true
	l.w.leader = &leader{w: l.w}
	l.w.after(1, l.w.leader.start)
	for _, n := range l.w.nodes {
		if n.to == l && !l.w.chance(5) {
			n.cut()
		}
	}
	l.w.after(Minute/2+l.w.jitter(Minute), l.die) // the commit has failed
}

func (l *leader) fail(err error) {
	done, acks := l.done, l.acks
	l.done, l.acks = nil, nil
	for _, f := range acks {
		if err == nil {
			f()
		}
	}
	for _, f := range done {
		f(err)
	}
}

func (l *leader) mend() {
	l.w.skew = 0
	l.start()
}

// ask gives a command to the leader. The answer comes when it is durable.
func (l *leader) ask(c control.Command, answer func(error)) {
	if l.loop == nil {
		l.w.after(1, func() { answer(errNoLeader) })
		return
	}
	l.input(func(t *control.Turn) {
		if _, err := t.Do(c); err != nil {
			l.w.after(1, func() { answer(err) })
			return
		}
		l.done = append(l.done, answer)
	})
}

func (l *leader) input(f func(*control.Turn)) {
	l.inputs = append(l.inputs, f)
	l.plan(l.w.now + 5*Millisecond)
}

// plan asks for a turn at a time, unless one comes earlier.
func (l *leader) plan(at unit.Tick) {
	if l.planned != 0 && l.planned <= at {
		return
	}
	l.planned = at
	term := l.term
	l.w.after(max(1, at-l.w.now), func() {
		if l.term == term && l.planned == at {
			l.planned = 0
			l.turn()
		}
	})
}

func (l *leader) turn() {
	if l.stuck {
		return
	}
	t := l.loop.Begin(l.clock.Read(l.w.now+l.w.skew, l.w.now), l.w.now)
	inputs := l.inputs
	l.inputs = nil
	for _, f := range inputs {
		f(t)
	}
	b, err := t.End()
	if err != nil {
		l.w.fail("turn: %v", err)
		return
	}
	if fault.Planted("published-early") {
		l.publish(l.loop.Commit(t))
	}
	if !b.Empty() {
		err, dead := l.w.disk.commit(b)
		switch {
		case dead, err != nil && (fault.Of(err) == fault.Timeout || fault.Of(err) == fault.Conflict):
			l.die()
			return
		case err != nil && fault.Of(err) == fault.Internal:
			l.w.fail("commit: %v", err)
			return
		case err != nil:
			l.loop.Abort(t)
			l.fail(err)
			l.cutAll()
			l.plan(l.w.now + Second)
			return
		}
	}
	l.fail(nil) // nobody failed: everybody is told so
	if !fault.Planted("published-early") {
		l.publish(l.loop.Commit(t))
	}
}

func (l *leader) publish(r control.Result) {
	for _, id := range slices.Sorted(maps.Keys(r.Delta.Machines)) {
		l.w.owed(l.loop.Snapshot(), id)
	}
	for _, id := range r.Drop {
		if n := l.w.byID[id]; n != nil {
			n.hangUp(l.peers[id])
			delete(l.peers, id)
		}
	}
	for _, s := range r.Sends {
		n := l.w.byID[s.Machine]
		if n == nil {
			continue
		}
		l.bounded(s.Orders)
		l.sent[s.Machine]++
		o := agent.Orders{
			UID: l.loop.Snapshot().Cluster.UID, Epoch: l.loop.Epoch(), Rev: uint64(l.loop.Snapshot().Rev),
			N: l.sent[s.Machine], Orders: s.Orders,
		}
		session := l.peers[s.Machine]
		l.w.tell(n, func() { n.obey(session, o, s.Acks) })
	}
	switch {
	case r.Busy:
		l.plan(l.w.now + 1)
	default:
		if r.Next != 0 {
			l.plan(l.w.now + max(1, r.Next-l.clock.Told()))
		}
		if r.Steady != 0 {
			l.plan(max(l.w.now+1, r.Steady))
		}
	}
}

// hello, hear and beat are what reaches the leader from a machine.
func (l *leader) hello(n *node, h control.Hello) {
	if l.loop == nil {
		return
	}
	l.input(func(t *control.Turn) {
		if err := t.Hello(h); fault.Of(err) == fault.Conflict { // its lease of before it restarted holds
			l.w.tell(n, func() { n.reset(h.Session) })
			return
		} else if err != nil {
			l.w.fail("machine %s: hello was refused: %v", n.id, err)
			return
		}
		if l.peers[n.id] != h.Session { // or it came twice
			l.peers[n.id], l.sent[n.id] = h.Session, 0
		}
	})
}

func (l *leader) hear(n *node, m control.Message, sent time.Duration) {
	if l.loop == nil {
		return
	}
	l.input(func(t *control.Turn) {
		err := t.Hear(n.id, m)
		if err == nil && t.Leased(n.id) {
			l.acks = append(l.acks, func() { l.acknowledge(n, m.Session, sent) })
		}
		if err != nil && fault.Of(err) != fault.Conflict {
			l.w.fail("machine %s: %v", n.id, err)
		}
	})
}

func (l *leader) beat(n *node, session string, sent time.Duration) {
	if l.loop == nil {
		return
	}
	if !l.loop.Heartbeat(n.id, session, l.w.now) {
		l.w.tell(n, func() { n.reset(session) })
		return
	}
	if l.loop.Leased(n.id, l.w.now) {
		l.acknowledge(n, session, sent)
	}
}
