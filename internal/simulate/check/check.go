// Package check verifies a file of placements against the machines and the
// jobs that it was made from. It shares no code with the placer nor with what
// reads those files for it, so that a mistake of theirs is not made twice.
package check

import (
	"fmt"
	"strconv"
	"strings"
)

// A Kind says what is wrong with a placement.
type Kind string

// The kinds of findings.
const (
	Capacity    Kind = "capacity"        // a machine holds more than it has
	Generation  Kind = "gen"             // a machine is not of the gen that the job wants
	PerHost     Kind = "max_per_host"    // a machine holds more tasks of a job than it may
	Spread      Kind = "spread"          // a machine holds more tasks of a job than one with room, and the job spreads
	Maintenance Kind = "maintenance"     // a machine is being drained, or has been
	Duplicate   Kind = "duplicate"       // a task is placed twice
	NoTask      Kind = "unknown task"    // nobody asked for the task
	NoMachine   Kind = "unknown machine" // there is no such machine
	maxFindings      = 100               // that are told of; all are counted
)

// A Finding is one thing that is wrong.
type Finding struct {
	Kind Kind   `json:"kind"`
	Line int    `json:"line,omitempty"` // of the placements
	Text string `json:"text"`
}

// A Report is what was found.
type Report struct {
	Machines int          `json:"machines"`
	Tasks    int          `json:"tasks"`    // asked for
	Placed   int          `json:"placed"`   // tasks that have a machine
	Missing  int          `json:"missing"`  // tasks that have none
	Used     int          `json:"used"`     // machines that hold a task
	UsedCPU  float64      `json:"used_cpu"` // the share of all machines' cpu that those have, 0 to 1
	Wrong    map[Kind]int `json:"wrong"`    // findings by kind
	Findings []Finding    `json:"findings"` // the first of them
}

// OK reports whether nothing is wrong. Tasks without a machine are not.
func (r *Report) OK() bool { return len(r.Wrong) == 0 }

func (r *Report) add(k Kind, line int, format string, args ...any) {
	r.Wrong[k]++
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, Finding{k, line, fmt.Sprintf(format, args...)})
	}
}

// measures are the columns that add up on a machine. gpu is in thousandths.
var measures = [...]string{"cpu_milli", "mem_mib", "gpu", "net_mbps", "disk_mib"}

type amounts [len(measures)]int64

type node struct {
	cpu    int64 // that it has
	left   amounts
	gen    string
	shares map[int64]int  // tasks by the share of one GPU that they ask for
	whole  int64          // GPUs that are given out whole
	gpus   int64          // in all
	tasks  map[string]int // by job
	mode   string
	avoid  bool
	over   bool // told of
}

type work struct {
	count, perHost int64
	need           amounts
	gen            string
	urgency        string
	spread         bool
	placed         map[int64]bool
}

// Columns that each file must have.
var (
	machineColumns   = []string{"id", "cpu_milli", "mem_mib", "gpu", "net_mbps", "gen"}
	jobColumns       = []string{"id", "prio", "prod", "count", "cpu_milli", "mem_mib", "gpu", "net_mbps", "gen", "max_per_host"}
	placementColumns = []string{"task", "machine"}
)

// Files verifies a file of placements.
func Files(placements, machines, jobs string) (*Report, error) {
	nodes, works := map[string]*node{}, map[string]*work{}
	r := &Report{Wrong: map[Kind]int{}, Findings: []Finding{}}
	err := read(machines, machineColumns, func(_ int, f map[string]string) (err error) {
		if nodes[f["id"]] != nil {
			return fmt.Errorf("machine %s stands there twice", f["id"])
		}
		nodes[f["id"]], err = nodeOf(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = read(jobs, jobColumns, func(_ int, f map[string]string) error {
		if works[f["id"]] != nil {
			return fmt.Errorf("job %s stands there twice", f["id"])
		}
		w, bad := workOf(f)
		if bad != nil {
			return bad
		}
		works[f["id"]] = w
		r.Tasks += int(w.count)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err = read(placements, placementColumns, func(line int, f map[string]string) error { return r.place(line, f, nodes, works) }); err != nil {
		return nil, err
	}
	r.spread(nodes, works)
	r.Machines, r.Missing = len(nodes), r.Tasks-r.Placed
	all, used := int64(0), int64(0)
	for _, n := range nodes {
		all += n.cpu
		if len(n.tasks) > 0 {
			r.Used++
			used += n.cpu
		}
	}
	r.UsedCPU = float64(used) / float64(max(all, 1))
	return r, nil
}

// place takes one placement into account.
func (r *Report) place(line int, f map[string]string, nodes map[string]*node, works map[string]*work) error {
	id, found := f["task"], f["machine"]
	at := strings.LastIndexByte(id, '/')
	if at < 0 {
		return fmt.Errorf("task %.80q; want JOB/INSTANCE", id)
	}
	w, n := works[id[:at]], nodes[found]
	i, bad := strconv.ParseInt(id[at+1:], 10, 64)
	known := w != nil && bad == nil && i >= 0 && i < w.count
	switch {
	case !known:
		r.add(NoTask, line, "nobody asked for task %.80s", id)
		return nil
	case n == nil:
		r.add(NoMachine, line, "task %s is on machine %.80s, which there is not", id, found)
		return nil
	case w.placed[i]:
		r.add(Duplicate, line, "task %s is placed twice", id)
	default:
		w.placed[i] = true
		r.Placed++
	}
	n.tasks[id[:at]]++
	if n.mode == "DRAINING" || n.mode == "DRAINED" {
		r.add(Maintenance, line, "task %s is on machine %s, which is %s", id, found, n.mode)
	}
	if w.gen != "" && w.gen != "-" && w.gen != n.gen {
		r.add(Generation, line, "task %s wants gen %s, machine %s is %q", id, w.gen, found, n.gen)
	}
	if w.perHost > 0 && int64(n.tasks[id[:at]]) > w.perHost {
		r.add(PerHost, line, "machine %s holds %d tasks of job %s; want at most %d", found, n.tasks[id[:at]], id[:at], w.perHost)
	}
	for m := range measures {
		n.left[m] -= w.need[m]
		if n.left[m] < 0 && !n.over {
			n.over = true
			r.add(Capacity, line, "machine %s is short of %d %s with task %s", found, -n.left[m], unitOf(m), id)
		}
	}
	if !n.gpu(w.need[2]) && !n.over {
		n.over = true
		r.add(Capacity, line, "no way is found to fit the tasks on machine %s on its %d GPUs with task %s", found, n.gpus, id)
	}
	return nil
}

func unitOf(m int) string {
	if measures[m] == "gpu" {
		return "thousandths of a gpu"
	}
	return measures[m]
}
