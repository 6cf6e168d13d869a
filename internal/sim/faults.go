package sim

import (
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// message brings something from a machine to the leader or back: mostly soon
// and once, sometimes late, twice or never.
func (w *World) message(n *node, deliver func()) {
	send := func(d unit.Tick) {
		w.after(d, func() {
			if !n.away && n.on {
				deliver()
			}
		})
	}
	if n.away || !n.on {
		return
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
	case r < 50:
		n.away = true
		w.after(w.jitter(Minute), func() { n.away = false })
	case r < 52:
		w.split()
	case r < 59:
		w.leader.die()
	case r < 62:
		w.leader.pause()
	case r < 82:
		w.disk.next = fate(w.rand.IntN(int(fates)))
	case r < 88:
		w.skew = unit.Tick(w.rand.Int64N(int64(4*unit.Hour))) - 2*unit.Hour
		w.after(w.jitter(unit.Hour), func() { w.skew = 0 })
	case r < 94:
		n.shrink(unit.Resources{CPU: int64(w.rand.IntN(4000))})
		w.after(w.jitter(20*Minute), func() { n.shrink(unit.Resources{}) })
	case r < 97 && w.cfg.Restores:
		w.restore()
	default:
		n.cut()
	}
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
// recovery some time later.
func (w *World) restore() {
	if w.disk.copy == nil || w.truth.restored {
		w.disk.keep()
		return
	}
	w.leader.die()
	w.disk.mem, w.disk.copy = w.disk.copy, nil
	w.truth.forget(w)
	w.after(2*Minute, w.endRecovery)
}

func (w *World) endRecovery() {
	w.leader.ask(control.EndRecovery{By: "operator"}, func(err error) {
		if err != nil && fault.Of(err) != fault.Conflict { // a conflict: it was over, and nobody could say so
			w.after(Minute, w.endRecovery)
		}
	})
}
