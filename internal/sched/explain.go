package sched

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// A Wait says why a task is not placed. Those of a plan hold for every waiting
// task of a job that runs the config.
type Wait struct {
	Task     task.ID // the first of them
	Job      job.Key
	Config   job.Hash
	Tasks    int        // how many wait
	Room     machine.ID // where room is being made for Task, which alone this is about
	Text     string     // for people, one line
	Reasons  []Reason   // what rules machines out; one machine may lack several things
	Nearest  *Verdict   // the machine that lacks least; nil when there is none
	Machines []Verdict  // each machine in order of id; by [Explain] only
}

// A Rule is what a machine may fail.
type Rule string

// The rules, in the order in which reasons are given.
const (
	CPU        Rule = "cpu"
	RAM        Rule = "ram"
	Disk       Rule = "disk"
	GPU        Rule = "gpu"
	Net        Rule = "net"
	Ports      Rule = "ports"
	Limit      Rule = "limit"
	Spreading  Rule = "spread"
	Affinity   Rule = "affinity"
	Attribute  Rule = "attribute" // a limit counts by one that it has not
	Constraint Rule = "constraint"
	Draining   Rule = "draining"
	Drained    Rule = "drained"
	Down       Rule = "down"
	Leaving    Rule = "leaving" // its agent was told to stop its tasks
	Dedicated  Rule = "dedicated"
)

var rules = [...]Rule{CPU, RAM, Disk, GPU, Net, Ports, Limit, Spreading, Affinity, Attribute, Constraint, Draining, Drained, Down, Leaving, Dedicated}

// A Lack is one rule that a machine fails. Need and Have are amounts in the
// unit of the measure; for ports and limits, numbers. Have of a gpu may reach
// Need: then no single GPU has that much.
type Lack struct {
	Rule   Rule
	Detail string // the constraint, such as rack=a,b; the attribute; or whom it is dedicated to
	Need   int64
	Have   int64
}

// A Verdict is all that one machine lacks. It fits when it lacks nothing.
type Verdict struct {
	Machine machine.ID
	Lacks   []Lack
}

// A Reason counts the machines that fail one rule. Best is the most that any
// of them has, and Machine the first that has so much.
type Reason struct {
	Lack
	Machines int
	Machine  machine.ID
}

// Explain says why one task waits, looking at the whole snapshot and at no
// index, so that it may be called from anywhere. It names up to limit machines.
// An error of kind NotFound says that no such task is live.
func Explain(s *state.Snapshot, id task.ID, limit int) (Wait, error) {
	t, ok := s.Task(id)
	if !ok {
		return Wait{}, fault.NotFound.Errorf("there is no live task %s; job status lists those there are", id)
	}
	w := Wait{Task: id, Job: id.Job, Config: t.Config, Tasks: 1}
	if t.State != task.Pending {
		w.Text = "does not wait for a machine: it is " + t.State.String()
		if t.Machine != "" {
			w.Text += " on " + string(t.Machine)
		}
		return w, nil
	}
	if t.Room != "" {
		w.Text, w.Room = roomOf(s, t), t.Room
		return w, nil
	}
	cfg, ok := s.Config(t.Config)
	if !ok {
		w.Text = lostConfig
		return w, nil
	}
	v := surveyOf(s, shapeOf(id.Job, cfg), id.Job)
	for row := range s.Machines() {
		h := look(s, row, nil)
		d := v.see(&h, v.shape.allows(&row.Machine))
		if len(w.Machines) < limit {
			w.Machines = append(w.Machines, d.kept())
		}
	}
	found := v.wait()
	w.Text, w.Reasons, w.Nearest = found.Text, found.Reasons, found.Nearest
	return w, nil
}
