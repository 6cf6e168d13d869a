package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"

	"github.com/covey-platform/covey/bench/workload"
)

// options are the choices a user of the scheduler has that matter here.
type options struct {
	limitBy string
	pack    bool
}

func (o options) String() string {
	score := "LeastAllocated (default)"
	if o.pack {
		score = "MostAllocated"
	}
	return fmt.Sprintf("default plugins, %s, max_per_host by %s", score, o.limitBy)
}

// peer is one scheduler, driven a pod at a time.
type peer struct {
	sched   *scheduler.Scheduler
	limitBy string
	job     workload.Job

	mu      sync.Mutex
	where   map[string]string // pod -> node, of the current job
	pending sync.WaitGroup    // pods neither bound nor refused
}

var _ workload.Peer = (*peer)(nil)

// newPeer starts a scheduler that knows of all machines. Its client is a fake
// that holds nothing but them: informers fill the cache from it, then nobody
// asks it again.
func newPeer(machines []workload.Machine, o options) (*peer, error) {
	ctx := klog.NewContext(context.Background(), klog.Background())
	objects := make([]runtime.Object, len(machines))
	for i, m := range machines {
		objects[i] = node(m)
	}
	client := fake.NewClientset(objects...)
	factory := scheduler.NewInformerFactory(client, 0)
	p := &peer{limitBy: o.limitBy, where: map[string]string{}}
	profiles, err := profiles(o)
	if err != nil {
		return nil, err
	}
	p.sched, err = scheduler.New(ctx, client, factory, nil,
		func(string) events.EventRecorderLogger { return &events.FakeRecorder{} },
		scheduler.WithProfiles(profiles...),
		scheduler.WithFrameworkOutOfTreeRegistry(frameworkruntime.Registry{
			binderName: func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return binder{p}, nil },
		}))
	if err != nil {
		return nil, err
	}
	p.sched.FailureHandler = p.refused
	return p, p.fill(ctx, factory, len(machines))
}

// profiles are the defaults but for the last step: a pod is bound by writing
// down where.
func profiles(o options) ([]config.KubeSchedulerProfile, error) {
	var versioned configv1.KubeSchedulerConfiguration
	scheme.Scheme.Default(&versioned)
	var cfg config.KubeSchedulerConfiguration
	if err := scheme.Scheme.Convert(&versioned, &cfg, nil); err != nil {
		return nil, err
	}
	for i := range cfg.Profiles {
		profile := &cfg.Profiles[i]
		profile.Plugins.Bind = config.PluginSet{
			Enabled:  []config.Plugin{{Name: binderName}},
			Disabled: []config.Plugin{{Name: names.DefaultBinder}},
		}
		for _, c := range profile.PluginConfig {
			if args, ok := c.Args.(*config.NodeResourcesFitArgs); ok && o.pack {
				args.ScoringStrategy.Type = config.MostAllocated
			}
		}
	}
	return cfg.Profiles, nil
}

// fill waits until the scheduler's cache has every machine.
func (p *peer) fill(ctx context.Context, factory informers.SharedInformerFactory, machines int) error {
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	wait, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := p.sched.WaitForHandlersSync(wait); err != nil {
		return fmt.Errorf("filling the cache: %w", err)
	}
	if n := p.sched.Cache.NodeCount(); n != machines {
		return fmt.Errorf("the cache has %d nodes; want %d", n, machines)
	}
	logger := klog.FromContext(ctx)
	p.sched.SchedulingQueue.Run(logger)
	if p.sched.APIDispatcher != nil {
		p.sched.APIDispatcher.Run(logger)
	}
	return nil
}

// Offer implements [workload.Peer]. All pods of a job enter the queue at once.
func (p *peer) Offer(j workload.Job) error {
	p.job = j
	clear(p.where)
	for i := range j.Count {
		p.sched.SchedulingQueue.Add(context.Background(), pod(j, i, p.limitBy))
	}
	return nil
}

// Place implements [workload.Peer]: one scheduling cycle for each pod. Binding
// cycles run beside, as they do in production, and end before it returns.
func (p *peer) Place(ctx context.Context) ([]time.Duration, error) {
	cycles := make([]time.Duration, 0, p.job.Count)
	for range p.job.Count {
		if ctx.Err() != nil {
			break
		}
		p.pending.Add(1)
		start := time.Now()
		p.sched.ScheduleOne(context.Background())
		cycles = append(cycles, time.Since(start))
	}
	p.pending.Wait()
	return cycles, nil
}

// Where implements [workload.Peer].
func (p *peer) Where() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var where []string
	for i := range p.job.Count {
		node, ok := p.where[podName(p.job, i)]
		if !ok {
			continue // the time was up
		}
		where = append(where, node)
	}
	return where, nil
}

// settle notes the end of a pod: a node, or nothing.
func (p *peer) settle(pod *v1.Pod, node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.where[pod.Name]; !ok {
		p.where[pod.Name] = node
		p.pending.Done()
	}
}

// refused stands in for the scheduler's own handler, which would write to the
// API server and queue the pod again for later. Nothing frees room here, so a
// pod that does not fit now will not fit later either.
func (p *peer) refused(_ context.Context, _ framework.Framework, pod *framework.QueuedPodInfo, _ *fwk.Status, _ *fwk.NominatingInfo, _ time.Time) {
	p.sched.SchedulingQueue.Done(pod.Pod.UID)
	p.settle(pod.Pod, "")
}

const binderName = "BenchBinder"

// A binder ends a binding cycle without telling anybody. The pod stays assumed
// in the cache, where it takes its room for ever.
type binder struct{ peer *peer }

// Name implements the scheduler's plugin.
func (binder) Name() string { return binderName }

// Bind implements the scheduler's last step.
func (b binder) Bind(_ context.Context, _ fwk.CycleState, pod *v1.Pod, node string) *fwk.Status {
	b.peer.settle(pod, node)
	return nil
}
