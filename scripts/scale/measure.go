package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/unit"
)

// What one simulated task reserves, and how full the cluster is when all run.
var oneTask = unit.Resources{CPU: 50, RAM: 32 * unit.MiB, Disk: 16 * unit.MiB}

const fill = 0.9

// jobFile describes one job. A process of it is never started.
const jobFile = `
run = Process(name = 'run', cmdline = 'exec sleep 1000000')
jobs = [Service(
  cluster = 'scale', role = 'www-data', environment = 'prod', name = '%s', instances = %d,
  task = SequentialTask(processes = [run], resources = Resources(cpu = 0.05, ram = 32*MB, disk = 16*MB)),
)]
`

// run1 is one measurement.
type run1 struct {
	o      options
	srv    *server   // that leads
	others []*server // that follow
	dirs   []string  // of the servers' data
	pg     *storetest.Postgres
	fleets []*fleetProcess
	empty  usage // of the server, before the first job
	out    figures
}

// fleetProcess is a process of simulated agents.
type fleetProcess struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	last atomic.Pointer[fleetState]
	over chan struct{}
}

// measure measures a new cluster of so many agents.
func measure(ctx context.Context, o options, agents int) (_ figures, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run1{o: o}
	r.out = figures{Agents: agents, Tasks: agents * o.tasks, Shared: o.shared, TLS: o.tls, Servers: o.servers, Postgres: o.postgres, Cores: runtime.NumCPU()}
	defer r.tidy()
	if err = r.startServers(ctx); err != nil {
		return r.out, err
	}
	defer r.stopFleets()
	for _, phase := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"agents join", r.join},
		{"cluster at rest, empty", r.rest},
		{"jobs", r.submit},
		{"cluster at rest, full", r.full},
		{"churn", r.churn},
		{"restart", r.restart},
	} {
		fmt.Fprintf(o.log, "%s  %d agents: %s\n", time.Now().Format("15:04:05"), agents, phase.name)
		if err := phase.do(ctx); err != nil {
			return r.out, fmt.Errorf("%s: %w\n%s", phase.name, err, r.logs())
		}
	}
	r.out.Load = loadAverage()
	return r.out, nil
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(data))
	return strings.Join(f[:min(3, len(f))], " ")
}

// capacityFor is what a machine has that is as full as it shall be when so many
// tasks run on it, and takes at least one more: what -restart places.
func capacityFor(tasks int) unit.Resources {
	each := max(float64(tasks)/fill, float64(tasks)+1)
	return unit.Resources{
		CPU: int64(math.Ceil(each * float64(oneTask.CPU))), RAM: int64(math.Ceil(each)) * oneTask.RAM, Disk: int64(math.Ceil(each)) * oneTask.Disk,
	}
}

// join starts the agents and waits until all are connected.
func (r *run1) join(ctx context.Context) error {
	before, err := r.srv.memory(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	cpu, err := r.srv.cpu()
	if err != nil {
		return err
	}
	defer r.profiled(ctx, "join.pprof")()
	capacity := capacityFor(r.o.tasks)
	for i := range r.o.procs {
		first := r.out.Agents * i / r.o.procs
		c := fleetConfig{Server: r.srv.url(), Authority: r.srv.authority(), Others: r.otherURLs(), First: first, Count: r.out.Agents*(i+1)/r.o.procs - first, Shared: r.o.shared, Capacity: capacity}
		if err = r.startFleet(ctx, c); err != nil {
			return err
		}
	}
	err = r.until(ctx, 10*time.Minute, func(m map[string]float64) bool { return int(m["covey_machines_up"]) == r.out.Agents })
	if err != nil {
		return err
	}
	r.out.JoinSeconds = time.Since(began).Seconds()
	r.out.JoinCPU = r.since(cpu)
	select { // the streams of the last ones settle
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * time.Second):
	}
	after, err := r.srv.memory(ctx)
	r.out.HeapPerMachine = float64(after.Heap-before.Heap) / float64(r.out.Agents)
	r.out.StackPerMachine = float64(after.Stack-before.Stack) / float64(r.out.Agents)
	return errors.Join(err, r.srv.profile(ctx, r.o.profiles, "joined-heap.pprof", "heap"), r.srv.profile(ctx, r.o.profiles, "joined-goroutines.txt", "goroutine?debug=1"))
}

// profiled begins a profile of what the server does next. What it returns waits
// for its end.
func (r *run1) profiled(ctx context.Context, name string) (wait func()) {
	var profile sync.WaitGroup
	if r.o.profiles != "" {
		profile.Go(func() { _ = r.srv.profile(ctx, r.o.profiles, name, "profile?seconds=20") })
	}
	return profile.Wait
}

// since is the server's CPU time since then, in seconds.
func (r *run1) since(then time.Duration) float64 {
	now, err := r.srv.cpu()
	if err != nil {
		return math.NaN()
	}
	return (now - then).Seconds()
}

// startFleet starts a process of agents.
func (r *run1) startFleet(ctx context.Context, c fleetConfig) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p := &fleetProcess{cmd: exec.CommandContext(ctx, self, fleetArg, "-config", string(text)), over: make(chan struct{})} //nolint:gosec // this program
	p.cmd.Env = append(os.Environ(), "COVEY_TOKEN="+r.srv.token)
	p.cmd.Stderr, p.cmd.SysProcAttr = r.o.log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err1 := p.cmd.StdoutPipe()
	in, err2 := p.cmd.StdinPipe()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	p.in = in
	if err := p.cmd.Start(); err != nil {
		return err
	}
	r.fleets = append(r.fleets, p)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var s fleetState
			if json.Unmarshal(lines.Bytes(), &s) == nil {
				p.last.Store(&s)
			}
		}
		_ = p.cmd.Wait() // it is told to end, or says what is wrong
		close(p.over)
	}()
	return nil
}

func (r *run1) stopFleets() {
	for _, p := range r.fleets {
		_ = p.in.Close()
		select {
		case <-p.over:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
		}
	}
}

// until waits until the server's metrics show something.
func (r *run1) until(ctx context.Context, limit time.Duration, ok func(map[string]float64) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		m, err := r.srv.metrics(ctx)
		if err == nil && ok(m) {
			return nil
		}
		for _, p := range r.fleets {
			if s := p.last.Load(); s != nil && s.Error != "" {
				return errors.New(s.Error)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not reached, %v at most: %d machines up, %d tasks, %d commits", limit, int(m["covey_machines_up"]), int(m["covey_tasks"]), int(m[commitsOK]))
		case <-time.After(pollEvery * time.Duration(1+r.out.Agents/2000)):
		}
	}
}

// pollEvery is how often the server's metrics are read, with few machines: to
// count them costs the server the more the more there are.
const pollEvery = 100 * time.Millisecond

// Samples of the server.
const (
	commitsOK    = `covey_commits_total{result="ok"}`
	stepsRunning = `covey_task_steps_total{state="RUNNING"}`
)

// rest watches a cluster in which nothing happens.
func (r *run1) rest(ctx context.Context) error {
	cores, commits, err := r.watch(ctx, "rest")
	r.out.IdleCores, r.out.IdleCommits = cores, commits
	return err
}

// watch measures the server's CPU and commits for a while.
func (r *run1) watch(ctx context.Context, name string) (cores, commits float64, err error) {
	m, err := r.srv.metrics(ctx)
	if err != nil {
		return 0, 0, err
	}
	cpu, err := r.srv.cpu()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if r.o.profiles != "" {
		secs := max(1, int(r.o.steady.Seconds()))
		if err = r.srv.profile(ctx, r.o.profiles, name+".pprof", fmt.Sprintf("profile?seconds=%d", secs)); err != nil {
			return 0, 0, err
		}
	}
	select {
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-time.After(time.Until(began.Add(r.o.steady))):
	}
	after, err := r.srv.metrics(ctx)
	took := time.Since(began).Seconds()
	return r.since(cpu) / took, (after[commitsOK] - m[commitsOK]) / took, err
}

// submit creates all jobs and waits until every task is acknowledged to run.
func (r *run1) submit(ctx context.Context) error {
	var err error
	if r.empty, err = r.srv.memory(ctx); err != nil {
		return err
	}
	m, err := r.srv.metrics(ctx)
	if err != nil {
		return err
	}
	cpu, err := r.srv.cpu()
	if err != nil {
		return err
	}
	disk := r.srv.disk(ctx)
	defer r.profiled(ctx, "submit.pprof")()
	began := time.Now()
	g, waiting := errgroup.WithContext(ctx)
	g.Go(func() error { return r.createJobs(waiting) })
	g.Go(func() error {
		return r.until(waiting, 30*time.Minute, func(now map[string]float64) bool { return int(now[stepsRunning]-m[stepsRunning]) >= r.out.Tasks })
	})
	if err = g.Wait(); err != nil {
		return err
	}
	r.out.RunSeconds = time.Since(began).Seconds()
	r.out.RunCPU = r.since(cpu)
	r.out.RSS, err = r.srv.rss()
	for _, s := range r.others {
		rss, failed := s.rss()
		r.out.FollowerRSS, err = max(r.out.FollowerRSS, rss), errors.Join(err, failed)
	}
	r.out.DiskPerTask = float64(r.srv.disk(ctx)-disk) / float64(r.out.Tasks)
	return err
}

// createJobs submits every job, eight at a time.
func (r *run1) createJobs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := 0; i*r.o.jobSize < r.out.Tasks; i++ {
		n := min(r.o.jobSize, r.out.Tasks-i*r.o.jobSize)
		g.Go(func() error { return r.createJob(ctx, fmt.Sprintf("job%05d", i), n) })
	}
	return g.Wait()
}

func (r *run1) createJob(ctx context.Context, name string, n int) error {
	req := connect.NewRequest(&pb.CreateJobRequest{
		Key: cluster + "/www-data/prod/" + name, Main: "job.aurora", User: "root",
		Files: map[string][]byte{"job.aurora": fmt.Appendf(nil, jobFile, name, n)},
	})
	req.Header().Set("Authorization", "Bearer "+r.srv.token)
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		_, err := r.jobs().CreateJob(ctx, req)
		if code := connect.CodeOf(err); err == nil || wait > tooLong || code != connect.CodeUnavailable && code != connect.CodeResourceExhausted {
			return err
		}
		select { // it has too much to do, and asks to be asked later
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

func (r *run1) jobs() api.JobServiceClient {
	return api.NewJobServiceClient(http.DefaultClient, r.srv.url())
}

// tooLong ends the attempts to hand a job to a server that has too much to do.
const tooLong = 10 * time.Second

// full watches the cluster when all tasks run. Only then their memory is
// measured: before, the server holds what all agents say at the same time.
func (r *run1) full(ctx context.Context) (err error) {
	if r.out.FullCores, _, err = r.watch(ctx, "full"); err != nil {
		return err
	}
	now, err := r.srv.memory(ctx)
	r.out.HeapPerTask = float64(now.Heap-r.empty.Heap) / float64(r.out.Tasks)
	return errors.Join(err, r.srv.profile(ctx, r.o.profiles, "heap.pprof", "heap"))
}

// churn watches the cluster while tasks fail and are replaced.
func (r *run1) churn(ctx context.Context) error {
	if r.o.churn == 0 {
		return nil
	}
	each := r.o.churn * float64(r.out.Tasks) / 60 / float64(len(r.fleets))
	m, err := r.srv.metrics(ctx)
	if err != nil {
		return err
	}
	if err = r.order(each); err != nil {
		return err
	}
	disk := r.srv.disk(ctx)
	began := time.Now()
	if r.out.ChurnCores, r.out.ChurnCommits, err = r.watch(ctx, "churn"); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	now, err := r.srv.metrics(ctx)
	if err != nil {
		return err
	}
	if err = r.order(0); err != nil {
		return err
	}
	r.out.Replaced = (now[stepsRunning] - m[stepsRunning]) / took
	size := r.srv.disk(ctx)
	if n := now[stepsRunning] - m[stepsRunning]; n > 0 {
		r.out.DiskPerReplaced = float64(size-disk) / n
	}
	return nil
}

// order tells every process of agents how many tasks shall end in a second.
func (r *run1) order(each float64) error {
	for _, p := range r.fleets {
		if _, err := fmt.Fprintln(p.in, each); err != nil {
			return err
		}
	}
	return nil
}
