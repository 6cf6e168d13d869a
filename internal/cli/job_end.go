package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/job"
)

// endFlags is what commands that end tasks have in common.
type endFlags struct {
	message string
	wait    bool
	limit   time.Duration
}

func (f *endFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.message, "message", "m", "", "why, for people")
	c.Flags().BoolVar(&f.wait, "wait", false, "wait until the tasks have ended")
	timeout(c.Flags(), &f.limit, 5*time.Minute)
}

func (a *app) jobKill() *cobra.Command {
	var f endFlags
	c := &cobra.Command{
		Use: "kill KEY[/INSTANCES]", Short: "End instances of a job, such as KEY/0,3-5; without instances the whole job", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, instances, err := split(args[0])
			if err != nil {
				return err
			}
			return a.kill(cmd, key, instances, f)
		},
	}
	f.add(c)
	return c
}

func (a *app) jobKillAll() *cobra.Command {
	var f endFlags
	c := &cobra.Command{
		Use: "killall KEY", Short: "End a whole job", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, instances, err := split(args[0])
			if err == nil && instances != "" {
				err = badParameter("killall ends the whole job; covey job kill %s ends instances %s", args[0], instances)
			}
			if err != nil {
				return err
			}
			return a.kill(cmd, key, "", f)
		},
	}
	f.add(c)
	return c
}

func (a *app) kill(cmd *cobra.Command, key, instances string, f endFlags) error {
	c, err := a.dialKey(key)
	if err != nil {
		return err
	}
	r, err := ask(cmd.Context(), c.jobs.KillJob, &pb.KillJobRequest{Key: key, Instances: instances, Message: f.message})
	if f.wait && err != nil && connect.CodeOf(err) == connect.CodeNotFound {
		if n := c.ending(cmd.Context(), key, instances); n > 0 { // somebody killed them before
			r, err = &pb.KillJobResponse{Tasks: n}, nil
		}
	}
	if err != nil {
		return err
	}
	if f.wait {
		if err = a.awaitEnd(cmd, c, key, instances, f.limit); err != nil {
			return err
		}
	}
	err = a.print(cmd, struct {
		Job     string `json:"job"`
		Tasks   int32  `json:"tasks"`
		Missing string `json:"missing,omitempty"`
	}{key, r.GetTasks(), r.GetMissing()}, func(w io.Writer) {
		how, one := "are ending", r.GetTasks() == 1
		switch {
		case f.wait && one:
			how = "has ended"
		case f.wait:
			how = "have ended"
		case one:
			how = "is ending"
		}
		_, _ = fmt.Fprintf(w, "%s: %s %s\n", key, many(int(r.GetTasks()), "task"), how)
	})
	if m := r.GetMissing(); err == nil && m != "" {
		err = exitf(CommandFailed, "job %s has no instance %s; the others that were named are killed", key, m)
	}
	return err
}

// ending counts the tasks of some instances that are being ended, if the
// server says.
func (c *client) ending(ctx context.Context, key, instances string) int32 {
	r, err := ask(ctx, c.jobs.GetJob, &pb.GetJobRequest{Key: key})
	if err != nil {
		return 0
	}
	return endingOf(r, instances)
}

// endingOf counts the tasks of some instances that are being ended; no
// instances means all.
func endingOf(r *pb.GetJobResponse, instances string) (n int32) {
	some, _ := job.ParseRanges(instances)
	for _, t := range r.GetTasks() {
		if t.GetStatus() == "KILLING" && (instances == "" || some.Has(t.GetInstance())) {
			n++
		}
	}
	return n
}

// awaitEnd waits until no task of some instances lives.
func (a *app) awaitEnd(cmd *cobra.Command, c *client, key, instances string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	p := a.progress(cmd)
	defer p.end()
	for {
		r, err := ask(ctx, c.jobs.GetJob, &pb.GetJobRequest{Key: key})
		if connect.CodeOf(err) == connect.CodeNotFound && err != nil {
			return nil
		}
		if ctx.Err() != nil && cmd.Context().Err() == nil {
			return exitf(TimedOut, "%s has tasks that have not ended after %v; they are still being ended", key, limit)
		}
		if err != nil {
			return err
		}
		left := endingOf(r, instances)
		if left == 0 {
			return nil
		}
		p.show(fmt.Sprintf("%s: %s ending", key, many(int(left), "task")))
		select {
		case <-ctx.Done():
		case <-time.After(lookPause):
		}
	}
}

func (a *app) jobRestart() *cobra.Command {
	var message string
	var batch int
	var limit time.Duration
	c := &cobra.Command{
		Use: "restart KEY[/INSTANCES]", Short: "Replace running tasks by new ones, a batch at a time", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, instances, err := split(args[0])
			switch {
			case err != nil:
				return err
			case batch < 1 || batch > job.MaxInstances:
				return badParameter("--batch-size %d; want 1 to %d", batch, job.MaxInstances)
			case limit <= 0:
				return badParameter("--timeout %v; want more than 0", limit)
			}
			return a.restart(cmd, key, instances, message, batch, limit)
		},
	}
	c.Flags().StringVarP(&message, "message", "m", "", "why, for people")
	c.Flags().IntVar(&batch, "batch-size", 1, "replace so many at a time; the next ones when these are RUNNING")
	timeout(c.Flags(), &limit, 5*time.Minute)
	return c
}

func (a *app) restart(cmd *cobra.Command, key, instances, message string, batch int, limit time.Duration) error {
	c, err := a.dialKey(key)
	if err != nil {
		return err
	}
	r, err := ask(cmd.Context(), c.jobs.GetJob, &pb.GetJobRequest{Key: key})
	if err != nil {
		return err
	}
	some, err := restarted(r, key, instances)
	if err != nil {
		return err
	}
	p := a.progress(cmd)
	defer p.end()
	total := 0
	for len(some) > 0 {
		now := some[:min(batch, len(some))]
		some = some[len(now):]
		n, err := a.restartBatch(cmd, c, key, message, now, limit, p)
		if err != nil {
			p.end()
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "covey: %s: %s replaced, %d not begun\n", key, many(total, "task"), len(some))
			return err
		}
		total += n
	}
	p.end()
	return a.print(cmd, struct {
		Job   string `json:"job"`
		Tasks int    `json:"tasks"`
	}{key, total}, func(w io.Writer) { _, _ = fmt.Fprintf(w, "%s: %s replaced\n", key, many(total, "task")) })
}

// restarted lists the tasks that a restart is about. Those of instances that
// were killed, and are still ending, are not the job's any more.
func restarted(r *pb.GetJobResponse, key, instances string) ([]*pb.Task, error) {
	if r.GetJob().GetInstances() == "" {
		return nil, badParameter("job %s is killed, and its last tasks (%d) are still being ended: nothing is left to restart", key, len(r.GetTasks()))
	}
	have, err := job.ParseRanges(r.GetJob().GetInstances())
	if err != nil {
		return nil, err
	}
	some := have
	if instances != "" {
		if some, err = job.ParseRanges(instances); err != nil {
			return nil, err
		}
	}
	if over := some.Without(have); len(over) > 0 {
		return nil, badParameter("job %s has no instance %v; it has %v", key, over, have)
	}
	var out []*pb.Task
	for _, t := range r.GetTasks() {
		if some.Has(t.GetInstance()) {
			out = append(out, t)
		}
	}
	return out, nil
}

// restartBatch replaces some tasks and waits until their successors run.
func (a *app) restartBatch(cmd *cobra.Command, c *client, key, message string, now []*pb.Task, limit time.Duration, p *progress) (int, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	old := map[int32]*pb.Task{}
	var list job.Ranges
	for _, t := range now {
		old[t.GetInstance()] = t
		list = append(list, job.Range{From: t.GetInstance(), To: t.GetInstance()})
	}
	res, err := ask(ctx, c.jobs.RestartJob, &pb.RestartJobRequest{Key: key, Instances: list.String(), Message: message})
	if err != nil || res.GetTasks() == 0 {
		return 0, err // what was not running is not replaced
	}
	for {
		r, err := ask(ctx, c.jobs.GetJob, &pb.GetJobRequest{Key: key})
		if ctx.Err() != nil && cmd.Context().Err() == nil {
			return 0, exitf(TimedOut, "instances %v of %s are not RUNNING again after %v; see covey job status %s", list, key, limit, key)
		}
		if err != nil {
			return 0, err
		}
		left := 0
		for _, t := range r.GetTasks() {
			before, mine := old[t.GetInstance()]
			if !mine {
				continue
			}
			fresh := t.GetId() != before.GetId()
			if why := hopeless(t, limited(r.GetJob())); fresh && why != "" && (t.GetStatus() != "THROTTLED" || t.GetFailures() > before.GetFailures()) {
				return 0, a.badEnd(cmd, c, key, verdict{bad: t, why: why})
			}
			if !fresh || t.GetStatus() != "RUNNING" && t.GetStatus() != "FINISHED" {
				left++
			}
		}
		if left == 0 {
			return int(res.GetTasks()), nil
		}
		p.show(fmt.Sprintf("%s: restarting %v, %d to go", key, list, left))
		select {
		case <-ctx.Done():
		case <-time.After(lookPause):
		}
	}
}
