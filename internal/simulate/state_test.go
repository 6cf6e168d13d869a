package simulate

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
	"github.com/covey-platform/covey/internal/whatif"
)

// writeState leaves a copy of a cluster named west: four machines in two racks,
// a service with six instances of one core.
func writeState(dir string) error {
	d := state.NewDraft(state.New(), unit.Hour)
	if err := d.Apply(state.PutCluster{Cluster: state.Cluster{Name: "west", UID: "u1", Incarnation: 1}}); err != nil {
		return err
	}
	w := whatif.From(d.Snapshot(), nil, sched.NewIndex)
	var machines []machine.Machine
	for _, at := range [][2]string{{"m1", "r1"}, {"m2", "r1"}, {"m3", "r2"}, {"m4", "r2"}} {
		machines = append(machines, machine.Machine{
			ID: machine.ID(at[0]), Host: at[0], Up: true, Capacity: unit.Resources{CPU: 2000, RAM: 4 << 30},
			Attributes: []machine.Attribute{{Name: "host", Value: at[0]}, {Name: "rack", Value: at[1]}},
		})
	}
	if err := w.AddMachines(machines); err != nil {
		return err
	}
	cfg := job.Config{Service: true, Tier: job.Preferred, MaxTaskFailures: 1, Task: job.Task{Name: "web", Resources: unit.Resources{CPU: 1000, RAM: 1 << 30}}}
	if err := w.Submit(job.Job{Key: "www-data/prod/web", Instances: job.FirstN(6), Config: cfg}); err != nil {
		return err
	}
	if _, err := w.Place(1); err != nil {
		return err
	}
	d = state.NewDraft(w.Snapshot(), unit.Hour)
	var b bytes.Buffer
	if err := state.WriteExport(&b, w.Snapshot()); err != nil {
		return err
	}
	all := b.Bytes()
	if err := d.Apply(state.PutQuota{Role: "www-data", Quota: tenant.Quota{Resources: unit.Resources{CPU: 7000, RAM: 8 << 30}}, By: "ann"}); err != nil {
		return err
	}
	var bounded bytes.Buffer
	if err := state.WriteExport(&bounded, d.Snapshot()); err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		"quota.state": bounded.Bytes(), "west.state": all, "cut.state": all[:len(all)-200], "version.state": bytes.Replace(all, []byte("state 1\n"), []byte("state 9\n"), 1),
		"empty.state": nil, "damaged.state": bytes.Replace(all, []byte("web"), []byte("wob"), 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// TestUnchanged reads a copy and writes it again: nothing of it was lost.
func TestUnchanged(t *testing.T) {
	dir := t.TempDir()
	if err := writeState(dir); err != nil {
		t.Fatal(err)
	}
	s, err := readState(filepath.Join(dir, "west.state"))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err = state.WriteExport(&again, s); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "west.state"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, again.Bytes()) {
		t.Error("the copy of the copy is another one")
	}
}

// TestInterrupted: who says stop does not wait for the end of a large question.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Run(ctx, cli.SimulateFlags{Machines: "../../examples/simulate/machines.csv", Jobs: "../../examples/simulate/jobs.csv", Policy: "covey", Note: func(string) {}})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want an answer or the end of the context", err)
	}
	fifo := filepath.Join(t.TempDir(), "never.csv") // nobody ever writes to it
	if err = syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Run(ctx, cli.SimulateFlags{Machines: fifo, Jobs: fifo, Policy: "covey"}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want the end of the context", err)
	}
}
