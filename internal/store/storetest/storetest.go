// Package storetest holds what every store must do. A store that passes [Run]
// may keep a cluster.
package storetest

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Subject is a store under test.
type Subject interface {
	state.Store
	state.Lease
}

// TTL is how long the leases of a subject must last.
const TTL = unit.Hour / 360 // 10 s

// A Maker makes an empty place for a store and returns a function that opens
// the store there; called again, it closes the store and opens it anew. The
// store's clock is now.
type Maker func(t *testing.T, now func() unit.Tick) (open func() Subject)

// Run tests a kind of store.
func Run(t *testing.T, make Maker) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *fixture){
		"an empty store":                     testEmpty,
		"what was committed is loaded":       testReload,
		"a draft is restored":                testDraft,
		"a stale epoch is refused":           testEpoch,
		"a stale base is refused":            testBase,
		"a batch that contradicts itself":    testContradiction,
		"a refused batch leaves nothing":     testNothing,
		"an ended context commits nothing":   testContext,
		"the lease":                          testLease,
		"the lease follows the incarnation":  testIncarnation,
		"records in pages":                   testRecords,
		"every kind of record":               testKinds,
		"records are compacted":              testCompacted,
		"history is ordered and bounded":     testHistory,
		"trim is bounded":                    testTrim,
		"trim keeps so many of each job":     testTrimPerJob,
		"the error of a reader is passed on": testYield,
	} {
		t.Run(name, func(t *testing.T) {
			f := &fixture{T: t, now: 1000 * unit.Hour}
			f.open = make(t, func() unit.Tick { return f.now })
			f.Subject = f.open()
			test(t, f)
		})
	}
}

// fixture is a store and where its leader believes it stands.
type fixture struct {
	*testing.T
	Subject

	open  func() Subject
	now   unit.Tick
	epoch machine.Epoch
	head  state.Head
}

func (f *fixture) ctx() context.Context { return f.Context() }

func (f *fixture) reopen() { f.Subject = f.open() }

func (f *fixture) lead() {
	f.Helper()
	e, err := f.Acquire(f.ctx(), "server-1")
	if err != nil {
		f.Fatalf("Acquire: %v", err)
	}
	f.epoch = e
}

// batch returns the next batch, with records numbered and timed.
func (f *fixture) batch(rows []state.Row, records ...state.Record) *state.Batch {
	b := &state.Batch{Epoch: f.epoch, Base: f.head.Rev, Rev: f.head.Rev + 1, At: f.head.At + 10, Rows: rows, Records: records}
	for i := range records {
		records[i].Seq, records[i].At = f.head.Seq+1+state.Seq(i), b.At
	}
	return b
}

func (f *fixture) commit(b *state.Batch) {
	f.Helper()
	if err := f.Commit(f.ctx(), b); err != nil {
		f.Fatalf("Commit revision %d: %v", b.Rev, err)
	}
	f.head = state.Head{Rev: b.Rev, Seq: f.head.Seq + state.Seq(len(b.Records)), At: b.At}
}

func (f *fixture) load() (rows []state.Row, head state.Head) {
	f.Helper()
	head, err := f.Load(f.ctx(), func(r state.Row) error { rows = append(rows, r); return nil })
	if err != nil {
		f.Fatalf("Load: %v", err)
	}
	return rows, head
}

// stands checks what a load gives.
func (f *fixture) stands(want []state.Row, head state.Head) {
	f.Helper()
	rows, got := f.load()
	if d := cmp.Diff(want, rows, cmpopts.EquateEmpty()); d != "" {
		f.Errorf("rows (-want +got):\n%s", d)
	}
	if got != head {
		f.Errorf("head %+v, want %+v", got, head)
	}
}

func (f *fixture) refused(want fault.Kind, what string, err error) {
	f.Helper()
	if err == nil || fault.Of(err) != want {
		f.Errorf("%s: error %v of kind %v, want kind %v", what, err, fault.Of(err), want)
	}
}

// record returns a record with a number in it.
func record(n int) state.Record {
	return state.Record{Kind: state.TaskRecord, Task: &state.TaskChange{After: ended("www/prod/web", int32(n), 1, 7)}}
}

func row(t state.Table, key, value string) state.Row {
	return state.Row{Table: t, Key: key, Value: []byte(value)}
}

func ended(k job.Key, instance int32, attempt uint32, at unit.Tick) task.Task {
	return task.Task{
		ID: task.ID{Job: k, Instance: instance, Attempt: attempt}, State: task.Failed, Machine: "m-1",
		Resources: unit.Resources{CPU: 100, RAM: unit.MiB}, Ports: []uint16{31000, 31001},
		Created: at - 5, Since: at, Ran: at - 3, Failures: 2, Reason: fmt.Sprintf("exit %d", attempt),
	}
}

func testEmpty(_ *testing.T, f *fixture) {
	f.stands(nil, state.Head{})
	if got, err := f.Records(f.ctx(), 0, 10); err != nil || len(got) != 0 {
		f.Errorf("Records = %v, %v, want none", got, err)
	}
	if got, err := f.History(f.ctx(), state.HistoryQuery{Job: "www/prod/web", Instance: -1, Limit: 10}); err != nil || len(got) != 0 {
		f.Errorf("History = %v, %v, want none", got, err)
	}
	if more, err := f.Trim(f.ctx(), state.TrimQuery{Limit: 10, UpTo: 100, RecordsBefore: 100}); err != nil || more {
		f.Errorf("Trim = %v, %v, want no more", more, err)
	}
	f.refused(fault.Conflict, "commit without a lease", f.Commit(f.ctx(), f.batch(nil)))
}

func testReload(_ *testing.T, f *fixture) {
	f.lead()
	f.commit(f.batch([]state.Row{
		row(state.JobTable, "www/prod/web", "one"), row(state.JobTable, "www/prod/db", ""),
		row(state.TaskTable, "a\x00\x80\x00\x00\x01", "b\x00c"), row(state.TaskTable, "a\x00\x80\x00\x00\x00", "a"),
		row(state.MachineTable, "ümlaut", "\xff\x00"), row(state.CredentialTable, "c", "c"),
		row(state.QuotaTable, "*", "all"), row(state.QuotaTable, "www", "w"),
	}))
	many := make([]state.Row, 0, 777)
	for i := range 777 {
		many = append(many, row(state.InstanceTable, fmt.Sprintf("i%04d", i), fmt.Sprint(i)))
	}
	f.commit(f.batch(many))
	for i := range 500 {
		many[i] = state.Row{Table: state.InstanceTable, Key: many[i].Key}
	}
	many[500].Value = []byte("again")
	f.commit(f.batch(append(many[:501:501],
		row(state.JobTable, "www/prod/web", "two"), state.Row{Table: state.CredentialTable, Key: "c"},
		state.Row{Table: state.MachineTable, Key: "never was"}, row(state.ConfigTable, "h", "h"),
		row(state.QuotaTable, "*", "less"), state.Row{Table: state.QuotaTable, Key: "www"},
		row(state.SourceTable, "s", "s"), row(state.ClusterTable, "cluster", "\x01"))))

	want := []state.Row{
		row(state.ClusterTable, "cluster", "\x01"), row(state.ConfigTable, "h", "h"),
		row(state.JobTable, "www/prod/db", ""), row(state.JobTable, "www/prod/web", "two"),
	}
	want = append(want, many[500:]...)
	want = append(want,
		row(state.TaskTable, "a\x00\x80\x00\x00\x00", "a"), row(state.TaskTable, "a\x00\x80\x00\x00\x01", "b\x00c"),
		row(state.MachineTable, "ümlaut", "\xff\x00"), row(state.SourceTable, "s", "s"),
		row(state.QuotaTable, "*", "less"))
	f.stands(want, f.head)
	f.reopen()
	f.stands(want, f.head)
}

// testYield sees that Load stops, and says why, when its reader fails.
func testYield(_ *testing.T, f *fixture) {
	f.lead()
	f.commit(f.batch([]state.Row{row(state.JobTable, "a", "a"), row(state.JobTable, "b", "b")}))
	n := 0
	_, err := f.Load(f.ctx(), func(state.Row) error { n++; return fault.Denied.Errorf("no") })
	f.refused(fault.Denied, "load", err)
	if n != 1 {
		f.Errorf("the reader was called %d times, want once", n)
	}
	f.stands([]state.Row{row(state.JobTable, "a", "a"), row(state.JobTable, "b", "b")}, f.head)
}

func testDraft(t *testing.T, f *fixture) {
	f.lead()
	s := state.New()
	d := state.NewDraft(s, f.now)
	cfg := job.Config{Tier: job.Preferred, Service: true, Task: job.Task{Name: "web", Resources: unit.Resources{CPU: 500, RAM: unit.MiB}}}
	changes := []state.Change{
		state.PutCluster{Cluster: state.Cluster{Name: "dev", UID: "u-1", Incarnation: 1}},
		state.PutMachine{Machine: machine.Machine{
			ID: "m-1", Host: "localhost", Attributes: []machine.Attribute{{Name: "host", Value: "localhost"}},
			Capacity: unit.Resources{CPU: 4000, RAM: 64 * unit.MiB}, Ports: machine.PortRange{From: 31000, To: 31999}, Up: true,
		}},
		state.PutCredential{Credential: state.Credential{Hash: "aa", Kind: "join", Subject: "m-1", Expires: 5}},
		state.PutJob{Job: job.Job{Key: "www/prod/web", Instances: job.FirstN(3), Config: cfg}, By: "ann"},
		state.TakeFact{Fact: state.Fact{Source: "m-1/1", Seq: 3, Payload: []byte{1, 2}}},
	}
	for i := range int32(3) {
		changes = append(changes, state.OpenSlot{Slot: state.Slot{Job: "www/prod/web", N: i}})
	}
	for _, c := range changes {
		if err := d.Apply(c); err != nil {
			t.Fatalf("Apply(%T): %v", c, err)
		}
	}
	batch, next, _ := d.Seal(f.epoch)
	f.commit(batch)
	d = state.NewDraft(next, f.now+5)
	for i := range int32(2) {
		if err := d.Apply(state.NewTask{Slot: state.Slot{Job: "www/prod/web", N: i}, Base: next.Rev}); err != nil {
			t.Fatalf("NewTask: %v", err)
		}
	}
	batch, next, _ = d.Seal(f.epoch)
	f.commit(batch)

	f.reopen()
	got, err := state.Restore(func(yield func(state.Row) error) (state.Head, error) { return f.Load(f.ctx(), yield) })
	if err != nil {
		t.Fatalf("Restore: %v", err)
	}
	if d := cmp.Diff(inside(next), inside(got), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("restored snapshot (-want +got):\n%s", d)
	}
	if _, tasks, _ := got.Len(); tasks != 2 {
		t.Errorf("%d tasks, want 2", tasks)
	}
}

// inside lists what is in a snapshot.
func inside(s *state.Snapshot) []any {
	out := []any{s.Rev, s.Seq, s.At, s.Cluster, s.Source("m-1/1")}
	for j := range s.Jobs("") {
		c, _ := s.Config(j.Config)
		out = append(out, j, c)
	}
	for i := range s.AllInstances() {
		out = append(out, i)
	}
	for t := range s.Tasks() {
		out = append(out, t)
	}
	for m := range s.Machines() {
		out = append(out, m)
		for t := range s.TasksOn(m.ID) {
			out = append(out, t.ID)
		}
	}
	for c := range s.Credentials() {
		out = append(out, c)
	}
	return out
}
