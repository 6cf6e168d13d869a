package agent

import (
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
)

// An Agent is the mind of one machine: which tasks there are, what the leader
// wants of them, and what the leader has to be told. It holds nothing that a
// new one could not learn from the machine and the leader, but for [Seen],
// which the shell keeps on disk.
type Agent struct {
	uid   string
	seen  Seen
	since Seen // its memory of tasks reaches back to then; zero: it has obeyed nothing yet
	tasks map[task.ID]task.Sighting
	told  map[task.ID]task.State // what the leader was told in this session
	news  map[task.ID]bool       // of which it was not, perhaps
	n     uint64                 // the last orders taken in this session
}

// Seen is the highest term and revision that a machine has obeyed. It is how a
// leader learns that its database was restored from a copy.
type Seen struct {
	Epoch machine.Epoch
	Rev   uint64
}

// Orders is what a leader says. N counts them in a session, from 1; what comes
// after a later one is dropped.
type Orders struct {
	UID    string
	Epoch  machine.Epoch
	Rev    uint64
	N      uint64
	Orders []task.Order
}

// A Deed is something for the machine to do.
type Deed struct {
	Verb   task.Verb
	ID     task.ID
	Config job.Hash
	Ports  []uint16
	GPUs   []uint16 // the numbers of those that the task has
	Reason string
}

// New returns the mind of a machine of the cluster uid. since is what [Agent.Since]
// said before, when nothing was forgotten in between; else it is zero.
func New(uid string, seen, since Seen) *Agent {
	return &Agent{uid: uid, seen: seen, since: since, tasks: map[task.ID]task.Sighting{}, told: map[task.ID]task.State{}, news: map[task.ID]bool{}}
}

// Seen returns what to keep on disk.
func (a *Agent) Seen() Seen {
	if fault.Planted("stale-epoch") {
		return Seen{}
	}
	return a.seen
}

// Since returns the term and revision of the first orders after which nothing
// was forgotten: what was ordered later and is not among the tasks never came.
// What was ordered until then may have run, and ended. Zero: there were none.
func (a *Agent) Since() Seen { return a.since }

// See takes in what the machine shows of a task.
func (a *Agent) See(s task.Sighting) {
	if old, ok := a.tasks[s.ID]; ok && old.State.Terminal() {
		return // an end is final
	}
	a.tasks[s.ID], a.news[s.ID] = s, true
}

// Len returns how many tasks there are, ended ones included until the leader
// has said that they may be forgotten.
func (a *Agent) Len() int { return len(a.tasks) }

// Open begins a session: the leader has been told nothing.
func (a *Agent) Open() {
	a.told, a.n = map[task.ID]task.State{}, 0
	for id := range a.tasks {
		a.news[id] = true
	}
}

// Report returns what the leader has not been told in this session, or
// everything, in order of id.
func (a *Agent) Report(full bool) []task.Sighting {
	var out []task.Sighting
	tell := func(s task.Sighting) {
		out = append(out, s)
		a.told[s.ID] = s.State
	}
	if full {
		out = make([]task.Sighting, 0, len(a.tasks))
		for _, s := range a.tasks {
			tell(s)
		}
	} else {
		for id := range a.news {
			s, ok := a.tasks[id]
			if told, known := a.told[id]; ok && (!known || told != s.State) {
				tell(s)
			}
		}
	}
	clear(a.news)
	slices.SortFunc(out, func(x, y task.Sighting) int { return x.ID.Compare(y.ID) })
	return out
}

// Obey turns orders into deeds. It refuses a leader of another cluster and a
// term earlier than one it has obeyed; it never takes the absence of a task
// for an order to stop it.
func (a *Agent) Obey(o Orders) ([]Deed, error) {
	if o.UID != a.uid {
		return nil, fault.Denied.Errorf("orders from the cluster with UID %s; this machine obeys %s only", o.UID, a.uid)
	}
	if o.Epoch.Compare(a.seen.Epoch) < 0 && !fault.Planted("stale-epoch") {
		return nil, fault.Conflict.Errorf("orders of term %v; this machine has obeyed %v", o.Epoch, a.seen.Epoch)
	}
	if o.N <= a.n {
		return nil, nil
	}
	a.n = o.N
	if o.Epoch.Compare(a.seen.Epoch) > 0 || o.Rev > a.seen.Rev {
		a.seen = Seen{o.Epoch, o.Rev}
	}
	if a.since == (Seen{}) {
		a.since = Seen{o.Epoch, o.Rev}
	}
	deeds := a.plantedAbsence(o)
	for _, x := range o.Orders {
		if d, ok := a.obey(x); ok {
			deeds = append(deeds, d)
		}
	}
	return deeds, nil
}

func (a *Agent) obey(x task.Order) (Deed, bool) {
	have, known := a.tasks[x.ID]
	switch x.Verb {
	case task.Run:
		if known && !fault.Planted("double-start") {
			a.again(x.ID) // the leader does not know
			return Deed{}, false
		}
		a.tasks[x.ID] = task.Sighting{ID: x.ID, Config: x.Config, Resources: x.Resources, Ports: x.Ports, GPUs: x.GPUs, State: task.Starting}
		a.news[x.ID] = true
		return Deed{Verb: task.Run, ID: x.ID, Config: x.Config, Ports: x.Ports, GPUs: x.GPUs}, true
	case task.Stop:
		switch {
		case !known: // it never came here, or it ended and was forgotten
			a.tasks[x.ID] = task.Sighting{ID: x.ID, State: task.Killed, Reason: "it was not on the machine"}
			a.news[x.ID] = true
			return Deed{}, false
		case have.State.Terminal():
			a.again(x.ID)
			return Deed{}, false
		}
		return Deed{Verb: task.Stop, ID: x.ID, Reason: x.Reason}, true
	case task.Forget:
		if !known || !have.State.Terminal() {
			return Deed{}, false
		}
		delete(a.tasks, x.ID)
		delete(a.told, x.ID)
		delete(a.news, x.ID)
		return Deed{Verb: task.Forget, ID: x.ID}, true
	default:
		return Deed{}, false // a verb of a later version
	}
}

// again has the leader told once more of a task.
func (a *Agent) again(id task.ID) {
	delete(a.told, id)
	a.news[id] = true
}

// plantedAbsence is a bug on purpose: it takes the absence of a task from the
// first orders of a session for an order to stop it.
func (a *Agent) plantedAbsence(o Orders) []Deed {
	if !fault.Planted("absence-is-an-order") || o.N != 1 {
		return nil
	}
	var deeds []Deed
	for _, s := range a.Report(true) {
		if !s.State.Terminal() {
			deeds = append(deeds, Deed{Verb: task.Stop, ID: s.ID, Reason: "planted"})
		}
	}
	return deeds
}
