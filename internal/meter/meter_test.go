package meter

import (
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

func foldAll(t tb, f *Fold, records []state.Record, to Sink) {
	t.Helper()
	for _, r := range records {
		if err := f.Fold(r, to); err != nil {
			t.Fatalf("record %d: %v", r.Seq, err)
		}
	}
}

func drawWorld(t *rapid.T) *world {
	w := newWorld(t, rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 120).Draw(t, "commits"))
	if len(w.records) == 0 {
		t.Skip("nothing happened")
	}
	return w
}

// TestConservation: whatever machines and tasks do, every account of every
// hour is the truth to the last tick, the accounts add up, and hours tile.
func TestConservation(t *testing.T) {
	busy := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		f, b := New(), newBook()
		foldAll(t, f, w.records, b)
		now := f.Time() + unit.Tick(rapid.Int64Range(0, int64(3*unit.Hour)).Draw(t, "now"))
		before := f.Encode()
		if err := f.At(now, b.Hour); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, f.Encode()); diff != "" {
			t.Errorf("At changed the fold (-before +after):\n%s", diff)
		}
		got, want := b.cells(), w.integrate(now)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *big.Rat) bool { return a.Cmp(b) == 0 })); diff != "" {
			t.Fatalf("(-truth +metered):\n%s", diff)
		}
		for c := range want {
			busy[c.what] = true
		}
		next := w.records[0].At.FloorHour()
		for _, h := range b.hours {
			if err := h.Check(); err != nil {
				t.Error(err)
			}
			if h.From != next || h.To > h.From+unit.Hour || h.To != h.From+unit.Hour && h.To != now {
				t.Errorf("hour from %d to %d; want one from %d", h.From, h.To, next)
			}
			next = h.To
		}
		if next != now {
			t.Errorf("hours end at %d; want %d", next, now)
		}
	})
	for _, what := range append(accounts[:], "reserved") {
		if !busy[what] {
			t.Errorf("no world ever had any %s", what)
		}
	}
}

// TestTwiceAndRestarted: records that come again, and a fold that is stored,
// whole or by its changes, and loaded between any two records, change nothing.
func TestTwiceAndRestarted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		once, want := New(), newBook()
		foldAll(t, once, w.records, want)

		f, got := New(), newBook()
		var stored [][]byte // the whole, and what has changed since
		for i := range w.records {
			again := w.records[rapid.IntRange(0, i).Draw(t, "again from"):i]
			foldAll(t, f, append(slices.Clip(again), w.records[i]), got)
			if rapid.IntRange(0, 2).Draw(t, "store") > 0 {
				continue
			}
			changed, ok := f.Changes()
			if !ok {
				stored, changed = nil, f.Encode()
			}
			stored = append(stored, changed)
			f.Stored()
			if rapid.Bool().Draw(t, "restart") {
				f = loaded(t, stored)
			}
		}
		if diff := cmp.Diff(want.hours, got.hours); diff != "" {
			t.Errorf("hours (-once +twice):\n%s", diff)
		}
		if diff := cmp.Diff(want.used, got.used); diff != "" {
			t.Errorf("used (-once +twice):\n%s", diff)
		}
		if diff := cmp.Diff(once.Encode(), f.Encode()); diff != "" {
			t.Errorf("state (-once +twice):\n%s", diff)
		}
	})
}

// loaded reads a fold that was stored whole, and its changes since.
func loaded(t tb, stored [][]byte) *Fold {
	t.Helper()
	f, err := Decode(stored[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range stored[1:] {
		if err := f.Follow(b); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// TestForgets: what is over leaves the fold, so its size follows what lives.
func TestForgets(t *testing.T) {
	w := newWorld(t, 7, 3000)
	f, b := New(), newBook()
	foldAll(t, f, w.records, b)
	if len(b.hours) < 500 {
		t.Fatalf("%d hours; want a long history", len(b.hours))
	}
	if len(f.machines) > 4 || len(f.jobs) > 3 || len(f.Encode()) > 2000 {
		t.Errorf("fold of 4 machines and 3 jobs after %d records: %d machines, %d jobs, %d bytes", len(w.records), len(f.machines), len(f.jobs), len(f.Encode()))
	}
	at := f.Time()
	gone := state.Record{Seq: f.Seq(), At: at, Kind: state.MachineRecord}
	for _, id := range []machine.ID{"m0", "m1", "m2", "m3"} {
		gone.Seq++
		gone.Machine = &state.MachineChange{Before: machine.Machine{ID: id}, Left: true}
		foldAll(t, f, []state.Record{gone}, b)
	}
	for id, m := range f.machines {
		m.billed = held{}
		f.machines[id] = m
	}
	foldAll(t, f, []state.Record{{Seq: gone.Seq + 1, At: at + 2*unit.Hour, Kind: state.ClusterRecord}}, b)
	strays := 0
	for id, m := range f.machines {
		if strays += len(m.strays); len(m.strays) == 0 {
			t.Errorf("machine %s is left after all of them left; want those alone that had strays within a day", id)
		}
	}
	if strays == 0 || len(f.strays) == 0 {
		t.Error("no stray is remembered; facts of them may still come")
	}
	foldAll(t, f, []state.Record{{Seq: gone.Seq + 2, At: at + 26*unit.Hour, Kind: state.ClusterRecord}}, b)
	if len(f.machines) != 0 || len(f.strays) != 0 {
		t.Errorf("%d machines and %d strays left a day after all of them left; want none", len(f.machines), len(f.strays))
	}
}

// steady is one machine with one task, over two hours and a half. Every account
// of its first hour is busy: up for half an hour, then down.
func steady() []state.Record {
	const gib = 1 << 30
	m := machine.Machine{
		ID: "m1", Up: true,
		Capacity: unit.Resources{CPU: 8000, RAM: 16 * gib, Disk: 100 * gib, GPU: 2000},
		Overhead: unit.Resources{CPU: 200, RAM: gib, Disk: gib, GPU: 100},
		Foreign:  unit.Resources{CPU: 300, RAM: gib, Disk: gib, GPU: 100},
	}
	down := m
	down.Up = false
	tk := task.Task{
		ID: task.ID{Job: "www/prod/hello", Attempt: 1}, State: task.Assigned, Machine: "m1",
		Resources: unit.Resources{CPU: 1000, RAM: 2 * gib, Disk: 10 * gib, GPU: 1000},
	}
	ended := tk
	ended.State = task.Finished
	start := 400_000 * unit.Hour
	all := m.Allocatable()
	free := all.Sub(tk.Resources)
	return []state.Record{
		{Seq: 1, At: start, Kind: state.MachineRecord, Machine: &state.MachineChange{After: m, Free: all}},
		{Seq: 2, At: start + unit.Hour/4, Kind: state.TaskRecord, Task: &state.TaskChange{Before: task.Pending, After: tk, Free: free}},
		{Seq: 3, At: start + unit.Hour/2, Kind: state.MachineRecord, Machine: &state.MachineChange{Before: m, After: down, Free: free}},
		{Seq: 4, At: start + unit.Hour, Kind: state.MachineRecord, Machine: &state.MachineChange{Before: down, After: m, Free: free}},
		{Seq: 5, At: start + 5*unit.Hour/4, Kind: state.TaskRecord, Task: &state.TaskChange{Before: task.Running, After: ended, Free: all}},
		{Seq: 6, At: start + 5*unit.Hour/2, Kind: state.MachineRecord, Machine: &state.MachineChange{Before: m, Left: true}},
	}
}

func TestSteady(t *testing.T) {
	f, b := New(), newBook()
	foldAll(t, f, steady(), b)
	if err := f.At(f.Time(), b.Hour); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range b.hours {
		for _, m := range h.Machines {
			got = append(got, strings.Join([]string{
				ledger.Stamp(h.From), ledger.Stamp(h.To), m.Capacity.Hours(unit.CPU), m.Billed.Hours(unit.CPU),
				m.Overhead.Hours(unit.CPU), m.Idle.Hours(unit.CPU), m.Down.Hours(unit.CPU),
			}, " "))
		}
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"2015-08-19T16:00:00Z 2015-08-19T17:00:00Z 8 0.75 0.25 3.5 3.5",
		"2015-08-19T17:00:00Z 2015-08-19T18:00:00Z 8 0.25 0.5 7.25 0",
		"2015-08-19T18:00:00Z 2015-08-19T18:30:00Z 4 0 0.25 3.75 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("from, to, capacity, billed, overhead, idle, down in core-hours (-want +got):\n%s", diff)
	}
}

// checkHours folds records, looks a tick later and returns the first hour's complaint.
func checkHours(t *testing.T, records []state.Record, meddle func(at state.Seq, f *Fold)) error {
	t.Helper()
	f, b := New(), newBook()
	for _, r := range records {
		foldAll(t, f, []state.Record{r}, b)
		if meddle != nil {
			meddle(r.Seq, f)
		}
	}
	if err := f.At(f.Time()+1, b.Hour); err != nil {
		t.Fatal(err)
	}
	for _, h := range b.hours {
		if err := h.Check(); err != nil {
			return err
		}
	}
	return nil
}

// TestPlantedInAccounts puts the smallest error there is into each account and
// measure, and wants it found with machine, hour, measure and difference.
func TestPlantedInAccounts(t *testing.T) {
	if err := checkHours(t, steady(), nil); err != nil {
		t.Fatalf("without an error planted: %v", err)
	}
	for _, m := range ledger.Measures() {
		for name, sum := range map[string]func(a *account) *unit.Int128{
			"capacity": func(a *account) *unit.Int128 { return &a.capacity.sum[m] },
			"billed":   func(a *account) *unit.Int128 { return &a.billed.before[m] },
			"overhead": func(a *account) *unit.Int128 { return &a.overhead.sum[m] },
			"idle":     func(a *account) *unit.Int128 { return &a.idle.sum[m] },
			"down":     func(a *account) *unit.Int128 { return &a.down.sum[m] },
		} {
			for _, by := range []int64{1, -1} {
				err := checkHours(t, steady(), func(at state.Seq, f *Fold) {
					if at == 2 {
						x := sum(f.machines["m1"])
						*x, _ = x.Add(unit.Int(by))
					}
				})
				if err == nil {
					t.Errorf("%+d planted in %s of %v: not found", by, name, m)
					continue
				}
				tick := strings.TrimPrefix(m.Hours(unit.Int(1)), "-")
				for _, want := range []string{"machine m1", "hour 2015-08-19T16:00:00Z", m.String() + ":", "the difference is", tick} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%+d planted in %s of %v: got %q; want it to name %q", by, name, m, err, want)
					}
				}
			}
		}
		err := checkHours(t, steady(), func(at state.Seq, f *Fold) {
			if at == 2 {
				x := &f.jobs["www/prod/hello"].before[m]
				*x, _ = x.Add(unit.Int(1))
			}
		})
		if err == nil || !strings.Contains(err.Error(), "all machines, hour 2015-08-19T16:00:00Z, "+m.String()) {
			t.Errorf("planted in a job's reserved %v: got %v; want it found", m, err)
		}
	}
}

// TestPlantedInRecords falsifies one field of one record at a time.
func TestPlantedInRecords(t *testing.T) {
	one := unit.Resources{RAM: unit.MiB}
	for name, plant := range map[string]func(r []state.Record){
		"capacity too high":           func(r []state.Record) { r[0].Machine.After.Capacity = r[0].Machine.After.Capacity.Add(one) },
		"overhead too low":            func(r []state.Record) { r[0].Machine.After.Overhead = r[0].Machine.After.Overhead.Sub(one) },
		"foreign use forgotten":       func(r []state.Record) { r[0].Machine.After.Foreign = unit.Resources{} },
		"free too high at first":      func(r []state.Record) { r[0].Machine.Free = r[0].Machine.Free.Add(one) },
		"free too low after a task":   func(r []state.Record) { r[1].Task.Free = r[1].Task.Free.Sub(one) },
		"free too high while down":    func(r []state.Record) { r[2].Machine.Free = r[2].Machine.Free.Add(one) },
		"overhead too high when down": func(r []state.Record) { r[2].Machine.After.Overhead = r[2].Machine.After.Overhead.Add(one) },
		"task reserves more":          func(r []state.Record) { r[1].Task.After.Resources = r[1].Task.After.Resources.Add(one) },
		"task gives back less":        func(r []state.Record) { r[4].Task.After.Resources = r[4].Task.After.Resources.Sub(one) },
		"task's start is lost":        func(r []state.Record) { r[1].Kind = state.ClusterRecord },
		"task's end is lost":          func(r []state.Record) { r[4].Kind = state.ClusterRecord },
		"task starts twice":           func(r []state.Record) { r[3].Kind, r[3].Task = state.TaskRecord, r[1].Task },
		"task is elsewhere":           func(r []state.Record) { r[1].Task.After.Machine = "m2" },
		"machine's birth is lost":     func(r []state.Record) { r[0].Kind = state.ClusterRecord },
		"machine left too early":      func(r []state.Record) { r[3].Machine.Left = true },
	} {
		records := steady()
		plant(records)
		if err := checkHours(t, records, nil); fault.Of(err) != fault.Internal || err == nil {
			t.Errorf("%s: got %v; want it found", name, err)
		}
	}
}

func TestRefusesWhatDoesNotFollow(t *testing.T) {
	clusterAt := func(seq state.Seq, at unit.Tick) state.Record {
		return state.Record{Seq: seq, At: at, Kind: state.ClusterRecord}
	}
	for _, tt := range []struct {
		name string
		r    state.Record
		kind fault.Kind
		want string
	}{
		{"gap", clusterAt(8, 500_000*unit.Hour), fault.Internal, "record 8 follows record 6; want 7"},
		{"time back", clusterAt(7, 400_000*unit.Hour), fault.Internal, "never goes back"},
		{"restored", clusterAt(3, 400_003*unit.Hour), fault.Conflict, "restored from an older copy"},
		{"clock jump", clusterAt(7, 400_003*unit.Hour+MaxQuiet), fault.Internal, "clock jumped"},
	} {
		f := New()
		foldAll(t, f, steady(), newBook())
		before := f.Encode()
		err := f.Fold(tt.r, newBook())
		if err == nil || fault.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v error %v; want %v with %q", tt.name, fault.Of(err), err, tt.kind, tt.want)
		}
		if diff := cmp.Diff(before, f.Encode()); diff != "" {
			t.Errorf("%s changed the fold:\n%s", tt.name, diff)
		}
		if err := f.Fold(clusterAt(7, f.Time()), newBook()); err != nil {
			t.Errorf("the record that does follow, after %s: %v", tt.name, err)
		}
	}
	f, early, now := New(), newBook(), newBook()
	foldAll(t, f, steady()[:2], newBook())
	if err := f.At(f.Time()-unit.Hour, early.Hour); err != nil {
		t.Fatal(err)
	}
	if err := f.At(f.Time(), now.Hour); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(now.hours, early.hours); diff != "" || len(now.hours) != 1 {
		t.Errorf("a now before the last record (-that record's time +now):\n%s", diff)
	}
	if err := New().Fold(clusterAt(2, 1), newBook()); err == nil {
		t.Error("a first record with number 2: got no error")
	}
	f = New()
	foldAll(t, f, steady(), newBook())
	if err := f.At(f.Time()+MaxQuiet+1, newBook().Hour); err == nil {
		t.Error("at a time years later: got no error")
	}
}

// TestRefusesBrokenRecords: a record that cannot be true stops the fold.
func TestRefusesBrokenRecords(t *testing.T) {
	huge := unit.Resources{CPU: math.MaxInt64}
	odd := unit.Resources{RAM: unit.MiB + 1}
	placed := func(r unit.Resources) *state.TaskChange {
		return &state.TaskChange{Before: task.Pending, After: task.Task{ID: task.ID{Job: job.Key("r/prod/j")}, State: task.Running, Machine: "m1", Resources: r}}
	}
	for name, r := range map[string]state.Record{
		"no task":        {Kind: state.TaskRecord},
		"no machine":     {Kind: state.MachineRecord},
		"no fact":        {Kind: state.FactRecord},
		"odd bytes":      {Kind: state.TaskRecord, Task: placed(odd)},
		"odd capacity":   {Kind: state.MachineRecord, Machine: &state.MachineChange{After: machine.Machine{Capacity: odd}}},
		"odd overhead":   {Kind: state.MachineRecord, Machine: &state.MachineChange{After: machine.Machine{Overhead: odd}}},
		"odd foreign":    {Kind: state.MachineRecord, Machine: &state.MachineChange{After: machine.Machine{Foreign: odd}}},
		"odd free":       {Kind: state.MachineRecord, Machine: &state.MachineChange{Free: odd}},
		"odd task free":  {Kind: state.TaskRecord, Task: &state.TaskChange{After: task.Task{Machine: "m1"}, Free: odd}},
		"too much":       {Kind: state.TaskRecord, Task: placed(huge)},
		"kept too much":  {Kind: state.MachineRecord, Machine: &state.MachineChange{After: machine.Machine{Overhead: huge, Foreign: huge}}},
		"broken payload": {Kind: state.FactRecord, Fact: &state.Fact{Source: "a", Seq: 1, Payload: []byte{1, 9, 9}}},
	} {
		f := New()
		foldAll(t, f, steady()[:2], newBook()) // m1 runs a task of 1 core
		r.Seq, r.At = 3, f.Time()
		err := f.Fold(r, newBook())
		if err == nil || !strings.Contains(err.Error(), "record 3") {
			t.Errorf("%s: got %v; want an error that names the record", name, err)
		}
		if again := f.Fold(steady()[2], newBook()); again == nil {
			t.Errorf("%s: the fold goes on", name)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	f := New()
	foldAll(t, f, steady()[:3], newBook())
	b := f.Encode()
	for n := range b {
		if _, err := Decode(b[:n]); err == nil {
			t.Errorf("%d of %d bytes: got no error", n, len(b))
		}
	}
	newer := append([]byte(nil), b...)
	newer[0] = Format + 1
	if got, err := Decode(newer); err != nil || got.Seq() != f.Seq() {
		t.Errorf("one format ahead: got %v", err)
	}
	newer[0] = Format + 2
	if _, err := Decode(newer); err == nil {
		t.Error("two formats ahead: got no error")
	}
}

func BenchmarkFold(b *testing.B) {
	w := newWorld(b, 3, 20_000)
	records := 0
	for b.Loop() {
		foldAll(b, New(), w.records, nowhere{})
		records += len(w.records)
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkFacts(b *testing.B) {
	facts := make([]ledger.Used, 4096)
	for i := range facts {
		facts[i] = ledger.Used{
			Task: task.ID{Job: job.NewKey("role", "prod", "job"+string(rune('a'+i/32%26))), Instance: int32(i), Attempt: 3},
			From: worldStart, To: worldStart.FloorHour() + unit.Hour, CPU: 987654321, RAM: 123456789012, Disk: 5e11,
		}
	}
	r := state.Record{Kind: state.FactRecord, At: worldStart, Fact: &state.Fact{Source: "a", Payload: ledger.EncodeUsed(facts)}}
	f := New()
	n := 0
	for b.Loop() {
		r.Seq++
		foldAll(b, f, []state.Record{r}, nowhere{})
		n += len(facts)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "facts/s")
	b.ReportMetric(float64(len(r.Fact.Payload))/float64(len(facts)), "bytes/fact")
}

type nowhere struct{}

func (nowhere) Hour(ledger.Hour) error     { return nil }
func (nowhere) Used(ledger.UsedHour) error { return nil }
