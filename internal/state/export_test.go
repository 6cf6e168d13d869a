package state

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
)

// exportable is a cluster with a row of every table.
func exportable(t testing.TB) *Snapshot {
	t.Helper()
	d := NewDraft(New(), unit.Hour)
	cfg := job.Config{Tier: job.Preferred, MaxTaskFailures: 1, Task: job.Task{Name: "x", Resources: unit.Resources{CPU: 500}}}
	slot := Slot{Job: "a/prod/x", N: 0}
	for _, c := range []Change{
		PutCluster{Cluster: Cluster{Name: "west", UID: "u1", Incarnation: 1}},
		PutCredential{Credential: Credential{Hash: strings.Repeat("5ec3e7", 10), Kind: "admin", Subject: "ann"}},
		TakeFact{Fact: Fact{Source: "m1/j", Seq: 3}},
		PutQuota{Role: "a", Quota: tenant.Quota{Resources: unit.Resources{CPU: 900}}, By: "ann"},
		PutMachine{Machine: machine.Machine{ID: "m1", Capacity: unit.Resources{CPU: 4000}, Up: true}},
		PutJob{Job: job.Job{Key: slot.Job, Instances: job.FirstN(2), Config: cfg}},
		OpenSlot{Slot: slot},
		NewTask{Slot: slot, Base: d.Snapshot().Rev},
		StepTask{ID: task.ID{Job: slot.Job, Attempt: 1}, Base: d.Snapshot().Rev, Event: task.Event{To: task.Assigned, Machine: "m1"}},
	} {
		if err := d.Apply(c); err != nil {
			t.Fatalf("%T: %v", c, err)
		}
	}
	_, s, _ := d.Seal(machine.Epoch{})
	return s
}

func export(t testing.TB, s *Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteExport(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestExport reads back what it wrote: the same rows, the same accounts, and
// no secret.
func TestExport(t *testing.T) {
	s := exportable(t)
	file := export(t, s)
	got, err := ReadExport(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(file, export(t, got)); d != "" {
		t.Errorf("exported again it is another file:\n%s", d)
	}
	jobs, tasks, machines := got.Len()
	if jobs != 1 || tasks != 1 || machines != 1 || got.Rev != s.Rev || got.Seq != s.Seq || got.At != s.At || got.Cluster != s.Cluster {
		t.Errorf("%d jobs, %d tasks, %d machines at %d of %+v; want one of each at %d", jobs, tasks, machines, got.Rev, got.Cluster, s.Rev)
	}
	if f := got.Free("m1"); f.CPU != 3500 {
		t.Errorf("m1 has %v left; want cpu 3.5", f)
	}
	if q, _ := got.Quota("a"); q.CPU != 900 || q.By != "ann" {
		t.Errorf("role a has quota %+v; want cpu 0.9 by ann", q)
	}
	if bytes.Contains(file, []byte("5ec3e7")) {
		t.Error("the export holds a credential")
	}
}

// TestReadExportBad cuts an export at every byte, turns every byte around and
// changes its version: each time it is refused, with a reason, and nothing
// crashes.
func TestReadExportBad(t *testing.T) {
	file := export(t, exportable(t))
	refused := func(what string, b []byte, want string) {
		t.Helper()
		_, err := ReadExport(bytes.NewReader(b))
		if err == nil || fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error of kind invalid with %q", what, err, want)
		}
	}
	for n := range file {
		refused("cut", file[:n], "")
	}
	for n := range file {
		b := bytes.Clone(file)
		b[n] ^= 0x40
		refused("turned", b, "")
	}
	refused("cut in the middle", file[:len(file)/2], "it is cut short after")
	refused("empty", nil, "it is empty; want a file of covey state export")
	refused("longer", append(bytes.Clone(file), 'x'), "something follows its end")
	refused("another file", []byte("id,cpu_milli\n"), "it is no export of a cluster's state")
	refused("newer", bytes.Replace(file, []byte("state 1\n"), []byte("state 7\n"), 1), "it is of version 7; this program reads 1 to 2")
	refused("no version", bytes.Replace(file, []byte("state 1\n"), []byte("state x\n"), 1), `its version is "x"`)
}

// FuzzReadExport holds the reader to an answer or an error.
func FuzzReadExport(f *testing.F) {
	f.Add(export(f, exportable(f)))
	f.Add([]byte("covey state 1\n\x02\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ReadExport(bytes.NewReader(b)); err != nil && fault.Of(err) != fault.Invalid {
			t.Errorf("%v; want an error of kind invalid", err)
		}
	})
}
