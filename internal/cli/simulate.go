package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// SimulateFlags is what covey simulate is told.
type SimulateFlags struct {
	Machines, Jobs string // files; .gz is unpacked
	Placements     string // file to write
	Check          string // file of placements to verify
	Policy         string

	Note func(string) // to be told what is worth knowing and no failure
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
  jobs      id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host`,
		Example: `  covey simulate --machines examples/simulate/machines.csv --jobs examples/simulate/jobs.csv
  covey simulate --machines F --jobs F --placements out.csv
  covey simulate --machines F --jobs F --check out.csv`,
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
	fl.StringVar(&f.Check, "check", "", "verify this file of placements instead, by rules written apart from the scheduler")
	return c
}

// complete says which flags are missing or do not go together.
func (f *SimulateFlags) complete() error {
	switch {
	case f.Machines == "" || f.Jobs == "":
		return badCommand("covey simulate needs --machines and --jobs; see covey simulate --help")
	case f.Check != "" && f.Placements != "":
		return badCommand("--check and --placements do not go together: the one reads placements, the other writes them")
	}
	return nil
}
