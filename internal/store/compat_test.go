package store_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
)

var update = flag.Bool("update", false, "write the database of the present format to testdata/compat")

// present is the directory of the database that this version writes. It was
// left as a kill leaves it: some commits wait to be merged.
const present = "testdata/compat/3"

// TestCompat opens databases as the versions left them that wrote them, reads
// what they hold, and goes on writing.
func TestCompat(t *testing.T) {
	if *update {
		writeGolden(t, present)
	}
	dirs, err := filepath.Glob("testdata/compat/*")
	if err != nil || len(dirs) < 2 {
		t.Fatalf("%d databases in testdata/compat, %v, want 2 or more", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cluster.db")
			copyFile(t, filepath.Join(dir, "cluster.db"), path)
			want, err := os.ReadFile(filepath.Join(dir, "cluster.txt"))
			if err != nil {
				t.Fatal(err)
			}
			s := open(t, path)
			got, head := dump(t, s)
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("what it holds (-want +got):\n%s", d)
			}
			commitOne(t, s, machine.Epoch{}, head, "later")
			shut(t, s)
			s = open(t, path)
			after, _ := dump(t, s)
			if !strings.Contains(after, fmt.Sprintf("row job %q", "later")) || strings.Count(after, "\n") != strings.Count(got, "\n")+2 {
				t.Errorf("after one more commit it holds:\n%s\nwant a row and a record more than:\n%s", after, got)
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// dump writes down all that a store of the golden jobs holds.
func dump(t *testing.T, s *store.SQLite) (string, state.Head) {
	t.Helper()
	var b strings.Builder
	head, err := s.Load(t.Context(), func(r state.Row) error {
		fmt.Fprintf(&b, "row %v %q = %x\n", r.Table, r.Key, r.Value)
		return nil
	})
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	fmt.Fprintf(&b, "head %+v\n", head.At)
	records, err := s.Records(t.Context(), 0, 1000)
	if err != nil {
		t.Fatalf("Records: %v", err)
	}
	for _, r := range records {
		fmt.Fprintf(&b, "record %d %v %v %s\n", r.Seq, r.At, r.Kind, r.By)
	}
	for _, k := range []job.Key{"www/prod/web", "ads/test/batch"} {
		ended, err := s.History(t.Context(), state.HistoryQuery{Job: k, Instance: -1, Limit: 100})
		if err != nil {
			t.Fatalf("History: %v", err)
		}
		for _, x := range ended {
			fmt.Fprintf(&b, "ended %v = %x\n", x.ID, state.EncodeTask(state.Task{Task: x}))
		}
	}
	return b.String(), head
}

// writeGolden makes a store in which something has happened, and writes down
// what it holds.
func writeGolden(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cluster.db")
	s := open(t, path)
	e, err := s.Acquire(t.Context(), "golden")
	if err != nil {
		t.Fatal(err)
	}
	var head state.Head
	for _, b := range goldenBatches() {
		b.Epoch, b.Base, b.Rev, b.At = e, head.Rev, head.Rev+1, head.At+unit.Hour
		for i := range b.Records {
			b.Records[i].Seq, b.Records[i].At = head.Seq+1+state.Seq(i), b.At
		}
		if err := s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		head = state.Head{Rev: b.Rev, Seq: head.Seq + state.Seq(len(b.Records)), At: b.At}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	text, _ := dump(t, s)
	if err := os.WriteFile(filepath.Join(dir, "cluster.txt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	into := filepath.Join(dir, "cluster.db")
	_ = os.Remove(into) // there is none yet
	edit(t, path, "VACUUM INTO '"+into+"'")
}

// goldenBatches are three commits: a cluster with a job, a machine and a quota, tasks
// that run, tasks that have ended and a row that is gone.
func goldenBatches() []*state.Batch {
	c := state.Cluster{Name: "golden", UID: "u-1", Incarnation: 3}
	m := machine.Machine{
		ID: "m-1", Host: "localhost", Attributes: []machine.Attribute{{Name: "rack", Value: "r1"}},
		Capacity: unit.Resources{CPU: 4000, RAM: 64 * unit.MiB}, Ports: machine.PortRange{From: 31000, To: 31999}, Up: true,
	}
	q := state.Quota{Role: "www", Quota: tenant.Quota{Resources: unit.Resources{CPU: 9000, RAM: unit.MiB}}, Updated: unit.Hour, By: "ann", Rev: 1}
	h := job.HashOf([]byte("config"))
	live := func(n int32, s task.State) task.Task {
		return task.Task{
			ID: task.ID{Job: "www/prod/web", Instance: n, Attempt: 7}, Config: h, State: s, Machine: "m-1", Ports: []uint16{31000},
			Resources: unit.Resources{CPU: 500, RAM: unit.MiB}, Created: unit.Hour, Since: 2 * unit.Hour, Ran: 2 * unit.Hour,
		}
	}
	put := func(x task.Task) state.Row {
		return state.Row{Table: state.TaskTable, Key: state.TaskKey(x.ID), Value: state.EncodeTask(state.Task{Task: x, Rev: 2})}
	}
	slot := state.Instance{Slot: state.Slot{Job: "www/prod/web", N: 1}, Attempt: 7, Live: true, Rev: 2}
	over := live(1, task.Failed)
	over.Since, over.Reason = 3*unit.Hour, "exit 1"
	return []*state.Batch{
		{
			Rows: []state.Row{
				{Table: state.ClusterTable, Key: state.ClusterKey(), Value: state.EncodeCluster(c)},
				{Table: state.JobTable, Key: "www/prod/web", Value: state.EncodeJob(state.Job{Key: "www/prod/web", Instances: job.FirstN(2), Config: h, Rev: 1})},
				{Table: state.ConfigTable, Key: state.ConfigKey(h), Value: []byte("config")},
				{Table: state.MachineTable, Key: "m-1", Value: state.EncodeMachine(state.Machine{Machine: m, Rev: 1})},
				{Table: state.CredentialTable, Key: "aa", Value: state.EncodeCredential(state.Credential{Kind: "join", Subject: "m-1", Rev: 1})},
				{Table: state.SourceTable, Key: "m-1/1", Value: state.EncodeSource(9)},
				{Table: state.QuotaTable, Key: "www", Value: state.EncodeQuota(q)},
			},
			Records: []state.Record{{Kind: state.ClusterRecord, Cluster: &c, By: "ann"}, {Kind: state.FactRecord, Fact: &state.Fact{Source: "m-1/1", Seq: 9, Payload: []byte("usage")}}, {Kind: state.QuotaRecord, By: "ann", Quota: &state.QuotaChange{Quota: q}}},
		},
		{
			Rows: []state.Row{
				{Table: state.InstanceTable, Key: state.SlotKey(slot.Slot), Value: state.EncodeInstance(slot)},
				put(live(0, task.Running)), put(live(1, task.Running)),
			},
			Records: []state.Record{{Kind: state.TaskRecord, Task: &state.TaskChange{Before: task.Starting, After: live(0, task.Running)}}},
		},
		{
			Rows:    []state.Row{{Table: state.TaskTable, Key: state.TaskKey(over.ID)}, {Table: state.CredentialTable, Key: "aa"}},
			Ended:   []task.Task{over},
			Records: []state.Record{{Kind: state.TaskRecord, Task: &state.TaskChange{Before: task.Running, After: over}}},
		},
	}
}
