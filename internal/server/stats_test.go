package server

import (
	"testing"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

func TestHeldMetric(t *testing.T) {
	st := newStats()
	st.watch(func() rpc.View {
		return rpc.View{Snapshot: state.New(), Held: []control.Held{
			{Surplus: true}, {Surplus: true}, {Sighting: task.Sighting{Orphan: true}}, {Sighting: task.Sighting{Orphan: true}, Surplus: true}, {},
		}}
	})
	all, err := st.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		if f.GetName() == "covey_held_tasks" {
			for _, m := range f.GetMetric() {
				got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if got[heldSurplus] != 2 || got[heldOrphan] != 2 || got[heldUnknown] != 1 {
		t.Errorf("got %v; want 2 surplus, 2 orphans, 1 unknown", got)
	}
}

// TestAvoidedMetric counts the machines that are avoided, for a time or until an
// operator says otherwise.
func TestAvoidedMetric(t *testing.T) {
	d := state.NewDraft(state.New(), 1)
	changes := []state.Change{state.PutCluster{Cluster: state.Cluster{Name: "west", UID: "uid", Incarnation: 1}}}
	for _, m := range []machine.Machine{
		{ID: "m1", Host: "h", Avoid: "it starts nothing", AvoidUntil: 7, Avoided: 1}, {ID: "m2", Host: "h", Avoid: "it is old"}, {ID: "m3", Host: "h", Avoided: 2}, {ID: "m4", Host: "h", Avoided: 1}, {ID: "m5", Host: "h"},
	} {
		changes = append(changes, state.PutMachine{Machine: m})
	}
	for _, c := range changes {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	_, s, _ := d.Seal(machine.Epoch{Incarnation: 1, N: 1})
	st := newStats()
	st.watch(func() rpc.View { return rpc.View{Snapshot: s} })
	all, err := st.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "covey_machines_avoided" {
			if got := f.GetMetric()[0].GetGauge().GetValue(); got != 2 {
				t.Errorf("got %v; want 2", got)
			}
			return
		}
	}
	t.Error("there is no metric covey_machines_avoided")
}
