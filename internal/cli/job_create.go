package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/cli/evaluate"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
)

// collect evaluates a configuration file here, in a child process, with the
// files that it includes.
func (a *app) collect(cmd *cobra.Command, run evaluator, file, key string, binds []string) (evaluate.Result, error) {
	for _, b := range binds {
		if n, _, ok := strings.Cut(b, "="); !ok || n == "" {
			return evaluate.Result{}, badParameter("--bind %.80q; want NAME=VALUE, such as --bind profile.instances=3", b)
		}
	}
	r := evaluate.Request{Main: file, Dir: a.env.Dir, User: a.env.User, Binds: binds, Key: key}
	if key != "" {
		r.Cluster, _, _ = strings.Cut(key, "/")
	}
	res, err := run(cmd.Context(), r)
	if k := fault.Of(err); err != nil && (k == fault.Invalid || k == fault.NotFound) {
		return res, &exit{InvalidConfig, err}
	}
	if err == nil && len(res.Hooks) > 0 {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "covey: the client hooks of %s are not run: %s\n", printable(file), printable(strings.Join(res.Hooks, ", ")))
	}
	return res, err
}

// keyOf returns what is wrong with the key of a job of a file. Where the file
// has that very job, with a part missing or wrong, it is what is wrong with the
// file, which shows the line.
func (a *app) keyOf(cmd *cobra.Command, run evaluator, file, key string, binds []string) error {
	_, _, err := job.ParseKey(key)
	if err == nil {
		return nil
	}
	res, other := a.collect(cmd, run, file, "", binds)
	if other != nil {
		return err
	}
	for _, j := range res.Jobs {
		if j.Error != "" && j.Cluster+"/"+j.Key == key {
			return exitf(InvalidConfig, "%s", j.Error)
		}
	}
	return err
}

// An evaluator works out what a configuration says.
type evaluator func(context.Context, evaluate.Request) (evaluate.Result, error)

// child evaluates in a process with limits of its own.
func (a *app) child(ctx context.Context, r evaluate.Request) (evaluate.Result, error) {
	return evaluate.Run(ctx, a.env.Executable, r)
}

// here evaluates in this process, which is faster. It is enough to find out
// which files to send: only what the server makes of them counts.
func here(_ context.Context, r evaluate.Request) (evaluate.Result, error) {
	return evaluate.Evaluate(r)
}

func (a *app) jobCreate() *cobra.Command {
	var binds []string
	var wait bool
	var until string
	var limit time.Duration
	c := &cobra.Command{
		Use: "create KEY FILE", Short: "Create a job from a configuration file",
		Long: `Create a job from a configuration file. The command returns when the job is
accepted: from then on it is not lost. With --wait it goes on until every
instance is RUNNING, or until it is certain that this will not be; then it
shows the last lines of the log and exits with code 4.`,
		Example: "  covey job create dev/www-data/prod/hello examples/hello_world.aurora --wait",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait && until == "" {
				until = "RUNNING"
			}
			if until = strings.ToUpper(until); until != "" && !slices.Contains(waitStates, until) {
				return badParameter("--wait-until %.40q; want PENDING, RUNNING or FINISHED", until)
			}
			if limit <= 0 {
				return badParameter("--timeout %v; want more than 0", limit)
			}
			return a.create(cmd, args[0], args[1], binds, until, limit)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&binds, "bind", nil, "bind a template variable: NAME=VALUE (may be given again)")
	f.BoolVar(&wait, "wait", false, "wait until every instance is RUNNING")
	f.StringVar(&until, "wait-until", "", "wait until every instance is PENDING, RUNNING or FINISHED")
	timeout(f, &limit, 5*time.Minute)
	_ = c.RegisterFlagCompletionFunc("wait-until", cobra.FixedCompletions(waitStates, cobra.ShellCompDirectiveNoFileComp))
	return c
}

var waitStates = []string{"PENDING", "RUNNING", "FINISHED"}

func (a *app) create(cmd *cobra.Command, key, file string, binds []string, until string, limit time.Duration) error {
	if err := a.keyOf(cmd, here, file, key, binds); err != nil {
		return err
	}
	c, err := a.dialKey(key)
	if err != nil {
		return err
	}
	res, err := a.collect(cmd, here, file, key, binds)
	if err != nil {
		return err
	}
	r, err := a.submit(cmd, c, key, file, binds, res)
	if err != nil {
		return err
	}
	if until == "" || until == "PENDING" {
		return a.print(cmd, struct {
			Job jobJSON `json:"job"`
		}{jobOf(r.GetJob())}, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "%s is accepted: instances %s\nsee covey job status %s\n", key, r.GetJob().GetInstances(), key)
		})
	}
	return a.await(cmd, c, key, until, limit, r.GetSeq())
}

// mainOf returns the name under which a file that was named was collected.
func mainOf(file string, res evaluate.Result) string {
	if _, ok := res.Files[file]; ok {
		return file
	}
	for n := range res.Files {
		if strings.TrimPrefix(n, "./") == strings.TrimPrefix(pathClean(file), "./") {
			return n
		}
	}
	return file
}

// submit sends a bundle.
func (a *app) submit(cmd *cobra.Command, c *client, key, file string, binds []string, res evaluate.Result) (*pb.CreateJobResponse, error) {
	r, err := ask(cmd.Context(), c.jobs.CreateJob, &pb.CreateJobRequest{
		Key: key, Main: mainOf(file, res), Files: res.Files, Binds: binds, User: a.env.User,
	})
	return r, ofConfig(cmd.Context(), err)
}

// ofConfig gives what a server finds wrong with a bundle the exit code of a bad
// configuration.
func ofConfig(ctx context.Context, err error) error {
	if err != nil && exitCode(ctx, err) == InvalidParameter {
		return &exit{InvalidConfig, err}
	}
	return err
}

func (a *app) jobInspect() *cobra.Command {
	var binds []string
	var raw bool
	c := &cobra.Command{
		Use: "inspect KEY FILE", Short: "Show what a configuration file says of a job; asks no server", Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.keyOf(cmd, a.child, args[1], args[0], binds); err != nil {
				return err
			}
			res, err := a.collect(cmd, a.child, args[1], args[0], binds)
			if err != nil {
				return err
			}
			j := res.Jobs[0]
			if raw {
				return a.rawJSON(cmd, j.Raw)
			}
			enc, err := j.Job.Config.Encode()
			if err != nil {
				return err
			}
			v := jobJSON{
				Key: j.Cluster + "/" + j.Key, Instances: j.Job.Instances.String(),
				ConfigHash: job.HashOf(enc).String(), Config: enc,
			}
			return a.print(cmd, struct {
				Job jobJSON `json:"job"`
			}{v}, func(w io.Writer) { inspectTable(w, v, j.Job) })
		},
	}
	c.Flags().StringArrayVar(&binds, "bind", nil, "bind a template variable: NAME=VALUE (may be given again)")
	c.Flags().BoolVar(&raw, "raw", false, "print the job as JSON in Aurora's form, with its names bound")
	return c
}

func (a *app) config() *cobra.Command {
	var binds []string
	list := &cobra.Command{
		Use: "list FILE", Short: "List the jobs that a configuration file defines; asks no server", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := a.collect(cmd, a.child, args[0], "", binds)
			if err != nil {
				return err
			}
			type entry struct {
				Key   string `json:"key"`
				At    string `json:"at"`
				Error string `json:"error,omitempty"`
			}
			out := []entry{}
			var rows [][]string
			bad := 0
			for _, j := range res.Jobs {
				e := entry{j.Cluster + "/" + j.Key, j.At, j.Error}
				if e.Error != "" {
					bad++
				}
				out = append(out, e)
				state, _, _ := strings.Cut(first(e.Error, "ok"), "\n") // without the line of the file and the caret
				rows = append(rows, []string{e.Key, e.At, state})
			}
			err = a.print(cmd, struct {
				Jobs []entry `json:"jobs"`
			}{out}, func(w io.Writer) { table(w, []string{"JOB", "AT", "STATE"}, rows) })
			if err == nil && bad > 0 {
				err = exitf(InvalidConfig, "%s: %d of %d jobs cannot be used; covey job inspect KEY %s shows the line", args[0], bad, len(out), args[0])
			}
			return err
		},
	}
	list.Flags().StringArrayVar(&binds, "bind", nil, "bind a template variable: NAME=VALUE (may be given again)")
	return group("work", "config", "Read configuration files", list)
}
