package storetest

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

func testEpoch(_ *testing.T, f *fixture) {
	f.lead()
	old := f.epoch
	f.commit(f.batch([]state.Row{row(state.JobTable, "a", "a")}))
	f.lead()
	if f.epoch.Compare(old) <= 0 {
		f.Errorf("epoch %v follows %v, want a later one", f.epoch, old)
	}
	b := f.batch([]state.Row{row(state.JobTable, "a", "stale")})
	b.Epoch = old
	f.refused(fault.Conflict, "commit of an old epoch", f.Commit(f.ctx(), b))
	b.Epoch = machine.Epoch{Incarnation: f.epoch.Incarnation, N: f.epoch.N + 1}
	f.refused(fault.Conflict, "commit of an epoch to come", f.Commit(f.ctx(), b))
	f.stands([]state.Row{row(state.JobTable, "a", "a")}, f.head)
	f.commit(f.batch([]state.Row{row(state.JobTable, "a", "b")}))
	if err := f.Release(f.ctx(), "server-1", f.epoch); err != nil {
		f.Fatalf("Release: %v", err)
	}
	f.refused(fault.Conflict, "commit after release", f.Commit(f.ctx(), f.batch(nil, record(1))))
	f.stands([]state.Row{row(state.JobTable, "a", "b")}, f.head)
}

func testBase(_ *testing.T, f *fixture) {
	f.lead()
	f.commit(f.batch([]state.Row{row(state.JobTable, "a", "a")}))
	b := f.batch([]state.Row{row(state.JobTable, "a", "b")})
	f.commit(b)
	f.refused(fault.Conflict, "the same commit again", f.Commit(f.ctx(), b))
	b = f.batch([]state.Row{row(state.JobTable, "a", "c")})
	b.Base, b.Rev = b.Base+1, b.Rev+1
	f.refused(fault.Conflict, "a commit that skips one", f.Commit(f.ctx(), b))
	f.stands([]state.Row{row(state.JobTable, "a", "b")}, f.head)
}

func testContradiction(_ *testing.T, f *fixture) {
	f.lead()
	f.commit(f.batch(nil, record(1)))
	for what, spoil := range map[string]func(b *state.Batch){
		"the revision stays":         func(b *state.Batch) { b.Rev = b.Base },
		"time goes back":             func(b *state.Batch) { b.At = f.head.At - 1 },
		"a record's number comes up": func(b *state.Batch) { b.Records[0].Seq-- },
		"a record is left out":       func(b *state.Batch) { b.Records[1].Seq++ },
	} {
		b := f.batch([]state.Row{row(state.JobTable, "a", "a")}, record(2), record(3))
		spoil(b)
		f.refused(fault.Internal, what, f.Commit(f.ctx(), b))
	}
	f.stands(nil, f.head)
}

// testNothing sees that no part of a refused batch stays.
func testNothing(_ *testing.T, f *fixture) {
	f.lead()
	f.commit(f.batch([]state.Row{row(state.JobTable, "a", "a")}, record(1)))
	b := f.batch([]state.Row{row(state.JobTable, "a", "b"), {Table: state.JobTable, Key: "a"}}, record(2))
	b.Ended = []task.Task{ended("www/prod/web", 0, 1, 5)}
	b.Base--
	f.refused(fault.Conflict, "commit", f.Commit(f.ctx(), b))
	f.stands([]state.Row{row(state.JobTable, "a", "a")}, f.head)
	if got, err := f.Records(f.ctx(), 1, 10); err != nil || len(got) != 0 {
		f.Errorf("Records = %v, %v, want none", got, err)
	}
	if got, err := f.History(f.ctx(), state.HistoryQuery{Job: "www/prod/web", Instance: -1, Limit: 10}); err != nil || len(got) != 0 {
		f.Errorf("History = %v, %v, want none", got, err)
	}
	f.commit(f.batch(nil, record(2)))
}

func testContext(_ *testing.T, f *fixture) {
	f.lead()
	ctx, cancel := context.WithCancel(f.ctx())
	cancel()
	f.refused(fault.Unavailable, "commit", f.Commit(ctx, f.batch([]state.Row{row(state.JobTable, "a", "a")})))
	f.stands(nil, state.Head{})
	f.commit(f.batch([]state.Row{row(state.JobTable, "a", "a")}))
}

func testLease(_ *testing.T, f *fixture) {
	_, err := f.Acquire(f.ctx(), "")
	f.refused(fault.Invalid, "a holder without a name", err)
	f.lead()
	if want := (machine.Epoch{Incarnation: 1, N: 1}); f.epoch != want {
		f.Errorf("first epoch %v, want %v", f.epoch, want)
	}
	_, err = f.Acquire(f.ctx(), "server-2")
	f.refused(fault.Conflict, "the second server while the first leads", err)
	f.now += TTL - 1
	if err = f.Renew(f.ctx(), "server-1", f.epoch); err != nil {
		f.Errorf("Renew: %v", err)
	}
	f.refused(fault.Conflict, "renewal by another", f.Renew(f.ctx(), "server-2", f.epoch))
	f.now += TTL - 1
	_, err = f.Acquire(f.ctx(), "server-2")
	f.refused(fault.Conflict, "the second server after a renewal", err)
	f.now += unit.Tick(1)
	second, err := f.Acquire(f.ctx(), "server-2")
	if err != nil || second.Compare(f.epoch) <= 0 {
		f.Errorf("Acquire after the lease ran out = %v, %v, want a later epoch than %v", second, err, f.epoch)
	}
	f.refused(fault.Conflict, "renewal of a lost lease", f.Renew(f.ctx(), "server-1", f.epoch))
	f.refused(fault.Conflict, "release of a lost lease", f.Release(f.ctx(), "server-1", f.epoch))
	f.refused(fault.Conflict, "commit under a lost lease", f.Commit(f.ctx(), f.batch(nil, record(1))))
	if err := f.Release(f.ctx(), "server-2", second); err != nil {
		f.Errorf("Release: %v", err)
	}
	f.lead()
	if f.epoch.Compare(second) <= 0 {
		f.Errorf("epoch %v after a release of %v, want a later one", f.epoch, second)
	}
	f.commit(f.batch(nil, record(1)))
}

// testIncarnation sees that a new life of the cluster begins with the next
// election, and that no epoch comes twice over a restart.
func testIncarnation(_ *testing.T, f *fixture) {
	f.lead()
	value := state.EncodeCluster(state.Cluster{Name: "dev", UID: "u", Incarnation: 7})
	f.commit(f.batch([]state.Row{{Table: state.ClusterTable, Key: state.ClusterKey(), Value: value}}))
	before := f.epoch
	f.reopen()
	f.now += TTL
	f.lead()
	if f.epoch.Incarnation != 7 || f.epoch.N <= before.N {
		f.Errorf("epoch %v follows %v, want incarnation 7 and a later number", f.epoch, before)
	}
}

func testKinds(t *testing.T, f *fixture) {
	f.lead()
	m := machine.Machine{ID: "m-1", Host: "h", Attributes: []machine.Attribute{{Name: "host", Value: "h"}}, Limits: []string{"no cgroup"}}
	records := []state.Record{
		record(1),
		{Kind: state.JobRecord, By: "ann", Job: &state.JobChange{Job: state.Job{Key: "www/prod/web", By: "ann"}, Dropped: true, Reason: "old"}},
		{Kind: state.MachineRecord, Machine: &state.MachineChange{After: m}},
		{Kind: state.MachineRecord, Machine: &state.MachineChange{Before: m, Left: true}},
		{Kind: state.ClusterRecord, Cluster: &state.Cluster{Name: "dev", UID: "u", Incarnation: 2, Recovery: true}},
		{Kind: state.FactRecord, Fact: &state.Fact{Source: "m-1/1", Seq: 9, Payload: []byte("usage")}},
		{Kind: state.QuotaRecord, By: "ann", Quota: &state.QuotaChange{Quota: state.Quota{Role: "www", By: "ann", Rev: 3}, Dropped: true}},
	}
	f.commit(f.batch(nil, records...))
	f.reopen()
	got, err := f.Records(f.ctx(), 0, 100)
	if err != nil {
		t.Fatalf("Records: %v", err)
	}
	if d := cmp.Diff(records, got); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
}
