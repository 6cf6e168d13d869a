package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/rpc"
)

// A DevConfig says how a whole platform runs on one machine.
type DevConfig struct {
	DataDir   string
	Listen    string // 127.0.0.1:PORT
	Agents    int    // into how many agents the machine is split
	Cluster   string
	PriceBook string
	StateDir  string // where the commands of this user look for it
	Self      string
	Version   string
	Err       io.Writer // logs
	Log       *slog.Logger
	// Hurry, when it is closed while dev ends, makes it kill the tasks.
	Hurry <-chan struct{}
	// Ready, if set, is called once an agent is registered. Its error ends dev.
	Ready func(ctx context.Context, url, token string) error
}

// maxAgents bounds the parts of one machine.
const maxAgents = 64

// dev runs the server and the agents as child processes, and starts those
// that die again.
type dev struct {
	cfg   DevConfig
	url   string
	leave atomic.Bool // agents end without their tasks
	hurry atomic.Bool // they kill them
	began atomic.Bool // the server has answered once
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
	unlock, err := lockDev(filepath.Join(cfg.DataDir, "dev.lock"), "uses "+cfg.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err = os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fault.Denied.Errorf("the record for this user's commands: %w", err)
	}
	// Commands find a dev cluster by its name, so a user has one of each.
	unname, err := lockDev(filepath.Join(cfg.StateDir, cfg.Cluster+".lock"), "runs cluster "+cfg.Cluster)
	if err != nil {
		return err
	}
	defer unname()
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

// lockDev keeps out a second dev that would use the same: a directory, or a
// name.
func lockDev(path, same string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, writeError(filepath.Dir(path), err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		return nil, fault.Conflict.Errorf("another covey dev (pid %s) %s; stop it, or start this one with another --data-dir and --cluster", strings.TrimSpace(string(pid)), same)
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
		if err != nil {
			_ = f.Close()
			return nil, writeError(filepath.Dir(path), err)
		}
	}
	return func() { _ = f.Close() }, nil
}

// address finds the port that the server will listen on: the children must all
// know it, also after a restart.
func (d *dev) address(ctx context.Context) (string, error) {
	if !onLoopback(d.cfg.Listen) {
		return "", fault.Invalid.Errorf("--listen %s is not on loopback, and covey dev is for this machine alone; want 127.0.0.1:PORT, or run covey server and covey agent", d.cfg.Listen)
	}
	c := Config{Listen: d.cfg.Listen}
	l, err := c.listen(ctx)
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	d.cfg.Listen = addr
	return "http://" + addr, l.Close()
}

// run starts the children and waits for the end. The agents end first: they
// take nothing new, stop what runs and tell the server, which then ends too.
func (d *dev) run(ctx context.Context) error {
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	agentCtx, stopAgents := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAgents()
	var servers, agents errgroup.Group
	servers.Go(func() error {
		args := []string{"server", "--data-dir", d.cfg.DataDir, "--listen", d.cfg.Listen, "--cluster", d.cfg.Cluster}
		if d.cfg.PriceBook != "" {
			args = append(args, "--price-book", d.cfg.PriceBook)
		}
		err := d.keep(serverCtx, "server", syscall.SIGTERM, func() ([]string, error) { return args, nil })
		if err != nil {
			fail()
		}
		return err
	})
	err := d.await(ctx, "/healthz", startLimit)
	if err == nil {
		d.began.Store(true)
		err = d.known(ctx)
	}
	if err == nil {
		for i := range d.cfg.Agents {
			name := agentName(i)
			agents.Go(func() error {
				return d.keep(agentCtx, name, stopTasks, func() ([]string, error) { return d.agent(ctx, i, name) })
			})
		}
		for _, i := range d.former() {
			name := agentName(i)
			d.cfg.Log.InfoContext(ctx, "tasks run of an earlier start with more agents; they are stopped, and those of services start on the agents there are", "machine", name)
			agents.Go(func() error {
				d.dismiss(ctx, name, func() ([]string, error) { return d.agent(ctx, i, name) })
				return nil
			})
		}
		if err = d.await(ctx, "/readyz", startLimit); err == nil {
			if err = d.ready(ctx); err == nil {
				<-ctx.Done()
			}
		} else {
			d.leave.Store(ctx.Err() == nil) // what no agent was let in for is nothing that dev has started
		}
	}
	if ctx.Err() != nil {
		err = nil
	}
	if d.began.Load() && !d.leave.Load() {
		d.cfg.Log.InfoContext(ctx, "stopping: the tasks end, the jobs stay; Ctrl-C again kills the tasks")
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-d.cfg.Hurry:
			d.hurry.Store(true)
		case <-over:
		}
	}()
	stopAgents()
	err = errors.Join(err, agents.Wait())
	stopServer()
	return errors.Join(err, servers.Wait())
}

// known refuses agents that belong to another cluster than the database: it
// was lost, or is that of another directory. What runs of them runs on.
func (d *dev) known(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(d.cfg.DataDir, "agents", "*", "agent.json"))
	if err != nil || len(files) == 0 {
		return nil //nolint:nilerr // the pattern is good, and without agents nothing can differ
	}
	resp, err := api.NewClusterServiceClient(d.client(), d.url).GetCluster(ctx, connect.NewRequest(&pb.GetClusterRequest{}))
	if err != nil {
		return fault.Of(rpc.FromWire(err)).Errorf("the cluster's UID: %w", rpc.FromWire(err))
	}
	for _, f := range files {
		var id struct {
			UID string `json:"cluster_uid"`
		}
		data, err := os.ReadFile(f) //nolint:gosec // a path of our own making
		if err != nil || json.Unmarshal(data, &id) != nil || id.UID == resp.Msg.GetUid() {
			continue // the agent says better what is wrong with its file
		}
		return fault.Conflict.Errorf("%s is of the cluster with UID %s, and the databases in %s are of %s. Its tasks run on. Put the right databases back, or remove %s to begin anew: then its tasks must be ended by hand",
			f, id.UID, d.cfg.DataDir, resp.Msg.GetUid(), filepath.Join(d.cfg.DataDir, "agents"))
	}
	return nil
}

// startLimit is how long a part of the platform may take to answer. It is above
// the half minute for which a new leader takes no machine for lost: an agent
// whose directory is gone may not join as its machine before.
const startLimit = 60 * time.Second

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

func agentName(i int) string { return fmt.Sprintf("m%d", i+1) }

// former returns the agents beyond those of this start that have tasks: there
// were more agents when dev was killed.
func (d *dev) former() (out []int) {
	for i := d.cfg.Agents; i < maxAgents; i++ {
		dir := filepath.Join(d.cfg.DataDir, "agents", agentName(i))
		if _, err := os.Stat(filepath.Join(dir, "agent.json")); err != nil {
			continue
		}
		if tasks, err := os.ReadDir(filepath.Join(dir, "tasks", "tasks")); err == nil && len(tasks) > 0 {
			out = append(out, i)
		}
	}
	return out
}

// agent returns the arguments of an agent, with a token to join when it is new.
func (d *dev) agent(ctx context.Context, i int, name string) ([]string, error) {
	dir := filepath.Join(d.cfg.DataDir, "agents", name)
	if err := MakeDataDir(dir); err != nil {
		return nil, err
	}
	part := i % d.cfg.Agents
	args := []string{
		"agent", "--server", d.url, "--data-dir", dir, "--machine", name, "--hide", d.cfg.DataDir,
		"--ports", fmt.Sprintf("%d-%d", 31000+part*1000/d.cfg.Agents, 31000+(part+1)*1000/d.cfg.Agents-1), "--attribute", "rack=r" + strconv.Itoa(i%2+1),
	}
	if n := d.cfg.Agents; n > 1 {
		args = append(args, "--share", strconv.Itoa(n))
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

// ready hands over to who shows people around.
func (d *dev) ready(ctx context.Context) error {
	if d.cfg.Ready == nil {
		return nil
	}
	token, err := os.ReadFile(filepath.Join(d.cfg.DataDir, TokenFile))
	if err != nil {
		return fault.Denied.Errorf("admin token: %w", err)
	}
	return d.cfg.Ready(ctx, d.url, strings.TrimSpace(string(token)))
}
