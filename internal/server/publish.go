package server

import (
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
)

// publish shows the committed state to readers.
func (l *looper) publish() {
	l.tellRecovery(l.loop.Snapshot().Cluster.Recovery)
	l.show(&rpc.View{
		Snapshot: l.loop.Snapshot(), Waits: l.loop.Waits(), Epoch: l.loop.Epoch(), Paused: l.loop.Paused(), Held: l.loop.Held(maxHeld), Holds: l.loop.Holds(),
		Servers: l.ring.servers(l.holder),
	})
}

// tellRecovery logs the begin and the end of a recovery, and at the start of a
// term that there is one: what is new waits for it.
func (l *looper) tellRecovery(now bool) {
	if now == l.recovers {
		return
	}
	l.recovers = now
	if !now {
		l.log.Info("the recovery is over", "cluster", l.name)
		return
	}
	l.log.Warn("the cluster is in recovery: machines run what its database, perhaps an old copy, does not know; such tasks run on and are held, and nothing new is placed for a while; covey cluster show says more, covey cluster recover ends it",
		"cluster", l.name)
}

// tellAvoided logs which machines begin to be avoided, and which are not any more.
func (l *looper) tellAvoided(records []state.Record) {
	for i := range records {
		x := records[i].Machine
		switch {
		case x == nil || (x.Before.Avoid == "") == (x.After.Avoid == ""):
		case x.After.Avoid != "":
			l.log.Warn("tasks do not start on a machine: it is avoided, and gets only those that no other takes", "machine", x.After.ID, "why", x.After.Avoid, "until", x.After.AvoidUntil.Time())
		default:
			l.log.Info("a machine is avoided no more", "machine", x.After.ID)
		}
	}
}

func (l *looper) show(v *rpc.View) {
	l.view.Store(v)
	l.mu.Lock()
	close(l.published)
	l.published = make(chan struct{})
	l.mu.Unlock()
}
