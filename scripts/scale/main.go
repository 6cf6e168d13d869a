// Command scale measures the control plane from end to end: a real server on
// SQLite with synchronous=FULL, or several on PostgreSQL, and agents that are simulated, by the
// thousands, in processes of their own. They join with real credentials, hold
// real sessions and think with the real agent's mind; only what they run is
// made up: a task runs as soon as it is told to. So the figures are those of the
// server, its store and the wire, and of nothing that a machine does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// options says what is measured.
type options struct {
	covey    string // the program
	dir      string // where the servers' data goes; empty: a temporary directory
	agents   []int  // one measurement for each
	tasks    int    // for each agent
	jobSize  int    // instances of a job
	shared   bool   // agents share connections
	tls      bool   // agents and users speak TLS, as they do off loopback
	procs    int    // processes that the agents live in
	steady   time.Duration
	churn    float64 // share of the tasks that end in a minute of the churn
	restart  bool
	servers  int    // of the cluster
	postgres bool   // the cluster's store is PostgreSQL, started for the measurement
	profiles string // directory for CPU and heap profiles of the server
	json     string
	log      io.Writer
}

func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) error {
	if len(args) > 0 && args[0] == fleetArg {
		return fleetMain(ctx, args[1:], in, out)
	}
	o := options{log: errs}
	fs := flag.NewFlagSet("scale", flag.ContinueOnError)
	fs.SetOutput(errs)
	fs.StringVar(&o.covey, "covey", "bin/covey", "the program to measure")
	fs.StringVar(&o.dir, "dir", "", "directory for the server's data (default: a temporary one)")
	agents := fs.String("agents", "1000", "numbers of agents, one measurement for each, such as 1000,5000,10000")
	fs.IntVar(&o.tasks, "tasks", 10, "tasks for each agent")
	fs.IntVar(&o.jobSize, "job-size", 1000, "instances of a job")
	fs.BoolVar(&o.shared, "shared", false, "let agents share connections, 200 to each")
	fs.BoolVar(&o.tls, "tls", false, "speak TLS, as off loopback")
	fs.IntVar(&o.procs, "procs", 1, "processes that the agents live in")
	fs.DurationVar(&o.steady, "steady", 15*time.Second, "how long to watch the cluster at rest, and with churn")
	fs.Float64Var(&o.churn, "churn", 0.01, "share of the tasks that end in a minute of churn")
	fs.BoolVar(&o.restart, "restart", false, "kill the server at the end, start it again, and wait for the next placement")
	fs.IntVar(&o.servers, "servers", 1, "servers of the cluster, with -postgres; -restart kills the one that leads, and another takes over")
	fs.BoolVar(&o.postgres, "postgres", false, "keep the cluster in PostgreSQL, which is started from Debian's package")
	fs.StringVar(&o.profiles, "profiles", "", "directory for profiles of the server")
	fs.StringVar(&o.json, "json", "", "file for the figures")
	if err := fs.Parse(args); err != nil {
		return err
	}
	for s := range strings.SplitSeq(*agents, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > 100_000 {
			return fmt.Errorf("-agents %q: want numbers from 1 to 100000, such as 1000,5000", *agents)
		}
		o.agents = append(o.agents, n)
	}
	if o.tasks < 1 || o.tasks > 1000 || o.jobSize < 1 || o.jobSize > 4000 || o.procs < 1 || o.procs > 64 {
		return errors.New("want 1 to 1000 tasks for each agent, jobs of 1 to 4000 instances, 1 to 64 processes")
	}
	if o.tls && o.shared {
		return errors.New("by TLS a connection is who speaks on it; want -tls or -shared")
	}
	if o.servers < 1 || o.servers > 5 || o.servers > 1 && (!o.postgres || o.shared || o.tls) {
		return errors.New("want 1 to 5 servers; several with -postgres, and without -shared and -tls")
	}
	return measureAll(ctx, o, out)
}

// measureAll measures each number of agents with a server of its own.
func measureAll(ctx context.Context, o options, out io.Writer) error {
	var all []figures
	for _, n := range o.agents {
		f, err := measure(ctx, o, n)
		if err != nil {
			return fmt.Errorf("%d agents: %w", n, err)
		}
		f.print(out)
		all = append(all, f)
		if o.json == "" {
			continue
		}
		data, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(data, '\n'), 0o644); err != nil { //nolint:gosec // figures for everybody
			return err
		}
	}
	return nil
}
