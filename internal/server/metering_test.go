package server

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/unit"
)

// committed is the records of a cluster.
type committed struct{ all []state.Record }

func (c *committed) Records(_ context.Context, after state.Seq, limit int) ([]state.Record, error) {
	rest := c.all[min(int(after), len(c.all)):]
	return rest[:min(limit, len(rest))], nil
}

// grow commits records until there are so many.
func (c *committed) grow(to state.Seq) {
	for i := len(c.all); i < int(to); i++ {
		m := machine.Machine{ID: machine.ID(fmt.Sprint("m", i)), Up: true, Capacity: unit.Resources{CPU: 1000}}
		at := unit.Tick(490_000)*unit.Hour + unit.Tick(i)
		c.all = append(c.all, state.Record{Seq: state.Seq(i + 1), At: at, Kind: state.MachineRecord, Machine: &state.MachineChange{After: m, Free: m.Allocatable()}})
	}
}

// A server that leads again goes on where the one has stopped that led
// meanwhile, and calls that no failure.
func TestMeteringAfterAnother(t *testing.T) {
	var records committed
	company, err := store.OpenCompany(t.Context(), filepath.Join(t.TempDir(), "company.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer company.Close()
	var servers [2]metering
	for i := range servers {
		servers[i] = metering{
			records: &records, company: company, log: slog.New(slog.DiscardHandler), head: func() (string, state.Head, bool) { return "uid", state.Head{}, true },
			stands: func(context.Context) (state.Head, error) { return state.Head{Seq: state.Seq(len(records.all))}, nil },
		}
	}
	for i, seq := range []state.Seq{3, 5, 8, 12} {
		records.grow(seq)
		meter, err := servers[i%2].upTo(t.Context(), seq)
		if err != nil {
			t.Fatalf("server %d, up to record %d: %v", i%2, seq, err)
		}
		if at, err := meter.Seq(t.Context()); err != nil || at != seq {
			t.Errorf("server %d stands at record %d, %v; want %d", i%2, at, err, seq)
		}
	}
}
