package whatif

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// TestChanges makes random changes to random clusters, and after each one
// holds the world to what a cluster must keep: one live task in every slot that
// is wanted and none in others, no task on a machine that is gone, no machine
// with more than it has.
func TestChanges(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := randomWorld(t, r)
		for step := range 12 {
			what := randomChange(t, r, w)
			if _, err := w.Level(); err != nil {
				t.Fatalf("seed %d, step %d, %s: %v", seed, step, what, err)
			}
			if err := sound(w); err != nil {
				t.Fatalf("seed %d, step %d, %s: %v", seed, step, what, err)
			}
		}
	}
}

func randomWorld(t *testing.T, r *rand.Rand) *World {
	t.Helper()
	w := New(nil, sched.NewIndex)
	var machines []machine.Machine
	for i := range 4 + r.IntN(8) {
		id := fmt.Sprintf("m%d", i)
		machines = append(machines, machine.Machine{
			ID: machine.ID(id), Up: true, Capacity: unit.Resources{CPU: int64(1000 * (2 + r.IntN(6)))},
			Attributes: []machine.Attribute{{Name: "host", Value: id}, {Name: "rack", Value: fmt.Sprint("r", i/3)}},
		})
	}
	if err := w.AddMachines(machines); err != nil {
		t.Fatal(err)
	}
	for i := range 2 + r.IntN(6) {
		if err := w.Submit(randomJob(r, fmt.Sprint("j", i))); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func randomJob(r *rand.Rand, id string) job.Job {
	c := job.Config{
		Service: r.IntN(2) == 0, Tier: []string{job.Preferred, job.Preemptible, job.Revocable}[r.IntN(3)], Priority: int32(r.IntN(3)),
		MaxTaskFailures: 1, Task: job.Task{Name: id, Resources: unit.Resources{CPU: int64(250 * (1 + r.IntN(12)))}},
	}
	if r.IntN(3) == 0 {
		c.Constraints = []job.Constraint{{Attribute: []string{"host", "rack"}[r.IntN(2)], Limit: 1}}
	}
	return job.Job{Key: KeyOf(id), Instances: job.FirstN(int32(1 + r.IntN(8))), Config: c}
}

func randomChange(t *testing.T, r *rand.Rand, w *World) string {
	t.Helper()
	var ids []machine.ID
	for m := range w.s.Machines() {
		ids = append(ids, m.ID)
	}
	var keys []job.Key
	for j := range w.s.Jobs("") {
		keys = append(keys, j.Key)
	}
	id, key := ids[r.IntN(len(ids))], keys[r.IntN(len(keys))]
	var err error
	what := ""
	switch r.IntN(5) {
	case 0:
		what = "kill " + string(id)
		_, err = w.Kill(id)
	case 1:
		what = "remove " + string(id)
		_, err = w.Remove(id)
	case 2:
		what = "add"
		err = w.Add(1 + r.IntN(2))
	case 3:
		what = "grow " + string(key)
		err = w.Grow(key, int32(1+r.IntN(9)))
	case 4:
		what = "fit"
		var f Fit
		j := randomJob(r, key.Name())
		if f, err = w.Fit(j); err == nil && (f.Fits > f.Asked || f.Asked != j.Instances.Len() || !f.Replaces) {
			err = fmt.Errorf("%d of %d instances fit, replaces %v", f.Fits, f.Asked, f.Replaces)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return what
}

// sound reports what a cluster must never be.
func sound(w *World) error {
	for j := range w.s.Jobs("") {
		for n := range j.Instances.All() {
			live := 0
			for range w.s.TasksIn(state.Slot{Job: j.Key, N: n}) {
				live++
			}
			if live != 1 {
				return fmt.Errorf("%s/%d has %d live tasks; want one", j.Key, n, live)
			}
		}
	}
	for t := range w.s.Tasks() {
		if j, ok := w.s.Job(t.ID.Job); !ok || !j.Instances.Has(t.ID.Instance) {
			return fmt.Errorf("%v lives and is not wanted", t.ID)
		}
		if t.State.Stopping() {
			return fmt.Errorf("%v is %v; want it ended", t.ID, t.State)
		}
	}
	for m := range w.s.Machines() {
		free := m.Allocatable()
		for t := range w.s.TasksOn(m.ID) {
			free = free.Sub(t.Resources)
			if !m.Up || m.Mode == machine.Drained {
				return fmt.Errorf("%v is on %s, which is gone", t.ID, m.ID)
			}
		}
		if free.CPU < 0 || free != w.s.Free(m.ID) {
			return fmt.Errorf("%s has %v left; its tasks leave %v", m.ID, w.s.Free(m.ID), free)
		}
	}
	return nil
}

// TestWholeKeys: an error names a cluster's job by its whole key, and a file's
// job by its id.
func TestWholeKeys(t *testing.T) {
	w := New(nil, sched.NewIndex)
	for k, want := range map[job.Key]string{
		KeyOf("j1"):          "there is no job j1",
		"www-data/prod/blog": "there is no job " + w.Snapshot().Cluster.Name + "/www-data/prod/blog",
	} {
		if err := w.Grow(k, 1); err == nil || fault.Of(err) != fault.NotFound || err.Error() != want {
			t.Errorf("Grow(%s): %v; want %q", k, err, want)
		}
	}
}
