package sched

import (
	"maps"
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
)

// A Typical is a config and how many tasks of it a cluster is asked to run.
type Typical struct {
	Job    job.Key
	Config *job.Config
	Tasks  int64
}

// typical looks at a job: whether it is one of those that the taste is made of.
func (x *Index) typical(s *state.Snapshot, k job.Key) (Typical, bool) {
	j, ok := s.Job(k)
	if !ok {
		return Typical{}, false
	}
	cfg, ok := s.Config(j.Config)
	if !ok || cfg.Task.Resources.GPU <= 0 && x.policy != FGD {
		return Typical{}, false
	}
	return Typical{k, cfg, int64(j.Instances.Len())}, true
}

// learn works out from all jobs what the tasks that ask for GPUs are like.
func (x *Index) learn(s *state.Snapshot) {
	x.demand = map[job.Key]Typical{}
	if !x.policy.boards() {
		return
	}
	for j := range s.Jobs("") {
		if t, ok := x.typical(s, j.Key); ok {
			x.demand[j.Key] = t
		}
	}
	x.prefer(x.wanted())
}

// relearn takes note of jobs that have changed.
func (x *Index) relearn(s *state.Snapshot, jobs map[job.Key]bool) {
	if x.given || !x.policy.boards() {
		return
	}
	changed := false
	for k := range jobs {
		old, was := x.demand[k]
		t, is := x.typical(s, k)
		if was == is && old == t {
			continue
		}
		changed = true
		if is {
			x.demand[k] = t
		} else {
			delete(x.demand, k)
		}
	}
	if changed {
		x.prefer(x.wanted())
	}
}

// wanted returns what jobs ask for, in order of their keys.
func (x *Index) wanted() []Typical {
	all := make([]Typical, 0, len(x.demand))
	for _, k := range slices.Sorted(maps.Keys(x.demand)) {
		all = append(all, x.demand[k])
	}
	return all
}

// prefer makes the taste of an index, and judges the hosts with GPUs by it.
func (x *Index) prefer(all []Typical) {
	byName := map[string]int{}
	var shapes []tasted
	var weights []int64
	for _, t := range all {
		w := shapeOf(t.Job, t.Config)
		if w.need.GPU <= 0 && x.policy != FGD {
			continue
		}
		s := tasted{shape: w, class: x.classOf(w)}
		s.class.groups++ // for as long as the taste lasts
		at, known := byName[s.name()]
		if known {
			s.class.groups--
		} else {
			at = len(shapes)
			byName[s.name()] = at
			shapes, weights = append(shapes, s), append(weights, 0)
		}
		weights[at] += t.Tasks
	}
	for _, t := range x.taste.all {
		t.class.groups--
	}
	x.taste = newTaste(shapes, weights, x.policy == FGD)
	x.looked += len(x.withGPU)
	for n := range x.withGPU {
		h := &x.hosts[n]
		h.waste = x.taste.waste(n, h.free, h.devs)
	}
}
