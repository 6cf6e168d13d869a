package check

import (
	"fmt"
	"maps"
	"slices"
)

// spread holds the jobs that want their tasks spread to it: no machine may have
// two tasks of the job more than one that has room for another. It is known
// only of placements for which nobody was stopped, since room that was made
// later tells nothing; so all jobs of the file must be equally urgent. Machines
// with GPUs, those that come last, and tasks that ask for GPUs go by other rules first.
func (r *Report) spread(nodes map[string]*node, works map[string]*work) {
	urgency := ""
	for _, w := range works {
		if urgency != "" && w.urgency != urgency {
			return
		}
		urgency = w.urgency
	}
	on := map[string]map[string]int{} // tasks by job and machine
	for machine, n := range nodes {
		for job, tasks := range n.tasks {
			if works[job].spread && n.gpus == 0 && !n.last() {
				if on[job] == nil {
					on[job] = map[string]int{}
				}
				on[job][machine] = tasks
			}
		}
	}
	names := slices.Sorted(maps.Keys(nodes))
	for _, job := range slices.Sorted(maps.Keys(on)) {
		w := works[job]
		if w.need[2] > 0 {
			continue
		}
		full := ""
		for _, machine := range slices.Sorted(maps.Keys(on[job])) {
			if full == "" || on[job][machine] > on[job][full] {
				full = machine
			}
		}
		for _, machine := range names {
			if have := on[job][machine]; have+2 <= on[job][full] && nodes[machine].takes(w, have) {
				r.add(Spread, 0, "machine %s has %d tasks of job %s, and %s with room for another has %d", full, on[job][full], job, machine, have)
				break
			}
		}
	}
}

// last reports whether a machine gets a task only if no other takes it, or none.
func (n *node) last() bool { return n.avoid || n.mode != "" && n.mode != "-" && n.mode != "NONE" }

// takes reports whether a machine without GPUs has room for another task of a
// job of which it has some.
func (n *node) takes(w *work, have int) bool {
	if n.gpus > 0 || n.last() || w.perHost > 0 && int64(have) >= w.perHost || w.gen != "" && w.gen != "-" && w.gen != n.gen {
		return false
	}
	for m := range measures {
		if n.left[m] < w.need[m] {
			return false
		}
	}
	return true
}

// placement reads what a job says of where its tasks go, if it does.
func placement(s string) (spread bool, err error) {
	switch s {
	case "", "-", "best-fit":
		return false, nil
	case "spread":
		return true, nil
	default:
		return false, fmt.Errorf("placement is %.40q; want best-fit or spread", s)
	}
}
