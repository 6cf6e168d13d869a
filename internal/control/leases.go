package control

import (
	"cmp"
	"slices"

	"github.com/google/btree"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

type lease struct {
	at unit.Tick
	id machine.ID
}

func leases() *btree.BTreeG[lease] {
	return btree.NewG(32, func(a, b lease) bool { return a.compare(b) < 0 })
}

func (x lease) compare(o lease) int { return cmp.Or(cmp.Compare(x.at, o.at), cmp.Compare(x.id, o.id)) }

// hear prolongs the lease of a machine's agent.
func (l *Loop) hear(id machine.ID, now unit.Tick) {
	a := l.agents[id]
	if a == nil {
		a = &agent{}
		l.agents[id] = a
	}
	l.extend(id, a, now+l.cfg.AgentLease)
}

// extend sets when a lease ends. One that ends later than it did stays where
// it is listed until its turn comes: signs of life are what a leader hears most.
func (l *Loop) extend(id machine.ID, a *agent, until unit.Tick) {
	a.until = until
	if a.listed != 0 && a.listed <= until {
		return
	}
	l.unlist(id, a)
	a.listed = until
	l.leases.ReplaceOrInsert(lease{until, id})
}

func (l *Loop) unlist(id machine.ID, a *agent) {
	if a.listed != 0 {
		l.leases.Delete(lease{a.listed, id})
		a.listed = 0
	}
}

// lapsed returns the leases that are over at steady, the first to end first.
func (l *Loop) lapsed(steady unit.Tick) []lease {
	var over, moved []lease
	l.leases.Ascend(func(x lease) bool {
		if x.at > steady {
			return false
		}
		if until := l.agents[x.id].until; until > x.at {
			moved = append(moved, lease{until, x.id})
		} else {
			over = append(over, x)
		}
		return true
	})
	for _, x := range moved {
		a := l.agents[x.id]
		l.unlist(x.id, a)
		l.extend(x.id, a, x.at)
		if x.at <= steady {
			over = append(over, x)
		}
	}
	slices.SortFunc(over, lease.compare)
	return over
}

// firstLease returns the lease that ends first.
func (l *Loop) firstLease() (lease, bool) {
	for {
		x, ok := l.leases.Min()
		if !ok || x.at == l.agents[x.id].until {
			return x, ok
		}
		a := l.agents[x.id]
		l.unlist(x.id, a)
		l.extend(x.id, a, a.until)
	}
}

// Excuse gives every agent whose lease holds as much time as a new leader
// would: the loop was not awake, and has heard none of them.
func (l *Loop) Excuse(steady unit.Tick) {
	for id, a := range l.agents {
		l.extend(id, a, max(a.until, steady+l.cfg.StartGrace))
	}
}

// Waiting says whose words have come and wait for a later turn: such an agent is
// not silent, and its lease goes on until they are taken in. Without it, a
// leader that has much to do would give up machines because of itself.
func (t *Turn) Waiting(has func(machine.ID) bool) { t.waiting = has }
