package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// SimulateFlags is what covey simulate is told.
type SimulateFlags struct {
	Machines, Jobs string   // files; .gz is unpacked
	Placements     string   // file to write
	Check          string   // file of placements to verify
	State          string   // file of covey state export, in place of machines and jobs
	Kill, Remove   []string // machines, by id or ATTRIBUTE=VALUE
	Add            []string // files of machines, or numbers of them
	Grow           []string // JOB=INSTANCES

	Note func(string) // to be told what is worth knowing and no failure
}

// Changes reports whether the cluster is to be changed before it is judged.
func (f *SimulateFlags) Changes() bool {
	return len(f.Kill)+len(f.Remove)+len(f.Add)+len(f.Grow) > 0
}

// Simulated is what covey simulate found.
type Simulated struct {
	JSON   any
	Table  func(io.Writer)
	Failed string // it did not turn out well, for this reason; empty: it did
}

func (a *app) simulate() *cobra.Command {
	var f SimulateFlags
	c := &cobra.Command{
		Use: "simulate", Short: "Say what would happen: what fits, what waits and why", GroupID: "pool", Args: exactly(0),
		Long: `Places jobs on machines in memory, with the scheduler of a real cluster and
without a server, and says what fits, what waits and why, and how fast it went.

Machines and jobs are CSV files, plain or packed by gzip, whose first line names
the columns:

  machines  id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen
  jobs      id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host

With --state it begins with a copy of a live cluster. --kill, --remove, --add
and --grow say what would become of either if it changed.`,
		Example: `  covey simulate --machines examples/simulate/machines.csv --jobs examples/simulate/jobs.csv
  covey simulate --machines F --jobs F --placements out.csv
  covey simulate --machines F --jobs F --check out.csv
  covey state export west.state && covey simulate --state west.state --kill rack=r7`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.complete(); err != nil {
				return err
			}
			f.Note = func(s string) { _, _ = fmt.Fprintln(cmd.ErrOrStderr(), "note: "+printable(s)) }
			r, err := a.env.Simulate(cmd.Context(), f)
			if err != nil {
				return err
			}
			if err = a.print(cmd, r.JSON, r.Table); err != nil {
				return err
			}
			if r.Failed != "" {
				return exitf(CommandFailed, "%s", r.Failed)
			}
			return nil
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.Machines, "machines", "", "file of machines")
	fl.StringVar(&f.Jobs, "jobs", "", "file of jobs, in order of arrival")
	fl.StringVar(&f.Placements, "placements", "", "file to write with each task and its machine: task,machine")
	fl.StringVar(&f.State, "state", "", "file of covey state export, in place of machines and jobs")
	fl.StringArrayVar(&f.Kill, "kill", nil, "what if machines die: an id, or ATTRIBUTE=VALUE such as rack=r7 (may be given again)")
	fl.StringArrayVar(&f.Remove, "remove", nil, "what if machines are drained and taken out; as --kill")
	fl.StringArrayVar(&f.Add, "add", nil, "what if there were more machines: how many like the most common ones, or a file of them")
	fl.StringArrayVar(&f.Grow, "grow", nil, "what if a job had so many instances: JOB=INSTANCES")
	fl.StringVar(&f.Check, "check", "", "verify this file of placements instead, by rules written apart from the scheduler")
	return c
}

// complete says which flags are missing or do not go together.
func (f *SimulateFlags) complete() error {
	files := f.Machines != "" || f.Jobs != ""
	switch {
	case f.State != "" && files:
		return badCommand("--state does not go with --machines and --jobs: it holds both; add machines with --add")
	case f.State == "" && (f.Machines == "" || f.Jobs == ""):
		return badCommand("covey simulate needs --machines and --jobs, or --state; see covey simulate --help")
	case f.Check != "" && (f.Placements != "" || f.State != "" || f.Changes()):
		return badCommand("--check reads a file of placements, and goes with --machines and --jobs alone")
	}
	return nil
}
