package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// SimulateFlags is what covey simulate is told.
type SimulateFlags struct {
	Machines, Jobs string   // files; .gz is unpacked
	Placements     string   // file to write
	Check          string   // file of placements to verify
	Policy         string   // covey, fgd, best-fit or spread
	State          string   // file of covey state export, in place of machines and jobs
	Kill, Remove   []string // machines, by id or ATTRIBUTE=VALUE
	Add            []string // files of machines, or numbers of them
	Grow           []string // JOB=INSTANCES

	OpenbMachines, OpenbTasks string // files of the GPU trace "openb"

	Compact bool   // how few machines would hold the load
	Trials  int    // of Compact
	Kept    string // of Compact: file to write, with the machines of the middle trial
	AtOnce  bool   // all jobs wait together before the first is placed
	Seed    uint64

	Until   time.Duration // let time pass for so long
	Events  string        // file of machines that fail and jobs that end
	MTBF    time.Duration // mean time between failures of a machine; 0: none fails by chance
	Repair  time.Duration // mean time until it returns
	Samples string        // file to write, as CSV
	HTML    string        // file to write, a page with plots

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

and, if you like, disk_mib; for machines also mode (NONE, SCHEDULED, DRAINING or
DRAINED) and avoid (0 or 1); for jobs also placement (best-fit or spread),
arrive_s and run_s.

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
			if err := f.idle(cmd.Flags().Changed); err != nil {
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
	fl.StringVar(&f.Policy, "policy", "covey", "covey, fgd, best-fit or spread: which of the machines that fit is best")
	_ = c.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions([]string{"covey", "fgd", "best-fit", "spread"}, cobra.ShellCompDirectiveNoFileComp))
	fl.StringVar(&f.State, "state", "", "file of covey state export, in place of machines and jobs")
	fl.StringArrayVar(&f.Kill, "kill", nil, "what if machines die: an id, or ATTRIBUTE=VALUE such as rack=r7 (may be given again)")
	fl.StringArrayVar(&f.Remove, "remove", nil, "what if machines are drained and taken out; as --kill")
	fl.StringArrayVar(&f.Add, "add", nil, "what if there were more machines: how many like the most common ones, or a file of them")
	fl.StringArrayVar(&f.Grow, "grow", nil, "what if a job had so many instances: JOB=INSTANCES")
	fl.StringVar(&f.OpenbMachines, "openb-machines", "", "node list of the GPU trace \"openb\": fill its machines with tasks and say how much of the GPUs is allocated")
	fl.StringVar(&f.OpenbTasks, "openb-tasks", "", "of --openb-machines: task list of the trace")
	fl.BoolVar(&f.Compact, "compact", false, "say how few machines would hold the load")
	fl.IntVar(&f.Trials, "trials", 11, "of --compact: random orders in which machines are taken away")
	fl.StringVar(&f.Kept, "kept", "", "of --compact: file to write with the machines that the middle trial kept, in the form of --machines")
	fl.BoolVar(&f.AtOnce, "at-once", false, "let all jobs come at the same time, instead of each when the one before has its places")
	fl.DurationVar(&f.Until, "until", 0, "let time pass for so long, such as 24h: jobs come at their arrive_s and run for run_s seconds")
	fl.StringVar(&f.Events, "events", "", "of --until: file of events: at_s,what,name; what is machine-down, machine-up or job-end")
	fl.DurationVar(&f.MTBF, "mtbf", 0, "of --until: machines fail by chance, this long after one another on average")
	fl.DurationVar(&f.Repair, "repair", time.Hour, "of --mtbf: for so long on average")
	fl.StringVar(&f.Samples, "samples", "", "of --until: file to write with what was held, ran and waited over time, as CSV")
	fl.StringVar(&f.HTML, "html", "", "of --until: file to write with the same as a page with plots")
	fl.Uint64Var(&f.Seed, "seed", 42, "what is drawn by chance begins with this number")
	fl.StringVar(&f.Check, "check", "", "verify this file of placements instead, by rules written apart from the scheduler")
	return c
}

// maxUntil bounds the time that may pass.
const maxUntil = 10 * 366 * 24 * time.Hour

// idle refuses flags that were given and that nothing of what is asked looks at.
func (f *SimulateFlags) idle(given func(flag string) bool) error {
	for _, x := range []struct {
		flag, of string
		used     bool
	}{
		{"trials", "--compact", f.Compact},
		{"repair", "--mtbf", f.MTBF > 0},
		{"policy", "a simulation, and --check makes none", f.Check == ""},
	} {
		if given(x.flag) && !x.used {
			return badCommand("--%s is of %s; leave it out", x.flag, x.of)
		}
	}
	return nil
}

// complete says which flags are missing or do not go together.
func (f *SimulateFlags) complete() error {
	files := f.Machines != "" || f.Jobs != ""
	openb := f.OpenbMachines != "" || f.OpenbTasks != ""
	switch {
	case openb && (f.OpenbMachines == "" || f.OpenbTasks == ""):
		return badCommand("--openb-machines and --openb-tasks go together")
	case openb && (files || f.State != "" || f.Compact || f.Until != 0 || f.Check != "" || f.Placements != "" || f.Kept != "" || f.AtOnce || f.Changes()):
		return badCommand("--openb-machines and --openb-tasks go with --seed and --policy alone")
	case openb:
		return nil
	case f.State != "" && files:
		return badCommand("--state does not go with --machines and --jobs: it holds both; add machines with --add")
	case f.State == "" && (f.Machines == "" || f.Jobs == ""):
		return badCommand("covey simulate needs --machines and --jobs, or --state; see covey simulate --help")
	case f.Check != "" && (f.Placements != "" || f.State != "" || f.Changes()):
		return badCommand("--check reads a file of placements, and goes with --machines and --jobs alone")
	case f.Compact && (f.Check != "" || f.Placements != "" || f.Changes()):
		return badCommand("--compact goes with --machines and --jobs, or with --state, alone")
	case f.Kept != "" && (!f.Compact || f.State != ""):
		return badCommand("--kept goes with --compact, --machines and --jobs")
	case f.AtOnce && (f.State != "" || f.Compact || f.Until != 0 || f.Check != "" || f.Changes()):
		return badCommand("--at-once goes with --machines and --jobs alone, and with --placements; --compact always has all jobs come at once")
	case f.Until != 0 && (f.Compact || f.State != "" || f.Check != "" || f.Placements != "" || f.Changes()):
		return badCommand("--until goes with --machines and --jobs alone; --events says what happens to them")
	case f.Until == 0 && (f.Events != "" || f.MTBF != 0 || f.Samples != "" || f.HTML != ""):
		return badCommand("--events, --mtbf, --samples and --html need --until, the time that is to pass")
	case f.Until < 0 || f.Until > 0 && (f.Until < time.Second || f.Until > maxUntil):
		return badParameter("--until %v; want 1s to %v", f.Until, maxUntil)
	case f.MTBF < 0 || f.MTBF > 0 && f.MTBF < time.Second || f.Repair < time.Second:
		return badParameter("--mtbf %v and --repair %v; want a second or more", f.MTBF, f.Repair)
	case f.Trials < 1 || f.Trials > 1000:
		return badParameter("--trials %d; want 1 to 1000", f.Trials)
	}
	return nil
}
