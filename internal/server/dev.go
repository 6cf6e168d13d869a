package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/cli/evaluate"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/rpc"
)

// A DevConfig says how a whole platform runs on one machine.
type DevConfig struct {
	DataDir   string
	Listen    string // 127.0.0.1:PORT
	Agents    int    // into how many agents the machine is split
	Cluster   string
	Examples  string // directory of .aurora files whose jobs of this cluster are created; empty: none
	PriceBook string
	StateDir  string // where the commands of this user look for it
	User      string
	Self      string
	Version   string
	Out       io.Writer // for people
	Err       io.Writer // logs
	Log       *slog.Logger
}

// maxAgents bounds the parts of one machine.
const maxAgents = 64

// dev runs the server and the agents as child processes, and starts those
// that die again.
type dev struct {
	cfg DevConfig
	url string
	out sync.Mutex
}

// Dev runs a server and its agents as child processes until ctx ends. Then it
// stops every task; the jobs stay, and the next start runs them again.
func Dev(ctx context.Context, cfg DevConfig) error {
	server := Config{DataDir: cfg.DataDir, Cluster: cfg.Cluster, Log: cfg.Log}
	if err := server.complete(); err != nil {
		return err
	}
	cfg.DataDir = server.DataDir
	if cfg.Agents < 1 || cfg.Agents > maxAgents {
		return fault.Invalid.Errorf("--agents is %d; want 1 to %d", cfg.Agents, maxAgents)
	}
	unlock, err := lockDev(cfg.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	d := &dev{cfg: cfg}
	if d.url, err = d.address(ctx); err != nil {
		return err
	}
	record := cli.DevRecord{URL: d.url, TokenFile: filepath.Join(cfg.DataDir, TokenFile), PID: os.Getpid()}
	if err := cli.WriteDev(cfg.StateDir, cfg.Cluster, record); err != nil {
		return fault.Denied.Errorf("the record for this user's commands: %w", err)
	}
	defer func() { _ = cli.RemoveDev(cfg.StateDir, cfg.Cluster, os.Getpid()) }()
	return d.run(ctx)
}

// lockDev keeps a second dev off the directory.
func lockDev(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "dev.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, writeError(dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor is small
		pid, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		return nil, fault.Conflict.Errorf("another covey dev (pid %s) uses %s; stop it, or start this one with another --data-dir and --cluster", strings.TrimSpace(string(pid)), dir)
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
		if err != nil {
			_ = f.Close()
			return nil, writeError(dir, err)
		}
	}
	return func() { _ = f.Close() }, nil
}

// address finds the port that the server will listen on: the children must all
// know it, also after a restart.
func (d *dev) address(ctx context.Context) (string, error) {
	c := Config{Listen: d.cfg.Listen}
	l, err := c.listen(ctx)
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	d.cfg.Listen = addr
	return "http://" + addr, l.Close()
}

// run starts the children and waits for the end. The order of the end is the
// order of trust: first nobody may start anything, then everything is stopped.
func (d *dev) run(ctx context.Context) error {
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	agentCtx, stopAgents := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAgents()
	var servers, agents errgroup.Group
	d.say("covey dev: cluster %s, data in %s", d.cfg.Cluster, d.cfg.DataDir)
	servers.Go(func() error {
		args := []string{"server", "--data-dir", d.cfg.DataDir, "--listen", d.cfg.Listen, "--cluster", d.cfg.Cluster}
		if d.cfg.PriceBook != "" {
			args = append(args, "--price-book", d.cfg.PriceBook)
		}
		return d.keep(serverCtx, "server", syscall.SIGTERM, func() ([]string, error) { return args, nil })
	})
	err := d.await(ctx, "/healthz", startLimit)
	if err == nil {
		for i := range d.cfg.Agents {
			name := fmt.Sprintf("m%d", i+1)
			agents.Go(func() error {
				return d.keep(agentCtx, name, syscall.SIGUSR2, func() ([]string, error) { return d.agent(ctx, i, name) })
			})
		}
		if err = d.await(ctx, "/readyz", startLimit); err == nil {
			d.ready(ctx)
			<-ctx.Done()
		}
	}
	if ctx.Err() != nil {
		err = nil
	}
	d.say("stopping: the tasks end, the jobs stay")
	stopServer()
	err = errors.Join(err, servers.Wait())
	stopAgents()
	return errors.Join(err, agents.Wait())
}

// startLimit is how long a part of the platform may take to answer.
const startLimit = 30 * time.Second

// await waits until a path of the server answers well.
func (d *dev) await(ctx context.Context, path string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	client := &http.Client{Timeout: 2 * time.Second}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+path, http.NoBody)
		if err != nil {
			return fault.Internal.Errorf("%w", err)
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fault.Timeout.Errorf("%s%s did not answer within %v; the lines above say why", d.url, path, limit)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// agent returns the arguments of an agent, with a token to join when it is new.
func (d *dev) agent(ctx context.Context, i int, name string) ([]string, error) {
	dir := filepath.Join(d.cfg.DataDir, "agents", name)
	if err := MakeDataDir(dir); err != nil {
		return nil, err
	}
	ports := 31000 + i*1000/d.cfg.Agents
	args := []string{
		"agent", "--server", d.url, "--data-dir", dir, "--machine", name, "--hide", d.cfg.DataDir,
		"--ports", fmt.Sprintf("%d-%d", ports, 31000+(i+1)*1000/d.cfg.Agents-1), "--attribute", "rack=r" + strconv.Itoa(i%2+1),
	}
	if n := d.cfg.Agents; n > 1 {
		var si unix.Sysinfo_t
		if err := unix.Sysinfo(&si); err != nil {
			return nil, fault.Internal.Errorf("memory of this machine: %w", err)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			return nil, fault.Internal.Errorf("disk of this machine: %w", err)
		}
		args = append(args, "--cpu", strconv.FormatFloat(float64(goruntime.NumCPU()*1000/n)/1000, 'f', 3, 64),
			"--ram", strconv.FormatInt(int64(si.Totalram)*int64(si.Unit)/int64(n)>>20, 10)+"MiB", //nolint:unconvert // of other widths elsewhere
			"--disk", strconv.FormatInt(int64(fs.Bavail)*fs.Bsize/int64(n)>>20, 10)+"MiB")
	}
	if _, err := os.Stat(filepath.Join(dir, "agent.json")); err == nil {
		return args, nil
	}
	resp, err := api.NewClusterServiceClient(d.client(), d.url).CreateToken(ctx, connect.NewRequest(&pb.CreateTokenRequest{Kind: "join", Subject: name}))
	if err != nil {
		return nil, fault.Of(rpc.FromWire(err)).Errorf("a token for agent %s: %w", name, rpc.FromWire(err))
	}
	file := filepath.Join(dir, "join-token")
	if err := writeFile(file, []byte(resp.Msg.GetToken()+"\n")); err != nil {
		return nil, err
	}
	return append(args, "--join-token-file", file), nil
}

// client speaks for the admin of this data directory.
func (d *dev) client() *http.Client {
	return &http.Client{Timeout: startLimit, Transport: bearer{filepath.Join(d.cfg.DataDir, TokenFile)}}
}

type bearer struct{ file string }

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := os.ReadFile(b.file)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return http.DefaultTransport.RoundTrip(r)
}

// ready says what there is and what to do with it.
func (d *dev) ready(ctx context.Context) {
	made := d.examples(ctx)
	_, port, _ := net.SplitHostPort(d.cfg.Listen)
	d.say("ready: %s (port %s), %d agents, token in %s", d.url, port, d.cfg.Agents, filepath.Join(d.cfg.DataDir, TokenFile))
	if len(made) > 0 {
		d.say("example jobs: %s", strings.Join(made, ", "))
		d.settle(ctx, made)
	}
	d.say("in another terminal:\n" +
		"  covey job list\n" +
		"  covey job create " + d.cfg.Cluster + "/www-data/prod/hello examples/hello_world.aurora --wait\n" +
		"  covey job status " + d.cfg.Cluster + "/www-data/prod/hello\n" +
		"  covey task logs -f " + d.cfg.Cluster + "/www-data/prod/hello\n" +
		"  covey bill\n" +
		"Ctrl-C stops everything; the jobs run again at the next start on the same directory.")
}

// examples creates the jobs of this cluster in a directory of files. Those
// that exist already stay as they are.
func (d *dev) examples(ctx context.Context) []string {
	if d.cfg.Examples == "" {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join(d.cfg.Examples, "*.aurora"))
	var made []string
	for _, f := range files {
		res, err := evaluate.Run(ctx, d.cfg.Self, evaluate.Request{Main: filepath.Base(f), Dir: filepath.Dir(f), User: d.cfg.User, Cluster: d.cfg.Cluster})
		if err != nil {
			d.cfg.Log.Warn("an example was left out", "file", f, "error", err)
			continue
		}
		for _, j := range res.Jobs {
			if j.Cluster != d.cfg.Cluster || j.Error != "" {
				continue
			}
			key := j.Cluster + "/" + j.Key
			_, err := api.NewJobServiceClient(d.client(), d.url).CreateJob(ctx, connect.NewRequest(&pb.CreateJobRequest{Key: key, Main: filepath.Base(f), Files: res.Files, User: d.cfg.User}))
			if err = rpc.FromWire(err); err != nil && fault.Of(err) != fault.Conflict {
				d.cfg.Log.Warn("an example job was not created", "job", key, "error", err)
				continue
			}
			made = append(made, key)
		}
	}
	return made
}

// settle shows the examples' tasks once they run, or after ten seconds.
func (d *dev) settle(ctx context.Context, keys []string) {
	jobs := api.NewJobServiceClient(d.client(), d.url)
	end := time.Now().Add(10 * time.Second)
	for {
		lines, all := d.tasks(ctx, jobs, keys)
		if all || time.Now().After(end) || ctx.Err() != nil {
			d.say("%s", strings.Join(lines, "\n"))
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *dev) tasks(ctx context.Context, jobs api.JobServiceClient, keys []string) (lines []string, all bool) {
	all = true
	for _, k := range keys {
		resp, err := jobs.GetJob(ctx, connect.NewRequest(&pb.GetJobRequest{Key: k}))
		if err != nil {
			lines, all = append(lines, fmt.Sprintf("  %-40s %v", k, rpc.FromWire(err))), false
			continue
		}
		for _, t := range resp.Msg.GetTasks() {
			lines = append(lines, fmt.Sprintf("  %-44s %-9s %-4s %s", d.cfg.Cluster+"/"+t.GetId(), t.GetStatus(), t.GetMachine(), t.GetReason()))
			all = all && (t.GetStatus() == "RUNNING" || t.GetStatus() == "FINISHED")
		}
	}
	return lines, all
}

func (d *dev) say(format string, args ...any) {
	d.out.Lock()
	defer d.out.Unlock()
	_, _ = fmt.Fprintf(d.cfg.Out, format+"\n", args...)
}
