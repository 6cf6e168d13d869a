package agent

import (
	"fmt"
	"strconv"
	"time"

	"github.com/covey-platform/covey/internal/job"
)

// minBetweenRuns bounds how often a process may start whatever its
// min_duration: Thermos looks at its plan once a second.
const minBetweenRuns = time.Second

// A ProcessState is where a process is, between and during its runs.
type ProcessState uint8

// The states, with Thermos's names.
const (
	ProcessWaiting ProcessState = iota // for predecessors, a free slot, or min_duration to pass; or it will never run
	ProcessForked                      // was asked for; nobody answered yet
	ProcessRunning                     // lives
	ProcessSuccess                     // ended with exit status 0 and will not run again
	ProcessFailed                      // failed for good
	ProcessKilled                      // ended badly after the task told it to
)

var processStateNames = [...]string{"WAITING", "FORKED", "RUNNING", "SUCCESS", "FAILED", "KILLED"}

// String returns the bare name, such as RUNNING.
func (s ProcessState) String() string {
	if int(s) < len(processStateNames) {
		return processStateNames[s]
	}
	return "STATE(" + strconv.Itoa(int(s)) + ")"
}

// A ProcessStatus is what is known of one process.
type ProcessStatus struct {
	Name     string
	State    ProcessState
	Runs     int           // so far, the present one included
	Failures int           // of these
	Started  time.Duration // when the latest run was asked for, since the life's start
	Exited   bool          // whether a run has ended; Code, Signal and Why are of the latest that did
	Code     int
	Signal   int
	Why      string // why it could not be started; otherwise empty
	Blocked  string // the predecessor whose failure keeps it from ever running; otherwise empty
}

// alive reports whether a run exists, or may exist.
func (s ProcessStatus) alive() bool { return s.State == ProcessForked || s.State == ProcessRunning }

// graph is the processes of a task, their order and their runs. Final
// processes and the others are two plans in one graph: no order joins them.
type graph struct {
	procs  []proc
	index  map[string]int
	atMost int // live at once; 0 is any number
}

type proc struct {
	ProcessStatus

	spec         job.Process
	before, next []int // who must succeed first; who waits for it
}

// newGraph wants a task that passes [job.Task.ValidatePlan].
func newGraph(t job.Task) graph {
	g := graph{procs: make([]proc, len(t.Processes)), index: make(map[string]int, len(t.Processes)), atMost: int(t.MaxConcurrency)}
	for i, p := range t.Processes {
		g.procs[i] = proc{spec: p, ProcessStatus: ProcessStatus{Name: p.Name}}
		g.index[p.Name] = i
	}
	for _, chain := range t.Order {
		for k := 1; k < len(chain); k++ {
			a, b := g.index[chain[k-1]], g.index[chain[k]]
			g.procs[a].next = append(g.procs[a].next, b)
			g.procs[b].before = append(g.procs[b].before, a)
		}
	}
	return g
}

// run finds a process by the name and number of its living run.
func (g *graph) run(name string, run int) (int, bool) {
	i, ok := g.index[name]
	return i, ok && g.procs[i].alive() && g.procs[i].Runs == run
}

func (g *graph) spawned(name string, run int) bool {
	i, ok := g.run(name, run)
	if !ok || g.procs[i].State != ProcessForked {
		return false
	}
	g.procs[i].State = ProcessRunning
	return true
}

// exited notes the end of a run. settles says whether it counts as success or
// failure; otherwise the process was told to go.
func (g *graph) exited(e Exited, settles bool) bool {
	i, ok := g.run(e.Process, e.Run)
	if !ok {
		return false
	}
	p := &g.procs[i]
	p.Exited, p.Code, p.Signal, p.Why = true, e.Code, e.Signal, ""
	g.settle(i, e.Code == 0 && e.Signal == 0, settles)
	return true
}

// spawnFailed notes a run that never lived; it counts like any other.
func (g *graph) spawnFailed(e SpawnFailed, settles bool) bool {
	i, ok := g.run(e.Process, e.Run)
	if !ok || g.procs[i].State != ProcessForked {
		return false
	}
	p := &g.procs[i]
	p.Exited, p.Code, p.Signal, p.Why = true, 0, 0, e.Why
	g.settle(i, false, settles)
	return true
}

// settle moves a process whose run ended.
func (g *graph) settle(i int, success, settles bool) {
	p := &g.procs[i]
	switch {
	case success && (!p.spec.Daemon || !settles):
		p.State = ProcessSuccess
	case success:
		p.State = ProcessWaiting
	case !settles:
		p.State = ProcessKilled
	default:
		p.Failures++
		p.State = ProcessWaiting
		if n := int(p.spec.MaxFailures); n > 0 && p.Failures >= n {
			p.State = ProcessFailed
			g.block(i, p.Name)
		}
	}
}

// block marks all that wait for i, near and far: they will never run.
func (g *graph) block(i int, by string) {
	for _, k := range g.procs[i].next {
		if p := &g.procs[k]; p.Blocked == "" {
			p.Blocked = by
			g.block(k, by)
		}
	}
}

// live counts the processes that exist, or may exist.
func (g *graph) live() int {
	n := 0
	for i := range g.procs {
		if g.procs[i].alive() {
			n++
		}
	}
	return n
}

// runnable reports whether i belongs to the plan and only time or a slot keeps
// it from running.
func (g *graph) runnable(i int, final bool) bool {
	p := &g.procs[i]
	if p.spec.Final != final || p.State != ProcessWaiting || p.Blocked != "" {
		return false
	}
	for _, k := range p.before {
		if g.procs[k].State != ProcessSuccess {
			return false
		}
	}
	return true
}

// startsAt returns when i may run again: min_duration after its latest start.
func (p *proc) startsAt() time.Duration {
	if p.Runs == 0 {
		return 0
	}
	return p.Started + max(seconds(p.spec.MinDuration), minBetweenRuns)
}

// slots returns how many more processes may live.
func (g *graph) slots() int {
	if g.atMost <= 0 {
		return len(g.procs)
	}
	return g.atMost - g.live()
}

// start begins a run of each process whose turn has come. When slots are few,
// those that the task's end waits for come first, so that no daemon keeps them
// out.
func (g *graph) start(now time.Duration, final bool) []Spawn {
	var out []Spawn
	slots := g.slots()
	for _, lasting := range []bool{false, true} {
		for i := range g.procs {
			p := &g.procs[i]
			if slots <= 0 {
				return out
			}
			if p.lasting() != lasting || !g.runnable(i, final) || p.startsAt() > now {
				continue
			}
			p.State, p.Started = ProcessForked, now
			p.Runs++
			slots--
			out = append(out, Spawn{Process: p.Name, Run: p.Runs})
		}
	}
	return out
}

// lasting reports whether p need not, or will not, complete.
func (p *proc) lasting() bool { return p.spec.Daemon || p.spec.Ephemeral }

// nextStart returns when a process of the plan may run again, if one waits for
// time alone. One that waits for a slot waits for an exit.
func (g *graph) nextStart(now time.Duration, final bool) (time.Duration, bool) {
	if g.slots() <= 0 {
		return 0, false
	}
	var n earliest
	for i := range g.procs {
		if at := g.procs[i].startsAt(); at > now && g.runnable(i, final) {
			n.add(at)
		}
	}
	return n.at, n.ok
}

// complete reports whether every process of the plan has succeeded or failed
// for good, apart from the ephemeral ones. A daemon completes by failing only.
func (g *graph) complete(final bool) bool {
	for i := range g.procs {
		p := &g.procs[i]
		if p.spec.Final == final && !p.spec.Ephemeral && p.State != ProcessSuccess && p.State != ProcessFailed {
			return false
		}
	}
	return true
}

// stuck returns why the plan can never be completed, or nothing: a process that
// is not ephemeral waits for one that failed for good, and nothing that could
// still complete is left. Daemons do not complete and nobody waits for them, so
// a living one does not hide that the rest is stuck.
func (g *graph) stuck(final bool) string {
	why := ""
	for i := range g.procs {
		p := &g.procs[i]
		switch {
		case p.spec.Final != final || p.spec.Ephemeral:
		case p.Blocked != "":
			if why == "" {
				why = "process " + p.Name + " can never run: it waits for " + p.Blocked + ", which " + g.procs[g.index[p.Blocked]].failure()
			}
		case !p.spec.Daemon && p.State != ProcessSuccess && p.State != ProcessFailed:
			return ""
		}
	}
	return why
}

// failed counts the processes that failed for good and are not ephemeral. While
// the task is active these are ordinary ones: the final ones did not run yet.
func (g *graph) failed() int {
	n := 0
	for i := range g.procs {
		if g.procs[i].counts() {
			n++
		}
	}
	return n
}

func (p *proc) counts() bool {
	return p.State == ProcessFailed && !p.spec.Ephemeral
}

// whyFailed names the processes that made the task fail.
func (g *graph) whyFailed() string {
	why, n := "", 0
	for i := range g.procs {
		if g.procs[i].counts() {
			if n++; n == 1 {
				why = "process " + g.procs[i].Name + " " + g.procs[i].failure()
			}
		}
	}
	if n > 1 {
		why = fmt.Sprintf("%d processes failed; %s", n, why)
	}
	return why
}

// failure says how a process failed for good.
func (p *proc) failure() string {
	how := "exit status " + strconv.Itoa(p.Code)
	switch {
	case p.Why != "":
		how = p.Why
	case p.Signal != 0:
		how = "signal " + strconv.Itoa(p.Signal)
	}
	if p.Failures > 1 {
		return fmt.Sprintf("failed %d times, at last: %s", p.Failures, how)
	}
	return "failed: " + how
}

func (g *graph) statuses() []ProcessStatus {
	out := make([]ProcessStatus, len(g.procs))
	for i := range g.procs {
		out[i] = g.procs[i].ProcessStatus
	}
	return out
}
