package control

import (
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// strays keeps account of what a machine runs though no row says so: those
// that it shows are added, those that have ended are not there any more, nor
// are those that have a row again, nor those that a full message leaves out.
func (t *Turn) strays(from machine.ID, m Message, shown []task.Sighting) {
	s := t.draft.Snapshot()
	row, exists := s.Machine(from)
	if !exists || len(shown) == 0 && len(row.Strays) == 0 {
		return
	}
	alive := make(map[task.ID]bool, len(m.Sightings))
	for _, x := range m.Sightings {
		alive[x.ID] = !x.State.Terminal()
	}
	next := slices.DeleteFunc(slices.Clone(row.Strays), func(x state.Stray) bool {
		lives, said := alive[x.ID]
		return said && !lives || m.Full && !said || t.hasPlace(x.ID, from)
	})
	known := make(map[task.ID]bool, len(next))
	for i := range next {
		known[next[i].ID] = true
	}
	changed := len(next) != len(row.Strays)
	for _, x := range shown {
		if x.Orphan && fault.Planted("orphan-gone") {
			continue
		}
		if !known[x.ID] && !t.hasPlace(x.ID, from) {
			known[x.ID], changed = true, true
			next = append(next, state.Stray{ID: x.ID, Resources: held(x.Resources, row.Capacity), Ports: x.Ports, GPUs: x.GPUs, Since: s.At})
		}
	}
	if changed {
		_ = t.apply(state.PutStrays{ID: from, Base: row.Rev, Strays: next}) // of this very draft: it is never late
	}
}

// hasPlace reports whether a row says that the task is on that machine.
func (t *Turn) hasPlace(id task.ID, on machine.ID) bool {
	x, ok := t.draft.Snapshot().Task(id)
	return ok && x.Machine == on && x.State.Placed()
}

// held is what a task holds of a machine, by its agent's word: no more than
// there is, and in whole MiB.
func held(r, capacity unit.Resources) unit.Resources {
	most := func(a, b int64) int64 { return max(0, min(a, b)) }
	return unit.Resources{
		CPU: most(r.CPU, capacity.CPU), RAM: most(r.RAM, capacity.RAM), Disk: most(r.Disk, capacity.Disk),
		GPU: most(r.GPU, capacity.GPU), Net: most(r.Net, capacity.Net),
	}.Whole()
}
