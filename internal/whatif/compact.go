package whatif

import (
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// A Cell is machines and the jobs that they should hold, for cell compaction:
// how many machines, taken away at random, could be done without (Verma et al.,
// Large-scale cluster management at Google with Borg, EuroSys'15, section 5.1).
// It belongs to one goroutine.
type Cell struct {
	machines []machine.Machine
	jobs     []job.Job
	pending  *state.Snapshot // all jobs, and no machine
	index    Indexer
}

// NewCell returns a cell. Every task of it must fit on all machines together.
func NewCell(machines []machine.Machine, jobs []job.Job, index Indexer) (*Cell, error) {
	w := New(nil, index)
	if err := w.Submit(jobs...); err != nil {
		return nil, err
	}
	c := &Cell{machines: machines, jobs: jobs, pending: w.s, index: index}
	waits, err := c.hold(machines)
	if err == nil && len(waits.Groups) > 0 {
		g := waits.Groups[0]
		err = fault.Invalid.Errorf("the load does not fit on all %d machines together: %d tasks of job %s wait: %s", len(machines), g.Tasks, IDOf(g.Job), g.Text)
	}
	return c, err
}

// CellOf returns the machines of a cluster that may take tasks, and its jobs.
func CellOf(s *state.Snapshot) (machines []machine.Machine, jobs []job.Job, err error) {
	for m := range s.Machines() {
		if m.Up && m.Mode == machine.None {
			machines = append(machines, m.Machine)
		}
	}
	for j := range s.Jobs("") {
		cfg, ok := s.Config(j.Config)
		if !ok {
			return nil, nil, fault.Invalid.Errorf("the config of job %s is not there", fullKey(s, j.Key))
		}
		jobs = append(jobs, job.Job{Key: j.Key, Instances: j.Instances, Config: *cfg})
	}
	return machines, jobs, nil
}

// hold places the load on some machines, until something waits.
func (c *Cell) hold(machines []machine.Machine) (sched.Waits, error) {
	w := From(c.pending, nil, c.index)
	if err := w.AddMachines(machines); err != nil {
		return sched.Waits{}, err
	}
	for {
		waits, more, err := w.step(2 * len(machines))
		if err != nil || len(waits.Groups) > 0 || !more {
			return waits, err
		}
	}
}

// A Trial is the fewest machines of one random order that hold the load.
type Trial struct {
	Seed     uint64
	Machines int
	Bound    int               // no fewer machines of this order have as much as the load asks for
	Lacks    string            // what ran out with one machine less; see [ReasonOf]
	Kept     []machine.Machine // that hold the load, in the order of the cell
}

// Over returns by how much more machines than the bound were needed, in percent.
func (t Trial) Over() float64 { return 100 * (float64(t.Machines)/float64(max(t.Bound, 1)) - 1) }

// Try puts the machines into an order drawn from a seed, and returns how many
// of the first ones are needed.
func (c *Cell) Try(seed uint64) (Trial, error) {
	order := slices.Clone(c.machines)
	r := rand.New(rand.NewPCG(seed, 0))
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	t := Trial{Seed: seed, Bound: c.bound(order)}
	fits := func(n int) (bool, error) {
		waits, err := c.hold(order[:n])
		if len(waits.Groups) == 0 {
			return true, err
		}
		t.Lacks = ReasonOf(waits.Groups[0])
		return false, err
	}
	low, high := t.Bound-1, t.Bound // low does not fit; high may
	for step := max(t.Bound/200, 1); ; step *= 2 {
		ok, err := fits(high)
		if err != nil {
			return t, err
		}
		if ok || high == len(order) {
			break
		}
		low, high = high, min(high+step, len(order))
	}
	for high-low > 1 {
		mid := low + (high-low)/2
		ok, err := fits(mid)
		switch {
		case err != nil:
			return t, err
		case ok:
			high = mid
		default:
			low = mid
		}
	}
	t.Machines = high
	holds := make(map[machine.ID]bool, high)
	for _, m := range order[:high] {
		holds[m.ID] = true
	}
	for _, m := range c.machines {
		if holds[m.ID] {
			t.Kept = append(t.Kept, m)
		}
	}
	return t, nil
}

// bound returns the fewest of the first machines that have, in every measure,
// as much as all tasks ask for together, and those that each value constraint
// allows as much as the tasks with it ask for; and as many as a limit of tasks
// on one host wants.
func (c *Cell) bound(order []machine.Machine) int {
	type demand struct {
		allows func(machine.Machine) bool
		need   unit.Resources
	}
	all := []demand{{allows: func(machine.Machine) bool { return true }}}
	by := map[string]int{}
	least := 1
	for _, j := range c.jobs {
		n := j.Instances.Len()
		need := j.Config.Task.Resources.Times(int64(n))
		all[0].need = all[0].need.Add(need)
		for _, x := range j.Config.Constraints {
			if x.Limit > 0 && x.Attribute == "host" {
				least = max(least, (n+int(x.Limit)-1)/int(x.Limit))
			}
			if x.Limit > 0 || x.Negated || len(x.Values) != 1 {
				continue
			}
			key := x.Attribute + "=" + x.Values[0]
			at, known := by[key]
			if !known {
				at = len(all)
				by[key] = at
				attribute, value := x.Attribute, x.Values[0]
				all = append(all, demand{allows: func(m machine.Machine) bool { return m.Has(attribute, value) }})
			}
			all[at].need = all[at].need.Add(need)
		}
	}
	for _, d := range all {
		var has unit.Resources
		n := 0
		for n < len(order) && !d.need.Fits(has) {
			if d.allows(order[n]) {
				has = has.Add(order[n].Allocatable())
			}
			n++
		}
		least = max(least, n)
	}
	return min(least, len(order))
}

// Percentile90 returns the trial that nine of ten do not exceed.
func Percentile90(all []Trial) Trial { return byMachines(all)[(len(all)*9+9)/10-1] }

// Middle returns the trial that half of them do not exceed.
func Middle(all []Trial) Trial { return byMachines(all)[(len(all)-1)/2] }

func byMachines(all []Trial) []Trial {
	all = slices.Clone(all)
	sort.SliceStable(all, func(i, j int) bool { return all[i].Machines < all[j].Machines })
	return all
}
