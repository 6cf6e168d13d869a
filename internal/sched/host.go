package sched

import (
	"math/bits"
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// A host is what placing needs to know of one machine: its row, and what the
// tasks on it have left of it. Its slices are only ever appended to, so that a
// copy made earlier still holds what it held.
type host struct {
	// What searches and trees look at stands together.
	free   unit.Resources
	left   int64    // what it has left in all, as one number; see leftover
	mask   bitmap   // the classes that allow it; may hold more, never less
	ports  []uint16 // given to the tasks on it, those of its range only
	span   int32    // ports that it has to give, free or not
	attach int8     // which tree or board it is on: see treeOf
	shelf  int8     // of it

	row    state.Machine
	all    unit.Resources // that its tasks may reserve
	devs   []int16        // what each of its GPUs has free, in thousandths
	jobs   []job.Key      // of the tasks on it, one each
	ending unit.Resources // of the tasks that are being stopped
	stops  int            // of them in the snapshot
	weak   unit.Resources // of the tasks that a preferred one may have stopped
	ranks  []rank         // of the tasks that a stronger one of their role may have stopped
	waste  int64          // of its GPUs, as they are; see taste.waste
	at     uint64         // of Index.changes, when it was put
}

// Trees of hosts, in the order in which they are searched.
const (
	preferred int8 = iota // up, and no maintenance
	lastly                // up, and maintenance is scheduled
	avoided               // up, and tasks are put there only when no other machine takes them
	trees
	allTrees      = 2 * trees // from trees on: hosts with GPUs, in the same order; they are on boards too
	nowhere  int8 = -1        // takes no task
)

// A place is a tree and one of its shelves.
type place struct{ tree, shelf int8 }

func (h *host) place() place { return place{h.attach, h.shelf} }

// treeOf says which tree a machine belongs to.
func treeOf(m *machine.Machine) int8 {
	switch {
	case !m.Up, m.Leaving:
		return nowhere
	case m.Mode != machine.None && m.Mode != machine.Scheduled:
		return nowhere
	case m.Avoid != "":
		return avoided
	case m.Mode == machine.Scheduled:
		return lastly
	default:
		return preferred
	}
}

// spreadOver reports whether the values of a machine's attributes are among
// those over which tasks are spread. To be avoided changes nothing of that: it
// ranks a machine and has nothing wait.
func spreadOver(m *machine.Machine) bool {
	return treeOf(m) != nowhere && m.Mode == machine.None
}

// yield is what a host would have free if every task left that a preferred one
// may have stopped.
func (h *host) yield() unit.Resources { return h.free.Add(h.ending).Add(h.weak) }

// look works a host out from its row and the tasks on it. kinds tells how much
// a config's tasks matter; it may be nil, for who does not ask.
func look(s *state.Snapshot, row state.Machine, kinds func(*state.Snapshot, job.Hash) kind) host {
	all := row.Allocatable()
	h := host{row: row, span: int32(row.Ports.Len()), all: all, free: all, attach: nowhere, devs: devicesOf(all.GPU)}
	var unknown []int64
	for t := range s.TasksOn(row.ID) {
		if t.Resources.GPU > 0 && len(t.GPUs) == 0 {
			unknown = append(unknown, t.Resources.GPU)
		}
		h.take(t.ID.Job, t.Resources, t.Ports, t.GPUs)
		switch {
		case t.State.Stopping():
			h.ending, h.stops = h.ending.Add(t.Resources), h.stops+1
		case kinds != nil && evictable(t.State):
			k := kinds(s, t.Config)
			h.ranked(t.ID.Job.Role(), k, t.Resources)
			if k.tier != 0 {
				h.weak = h.weak.Add(t.Resources)
			}
		}
	}
	for _, x := range row.Strays {
		if x.Resources.GPU > 0 && len(x.GPUs) == 0 {
			unknown = append(unknown, x.Resources.GPU)
		}
		h.lose(x.Resources, x.Ports, x.GPUs)
	}
	h.guess(unknown)
	for t := range s.TasksFor(row.ID) {
		h.promise(t.ID.Job, t.Resources)
	}
	return h
}

// take gives a place on the host to one task.
func (h *host) take(k job.Key, need unit.Resources, ports, gpus []uint16) {
	h.jobs = append(h.jobs, k)
	h.lose(need, ports, gpus)
}

// lose takes room on the host away.
func (h *host) lose(need unit.Resources, ports, gpus []uint16) {
	h.free = h.free.Sub(need)
	if len(gpus) > 0 {
		h.devs = give(h.devs, need.GPU, gpus)
	}
	for _, p := range ports {
		if p >= h.row.Ports.From && p <= h.row.Ports.To {
			h.ports = append(h.ports, p)
		}
	}
}

// portsLeft returns how many dynamic ports nobody has.
func (h *host) portsLeft() int { return int(h.span) - len(h.ports) }

// pickPorts returns n ports that nobody has, from place start of the range on
// and round. There must be as many; see portsLeft.
func (h *host) pickPorts(n int, start uint64) []uint16 {
	if n == 0 {
		return nil
	}
	size := uint64(h.row.Ports.Len())
	out := make([]uint16, 0, n)
	for i := uint64(0); i < size && len(out) < n; i++ {
		p := h.row.Ports.From + uint16((start+i)%size)
		if !slices.Contains(h.ports, p) {
			out = append(out, p)
		}
	}
	return out
}

// fits reports whether the host has room for one task of shape w, whatever its
// constraints say.
func (h *host) fits(w *shape) bool {
	return w.need.Fits(h.free) && w.ports <= h.portsLeft() && (w.need.GPU <= 0 || gpusHold(h.devs, w.need.GPU))
}

// scale is the leftover of a machine that is empty and, in that measure, the largest.
const scale = 1 << 20

// leftover sums what is free, each measure as a part of what the largest
// machine of the cluster has. The least leftover is the best fit: the task
// itself takes the same from each, so it need not be known.
func leftover(free, largest unit.Resources) int64 {
	sum := int64(0)
	for _, p := range [...][2]int64{
		{free.CPU, largest.CPU},
		{free.RAM, largest.RAM},
		{free.Disk, largest.Disk},
		{free.GPU, largest.GPU},
		{free.Net, largest.Net},
	} {
		if p[0] <= 0 || p[1] <= 0 {
			continue
		}
		hi, lo := bits.Mul64(uint64(min(p[0], p[1])), scale)
		q, _ := bits.Div64(hi, lo, uint64(p[1]))
		sum += int64(q)
	}
	return sum
}

// largestOf returns the larger of a and b in each measure.
func largestOf(a, b unit.Resources) unit.Resources {
	return unit.Resources{
		CPU: max(a.CPU, b.CPU), RAM: max(a.RAM, b.RAM), Disk: max(a.Disk, b.Disk),
		GPU: max(a.GPU, b.GPU), Net: max(a.Net, b.Net),
	}
}
