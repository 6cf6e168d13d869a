package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/cli/evaluate"
	"github.com/covey-platform/covey/internal/job"
)

// ServerFlags is what covey server is told.
type ServerFlags struct {
	DataDir      string
	Listen       string // host:port
	TLS          bool   // also on loopback
	TLSCert      string // empty: one of the cluster's own authority
	TLSKey       string
	Cluster      string
	PriceBook    string // empty: the default one
	ClusterStore string // a file or postgres://…; empty: SQLite in the data directory
	CompanyStore string // likewise
	Advertise    string // URL under which other servers, agents and users reach this one; empty: from Listen
	Hosts        []string
}

// AgentFlags is what covey agent is told.
type AgentFlags struct {
	Server        string // URL
	DataDir       string
	JoinTokenFile string
	CAFile        string
	Machine       string              // empty: the host's name
	Host          string              // address at which its tasks' ports are reached
	Attributes    map[string][]string // by name, in the order given
	CPU           string              // cores, empty: what the machine has; so the others
	RAM           string              // such as 4GiB
	Disk          string
	Share         int    // of what the machine has, one part in so many is offered; 0: all
	GPUs          int    // whole GPUs
	Net           string // bandwidth, such as 1000Mbps
	OverheadCPU   string
	OverheadRAM   string
	Ports         string        // FROM-TO of dynamic ports, empty: the default
	Hide          []string      // directories that no task may see
	KeepBytes     string        // of ended tasks' sandboxes, such as 4GiB; empty: the default
	KeepFor       time.Duration // likewise; 0: the default
}

// DevFlags is what covey dev is told.
type DevFlags struct {
	DataDir   string
	Listen    string // host:port, port 0 is any
	Agents    int
	Cluster   string
	PriceBook string
	StateDir  string // where [WriteDev] leaves the record

	// Ready is to be called once the server answers and an agent is registered.
	// It creates the example jobs and says what to do next. Its error ends dev.
	Ready func(ctx context.Context, url, token string) error
}

// platform makes the commands that run the platform itself.
func (a *app) platform() []*cobra.Command {
	var out []*cobra.Command
	if a.env.Simulate != nil {
		out = append(out, a.simulate())
	}
	if a.env.Dev != nil {
		out = append(out, a.dev())
	}
	if a.env.Server != nil {
		out = append(out, a.serverCommand())
	}
	if a.env.Agent != nil {
		out = append(out, a.agentCommand())
	}
	return out
}

// dataDir is where a part keeps its data unless it is told.
func (a *app) dataDir(parts ...string) string {
	return filepath.Join(append([]string{xdg(a.env.Getenv, "XDG_DATA_HOME", a.env.Home, ".local/share"), "covey"}, parts...)...)
}

// run calls a part of the platform. That the user ended it is no error.
func run(ctx context.Context, f func() error) error {
	err := f()
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (a *app) dev() *cobra.Command {
	var f DevFlags
	var examples string
	c := &cobra.Command{
		Use: "dev", Short: "Run a whole cluster on this machine", Args: exactly(0), GroupID: "run",
		Long: `Run a whole cluster on this machine: a server and its agents, as processes of
their own. Ctrl-C stops the tasks and keeps the jobs: the next start on the same
data directory runs them again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := clusterName(f.Cluster); err != nil {
				return err
			}
			if f.Agents < 1 || f.Agents > 64 {
				return badParameter("--agents %d; want 1 to 64", f.Agents)
			}
			if f.DataDir == "" {
				f.DataDir = a.dataDir(f.Cluster)
			}
			if examples != "" {
				if info, err := os.Stat(examples); err != nil || !info.IsDir() {
					return badParameter("--examples %.200q is no folder", examples)
				}
			}
			f.StateDir = StateDir(a.env.Getenv, a.env.Home)
			f.Ready = func(ctx context.Context, url, token string) error {
				return a.ready(ctx, cmd, f.Cluster, url, token, examples)
			}
			return run(cmd.Context(), func() error { return a.env.Dev(cmd.Context(), f) })
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.DataDir, "data-dir", "", "where everything is kept (default ~/.local/share/covey/CLUSTER)")
	fs.StringVar(&f.Listen, "listen", "127.0.0.1:8081", "address of the server; port 0 is any free one")
	fs.IntVar(&f.Agents, "agents", 1, "split the machine into so many agents")
	fs.StringVar(&f.Cluster, "cluster", "dev", "name of the cluster")
	fs.StringVar(&f.PriceBook, "price-book", "", "file with prices (default: the documented ones)")
	fs.StringVar(&examples, "examples", "", "create the jobs of this folder's .aurora files at the start")
	return c
}

func (a *app) serverCommand() *cobra.Command {
	var f ServerFlags
	c := &cobra.Command{
		Use: "server", Short: "Run the server of a cluster", Args: exactly(0), GroupID: "run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := clusterName(f.Cluster); err != nil {
				return err
			}
			if f.DataDir == "" {
				f.DataDir = a.dataDir(f.Cluster)
			}
			for _, s := range []*string{&f.ClusterStore, &f.CompanyStore} {
				if u, err := url.Parse(*s); err == nil && (hasPassword(u.User) || u.Query().Has("password")) {
					return badParameter("a password on the command line is seen by everybody on this machine; put it into PGPASSWORD, into the file that PGPASSFILE names, or give the whole URL in COVEY_CLUSTER_STORE and COVEY_COMPANY_STORE")
				}
			}
			f.ClusterStore = first(f.ClusterStore, a.env.Getenv("COVEY_CLUSTER_STORE"))
			f.CompanyStore = first(f.CompanyStore, a.env.Getenv("COVEY_COMPANY_STORE"))
			return run(cmd.Context(), func() error { return a.env.Server(cmd.Context(), f) })
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.DataDir, "data-dir", "", "where the stores and secrets are (default ~/.local/share/covey/CLUSTER)")
	fs.StringVar(&f.Listen, "listen", "127.0.0.1:8081", "address to listen on; beyond loopback it speaks TLS only")
	fs.BoolVar(&f.TLS, "tls", false, "speak TLS on loopback too")
	fs.StringVar(&f.TLSCert, "tls-cert", "", "file with the certificate to show and its chain (default: one of the cluster's own authority, ca.pem in the data directory)")
	fs.StringVar(&f.TLSKey, "tls-key", "", "file with its key")
	fs.StringVar(&f.Cluster, "cluster", "dev", "name of the cluster")
	fs.StringVar(&f.PriceBook, "price-book", "", "file with prices (default: the documented ones)")
	fs.StringVar(&f.ClusterStore, "cluster-store", "", "store of jobs, tasks and machines: a file, or postgres://USER@HOST/DATABASE for several servers (COVEY_CLUSTER_STORE; default: SQLite in the data directory)")
	fs.StringVar(&f.CompanyStore, "company-store", "", "store of teams and money, likewise (COVEY_COMPANY_STORE)")
	fs.StringVar(&f.Advertise, "advertise", "", "URL under which other servers, agents and users reach this one (default: from --listen)")
	fs.StringArrayVar(&f.Hosts, "host", nil, "a name beside localhost under which the server is reached (may be given again)")
	return c
}

func hasPassword(u *url.Userinfo) bool {
	_, ok := u.Password()
	return ok
}

// maxKeepFor bounds for how long ended tasks' sandboxes are kept.
const maxKeepFor = 10_000 * time.Hour

func (a *app) agentCommand() *cobra.Command {
	var f AgentFlags
	var attributes []string
	c := &cobra.Command{
		Use: "agent", Short: "Run the agent of this machine", Args: exactly(0), GroupID: "run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.Server = first(a.server, a.env.Getenv("COVEY_SERVER"))
			f.CAFile = first(a.caFile, a.env.Getenv("COVEY_CA"))
			if f.Server == "" {
				return badParameter("--server is missing; want the URL of the cluster's server")
			}
			f.Attributes = map[string][]string{}
			for _, s := range attributes {
				n, v, ok := strings.Cut(s, "=")
				if !ok || n == "" || v == "" {
					return badParameter("--attribute %.80q; want NAME=VALUE, such as rack=a1", s)
				}
				f.Attributes[n] = append(f.Attributes[n], v)
			}
			if f.Share < 1 || f.Share > 64 {
				return badParameter("--share %d; want 1 to 64: the number of agents on this machine", f.Share)
			}
			if f.KeepFor < time.Minute || f.KeepFor > maxKeepFor {
				return badParameter("--keep-for %s; want 1m to %.0fh", f.KeepFor, maxKeepFor.Hours())
			}
			if f.DataDir == "" {
				f.DataDir = a.dataDir("agent")
			}
			return run(cmd.Context(), func() error { return a.env.Agent(cmd.Context(), f) })
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.DataDir, "data-dir", "", "where sandboxes and the journal are (default ~/.local/share/covey/agent)")
	fs.StringVar(&f.JoinTokenFile, "join-token-file", "", "file with a join token, for the first start")
	fs.StringVar(&f.Host, "host", "127.0.0.1", "address or name at which others reach the ports of this machine's tasks")
	fs.StringVar(&f.Machine, "machine", "", "name of the machine in the cluster (default: the host's name)")
	fs.StringArrayVar(&attributes, "attribute", nil, "NAME=VALUE that constraints can ask for (may be given again)")
	fs.StringVar(&f.CPU, "cpu", "", "cores to offer, such as 3.5 (default: all)")
	fs.StringVar(&f.RAM, "ram", "", "memory to offer, such as 4GiB (default: all)")
	fs.StringVar(&f.Disk, "disk", "", "disk to offer, such as 100GiB (default: what was free at the first start, and what has come since)")
	fs.IntVar(&f.Share, "share", 1, "offer one part in so many of what the machine has: for several agents on one")
	fs.IntVar(&f.GPUs, "gpus", 0, "whole GPUs to offer")
	fs.StringVar(&f.Net, "net", "", "network bandwidth to offer, such as 1000Mbps (default: none)")
	fs.StringVar(&f.OverheadCPU, "overhead-cpu", "", "cores kept back for the agent and the supervisors, even if they take less (default: one part in 20, at most 0.5)")
	fs.StringVar(&f.OverheadRAM, "overhead-ram", "", "memory kept back for them, even if they take less, such as 256MiB (default: one part in 20, at most 1 GiB)")
	fs.StringVar(&f.KeepBytes, "keep-bytes", "", "how much to keep of ended tasks' sandboxes, such as 4GiB (default: a tenth of the disk, and 10GiB at most)")
	fs.DurationVar(&f.KeepFor, "keep-for", 24*time.Hour, "for how long to keep them; both hold as far as live tasks leave the room")
	fs.StringVar(&f.Ports, "ports", "", "dynamic ports, such as 31000-32000")
	fs.StringArrayVar(&f.Hide, "hide", nil, "a directory that no task may see (may be given again)")
	return c
}

// ready creates the example jobs of a dev cluster and says what to do next.
func (a *app) ready(ctx context.Context, cmd *cobra.Command, cluster, url, token, examples string) error {
	c, err := newClient(url, token, "")
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	_, _ = fmt.Fprintf(w, "cluster %s is ready at %s\n", cluster, url)
	if examples == "" {
		_, _ = fmt.Fprintf(w, "next, in another terminal: covey job create %s/ROLE/devel/NAME FILE.aurora --wait\n", cluster)
		return nil
	}
	keys, err := a.createExamples(ctx, cmd, c, cluster, examples)
	if err != nil {
		return err
	}
	a.watchExamples(ctx, cmd, c, keys)
	_, _ = fmt.Fprint(w, "\nnext, in another terminal:\n")
	for i, k := range keys {
		if i == 0 {
			_, _ = fmt.Fprintf(w, "  covey job status %s\n  covey task logs -f %s\n", k, k)
		}
	}
	_, _ = fmt.Fprint(w, "  covey job list\n  covey machine list\n  covey bill\n")
	return nil
}

// createExamples creates every job of the cluster that a folder's files
// define. Those that exist stay as they are.
func (a *app) createExamples(ctx context.Context, cmd *cobra.Command, c *client, cluster, dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.aurora"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("--examples %s: %w", dir, fs.ErrNotExist)
	}
	slices.Sort(files)
	var keys []string
	var elsewhere string
	for _, f := range files {
		r := evaluate.Request{Main: f, Dir: a.env.Dir, User: a.env.User, Cluster: cluster}
		res, err := evaluate.Run(ctx, a.env.Executable, r)
		if err != nil {
			return keys, &exit{InvalidConfig, err}
		}
		for _, j := range res.Jobs {
			key := j.Cluster + "/" + j.Key
			if j.Cluster != cluster {
				elsewhere = j.Cluster
				continue
			}
			if _, _, err := job.ParseKey(key); err != nil || j.Error != "" {
				return keys, exitf(InvalidConfig, "%s: %s", f, first(j.Error, key))
			}
			_, err := a.submit(cmd, c, key, f, nil, res)
			if err != nil && connect.CodeOf(err) != connect.CodeAborted { // it runs from the last time
				return keys, err
			}
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 && elsewhere != "" {
		return nil, exitf(InvalidConfig, "--examples %s: its jobs are for cluster %s and none is for %s; start with --cluster %s, or name another folder", dir, elsewhere, cluster, elsewhere)
	}
	return keys, nil
}

// watchExamples shows how the examples come up, for a while.
func (a *app) watchExamples(ctx context.Context, cmd *cobra.Command, c *client, keys []string) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	p := a.progress(cmd)
	state := map[string]string{}
	for {
		left := 0
		for _, k := range keys {
			r, err := ask(ctx, c.jobs.GetJob, &pb.GetJobRequest{Key: k})
			if err != nil {
				state[k] = first(state[k], message(err))
				left++
				continue
			}
			v := judge(r, "RUNNING")
			if !v.good && v.bad == nil {
				left++
			}
			state[k] = v.text
		}
		if left == 0 || ctx.Err() != nil {
			break
		}
		p.show(many(left, "example") + " to come up")
		select {
		case <-ctx.Done():
		case <-time.After(lookPause):
		}
	}
	p.end()
	var rows [][]string
	for _, k := range keys {
		rows = append(rows, []string{k, state[k]})
	}
	table(cmd.OutOrStdout(), []string{"JOB", "TASKS"}, rows)
}
