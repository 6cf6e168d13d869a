package simulate

import (
	"fmt"
	"io"
	"math/rand" //nolint:depguard // version 1: the published runs of the trace draw from it
	"slices"
	"strconv"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/whatif"
)

// openb replays the GPU trace as its authors do, so that figures compare with
// those they published.
func openb(f cli.SimulateFlags) (cli.Simulated, error) {
	policy, err := sched.ParsePolicy(f.Policy)
	if err != nil {
		return cli.Simulated{}, err
	}
	machines, tasks, err := readOpenb(f.OpenbMachines, f.OpenbTasks)
	if err != nil {
		return cli.Simulated{}, err
	}
	list, err := arrivals(machines, tasks, f.Seed)
	if err != nil {
		return cli.Simulated{}, err
	}
	a, err := whatif.Fill(machines, tasks, list, policy)
	if err != nil {
		return cli.Simulated{}, err
	}
	v := openbJSON{Allocated: map[string]float64{}}
	for _, p := range []int{100, 130} {
		if x, ok := a.At(p); ok {
			v.Allocated[strconv.Itoa(p)] = x
		}
	}
	return cli.Simulated{JSON: v, Table: func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%d tasks on %d machines, policy %v, seed %d\n", len(list), len(machines), policy, f.Seed)
		for _, p := range []string{"100", "130"} {
			if x, ok := v.Allocated[p]; ok {
				_, _ = fmt.Fprintf(w, "when tasks for %s %% of the GPUs have come, %.2f %% are allocated\n", p, x)
			}
		}
	}}, nil
}

type openbJSON struct {
	Allocated map[string]float64 `json:"allocated_gpu"` // percent, by percent arrived
}

func readOpenb(nodes, list string) ([]machine.Machine, []sched.Typical, error) {
	file, err := open(nodes)
	if err != nil {
		return nil, nil, err
	}
	machines, err := whatif.ReadOpenbMachines(nodes, file)
	_ = file.Close()
	if err != nil {
		return nil, nil, err
	}
	if file, err = open(list); err != nil {
		return nil, nil, err
	}
	tasks, err := whatif.ReadOpenbTasks(list, file)
	_ = file.Close()
	return machines, tasks, err
}

// maxArrivals bounds a replay, if tasks ask for next to nothing.
const maxArrivals = 5_000_000

// arrivals returns the tasks in the order of a seed, and then tasks drawn from
// the list in order of names, until the next one would ask for more than 130 %
// of the GPUs. Each draw is the published one.
func arrivals(machines []machine.Machine, tasks []sched.Typical, seed uint64) ([]sched.Typical, error) {
	total := int64(0)
	for _, m := range machines {
		total += m.Capacity.GPU
	}
	r := rand.New(rand.NewSource(int64(seed)))
	r.Int()
	out, sum := slices.Clone(tasks), int64(0)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	for _, t := range out {
		sum += t.Config.Task.Resources.GPU
	}
	if sum == 0 {
		return nil, fault.Invalid.Errorf("no task of the list asks for a GPU; want some that do")
	}
	for len(out) < maxArrivals {
		t := tasks[r.Intn(len(tasks))]
		if sum += t.Config.Task.Resources.GPU; sum*10 > total*13 {
			break
		}
		out = append(out, t)
	}
	return out, nil
}
