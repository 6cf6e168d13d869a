package sim

import (
	"flag"
	"reflect"
	"runtime/debug"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

var (
	seed  = flag.Uint64("seed", 0, "run this seed only")
	seeds = flag.Uint64("seeds", 500, "number of seeds to run")
	hours = flag.Int("hours", 1, "simulated hours of each seed")
	every = flag.Bool("restores", false, "put old copies of the database back in every world, not in one of five")
)

// TestMain collects garbage less often: a world is small and makes a lot of it.
func TestMain(m *testing.M) {
	debug.SetGCPercent(1000)
	m.Run()
}

func config(seed uint64) Config {
	cfg := Config{Seed: seed, Machines: 20, Tasks: 200, FaultsPerHour: 40, Exclusive: 5, Restores: seed%5 == 0 || *every}
	if seed%3 == 1 {
		cfg.Exclusive = 50
	}
	return cfg
}

// TestSeeds runs many worlds. A failure names the seed; replay it with
// go test ./internal/sim -run TestSeeds -seed N.
func TestSeeds(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed != 0 {
		first, last = *seed, *seed
	}
	var total Stats
	began := time.Now()
	for s := first; s <= last; s++ {
		w := New(config(s))
		err := w.Run(unit.Tick(*hours) * unit.Hour)
		if err == nil {
			err = w.Settle()
		}
		if err != nil {
			t.Fatalf("%v\nreplay: go test ./internal/sim -run TestSeeds -seed %d", err, s)
		}
		st := w.Stats()
		total.Faults += st.Faults
		total.Commits += st.Commits
		total.Records += st.Records
		total.Starts += st.Starts
		total.Leaders += st.Leaders
	}
	n := float64(last-first+1) * (float64(*hours) + 0.75)
	t.Logf("%.0f simulated hours in %v, %.0f a minute; %+v", n, time.Since(began).Round(time.Millisecond), n/time.Since(began).Minutes(), total)
}

// TestSameSeedSameRun holds for the whole history of a world: every row and
// every record that is kept at its end.
func TestSameSeedSameRun(t *testing.T) {
	run := func() (rows []state.Row, records []state.Record) {
		w := New(Config{Seed: 10, Machines: 20, Tasks: 200, FaultsPerHour: 200, Restores: true})
		if err := w.Run(unit.Hour / 2); err != nil {
			t.Fatal(err)
		}
		head, err := w.disk.mem.Load(t.Context(), func(r state.Row) error { rows = append(rows, r); return nil })
		if err != nil {
			t.Fatal(err)
		}
		records, err = w.disk.mem.Records(t.Context(), 0, int(head.Seq))
		if err != nil || len(records) < 1000 {
			t.Fatalf("%d records, error %v; want a long history", len(records), err)
		}
		return rows, records
	}
	rows, records := run()
	again, same := run()
	if !reflect.DeepEqual(rows, again) || !reflect.DeepEqual(records, same) {
		t.Error("one seed gave two runs")
	}
}
