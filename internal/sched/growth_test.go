package sched

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// made returns n machines of mixed sizes, generations and racks, and jobs of
// mixed shapes and constraints with about ten tasks for each machine.
func made(n int, seed uint64) (machines []machine.Machine, jobs []job.Job) {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(xs ...int64) int64 { return xs[r.IntN(len(xs))] }
	for i := range n {
		id := "m" + strconv.Itoa(10_000+i)
		machines = append(machines, machine.Machine{
			ID: machine.ID(id), Up: true, Ports: machine.PortRange{From: 31000, To: 31099},
			Capacity: unit.Resources{CPU: pick(16, 32, 64) * 1000, RAM: pick(64, 128, 256) * gib, Disk: 500 * gib, GPU: pick(0, 0, 0, 0, 4000)},
			Attributes: []machine.Attribute{
				{Name: "gen", Value: "g" + strconv.Itoa(r.IntN(4))}, {Name: "host", Value: id}, {Name: "rack", Value: "r" + strconv.Itoa(i/5)},
			},
		})
	}
	for i := range n / 4 {
		c := asks(unit.Resources{CPU: pick(500, 1000, 2000, 4000), RAM: pick(1, 2, 4, 8, 16) * gib, Disk: pick(1, 10) * gib}, r.IntN(2))
		if r.IntN(20) == 0 {
			c.Task.Resources.GPU = pick(300, 500, 1000)
		}
		switch r.IntN(6) {
		case 0:
			c.Constraints = append(c.Constraints, is("gen", "g1", "g2"))
		case 1:
			c.Constraints = append(c.Constraints, most("host", 1))
		case 2:
			c.Constraints = append(c.Constraints, most("rack", 3))
		}
		c.Priority = int32(r.IntN(5))
		if r.IntN(4) == 0 {
			c.Placement = job.Spread
		}
		jobs = append(jobs, job.Job{Key: job.NewKey("r", "prod", "j"+strconv.Itoa(i)), Instances: job.FirstN(20 + r.Int32N(40)), Config: c})
	}
	return machines, jobs
}

// churn ends n random tasks that run and opens their slots again.
func churn(t testing.TB, s *state.Snapshot, x *Index, r *rand.Rand, n int) *state.Snapshot {
	t.Helper()
	var all []state.Task
	for row := range s.Tasks() {
		if row.State.Placed() {
			all = append(all, row)
		}
	}
	d := state.NewDraft(s, s.At)
	apply := func(c state.Change) {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range r.Perm(len(all))[:n] {
		row := all[i]
		at := state.Slot{Job: row.ID.Job, N: row.ID.Instance}
		apply(state.StepTask{ID: row.ID, Base: row.Rev, Event: task.Event{To: task.Failed}})
		in, _ := d.Snapshot().Instance(at)
		apply(state.OpenSlot{Slot: at, Base: in.Rev})
		in, _ = d.Snapshot().Instance(at)
		apply(state.NewTask{Slot: at, Base: in.Rev})
	}
	s = d.Snapshot()
	x.Fold(s, d.Changed())
	return s
}

// growth fills a cluster of n machines, then replaces a few tasks again and
// again. It returns the machines looked at for each placement of both.
func growth(t testing.TB, n int) (filling, running float64) {
	t.Helper()
	machines, jobs := made(n, 7)
	s := load(t, machines, jobs)
	x, r := NewIndex(s), rand.New(rand.NewPCG(3, 4))
	var placed, looked, rounds int
	round := func() {
		changes, waits := Plan(s, x, s.At, Limits{Looks: 1})
		placed, looked = placed+len(changes), looked+waits.Looked
		d := state.NewDraft(s, s.At)
		for _, c := range changes {
			if err := d.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		s = d.Snapshot()
		x.Fold(s, d.Changed())
		if waits.More && rounds < 100 {
			rounds++
		} else {
			rounds = -1
		}
	}
	for rounds >= 0 {
		round()
	}
	filling = float64(looked) / float64(placed)
	for i := range 100 {
		if i == 50 { // boards cost a pass over the machines with GPUs when a need is first asked for there
			placed, looked = 0, 0
		}
		s = churn(t, s, x, r, 10)
		round()
	}
	return filling, float64(looked) / float64(placed)
}

// TestGrowth: what a placement costs, in machines looked at, does not follow
// the size of the cluster.
func TestGrowth(t *testing.T) {
	smallFill, smallRun := growth(t, 200)
	largeFill, largeRun := growth(t, 3200)
	t.Logf("looks a placement: filling %.1f at 200 machines, %.1f at 3,200; replacing %.1f, %.1f", smallFill, largeFill, smallRun, largeRun)
	if largeFill > 2*smallFill+5 || largeRun > 2*smallRun+5 {
		t.Errorf("16 times the machines cost %.1f instead of %.1f looks to fill, %.1f instead of %.1f to replace; want at most twice as many",
			largeFill, smallFill, largeRun, smallRun)
	}
}

// TestTwinLarge holds a larger cluster, in which searches go on for long and
// fall behind, to the twin.
func TestTwinLarge(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			machines, jobs := made(40, seed)
			for i := range jobs {
				jobs[i].Config.Task.Resources = jobs[i].Config.Task.Resources.Times(2)
			}
			s := load(t, machines, jobs)
			x, r := NewIndex(s), rand.New(rand.NewPCG(seed, 9))
			for round := range 6 {
				changes, waits := Plan(s, x, s.At, Limits{Placements: 200})
				got := choices(changes)
				want, _ := newTwin(s).plan(s.At)
				if waits.More {
					want = want[:len(got)]
				}
				if d := gocmp.Diff(want, got); d != "" {
					t.Fatalf("round %d (-twin +got):\n%s", round, d)
				}
				verify(t, s, changes)
				d := state.NewDraft(s, s.At)
				for _, c := range changes {
					if err := d.Apply(c); err != nil {
						t.Fatal(err)
					}
				}
				s = d.Snapshot()
				x.Fold(s, d.Changed())
				s = churn(t, s, x, r, 20)
				if d := x.Audit(s); d != "" {
					t.Fatalf("round %d: %s", round, d)
				}
			}
		})
	}
}
