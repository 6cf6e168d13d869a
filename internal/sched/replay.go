package sched

import (
	"iter"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// A Filled is how full a cluster is after one task of a [Replay]: what all
// tasks so far asked for, what those that were placed hold, and where this one went.
type Filled struct {
	Asked   unit.Resources
	Held    unit.Resources
	Machine machine.ID // empty if no machine took it
}

// Replay fills an empty cluster with tasks, one after another, and yields how
// full it is after each. Tasks never leave; one that fits nowhere is dropped.
// typical is what the tasks are like, as the jobs of a live cluster would
// tell; a config of tasks stands for one task of the job key. An error is of
// kind Invalid and says which machine cannot be.
func Replay(machines []machine.Machine, typical []Typical, tasks []Typical, policy Policy) (iter.Seq[Filled], error) {
	d := state.NewDraft(state.New(), unit.Hour)
	for _, m := range machines {
		if err := m.Validate(); err != nil {
			return nil, err
		}
		m.Up = true
		if err := d.Apply(state.PutMachine{Machine: m}); err != nil {
			return nil, fault.Invalid.Errorf("machine %s is there twice", m.ID)
		}
	}
	s := d.Snapshot()
	x := NewIndexFor(s, policy)
	x.given = true
	x.prefer(typical)
	return func(yield func(Filled) bool) { x.replay(s, tasks, yield) }, nil
}

// A kind of task is placed by one group, however many come.
type replayed struct {
	job    job.Key
	config *job.Config
}

func (x *Index) replay(s *state.Snapshot, tasks []Typical, yield func(Filled) bool) {
	groups := map[replayed]*group{}
	p := newPlanner(s, x, s.At, Limits{})
	var f Filled
	for _, t := range tasks {
		k := replayed{t.Job, t.Config}
		g, ok := groups[k]
		if !ok {
			g = &group{groupKey: groupKey{job: t.Job}, shape: shapeOf(t.Job, t.Config)}
			x.join(s, g)
			groups[k] = g
		}
		for range max(t.Tasks, 1) {
			f.Asked, f.Machine = f.Asked.Add(g.shape.need), ""
			if n := p.best(g, 0); n != 0 {
				p.take(n, g)
				f.Held, f.Machine = f.Held.Add(g.shape.need), x.hosts[n].row.ID
			}
			if !yield(f) {
				return
			}
		}
	}
}
