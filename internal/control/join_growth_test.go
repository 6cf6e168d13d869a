package control_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
)

// TestJoinGrowth: what it takes to let one machine in does not follow how many
// are in already. Each of them has a credential and has used a join token.
func TestJoinGrowth(t *testing.T) {
	var first uint64
	for _, n := range []int{1_000, 10_000, 50_000} {
		got := joinCost(t, n)
		t.Logf("%d machines: a join allocates %d bytes", n, got)
		if first == 0 {
			first = got
		}
		if got > 2*first {
			t.Errorf("a join allocates %d bytes with %d machines and %d with 1,000; want at most twice as many", got, n, first)
		}
	}
}

// joinCost is how many bytes a turn allocates in which one machine joins a
// cluster of n.
func joinCost(t *testing.T, n int) uint64 {
	t.Helper()
	d := state.NewDraft(state.New(), epoch)
	put := func(c state.Credential) {
		if err := d.Apply(state.PutCredential{Credential: c}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		id := string(growing(i).ID)
		put(state.Credential{Hash: "agent of " + id, Kind: "agent", Subject: id})
		put(state.Credential{Hash: "join of " + id, Kind: "join", Subject: id, Used: true})
	}
	const joins = 20
	for i := range joins {
		put(state.Credential{Hash: fmt.Sprintf("token %d", i), Kind: "join"})
	}
	_, s, _ := d.Seal(machine.Epoch{Incarnation: 1, N: 1})
	l := control.New(s, machine.Epoch{Incarnation: 1, N: 1}, epoch, control.Defaults())
	l.Warm()
	take(t, l, epoch+1, func(*control.Turn) {}) // what a leader looks at first
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range joins {
		id := string(growing(i * n / joins).ID) // it joins anew
		take(t, l, epoch+2, func(x *control.Turn) {
			join := control.UseJoin{Hash: fmt.Sprintf("token %d", i), Agent: state.Credential{Hash: fmt.Sprintf("new %d", i), Kind: "agent", Subject: id}}
			if _, err := x.Do(join); err != nil {
				t.Fatal(err)
			}
		})
		if _, still := l.Snapshot().Credential("agent of " + id); still {
			t.Fatalf("the credential that %s had before is still good", id)
		}
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / joins
}
