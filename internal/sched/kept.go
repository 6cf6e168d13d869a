package sched

import (
	"strings"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// keepers are the demands whose machines with GPUs a task of a shape would be
// kept from now, if another machine took it: what [planner.kept] answers from an
// index, found in the whole snapshot.
type keepers []*demand

// keepersFrom finds them for a live task, as if it had no machine.
func keepersFrom(s *state.Snapshot, w *shape, t state.Task) (out keepers) {
	if w.spreadsOut() || w.need.GPU > 0 {
		return nil
	}
	all, own := newDemands(), ""
	if i := w.insists(); i != nil {
		own = i.classKey()
	}
	for j := range s.Jobs("") {
		a, i := askOf(s, j.Key)
		all.add(a, i, +1)
	}
	var most []*demand
	all.most.Ascend(func(d *demand) bool {
		most = append(most, d)
		return len(most) < claimantsAtMost
	})
	for _, d := range most {
		if d.on == own {
			continue
		}
		if n := waitingFor(s, d); n > 0 && 10*(roomWithout(s, d, t)-stakeTasks*parts) < stakeMargin*parts*n {
			out = append(out, d)
		}
	}
	return out
}

// waitingFor counts the pending tasks of a demand.
func waitingFor(s *state.Snapshot, d *demand) (n int64) {
	for j := range s.Jobs("") {
		if a, _ := askOf(s, j.Key); a.on != d.on {
			continue
		}
		for t := range s.TasksOf(j.Key) {
			if t.State == task.Pending && t.Room == "" {
				n++
			}
		}
	}
	return n
}

// roomWithout is for how many of a demand's tasks its machines have room, in parts,
// when t gives back what it has.
func roomWithout(s *state.Snapshot, d *demand, t state.Task) (n int64) {
	c := claimant{each: amount{coarse(d.cpu / d.tasks), coarse(d.ram / d.tasks)}}
	for row := range s.Machines() {
		if !row.Up || treeOf(&row.Machine) == nowhere || !d.shape.allows(&row.Machine) {
			continue
		}
		free := look(s, row, nil).free
		if row.ID == t.Machine {
			free = free.Add(unit.Resources{CPU: t.Resources.CPU, RAM: t.Resources.RAM})
		}
		n += c.holds(free)
	}
	return n
}

// keep returns for what a machine with GPUs is kept, as constraints are written;
// empty: for nothing.
func (k keepers) keep(m *machine.Machine) string {
	var on []string
	for _, d := range k {
		if d.shape.allows(m) {
			on = append(on, strings.Join(d.shape.valueTexts, " and "))
		}
	}
	return strings.Join(on, "; ")
}
