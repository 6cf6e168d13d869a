package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/covey-platform/covey/bench/workload"
)

// A page is what is published of a run.
type page struct {
	Command               string
	Host                  host
	Begun                 time.Time
	Took                  time.Duration
	Limit                 time.Duration
	LoadBefore, LoadAfter string
	Trials                []trial
	Others                []section // of sets that were not tried now
}

const head = `# Covey beside its peers

Written by ` + "`make bench-peers`" + `, set by set: each says when. [bench/README.md](../../bench/README.md) says how each scheduler is driven.
`

const origin = `
` + "`%s`" + ` on %s, in %s; commit %s; load average before %s, after %s; %s, %d cores, %.0f GiB; %s, %s.
`

const foot = `
## How to read this

- Every scheduler works in memory, in one process: no API server, no Raft, no disk, no network. For kube-scheduler and Nomad that is the best
  case. It is for Covey too: these are figures of its placer, not of a cluster.
- All get the same files, one job after another in the file's order. tasks/s is tasks placed over the time spent deciding; reading files and
  writing down what was decided is counted for none.
- tasks/CPU-s is tasks placed over the processor time of the whole process from its start to its end, with everything it did. On a machine that is
  used by others as well it is the steadier figure.
- The factors in parentheses say how many times faster Covey was in the same run.
- Covey and Nomad decide on one core; garbage is collected on the others. kube-scheduler looks at nodes on all cores. A Nomad server runs a scheduler on each
  core, for different jobs: compare it by tasks/CPU-s.
- A job's latency is the time until each of its tasks has a machine. A task's is that of one scheduling cycle (kube-scheduler) or of one more task in
  the cluster as it is at the end (Covey); Nomad places a job as a whole and has none.
- Machines used are those that hold a task, and what part of the cpu of all machines they have. Less is better packed, where the same tasks were placed: it is the cpu that
  counts where machines differ in size, since best fit fills the small ones first and leaves the large ones whole.
- Covey keeps tasks without GPUs off the machines that have some as long as others have room, so that it is there when a task with GPUs comes. The others fill them like any other.
  In w10k the machines whose GPUs are used have 12 % of the cpu.
- A set whose name ends in -tight has only the machines that Covey needs when it knows all jobs beforehand, and the jobs in the order of their priority, in
  which a queue would hand them out. What counts there is how many tasks were placed. A scheduler that is told one job after another cannot know what is to
  come; Covey is there twice, told so and told all at once.
- Heap is what was still alive after the last task; peak is the most memory that the process ever held.
- Others is the share of the machine that was used by other processes during that run: the higher, the less the run is worth.
- Every file of placements was verified by ` + "`covey simulate --check`" + `, whose rules share no code with the scheduler: capacity in every measure, the
  required generation, the limit of tasks on a machine, nothing twice, nothing unknown.
`

// write writes the page as Markdown.
func (p page) write(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprint(out, head)
	for _, s := range p.Others {
		fmt.Fprintf(out, "\n%s\n", s.text)
	}
	from := fmt.Sprintf(origin, p.Command, p.Begun.UTC().Format("2006-01-02 15:04 UTC"), p.Took.Round(time.Second),
		p.Host.Commit, p.LoadBefore, p.LoadAfter, p.Host.CPU, p.Host.Cores, p.Host.GiB, p.Host.System, p.Host.Go)
	for _, t := range p.Trials {
		t.write(out, from, p.Limit)
	}
	fmt.Fprintln(out, "\n## Settings\n\n| scheduler | settings |\n|---|---|")
	for _, s := range systems {
		fmt.Fprintf(out, "| %s | %s |\n", s.name, s.how)
	}
	fmt.Fprint(out, foot)
	return out.Flush()
}

// A section is what a page says of one set, or of the beginning of one.
type section struct{ set, text string }

// others returns the sections of a page that are of none of the given sets.
func others(page string, sets []string) (kept []section) {
	const heading = "\n## "
	parts := strings.Split(page, heading)
	for _, text := range parts[1:] {
		title, _, _ := strings.Cut(text, "\n")
		set, _, _ := strings.Cut(title, ",")
		if !slices.Contains(sets, set) && !slices.Contains(notSets, set) {
			kept = append(kept, section{set, strings.TrimSpace(heading + text)})
		}
	}
	return kept
}

// notSets are the other headings of a page.
var notSets = []string{"Settings", "How to read this"}

const table = `
## %s
%s
%s machines%s, %s tasks.

| scheduler | placed | tasks/s | tasks/CPU-s | task p50 / p99 ms | job p50 / p99 ms | machines used, of all cpu | heap / peak MiB | others | rules |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---|
`

func (t trial) write(w io.Writer, from string, limit time.Duration) {
	which := ""
	if t.Tight != "" {
		which = fmt.Sprintf(" of %s, as many as Covey's own compaction of %s keeps in the middle of eleven trials", thousands(t.Of), t.Tight)
	}
	fmt.Fprintf(w, table, t.title(), from, thousands(t.NMachines), which, thousands(t.Tasks))
	var notes []string
	for i, r := range t.Results {
		if r.Failed != "" {
			fmt.Fprintf(w, "| %s | failed | | | | | | | | |\n", r.System)
			notes = append(notes, fmt.Sprintf("%s failed: %s.", r.System, r.Failed))
			continue
		}
		rate, cpu, rules := figure(r.Rate), figure(r.CPURate), "kept"
		if first := t.Results[0]; i > 0 && first.Failed == "" && r.Placed > 0 {
			rate += fmt.Sprintf(" (%s x)", figure(first.Rate/r.Rate))
			cpu += fmt.Sprintf(" (%s x)", figure(first.CPURate/r.CPURate))
		}
		if r.Broken != "" {
			rules = "**broken:** " + r.Broken
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s, %.1f %% | %s / %s | %.0f %% | %s |\n", r.System, thousands(r.Placed), rate, cpu,
			latency(r.Task), latency(r.Job), thousands(r.Used), 100*r.UsedCPU, figure(mib(r.Heap)), figure(mib(r.Peak)), 100*r.OthersShare, rules)
		if r.Tried < t.Tasks {
			notes = append(notes, fmt.Sprintf("%s was stopped after %s of placing, when it had tried %s tasks.", r.System, limit, thousands(r.Tried)))
		}
		if r.Placed < r.Tried {
			notes = append(notes, fmt.Sprintf("%s found no machine for %s tasks.", r.System, thousands(r.Tried-r.Placed)))
		}
	}
	if t.Quick {
		notes = append(notes, "kube-scheduler would need many minutes for all of it; `PEERTASKS=0` has it do so.")
	}
	if len(notes) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	}
}

func latency(l workload.Latency) string {
	if l == (workload.Latency{}) {
		return "–"
	}
	return figure(l.P50ms) + " / " + figure(l.P99ms)
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
