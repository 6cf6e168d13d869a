package whatif

import (
	"io"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/unit"
)

// The files of the GPU cluster trace "openb" (Weng et al., Beware of
// Fragmentation, USENIX ATC'23).
var (
	openbNodes = []string{"sn", "cpu_milli", "memory_mib", "gpu", "model"}
	openbTasks = []string{"name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"}
)

// model is the attribute that says which GPUs a machine has.
const model = "gpu"

// ReadOpenbMachines reads the trace's list of nodes.
func ReadOpenbMachines(file string, r io.Reader) ([]machine.Machine, error) {
	t, err := ReadTable(file, r, openbNodes...)
	if err != nil {
		return nil, err
	}
	var all []machine.Machine
	seen := map[string]int{}
	for {
		ok, err := t.Next()
		switch {
		case err != nil:
			return nil, err
		case !ok && len(all) == 0:
			return nil, fault.Invalid.Errorf("%s: it has no machine", file)
		case !ok:
			return all, nil
		case len(all) == maxMachines:
			return nil, t.Errorf("it has more than %d machines", maxMachines)
		}
		id := t.Text("sn")
		if err = name.Valid("machine id", id); err != nil {
			return nil, t.Errorf("%w", err)
		}
		if first, twice := seen[id]; twice {
			return nil, t.Errorf("machine %s stands there twice, first in line %d", id, first)
		}
		seen[id] = t.line
		need, err := t.openbAmounts()
		if err != nil {
			return nil, err
		}
		gpus, err := t.Number("gpu", 0, maxGPUs)
		if err != nil {
			return nil, err
		}
		need.GPU = gpus * 1000
		m := machine.Machine{ID: machine.ID(id), Capacity: need}
		if v := t.Text("model"); v != "" {
			m.Attributes = []machine.Attribute{{Name: model, Value: v}}
		}
		all = append(all, m)
	}
}

func (t *Table) openbAmounts() (r unit.Resources, err error) {
	if r.CPU, err = t.Number("cpu_milli", 0, maxAmount); err != nil {
		return r, err
	}
	ram, err := t.Number("memory_mib", 0, maxAmount)
	r.RAM = ram * unit.MiB
	return r, err
}

// ReadOpenbTasks reads one of the trace's lists of tasks, and returns it in
// order of names. Tasks that ask for the same share a config.
func ReadOpenbTasks(file string, r io.Reader) ([]sched.Typical, error) {
	t, err := ReadTable(file, r, openbTasks...)
	if err != nil {
		return nil, err
	}
	type named struct {
		name string
		task sched.Typical
	}
	type shape struct {
		need unit.Resources
		spec string
	}
	var all []named
	configs := map[shape]*job.Config{}
	for {
		ok, err := t.Next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if len(all) == maxTasks {
			return nil, t.Errorf("it has more than %d tasks", maxTasks)
		}
		need, err := t.openbNeed()
		if err != nil {
			return nil, err
		}
		at := shape{need, t.Text("gpu_spec")}
		c, known := configs[at]
		if !known {
			c = &job.Config{Tier: job.Preemptible, MaxTaskFailures: 1, Task: job.Task{Name: "openb", Resources: need}}
			if at.spec != "" {
				c.Constraints = []job.Constraint{{Attribute: model, Values: strings.Split(at.spec, "|")}}
			}
			configs[at] = c
		}
		all = append(all, named{t.Text("name"), sched.Typical{Job: KeyOf("openb"), Config: c, Tasks: 1}})
	}
	if len(all) == 0 {
		return nil, fault.Invalid.Errorf("%s: it has no task", file)
	}
	slices.SortStableFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	out := make([]sched.Typical, 0, len(all))
	for _, x := range all {
		out = append(out, x.task)
	}
	return out, nil
}

// openbNeed reads what a task asks for: one GPU or a share of it, or several
// whole ones.
func (t *Table) openbNeed() (unit.Resources, error) {
	r, err := t.openbAmounts()
	if err != nil {
		return r, err
	}
	n, err := t.Number("num_gpu", 0, 1024)
	if err != nil {
		return r, err
	}
	share, err := t.Number("gpu_milli", 0, 1000)
	switch {
	case err != nil:
		return r, err
	case n > 1 && share != 1000:
		return r, t.Errorf("gpu_milli is %d of %d GPUs; want 1000: several GPUs are always whole", share, n)
	case n == 1 && share == 0:
		return r, t.Errorf("gpu_milli is 0 of one GPU; want 1 to 1000")
	}
	r.GPU = n * share
	return r, nil
}

// Allocated is how much of a cluster's GPUs is allocated, in percent, when
// tasks that ask for so many percent of them have arrived.
type Allocated struct {
	at map[int][2]float64 // sum and number, by percent arrived
}

// Fill replays arrivals on machines.
func Fill(machines []machine.Machine, typical, arrivals []sched.Typical, p sched.Policy) (Allocated, error) {
	a := Allocated{at: map[int][2]float64{}}
	gpus := int64(0)
	for _, m := range machines {
		gpus += m.Capacity.GPU
	}
	if gpus == 0 {
		return a, fault.Invalid.Errorf("the machines have no GPU; want some that may be allocated")
	}
	steps, err := sched.Replay(machines, typical, arrivals, p)
	if err != nil {
		return a, err
	}
	for f := range steps {
		i := int((200*f.Asked.GPU + gpus) / (2 * gpus)) // rounded
		x := a.at[i]
		a.at[i] = [2]float64{x[0] + 100*float64(f.Held.GPU)/float64(gpus), x[1] + 1}
	}
	return a, nil
}

// At returns the mean of what was allocated while what had arrived rounds to a
// percentage, or, if it never did, to the last one before; false if there is none.
func (a Allocated) At(percent int) (float64, bool) {
	for ; percent >= 0; percent-- {
		if x, ok := a.at[percent]; ok {
			return x[0] / x[1], true
		}
	}
	return 0, false
}
