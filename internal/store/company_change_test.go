package store

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// TestCompanyStoresChanges: a step stores what it has changed, a restart finds
// it, and a meter that is left is whole, as an earlier version wants it.
func TestCompanyStoresChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "company.db")
	c, m := openCompany(t, path)
	at, seq := companyStart, state.Seq(0)
	next := func(n int) []state.Record {
		out := make([]state.Record, n)
		for i := range out {
			seq++
			x := machine.Machine{ID: machine.ID(fmt.Sprint("m", seq)), Up: true, Capacity: unit.Resources{CPU: 1000, RAM: 1 << 30}}
			out[i] = state.Record{Seq: seq, At: at + unit.Tick(seq), Kind: state.MachineRecord, Machine: &state.MachineChange{After: x, Free: x.Capacity}}
		}
		return out
	}
	take := func(records []state.Record) {
		t.Helper()
		if err := m.Take(t.Context(), records); err != nil {
			t.Fatal(err)
		}
	}
	stored := func() (whole, rows, most int) {
		t.Helper()
		const q = "SELECT (SELECT length(fold) FROM meter), count(*), coalesce(max(length(changed)), 0) FROM meter_change"
		if err := c.write.QueryRowContext(t.Context(), q).Scan(&whole, &rows, &most); err != nil {
			t.Fatal(err)
		}
		return whole, rows, most
	}
	same := func(what string) {
		t.Helper()
		fresh, err := c.Meter(t.Context(), "uid")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if d := cmp.Diff(m.fold.Encode(), fresh.fold.Encode()); d != "" {
			t.Fatalf("%s: what is stored (-memory +stored):\n%s", what, d)
		}
	}
	take(next(5000))
	for range 20 {
		take(next(1))
		same("in the hour")
	}
	if whole, rows, most := stored(); rows != 20 || most > 200 || whole < 5000*20 {
		t.Errorf("after 20 steps of a record each: a whole of %d bytes and %d changes of at most %d; want 20 of at most 200", whole, rows, most)
	}
	take(next(6000)) // more than half as much
	if _, rows, _ := stored(); rows != 0 {
		t.Errorf("%d changes on top of a fold that has doubled; want it whole", rows)
	}
	take(next(1))
	at += unit.Hour
	take(next(1))
	if _, rows, _ := stored(); rows != 0 {
		t.Errorf("%d changes after the hour's end; want the fold whole", rows)
	}
	same("in the next hour")
	take(next(1))
	if err := m.Rest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, rows, _ := stored(); rows != 0 {
		t.Errorf("%d changes of a meter that was left; want it whole", rows)
	}
	same("left")
	take(next(1))
	same("after it was left")
}

// BenchmarkCompanyTakeOne takes in one record of a cluster with many machines:
// what has changed, and beside it all of the meter.
func BenchmarkCompanyTakeOne(b *testing.B) {
	for _, machines := range []int{100, 10_000} {
		for _, whole := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d machines, whole %v", machines, whole), func(b *testing.B) {
				_, m := openCompany(b, filepath.Join(b.TempDir(), "company.db"))
				records := make([]state.Record, machines)
				for i := range records {
					x := machine.Machine{ID: machine.ID(fmt.Sprint("machine-", i)), Up: true, Capacity: unit.Resources{CPU: 1000, RAM: 1 << 30}}
					records[i] = state.Record{Seq: state.Seq(i + 1), At: companyStart, Kind: state.MachineRecord, Machine: &state.MachineChange{After: x, Free: x.Capacity}}
				}
				if err := m.Take(b.Context(), records); err != nil {
					b.Fatal(err)
				}
				one := records[:1:1]
				for seq := state.Seq(machines) + 1; b.Loop(); seq++ {
					one[0].Seq = seq
					if whole {
						m.whole = 0
					}
					if err := m.Take(b.Context(), one); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
