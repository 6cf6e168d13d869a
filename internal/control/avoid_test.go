package control_test

import (
	"testing"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
)

// TestHelloKeepsWhatIsWanted: what an operator wants of a machine, and that it
// is avoided, outlives what its agent says of it.
func TestHelloKeepsWhatIsWanted(t *testing.T) {
	m := growing(0)
	m.Mode, m.Avoid = machine.Scheduled, "it is old"
	d := state.NewDraft(state.New(), epoch)
	for _, c := range []state.Change{state.PutCluster{Cluster: state.Cluster{Name: "west", UID: "uid", Incarnation: 1}}, state.PutMachine{Machine: m}} {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	_, s, _ := d.Seal(machine.Epoch{Incarnation: 1, N: 1})
	l := control.New(s, machine.Epoch{Incarnation: 1, N: 1}, epoch, control.Defaults())
	said := growing(0)
	said.Boot, said.Avoid = "another", "its agent has no say"
	take(t, l, epoch, func(x *control.Turn) {
		if err := x.Hello(control.Hello{Session: "s", UID: "uid", Machine: said}); err != nil {
			t.Fatal(err)
		}
	})
	got, _ := l.Snapshot().Machine(m.ID)
	if got.Mode != machine.Scheduled || got.Avoid != "it is old" || got.Boot != "another" {
		t.Errorf("after its hello: mode %v, avoided because %q, boot %s; want SCHEDULED, it is old, another", got.Mode, got.Avoid, got.Boot)
	}
}
