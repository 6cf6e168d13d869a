package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/nomad/state"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/scheduler"

	"github.com/covey-platform/covey/bench/workload"
)

// peer is one scheduler, driven an evaluation at a time. An evaluation is one
// job: it is placed as a whole, in one plan.
type peer struct {
	harness *scheduler.Harness
	factory scheduler.Factory
	kind    string
	names   map[string]string // node id -> machine
	count   int
	eval    *structs.Evaluation
	plans   planner
}

// A planner takes plans and writes them down later: what that costs is counted
// for no scheduler.
type planner struct {
	*scheduler.Harness
	taken []*structs.Plan
}

// SubmitPlan implements [scheduler.Planner]: every plan is accepted as it is.
func (p *planner) SubmitPlan(plan *structs.Plan) (*structs.PlanResult, scheduler.State, error) {
	p.taken = append(p.taken, plan)
	return &structs.PlanResult{
		NodeUpdate: plan.NodeUpdate, NodeAllocation: plan.NodeAllocation, NodePreemptions: plan.NodePreemptions,
		AllocIndex: p.NextIndex(),
	}, nil, nil
}

var _ workload.Peer = (*peer)(nil)

func newPeer(machines []workload.Machine, kind string) (*peer, error) {
	store, err := state.NewStateStore(&state.StateStoreConfig{Logger: hclog.NewNullLogger(), Region: "global"})
	if err != nil {
		return nil, err
	}
	p := &peer{
		harness: scheduler.NewHarnessWithState(nil, store),
		factory: scheduler.NewServiceScheduler,
		kind:    kind,
		names:   make(map[string]string, len(machines)),
	}
	if kind == structs.JobTypeBatch {
		p.factory = scheduler.NewBatchScheduler
	}
	p.plans.Harness = p.harness
	p.harness.OptimizePlan(true) // as servers do since 0.9
	for i, m := range machines {
		n, err := node(i, m)
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", m.ID, err)
		}
		if err := store.UpsertNode(structs.MsgTypeTestSetup, p.harness.NextIndex(), n); err != nil {
			return nil, fmt.Errorf("machine %s: %w", m.ID, err)
		}
		p.names[n.ID] = m.ID
	}
	return p, nil
}

// Offer implements [workload.Peer]: it writes the job and its evaluation, as a
// server does when a job is registered.
func (p *peer) Offer(j workload.Job) error {
	made := job(j, p.kind)
	if err := p.harness.State.UpsertJob(structs.MsgTypeTestSetup, p.harness.NextIndex(), nil, made); err != nil {
		return err
	}
	p.count = j.Count
	p.eval = &structs.Evaluation{
		Namespace: made.Namespace, ID: nodeID(int(made.CreateIndex)), JobID: made.ID, Type: made.Type, Priority: made.Priority,
		TriggeredBy: structs.EvalTriggerJobRegister, Status: structs.EvalStatusPending,
	}
	// The harness keeps every plan for tests to look at.
	p.harness.Plans, p.harness.Evals, p.harness.CreateEvals = nil, nil, nil
	return p.harness.State.UpsertEvals(structs.MsgTypeTestSetup, p.harness.NextIndex(), []*structs.Evaluation{p.eval})
}

// Place implements [workload.Peer]. It cannot end early, and cannot tell how
// long one task took.
func (p *peer) Place(context.Context) ([]time.Duration, error) {
	events := make(chan any)
	done := make(chan error, 1)
	go func() {
		sched := p.factory(hclog.NewNullLogger(), events, p.harness.Snapshot(), &p.plans)
		done <- sched.Process(p.eval)
	}()
	select {
	case e := <-events:
		return nil, fmt.Errorf("the scheduler complained: %v", e)
	case err := <-done:
		return nil, err
	}
}

// Where implements [workload.Peer].
func (p *peer) Where() ([]string, error) {
	for _, plan := range p.plans.taken {
		if _, _, err := p.harness.SubmitPlan(plan); err != nil {
			return nil, err
		}
	}
	p.plans.taken = nil
	allocs, err := p.harness.State.AllocsByJob(nil, p.eval.Namespace, p.eval.JobID, true)
	if err != nil {
		return nil, err
	}
	where := make([]string, p.count)
	for _, a := range allocs {
		where[a.Index()] = p.names[a.NodeID]
	}
	return where, nil
}
