package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/job"
)

func (a *app) jobFit() *cobra.Command {
	var binds []string
	var instances int32
	c := &cobra.Command{
		Use: "fit FILE [KEY]", Short: "Say whether a job would find room now, and why not; nothing is started", Args: between(1, 2),
		Long: `Say what would become of a job if it were created now: how many of its
instances would find a machine, why the others would wait, and which tasks would
be stopped to make room. Nothing is started and nothing is kept. If there is
such a job already, its tasks are taken as ended first.

KEY says which job of the file is meant, if it has more than one.`,
		Example: "  covey job fit examples/hello_world.aurora --instances 500",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("instances") && (instances < 1 || instances > job.MaxInstances) {
				return badParameter("--instances %d; want 1 to %d", instances, job.MaxInstances)
			}
			key := ""
			if len(args) == 2 {
				key = args[1]
				if err := a.keyOf(cmd, here, args[0], key, binds); err != nil {
					return err
				}
			}
			res, err := a.collect(cmd, here, args[0], key, binds)
			if err != nil {
				return err
			}
			if key == "" {
				var keys []string
				for _, j := range res.Jobs {
					keys = append(keys, j.Cluster+"/"+j.Key)
				}
				if len(keys) != 1 {
					return badParameter("%s has %s; say which one after the file: %s", args[0], many(len(keys), "job"), strings.Join(keys, ", "))
				}
				if key = keys[0]; res.Jobs[0].Error != "" {
					return exitf(InvalidConfig, "%s", res.Jobs[0].Error)
				}
			}
			c, err := a.dialKey(key)
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.jobs.FitJob, &pb.FitJobRequest{
				Key: key, Main: mainOf(args[0], res), Files: res.Files, Binds: binds, User: a.env.User, Instances: instances,
			})
			if err != nil {
				return ofConfig(cmd.Context(), err)
			}
			if err = a.print(cmd, fitOf(r), func(w io.Writer) { fitTable(w, r) }); err != nil {
				return err
			}
			if r.GetRefused() != "" {
				return exitf(CommandFailed, "the job would be refused: %s", r.GetRefused())
			}
			if r.GetFits() < r.GetInstances() {
				return exitf(CommandFailed, "%s of %d would wait", many(int(r.GetInstances()-r.GetFits()), "instance"), r.GetInstances())
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&binds, "bind", nil, "bind a template variable: NAME=VALUE (may be given again)")
	c.Flags().Int32Var(&instances, "instances", 0, "so many instances, in place of what the file says")
	return c
}

type fitJSON struct {
	Key       string         `json:"key"`
	Instances int32          `json:"instances"`
	Fits      int32          `json:"fits"`
	Waits     int32          `json:"waits"`
	Replaces  bool           `json:"replaces"`
	Refused   string         `json:"refused,omitempty"`
	Why       *explainJSON   `json:"why,omitempty"`
	Machines  map[string]int `json:"machines"`
	Stopped   []stoppedJSON  `json:"stopped"`
	Stops     int32          `json:"stops"`
}

type stoppedJSON struct {
	Task   string `json:"id"`
	Tier   string `json:"tier"`
	Reason string `json:"reason"`
}

func fitOf(r *pb.FitJobResponse) fitJSON {
	v := fitJSON{
		Key: r.GetKey(), Instances: r.GetInstances(), Fits: r.GetFits(), Waits: r.GetInstances() - r.GetFits(),
		Replaces: r.GetReplaces(), Refused: r.GetRefused(), Machines: map[string]int{}, Stopped: []stoppedJSON{}, Stops: r.GetStops(),
	}
	if x := r.GetWaits(); x != nil {
		e := explainOf(x)
		v.Why = &e
	}
	for _, m := range r.GetMachines() {
		v.Machines[m.GetMachine()] = int(m.GetTasks())
	}
	for _, s := range r.GetStopped() {
		v.Stopped = append(v.Stopped, stoppedJSON{s.GetTaskId(), s.GetTier(), s.GetReason()})
	}
	return v
}

func fitTable(w io.Writer, r *pb.FitJobResponse) {
	const most = 10
	_, _ = fmt.Fprintf(w, "%s: %d of %s would run now\n", printable(r.GetKey()), r.GetFits(), many(int(r.GetInstances()), "instance"))
	if r.GetReplaces() {
		_, _ = fmt.Fprintln(w, "the tasks that the job has now are taken as ended first")
	}
	for i, m := range r.GetMachines() {
		if i == most {
			_, _ = fmt.Fprintf(w, "  and on more machines\n")
			break
		}
		_, _ = fmt.Fprintf(w, "  on %s: %d\n", printable(m.GetMachine()), m.GetTasks())
	}
	if r.GetStops() > 0 {
		_, _ = fmt.Fprintf(w, "%s would be stopped to make room\n", many(int(r.GetStops()), "task"))
		for i, s := range r.GetStopped() {
			if i == most {
				_, _ = fmt.Fprintf(w, "  and others\n")
				break
			}
			_, _ = fmt.Fprintf(w, "  %s (%s): %s\n", printable(s.GetTaskId()), printable(s.GetTier()), printable(s.GetReason()))
		}
	}
	if x := r.GetWaits(); x != nil {
		_, _ = fmt.Fprintf(w, "the others would wait: %s\n", printable(x.GetText()))
		explainRows(w, x)
	}
}
