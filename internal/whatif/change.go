package whatif

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Machines returns the machines that a selector names: an id, or
// ATTRIBUTE=VALUE for all that have it.
func (w *World) Machines(selector string) ([]machine.ID, error) {
	attribute, value, many := strings.Cut(selector, "=")
	if !many {
		if _, ok := w.s.Machine(machine.ID(selector)); !ok {
			return nil, fault.NotFound.Errorf("there is no machine %.80s", selector)
		}
		return []machine.ID{machine.ID(selector)}, nil
	}
	var out []machine.ID
	for m := range w.s.Machines() {
		if m.Has(attribute, value) {
			out = append(out, m.ID)
		}
	}
	if len(out) == 0 {
		return nil, fault.NotFound.Errorf("no machine has %.80s", selector)
	}
	return out, nil
}

// Kill takes machines down as if their power was cut: their tasks are lost,
// and wanted elsewhere. It returns those tasks.
func (w *World) Kill(ids ...machine.ID) ([]task.ID, error) {
	return w.takeDown(ids, func(m *machine.Machine) { m.Up = false }, []task.State{task.Running, task.Lost})
}

// Remove takes machines out in order: their tasks are stopped, and wanted
// elsewhere. It returns those tasks.
func (w *World) Remove(ids ...machine.ID) ([]task.ID, error) {
	return w.takeDown(ids, func(m *machine.Machine) { m.Mode = machine.Drained }, []task.State{task.Draining, task.Killed})
}

// takeDown changes machines and moves their tasks through states to an end.
func (w *World) takeDown(ids []machine.ID, how func(*machine.Machine), through []task.State) ([]task.ID, error) {
	var gone []task.ID
	made, err := w.edit(func(d *state.Draft) error {
		for _, id := range ids {
			m, ok := d.Snapshot().Machine(id)
			if !ok {
				return fault.NotFound.Errorf("there is no machine %s", id)
			}
			how(&m.Machine)
			if err := d.Apply(state.PutMachine{Machine: m.Machine, Base: m.Rev}); err != nil {
				return err
			}
			for _, t := range slices.Collect(d.Snapshot().TasksOn(id)) {
				gone = append(gone, t.ID)
				if err := walk(d, t.ID, fmt.Sprintf("machine %s is taken away", id), through); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, w.settle(made)
}

// walk moves a task through states, leaving out those that it cannot enter. One
// that is lost has been running: otherwise its machine would be to blame.
func walk(d *state.Draft, id task.ID, why string, through []task.State) error {
	for _, to := range through {
		t, ok := d.Snapshot().Task(id)
		if !ok {
			return nil
		}
		if _, _, res := task.Step(t.Task, task.Event{To: to}, task.Policy{}); res != task.Done {
			continue
		}
		if err := d.Apply(state.StepTask{ID: id, Base: t.Rev, Event: task.Event{To: to, Reason: why}, Gone: true}); err != nil {
			return err
		}
	}
	return nil
}

// Grow makes a job have n instances, more or fewer. More than the quota of its
// role are refused with an error of kind Exhausted, as the cluster would.
func (w *World) Grow(k job.Key, n int32) error {
	row, ok := w.s.Job(k)
	if !ok {
		return fault.NotFound.Errorf("there is no job %s", w.full(k))
	}
	cfg, ok := w.s.Config(row.Config)
	if !ok {
		return fault.Internal.Errorf("the config of job %s is not there", w.full(k))
	}
	if err := countable(int64(n), cfg.Task.Resources); err != nil {
		return fault.Invalid.Errorf("%d instances of job %s would ask for %w", n, w.full(k), err)
	}
	j := job.Job{Key: k, Instances: job.FirstN(n), Config: *cfg}
	if err := w.s.Admit(j); err != nil {
		return err
	}
	made, err := w.edit(func(d *state.Draft) error { return put(d, j) })
	if err != nil {
		return err
	}
	return w.settle(made)
}

// full is a key with its cluster, as users write it, or the id of a file's job.
func (w *World) full(k job.Key) string { return fullKey(w.s, k) }

func fullKey(s *state.Snapshot, k job.Key) string {
	if id := IDOf(k); id != string(k) {
		return id
	}
	return s.Cluster.Name + "/" + string(k)
}

// put writes a job and opens those of its slots in which nothing lives.
func put(d *state.Draft, j job.Job) error {
	old, _ := d.Snapshot().Job(j.Key)
	if err := d.Apply(state.PutJob{Job: j, Base: old.Rev, By: old.By}); err != nil {
		return err
	}
	for n := range j.Instances.All() {
		at := state.Slot{Job: j.Key, N: n}
		in, _ := d.Snapshot().Instance(at)
		if in.Live || in.Open {
			continue
		}
		if err := d.Apply(state.OpenSlot{Slot: at, Base: in.Rev}); err != nil {
			return err
		}
	}
	return nil
}

// Add registers n more machines like the most common ones.
func (w *World) Add(n int) error {
	kinds := map[string]int{}
	var like machine.Machine
	for m := range w.s.Machines() {
		kind := kindOf(m.Machine)
		if kinds[kind]++; like.ID == "" || kinds[kind] > kinds[kindOf(like)] {
			like = m.Machine
		}
	}
	if like.ID == "" {
		return fault.Invalid.Errorf("there is no machine of which there could be more; name a file of machines")
	}
	if err := countable(int64(n), like.Capacity); err != nil {
		return fault.Invalid.Errorf("%d more machines like %s would have %w", n, like.ID, err)
	}
	added := make([]machine.Machine, 0, n)
	for i := 0; len(added) < n; i++ {
		id := machine.ID(fmt.Sprintf("added-%d", i+1))
		if _, taken := w.s.Machine(id); taken {
			continue
		}
		m := like
		m.ID, m.Host, m.Up, m.Mode = id, string(id), true, machine.None
		m.Attributes = slices.Clone(like.Attributes)
		for j, a := range m.Attributes {
			if a.Name == "host" {
				m.Attributes[j].Value = string(id)
			}
		}
		m.Foreign, m.Overhead, m.Owed = unit.Resources{}, like.Taken(), unit.Resources{}
		added = append(added, m)
	}
	return w.AddMachines(added)
}

// kindOf returns the same for machines that differ in their name, their place
// and what they are busy with.
func kindOf(m machine.Machine) string {
	return fmt.Sprint(m.Capacity, slices.DeleteFunc(slices.Clone(m.Attributes), unique))
}

// unique reports whether an attribute tells machines of one kind apart.
func unique(a machine.Attribute) bool { return a.Name == "host" || a.Name == "rack" }

// A Fit is what would become of a job.
type Fit struct {
	Asked, Fits int
	Replaces    bool        // there was such a job: its tasks were taken as ended first
	Refused     string      // why it would be refused as it is; empty: it would not
	Wait        sched.Wait  // why the others would wait
	Machines    []OnMachine // that would be used, those with the most tasks first
	Stopped     []Stop      // tasks that would be stopped to make room
}

// An OnMachine is how many tasks of something are on a machine.
type OnMachine struct {
	Machine machine.ID
	Tasks   int
}

// Fit creates a job, places what waits and says what became of it. A job of
// the same key is ended first.
func (w *World) Fit(j job.Job) (Fit, error) {
	f := Fit{Asked: j.Instances.Len()}
	if old, ok := w.s.Job(j.Key); ok {
		f.Replaces = true
		made, err := w.do(state.DropJob{Key: old.Key, Base: old.Rev})
		if err == nil {
			err = w.settle(made)
		}
		if err != nil {
			return f, err
		}
	}
	if err := w.s.Admit(j); err != nil {
		f.Refused = err.Error()
	}
	made, err := w.edit(func(d *state.Draft) error { return put(d, j) })
	if err != nil {
		return f, err
	}
	if err = w.settle(made); err != nil {
		return f, err
	}
	waits, err := w.Place(surveyed)
	if err != nil {
		return f, err
	}
	on := map[machine.ID]int{}
	for t := range w.s.TasksOf(j.Key) {
		if t.State.Placed() {
			f.Fits++
			on[t.Machine]++
		}
	}
	for id, n := range on {
		f.Machines = append(f.Machines, OnMachine{id, n})
	}
	slices.SortFunc(f.Machines, func(a, b OnMachine) int {
		return cmp.Or(cmp.Compare(b.Tasks, a.Tasks), cmp.Compare(a.Machine, b.Machine))
	})
	for _, g := range waits.Groups {
		if g.Job == j.Key {
			f.Wait = g
		}
	}
	f.Stopped = w.Stopped()
	return f, nil
}
