package sim

import (
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// hear brings something from a machine to the leader.
func (w *World) hear(n *node, deliver func()) {
	if !n.mute {
		w.message(n, 0, deliver)
	}
}

// tell brings something from the leader to a machine.
func (w *World) tell(n *node, deliver func()) { w.message(n, n.lag, deliver) }

// message brings something from a machine to the leader or back: mostly soon
// and once, sometimes late, twice or never.
func (w *World) message(n *node, lag unit.Tick, deliver func()) {
	if n.away || !n.on {
		return
	}
	send := func(d unit.Tick) {
		w.seq++
		w.events.push(event{w.now + lag + d, w.seq, n, deliver})
	}
	if w.calm {
		send(w.jitter(5 * Millisecond))
		return
	}
	switch r := w.rand.IntN(1000); {
	case r < 5: // lost
	case r < 10:
		send(w.jitter(50 * Millisecond))
		send(w.jitter(5 * Second))
	case r < 20:
		send(w.jitter(8 * Second))
	default:
		send(w.jitter(20 * Millisecond))
	}
}

// fault makes something go wrong, and the next thing some time later.
func (w *World) fault() {
	if w.calm {
		return
	}
	w.after(w.jitter(2*unit.Hour/unit.Tick(w.cfg.FaultsPerHour)), w.fault)
	w.stats.Faults++
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	switch r := w.rand.IntN(100); {
	case r < 20:
		n.kill()
		w.after(w.jitter(20*Second), n.spawn)
	case r < 32:
		n.crash()
		w.after(w.jitter(10*Minute), n.boot)
	case r < 42:
		n.away = true
		w.after(w.jitter(Minute), func() { n.away = false })
	case r < 46:
		n.oneWay()
	case r < 50:
		n.choke()
	case r < 52:
		w.split()
	case r < 59:
		w.leader.die()
	case r < 62:
		w.leader.pause()
	case r < 65:
		w.leader.cutOff()
	case r < 82:
		w.disk.next = fate(w.rand.IntN(int(fates)))
	case r < 88:
		w.skew = unit.Tick(w.rand.Int64N(int64(4*unit.Hour))) - 2*unit.Hour
		w.after(w.jitter(unit.Hour), func() { w.skew = 0 })
	case r < 92:
		n.shrink(unit.Resources{CPU: int64(w.rand.IntN(4000))})
		w.after(w.jitter(20*Minute), func() { n.shrink(unit.Resources{}) })
	case r < 94:
		n.grow(unit.Resources{CPU: int64(w.rand.IntN(6000)), RAM: int64(w.rand.IntN(12)) << 30})
		w.after(w.jitter(20*Minute), func() { n.grow(unit.Resources{}) })
	case r < 97:
		if n.swallow(); w.chance(5) {
			w.outage()
		}
	case r < 99:
		n.loseDirectory()
	default:
		n.cut()
	}
}

// oneWay makes the way from the leader to a machine slower and slower, and
// then closes the way back: the machine hears what nobody would say any more.
func (n *node) oneWay() {
	life := n.life
	var slower func()
	slower = func() {
		if n.life == life && n.lag < longestLag && !n.mute {
			n.lag += n.w.jitter(2 * Second)
			n.w.after(2*Second, slower)
		}
	}
	slower()
	n.w.after(n.w.jitter(Minute), func() { n.mute = true })
	n.w.after(Minute+n.w.jitter(Minute), func() { n.mute, n.lag = false, 0 })
}

// longestLag is about how late a machine hears what it is told, at worst.
const longestLag = 20 * Second

// choke loses what a machine says at length, as a network does on which two
// ends do not agree how long a packet may be.
func (n *node) choke() {
	n.narrow = true
	n.w.after(n.w.jitter(5*Minute), func() { n.narrow = false })
}

// split takes many machines away at once.
func (w *World) split() {
	for _, n := range w.nodes {
		if w.chance(2) {
			n.away = true
			w.after(w.jitter(3*Minute), func() { n.away = false })
		}
	}
}

// restore replaces the database by an old copy of itself; an operator ends the
// recovery some time later. That is no time of peace.
func (w *World) restore() {
	for _, n := range w.nodes {
		if w.chance(4) {
			n.choke()
		}
	}
	w.leader.die()
	w.disk.mem, w.disk.copy = w.disk.copy, nil
	w.bill.books, w.bill.stored = w.bill.copied.clone(), w.bill.copied.clone()
	w.truth.forget(w)
	if w.chance(2) {
		w.after(w.jitter(5*Minute), func() { w.leader.cutOff() })
	}
	w.after(2*Minute+w.jitter(10*Minute), w.endRecovery)
}

func (w *World) endRecovery() {
	w.leader.ask(control.EndRecovery{By: "operator"}, func(err error) {
		if err != nil && fault.Of(err) != fault.Conflict { // a conflict: it was over, and nobody could say so
			w.after(Minute, w.endRecovery)
		}
	})
}
