package sim

import (
	"flag"
	"reflect"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

var (
	seed  = flag.Uint64("seed", 0, "run this seed only")
	seeds = flag.Uint64("seeds", 500, "number of seeds to run")
	world = flag.String("world", "both", "ordinary, exclusive or both: which worlds to run")
	hours = flag.Int("hours", 1, "simulated hours of each seed")
	every = flag.Bool("restores", false, "put old copies of the database back in every world, not in one of five")
)

// TestMain collects garbage less often: a world is small and makes a lot of it.
func TestMain(m *testing.M) {
	debug.SetGCPercent(1000)
	m.Run()
}

// config makes half the jobs of every third world exclusive. In the others it
// is one job of twenty.
func config(seed uint64) Config {
	cfg := Config{Seed: seed, Machines: 20, Tasks: 200, FaultsPerHour: 40, Exclusive: 5, Restores: seed%5 == 0 || *every}
	if *world == "exclusive" || *world == "both" && seed%3 == 1 {
		cfg.Exclusive = 50
	}
	return cfg
}

// busy is how long this process has kept processors busy. Other than the time
// on the wall it does not grow with what else the machine does.
func busy(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSeeds runs many worlds. A failure names the seed; replay it with
// go test ./internal/sim -run TestSeeds -seed N.
func TestSeeds(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed != 0 {
		first, last = *seed, *seed
	}
	var total Stats
	began, used := time.Now(), busy(t)
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
		total.Ends += st.Ends
		total.Leaders += st.Leaders
	}
	n, used := float64(last-first+1)*(float64(*hours)+0.75), busy(t)-used
	t.Logf("%.0f simulated hours in %v of processor time, %v on the wall: %.0f hours a minute of one core; %+v",
		n, used.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), n/used.Minutes(), total)
}

// history runs a world for half an hour and returns every row and every record
// that is kept at its end.
func history(t *testing.T, cfg Config) (rows []state.Row, records []state.Record) {
	t.Helper()
	w := New(cfg)
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

func TestSameSeedSameRun(t *testing.T) {
	cfg := Config{Seed: 10, Machines: 20, Tasks: 200, FaultsPerHour: 200, Exclusive: 20, Restores: true}
	rows, records := history(t, cfg)
	again, same := history(t, cfg)
	if !reflect.DeepEqual(rows, again) || !reflect.DeepEqual(records, same) {
		t.Error("one seed gave two runs")
	}
}

// TestNothingNewIsNothingToDecide holds the loop, which does not ask its
// engines when nothing has changed and nothing is due, to one that always does.
func TestNothingNewIsNothingToDecide(t *testing.T) {
	for seed := range uint64(10) {
		cfg := Config{Seed: seed, Machines: 20, Tasks: 200, FaultsPerHour: 100, Exclusive: 20, Restores: seed%2 == 0}
		rows, records := history(t, cfg)
		cfg.AlwaysLook = true
		always, seen := history(t, cfg)
		if !reflect.DeepEqual(rows, always) || !reflect.DeepEqual(records, seen) {
			t.Fatalf("seed %d: another history when the engines look in every turn", seed)
		}
	}
}
