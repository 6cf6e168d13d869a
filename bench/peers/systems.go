package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/covey-platform/covey/bench/workload"
)

// A system is a scheduler, as it is told to work.
type system struct {
	name    string
	how     string // for the page
	program string
	args    []string
	slow    bool // needs minutes for 100,000 tasks
	covey   bool // takes other flags and answers in other words
	tight   bool // only for sets without a machine to spare
}

// systems are tried in this order. The first is what the others are compared
// with.
var systems = []system{
	{name: "Covey", how: "its defaults", program: "covey", covey: true},
	{name: "Covey, all at once", how: "its defaults; it knows all jobs before it places the first", program: "covey", args: []string{"--at-once"}, covey: true, tight: true},
	{name: "kube-scheduler", how: "its defaults: LeastAllocated scoring, which spreads", program: "bench-kube", slow: true},
	{name: "kube-scheduler, packing", how: "MostAllocated scoring, else its defaults", program: "bench-kube", args: []string{"-pack"}, slow: true},
	{name: "Nomad, service", how: "its defaults, jobs of type service", program: "bench-nomad"},
	{name: "Nomad, batch", how: "its defaults, jobs of type batch: two machines looked at for a task", program: "bench-nomad", args: []string{"-type", "batch"}},
}

// A result is one system on one trial.
type result struct {
	System      string
	Failed      string // why there is no more to say
	Placed      int
	Tried       int
	Used        int     // machines that hold a task
	UsedCPU     float64 // the share of all cpu that those have
	Broken      string  // rules that the placements break; empty: none
	Rate        float64 // tasks placed a second of placing
	CPURate     float64 // tasks placed a second of processor time
	Task, Job   workload.Latency
	Heap, Peak  uint64  // bytes
	OthersShare float64 // of the machine's processor time, used by others meanwhile
}

// grace is what a program may take beside placing: reading, starting, writing.
const grace = 5 * time.Minute

// try runs the system and checks what it did.
func (s system) try(ctx context.Context, c config, t trial, tmp string) result {
	r := result{System: s.name}
	placements := filepath.Join(tmp, "placements.csv")
	args := slices.Concat(s.args, []string{"-machines", t.Machines, "-jobs", t.Jobs, "-placements", placements, "-limit", c.limit.String()})
	if s.covey {
		args = slices.Concat([]string{"simulate", "--machines", t.Machines, "--jobs", t.Jobs, "--placements", placements, "-o", "json"}, s.args)
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit+grace)
	defer cancel()
	before := busy()
	out, usage, err := output(ctx, filepath.Join(c.bin, s.program), args...)
	if err != nil {
		r.Failed = err.Error()
		return r
	}
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	r.OthersShare = before.others(busy(), cpu)
	r.Peak = uint64(usage.Maxrss) << 10
	report, err := s.read(out)
	if err != nil {
		r.Failed = fmt.Sprintf("its answer is not what was expected: %v", err)
		return r
	}
	r.Placed, r.Tried, r.Task, r.Job, r.Heap = report.Placed, report.Tried, report.Task, report.Job, report.HeapBytes
	r.Rate, r.CPURate = float64(r.Placed)/report.Seconds, float64(r.Placed)/cpu
	if err := r.check(ctx, c, t, placements); err != nil {
		r.Failed = fmt.Sprintf("its placements could not be checked: %v", err)
	}
	return r
}

// read understands what a program says of its run.
func (s system) read(out []byte) (workload.Report, error) {
	var report workload.Report
	if !s.covey {
		if err := json.Unmarshal(out, &report); err != nil {
			return report, err
		}
		return report, sane(report)
	}
	type spread struct{ P50, P99, Max float64 }
	var said struct {
		Tasks   int     `json:"tasks"`
		Placed  int     `json:"placed"`
		Seconds float64 `json:"seconds"`
		Task    spread  `json:"task_ms"`
		Job     spread  `json:"job_ms"`
		Heap    uint64  `json:"heap_bytes"`
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return report, err
	}
	report.Tried, report.Placed, report.Seconds, report.HeapBytes = said.Tasks, said.Placed, said.Seconds, said.Heap
	report.Task = workload.Latency{P50ms: said.Task.P50, P99ms: said.Task.P99, MaxMs: said.Task.Max}
	report.Job = workload.Latency{P50ms: said.Job.P50, P99ms: said.Job.P99, MaxMs: said.Job.Max}
	return report, sane(report)
}

// sane refuses a report from which no rate can be made.
func sane(r workload.Report) error {
	if r.Seconds <= 0 || r.Placed < 0 || r.Placed > r.Tried {
		return fmt.Errorf("%d of %d tasks placed in %g s", r.Placed, r.Tried, r.Seconds)
	}
	return nil
}

// check has Covey's checker, which shares no code with its scheduler, look at
// the placements.
func (r *result) check(ctx context.Context, c config, t trial, placements string) error {
	out, _, err := output(ctx, filepath.Join(c.bin, "covey"), "simulate",
		"--machines", t.Machines, "--jobs", t.Jobs, "--check", placements, "-o", "json")
	var said struct {
		Placed int            `json:"placed"`
		Used   int            `json:"used"`
		CPU    float64        `json:"used_cpu"`
		Wrong  map[string]int `json:"wrong"`
	}
	// It fails when a rule is broken, and says which all the same.
	if parse := json.Unmarshal(out, &said); parse != nil {
		if err == nil {
			err = parse
		}
		return err
	}
	var broken []string
	for rule, times := range said.Wrong {
		broken = append(broken, fmt.Sprintf("%s, %d times", rule, times))
	}
	slices.Sort(broken)
	r.Used, r.UsedCPU, r.Broken = said.Used, said.CPU, strings.Join(broken, "; ")
	switch {
	case len(broken) == 0 && err != nil:
		return err
	case len(broken) == 0 && said.Placed != r.Placed:
		return fmt.Errorf("it says %d tasks were placed, and its file has %d", r.Placed, said.Placed)
	}
	return nil
}

// output runs a program and returns what it wrote and used.
func output(ctx context.Context, program string, args ...string) ([]byte, *syscall.Rusage, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // who runs this names the programs
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		said := strings.TrimSpace(errs.String())
		if i := strings.LastIndexByte(said, '\n'); i >= 0 {
			said = said[i+1:]
		}
		return out.Bytes(), nil, fmt.Errorf("%s: %w: %s", filepath.Base(program), err, said)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return out.Bytes(), nil, fmt.Errorf("%s: this system does not tell what a process used", filepath.Base(program))
	}
	return out.Bytes(), usage, nil
}
