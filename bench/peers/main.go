// Peers runs Covey and other schedulers on the same machines and jobs, one
// after another, has every placement checked by the same checker and writes
// what came of it as a page.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/covey-platform/covey/bench/workload"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	bin, data, page, command string
	sets                     []string
	tasks                    int
	limit                    time.Duration
}

func flags(args []string) (config, error) {
	var c config
	set := flag.NewFlagSet("peers", flag.ContinueOnError)
	set.StringVar(&c.bin, "bin", "bin", "`folder` of covey, bench-kube and bench-nomad")
	set.StringVar(&c.data, "data", "", "`folder` of sets: each a folder with nodes.csv.gz and jobs.csv.gz")
	set.StringVar(&c.page, "page", "", "`file` to write; empty: standard output")
	set.StringVar(&c.command, "command", "make bench-peers", "the `command` that the page names")
	set.IntVar(&c.tasks, "tasks", 20_000, "of a larger set only the first tasks are placed by all, and all of it by those who need seconds for it; 0: all by all")
	set.DurationVar(&c.limit, "limit", 10*time.Minute, "placing time after which a scheduler is stopped")
	sets := set.String("sets", "w1k,w10k", "sets, with commas between them")
	if err := set.Parse(args); err != nil {
		return c, err
	}
	c.sets = strings.Split(*sets, ",")
	switch {
	case c.data == "":
		return c, errors.New("-data is missing; want the folder of the sets")
	case c.tasks < 0:
		return c, fmt.Errorf("-tasks is %d; want 0 or more", c.tasks)
	case c.limit <= 0:
		return c, fmt.Errorf("-limit is %s; want more than none", c.limit)
	}
	return c, nil
}

func run(ctx context.Context, args []string, stdout, progress io.Writer) error {
	c, err := flags(args)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "covey-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // a folder for temporary files
	p := page{Command: c.command, Host: lookAtHost(ctx), Begun: time.Now(), LoadBefore: load(), Limit: c.limit}
	if p.Trials, err = plan(ctx, c, tmp); err != nil {
		return err
	}
	if old, failed := os.ReadFile(c.page); failed == nil {
		p.Others = others(string(old), c.sets)
	}
	failed := p.measure(ctx, c, tmp, progress)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.LoadAfter, p.Took = load(), time.Since(p.Begun)
	if c.page == "" {
		return errors.Join(failed, p.write(stdout))
	}
	out, err := os.Create(c.page)
	if err != nil {
		return err
	}
	return errors.Join(failed, p.write(out), out.Close())
}

// measure tries every system on every trial, one at a time. The error names
// those that failed; the others have their results all the same.
func (p *page) measure(ctx context.Context, c config, tmp string, progress io.Writer) error {
	var failed []error
	for i := range p.Trials {
		t := &p.Trials[i]
		for _, s := range systems {
			if t.Quick && s.slow || s.tight && t.Tight == "" {
				continue
			}
			fmt.Fprintf(progress, "%s: %s\n", t.title(), s.name)
			r := s.try(ctx, c, *t, tmp)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if r.Failed != "" {
				failed = append(failed, fmt.Errorf("%s on %s: %s", s.name, t.title(), r.Failed))
			}
			t.Results = append(t.Results, r)
		}
	}
	return errors.Join(failed...)
}

// A trial is one set, or the beginning of one, and what came of it.
type trial struct {
	Set            string
	Machines, Jobs string // files
	NMachines      int
	Tight          string // the set of which this has the machines that are needed; empty: it is no such set
	Of             int    // so many machines has that set
	Tasks          int
	First          bool // only the first tasks of the set
	Quick          bool // only for systems that are not slow
	Results        []result
}

func (t trial) title() string {
	switch {
	case t.First:
		return fmt.Sprintf("%s, the first %s tasks", t.Set, thousands(t.Tasks))
	case t.Quick:
		return t.Set + ", all tasks"
	}
	return t.Set
}

// plan looks at the sets, and cuts those that are too large.
func plan(ctx context.Context, c config, tmp string) ([]trial, error) {
	var trials []trial
	for _, set := range c.sets {
		t := trial{
			Set:      set,
			Machines: filepath.Join(c.data, set, "nodes.csv.gz"),
			Jobs:     filepath.Join(c.data, set, "jobs.csv.gz"),
		}
		if of, ok := strings.CutSuffix(set, tightly); ok {
			var err error
			if t, err = tighten(ctx, c, of, tmp); err != nil {
				return nil, err
			}
		}
		machines, err := workload.ReadMachines(t.Machines)
		if err != nil {
			return nil, fmt.Errorf("%w; -data says where the sets are", err)
		}
		jobs, err := workload.ReadJobs(t.Jobs)
		if err != nil {
			return nil, err
		}
		t.NMachines, t.Tasks = len(machines), workload.Tasks(jobs)
		if c.tasks > 0 && t.Tasks > c.tasks {
			first := t
			first.First, first.Tasks, first.Jobs = true, c.tasks, filepath.Join(tmp, set+"-jobs.csv")
			if err := writeJobs(first.Jobs, workload.Cut(jobs, c.tasks)); err != nil {
				return nil, err
			}
			trials, t.Quick = append(trials, first), true
		}
		trials = append(trials, t)
	}
	return trials, nil
}

func writeJobs(name string, jobs []workload.Job) error {
	f, err := os.Create(name) //nolint:gosec // in a folder of its own
	if err != nil {
		return err
	}
	return errors.Join(workload.WriteJobs(f, jobs), f.Close())
}

// tightly ends the name of a set that has only the machines that the set before
// it needs.
const tightly = "-tight"

// tighten has Covey take machines away from a set for as long as all tasks have
// a place, and puts the jobs into the order of their priority.
func tighten(ctx context.Context, c config, set, tmp string) (trial, error) {
	whole := trial{Machines: filepath.Join(c.data, set, "nodes.csv.gz"), Jobs: filepath.Join(c.data, set, "jobs.csv.gz")}
	t := trial{Set: set + tightly, Tight: set, Machines: filepath.Join(tmp, set+"-kept.csv"), Jobs: filepath.Join(tmp, set+"-ordered.csv")}
	machines, err := workload.ReadMachines(whole.Machines)
	if err != nil {
		return t, fmt.Errorf("%w; -data says where the sets are", err)
	}
	t.Of = len(machines)
	jobs, err := workload.ReadJobs(whole.Jobs)
	if err != nil {
		return t, err
	}
	slices.SortStableFunc(jobs, func(a, b workload.Job) int {
		return cmp.Or(compare(b.Prod, a.Prod), cmp.Compare(b.Prio, a.Prio), strings.Compare(a.ID, b.ID))
	})
	if err := writeJobs(t.Jobs, jobs); err != nil {
		return t, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit+grace)
	defer cancel()
	if _, _, err := output(ctx, filepath.Join(c.bin, "covey"), "simulate", "--compact",
		"--machines", whole.Machines, "--jobs", whole.Jobs, "--kept", t.Machines, "-o", "json"); err != nil {
		return t, fmt.Errorf("compacting %s: %w", set, err)
	}
	return t, nil
}

// compare puts true after false.
func compare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
