package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/job"
)

// askLimit bounds one question to a server.
const askLimit = time.Minute

// ask calls a procedure and returns its answer.
func ask[Req, Resp any](ctx context.Context, f func(context.Context, *connect.Request[Req]) (*connect.Response[Resp], error), m *Req) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	r, err := f(ctx, connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (a *app) jobs() *cobra.Command {
	return group("work", "job", "Create, show and end jobs",
		a.jobCreate(), a.jobInspect(), a.jobStatus(), a.jobList(), a.jobKill(), a.jobKillAll(), a.jobRestart(), a.jobExplain(), a.jobFit())
}

// split reads KEY or KEY/INSTANCES.
func split(s string) (key, instances string, err error) {
	parts := strings.SplitN(s, "/", 5)
	if len(parts) == 5 {
		instances = parts[4]
		if _, err = job.ParseRanges(instances); err != nil {
			return "", "", err
		}
		s = strings.Join(parts[:4], "/")
	}
	_, _, err = job.ParseKey(s)
	return s, instances, err
}

// jobJSON is a job as commands print it.
type jobJSON struct {
	Key        string          `json:"key"`
	Instances  string          `json:"instances,omitempty"`
	ConfigHash string          `json:"config_hash,omitempty"`
	Created    string          `json:"created,omitempty"`
	Updated    string          `json:"updated,omitempty"`
	By         string          `json:"by,omitempty"`
	Config     json.RawMessage `json:"config,omitempty"`
}

func jobOf(j *pb.Job) jobJSON {
	out := jobJSON{
		Key: j.GetKey(), Instances: j.GetInstances(), ConfigHash: j.GetConfigHash(),
		Created: moment(j.GetCreatedUnixNanos()), Updated: moment(j.GetUpdatedUnixNanos()), By: j.GetBy(),
	}
	if json.Valid(j.GetConfigJson()) {
		out.Config = j.GetConfigJson()
	}
	return out
}

// taskJSON is a task as commands print it.
type taskJSON struct {
	ID        string            `json:"id"`
	Instance  int32             `json:"instance"`
	Status    string            `json:"status"`
	Machine   string            `json:"machine"`
	Reason    string            `json:"reason"`
	Since     string            `json:"since,omitempty"`
	Created   string            `json:"created,omitempty"`
	Ran       string            `json:"ran,omitempty"`
	Host      string            `json:"host,omitempty"`
	Ports     map[string]uint32 `json:"ports,omitempty"`
	Resources *resourcesJSON    `json:"resources,omitempty"`
	Failures  int32             `json:"failures"`
	Config    string            `json:"config_hash,omitempty"`
}

type resourcesJSON struct {
	CPUMilli  int64 `json:"cpu_milli"`
	RAMBytes  int64 `json:"ram_bytes"`
	DiskBytes int64 `json:"disk_bytes"`
	GPUMilli  int64 `json:"gpu_milli"`
	NetBPS    int64 `json:"net_bps"`
}

func resourcesOf(r *pb.Resources) *resourcesJSON {
	if r == nil {
		return nil
	}
	return &resourcesJSON{r.GetCpuMilli(), r.GetRamBytes(), r.GetDiskBytes(), r.GetGpuMilli(), r.GetNetBps()}
}

func tasksOf(ts []*pb.Task) []taskJSON {
	out := []taskJSON{}
	for _, t := range ts {
		out = append(out, taskJSON{
			ID: t.GetId(), Instance: t.GetInstance(), Status: t.GetStatus(), Machine: t.GetMachine(), Reason: t.GetReason(),
			Since: moment(t.GetSinceUnixNanos()), Created: moment(t.GetCreatedUnixNanos()), Ran: moment(t.GetRanUnixNanos()),
			Host: t.GetHost(), Ports: t.GetPorts(), Resources: resourcesOf(t.GetResources()), Failures: t.GetFailures(),
			Config: t.GetConfigHash(),
		})
	}
	return out
}

// tasksTable prints tasks for people.
func tasksTable(w io.Writer, ts []*pb.Task) {
	var rows [][]string
	for _, t := range ts {
		where := []string{t.GetMachine()}
		for _, n := range slices.Sorted(maps.Keys(t.GetPorts())) {
			where = append(where, n+"="+net.JoinHostPort(t.GetHost(), fmt.Sprint(t.GetPorts()[n])))
		}
		rows = append(rows, []string{
			fmt.Sprint(t.GetInstance()), t.GetStatus(), ago(t.GetSinceUnixNanos()), strings.Join(where, " "), t.GetId(), t.GetReason(),
		})
	}
	table(w, []string{"INSTANCE", "STATUS", "FOR", "WHERE", "TASK", "REASON"}, rows)
}

func (a *app) jobStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status KEY", Short: "Show a job's tasks: one line for each instance", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dialKey(args[0])
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.jobs.GetJob, &pb.GetJobRequest{Key: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, struct {
				Job   jobJSON    `json:"job"`
				Tasks []taskJSON `json:"tasks"`
			}{jobOf(r.GetJob()), tasksOf(r.GetTasks())}, func(w io.Writer) { tasksTable(w, r.GetTasks()) })
		},
	}
}

// summaryJSON is a job in a list.
type summaryJSON struct {
	Key       string           `json:"key"`
	Instances int32            `json:"instances"`
	Tasks     map[string]int32 `json:"tasks"`
	Service   bool             `json:"service"`
	Tier      string           `json:"tier"`
}

func (a *app) jobList() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "list [FILTER]", Short: "List jobs: cluster, cluster/role, cluster/role/env or a key, with patterns such as dev/*/prod/web-*", Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > maxList {
				return badParameter("--limit %d; want 1 to %d", limit, maxList)
			}
			filter, want := "", ""
			if len(args) > 0 {
				filter = args[0]
				if want, _, _ = strings.Cut(filter, "/"); strings.ContainsAny(want, "*?[") {
					want = ""
				}
			}
			c, err := a.dial(want)
			if err != nil {
				return err
			}
			return a.listJobs(cmd, c, filter, limit)
		},
	}
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	return c
}

func (a *app) listJobs(cmd *cobra.Command, c *client, filter string, limit int) error {
	jobs := []summaryJSON{}
	rows := [][]string{}
	page := ""
	for {
		n := min(limit-len(jobs), 1000)
		r, err := ask(cmd.Context(), c.jobs.ListJobs, &pb.ListJobsRequest{Filter: filter, Limit: int32(n), Page: page})
		if err != nil {
			return err
		}
		for _, j := range r.GetJobs() {
			s := summaryJSON{j.GetKey(), j.GetInstances(), j.GetTasks(), j.GetService(), j.GetTier()}
			if s.Tasks == nil {
				s.Tasks = map[string]int32{}
			}
			jobs = append(jobs, s)
			kind := "ad hoc"
			if j.GetService() {
				kind = "service"
			}
			rows = append(rows, []string{j.GetKey(), kind, j.GetTier(), fmt.Sprint(j.GetInstances()), states(j.GetTasks())})
		}
		page = r.GetNextPage()
		if page == "" || len(jobs) >= limit {
			break
		}
	}
	return a.print(cmd, struct {
		Jobs []summaryJSON `json:"jobs"`
		More bool          `json:"more"`
	}{jobs, page != ""}, func(w io.Writer) {
		table(w, []string{"JOB", "KIND", "TIER", "INSTANCES", "TASKS"}, rows)
		if page != "" {
			_, _ = fmt.Fprintf(w, "... and more; see --limit\n")
		}
	})
}

// maxList bounds what a list command shows.
const maxList = 100_000

// states writes "3 RUNNING, 1 PENDING".
func states(by map[string]int32) string {
	var parts []string
	for _, s := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%d %s", by[s], s))
	}
	return strings.Join(parts, ", ")
}

func (a *app) jobExplain() *cobra.Command {
	return &cobra.Command{
		Use: "explain KEY", Short: "Say why instances wait: what rules machines out, and the nearest fit", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dialKey(args[0])
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.jobs.ExplainJob, &pb.ExplainJobRequest{Key: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, explanationOf(r), func(w io.Writer) { explainTable(w, r) })
		},
	}
}

// explainJSON is why an instance waits, or where it is.
type explainJSON struct {
	Task     string        `json:"id"`
	Instance int32         `json:"instance"`
	Status   string        `json:"status"`
	Text     string        `json:"text"`
	Verdicts []verdictJSON `json:"verdicts"`
	Nearest  *nearestJSON  `json:"nearest,omitempty"`
	Machines []nearestJSON `json:"machines,omitempty"`
}

type verdictJSON struct {
	Reason   string `json:"reason"`
	Machines int32  `json:"machines"`
}

type nearestJSON struct {
	Machine string   `json:"machine"`
	Lacks   []string `json:"lacks"`
}

func explanationOf(r *pb.ExplainJobResponse) any {
	out := []explainJSON{}
	for _, x := range r.GetInstances() {
		out = append(out, explainOf(x))
	}
	return struct {
		Instances []explainJSON `json:"instances"`
	}{out}
}

func explainOf(x *pb.InstanceExplanation) explainJSON {
	e := explainJSON{x.GetTaskId(), x.GetInstance(), x.GetStatus(), x.GetText(), []verdictJSON{}, nil, nil}
	for _, v := range x.GetVerdicts() {
		e.Verdicts = append(e.Verdicts, verdictJSON{v.GetReason(), v.GetMachines()})
	}
	if x.GetNearestMachine() != "" {
		e.Nearest = &nearestJSON{x.GetNearestMachine(), x.GetNearestLacks()}
	}
	for _, m := range x.GetMachines() {
		e.Machines = append(e.Machines, nearestJSON{m.GetMachine(), m.GetLacks()})
	}
	return e
}

func explainTable(w io.Writer, r *pb.ExplainJobResponse) {
	for _, x := range r.GetInstances() {
		line := x.GetText()
		if !strings.HasPrefix(line, x.GetStatus()) { // a text may begin with it
			line = x.GetStatus() + "  " + line
		}
		_, _ = fmt.Fprintf(w, "%d  %s\n", x.GetInstance(), printable(line))
		explainRows(w, x)
	}
}

// explainRows says what rules machines out.
func explainRows(w io.Writer, x *pb.InstanceExplanation) {
	for _, v := range x.GetVerdicts() {
		_, _ = fmt.Fprintf(w, "     %s: %s\n", many(int(v.GetMachines()), "machine"), printable(v.GetReason()))
	}
	if m := x.GetNearestMachine(); m != "" && len(x.GetNearestLacks()) > 0 {
		_, _ = fmt.Fprintf(w, "     nearest fit is %s: %s\n", printable(m), printable(strings.Join(x.GetNearestLacks(), "; ")))
	}
	for _, m := range x.GetMachines() {
		why := strings.Join(m.GetLacks(), "; ")
		_, _ = fmt.Fprintf(w, "       %s: %s\n", printable(m.GetMachine()), printable(first(why, "fits")))
	}
}
