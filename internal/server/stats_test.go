package server

import (
	"testing"

	"github.com/covey-platform/covey/internal/control"
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
