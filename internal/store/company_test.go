package store

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/meter"
	"github.com/covey-platform/covey/internal/rate"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const companyStart = 490_000 * unit.Hour

// companyRecords makes the records of a few machines whose tasks come and go,
// with facts of what they used.
func companyRecords(seed uint64, n int) []state.Record {
	r := rand.New(rand.NewPCG(seed, 2))
	const machines = 3
	var free [machines]unit.Resources
	running := map[task.ID]task.Task{}
	var order []task.ID
	at := companyStart + 12345
	var all []state.Record
	put := func(x state.Record) {
		x.Seq, x.At = state.Seq(len(all)+1), at
		all = append(all, x)
	}
	for i := range machines {
		m := machine.Machine{ID: machine.ID(fmt.Sprint("m", i)), Up: i != 1, Capacity: unit.Resources{CPU: 64000, RAM: 64 << 30, Disk: 1 << 40}, Overhead: unit.Resources{CPU: 100, RAM: 64 << 20}}
		free[i] = m.Allocatable()
		put(state.Record{Kind: state.MachineRecord, Machine: &state.MachineChange{After: m, Free: free[i]}})
	}
	for i := range n {
		at += unit.Tick(r.Int64N(int64(unit.Hour / 8)))
		switch {
		case r.IntN(4) == 0:
			from := at.FloorHour()
			put(state.Record{Kind: state.FactRecord, Fact: &state.Fact{Source: "a", Seq: uint64(i + 1), Payload: ledger.EncodeUsed([]ledger.Used{
				{Task: task.ID{Job: "www/prod/j0", Attempt: 1}, From: from, To: from + unit.Hour, CPU: r.Int64N(1e12), RAM: 5},
				{Task: task.ID{Job: "www/prod/j1", Attempt: 1}, From: from - unit.Hour, To: from, CPU: r.Int64N(1e12), Disk: 7},
			})}})
		case len(order) > 0 && r.IntN(3) == 0:
			t := running[order[0]]
			order = order[1:]
			k := int(t.Machine[1] - '0')
			t.State = task.Finished
			free[k] = free[k].Add(t.Resources)
			put(state.Record{Kind: state.TaskRecord, Task: &state.TaskChange{Before: task.Running, After: t, Free: free[k]}})
		default:
			k := r.IntN(machines)
			t := task.Task{
				ID: task.ID{Job: job.NewKey("www", "prod", fmt.Sprint("j", r.IntN(5))), Attempt: uint32(i + 1)}, State: task.Assigned,
				Machine: machine.ID(fmt.Sprint("m", k)), Resources: unit.Resources{CPU: 1 + r.Int64N(3000), RAM: r.Int64N(2000) << 20},
			}
			free[k] = free[k].Sub(t.Resources)
			running[t.ID], order = t, append(order, t.ID)
			put(state.Record{Kind: state.TaskRecord, Task: &state.TaskChange{Before: task.Pending, After: t, Free: free[k]}})
		}
	}
	return all
}

func openCompany(t testing.TB, path string) (*Company, *Meter) {
	t.Helper()
	c, err := OpenCompany(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m, err := c.Meter(t.Context(), "uid")
	if err != nil {
		t.Fatal(err)
	}
	return c, m
}

// gathered is a sink that keeps everything.
type gathered struct {
	Hours []ledger.Hour
	Used_ []ledger.UsedHour
}

func (g *gathered) Hour(h ledger.Hour) error     { g.Hours = append(g.Hours, h); return nil }
func (g *gathered) Used(u ledger.UsedHour) error { g.Used_ = append(g.Used_, u); return nil }

func usageOf(t *testing.T, m *Meter, now unit.Tick) gathered {
	t.Helper()
	var g gathered
	if err := m.Usage(t.Context(), companyStart-unit.Hour, now.FloorHour()+unit.Hour, now, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// directly folds in memory what a store should hold.
func directly(t *testing.T, records []state.Record, now unit.Tick) gathered {
	t.Helper()
	f, raw, used := meter.New(), &gathered{}, map[usage]ledger.Amounts{}
	for _, r := range records {
		if err := f.Fold(r, raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.At(now, raw.Hour); err != nil {
		t.Fatal(err)
	}
	for _, u := range raw.Used_ {
		k := usage{u.Hour, u.Job}
		used[k], _ = used[k].Add(u.Used)
	}
	g := gathered{Hours: raw.Hours}
	for h := companyStart - unit.Hour; h <= now; h += unit.Hour {
		for i := range 5 {
			k := usage{h, job.NewKey("www", "prod", fmt.Sprint("j", i))}
			if a, ok := used[k]; ok {
				g.Used_ = append(g.Used_, ledger.UsedHour{Hour: k.hour, Job: k.job, Used: a})
			}
		}
	}
	return g
}

// TestCompanyMetersOnce: whatever steps the records come in, doubled, refused in
// the middle, or with crashes between them, the totals are those of one fold.
func TestCompanyMetersOnce(t *testing.T) {
	for seed := range uint64(6) {
		dir := t.TempDir()
		c, _ := openCompany(t, filepath.Join(dir, "0.db"))
		metersOnce(t, seed, func(crashes int) (*Company, *Meter) {
			next := filepath.Join(dir, fmt.Sprint(crashes+1, ".db"))
			copyDatabase(t, c.name, next)
			var m *Meter
			c, m = openCompany(t, next)
			return c, m
		})
	}
}

// metersOnce opens the company's store, which is to hold what the one that it
// opened before had made durable, and again after each crash.
func metersOnce(t *testing.T, seed uint64, open func(crashes int) (*Company, *Meter)) {
	t.Helper()
	records := companyRecords(seed, 400)
	now := records[len(records)-1].At + unit.Hour/3
	want := directly(t, records, now)
	if len(want.Hours) < 10 || len(want.Used_) < 10 {
		t.Fatalf("seed %d: %d hours, %d used; want a history", seed, len(want.Hours), len(want.Used_))
	}
	r := rand.New(rand.NewPCG(seed, 3))
	c, m := open(0)
	crashes := 0
	for to := 0; to < len(records); {
		switch r.IntN(6) {
		case 0: // the program dies: what is on disk is what there is
			crashes++
			before := c
			c, m = open(crashes)
			_ = before.Close()
		case 1: // a step that is not finished
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := m.Take(ctx, records[to:]); fault.Of(err) != fault.Unavailable {
				t.Fatalf("seed %d: ended early: got %v", seed, err)
			}
		case 2: // a step with a gap after its first records
			if to+3 < len(records) {
				bad := slices.Concat(records[to:to+2], records[to+3:to+4])
				if err := m.Take(t.Context(), bad); err == nil {
					t.Fatalf("seed %d: a gap: got no error", seed)
				}
			}
		default:
			from := r.IntN(to + 1) // some of them again
			to = min(len(records), to+1+r.IntN(60))
			if err := m.Take(t.Context(), records[from:to]); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if seq, err := m.Seq(t.Context()); err != nil || seq != state.Seq(to) {
			t.Fatalf("seed %d: at record %d, %v; want %d", seed, seq, err, to)
		}
	}
	if diff := cmp.Diff(want, usageOf(t, m, now)); diff != "" {
		t.Errorf("seed %d (-fold +store):\n%s", seed, diff)
	}
	if crashes == 0 {
		t.Errorf("seed %d: no crash was tried", seed)
	}
}

// copyDatabase copies what a crash would leave.
func copyDatabase(t *testing.T, from, to string) {
	t.Helper()
	for _, ext := range []string{"", "-wal"} {
		b, err := os.ReadFile(from + ext)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+ext, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCompanyBills: a stored month becomes a statement, also half of it.
func TestCompanyBills(t *testing.T) {
	records := companyRecords(9, 300)
	now := records[len(records)-1].At + 1
	_, m := openCompany(t, filepath.Join(t.TempDir(), "company.db"))
	if err := m.Take(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	statement := func(from, to unit.Tick) ledger.Statement {
		b, err := rate.NewBill(rate.Default(), "uid", ledger.ByJob, from, to)
		if err != nil {
			t.Fatal(err)
		}
		if err = m.Usage(t.Context(), from, to, now, b); err != nil {
			t.Fatal(err)
		}
		s, err := b.Statement()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	end := now.FloorHour() + unit.Hour
	middle := companyStart + 7*unit.Hour
	all, first, rest := statement(companyStart, end), statement(companyStart, middle), statement(middle, end)
	sum, err := first.Billed.Add(rest.Billed)
	if err != nil || sum != all.Billed || all.Billed.Sign() <= 0 || len(first.Hours) != 7 || len(all.Hours) != len(first.Hours)+len(rest.Hours) {
		t.Errorf("%v and %v, %v; want together %v", first.Billed, rest.Billed, err, all.Billed)
	}
	if last := all.Hours[len(all.Hours)-1]; last.To != now {
		t.Errorf("the open hour ends at %d; want %d", last.To, now)
	}
	if err := m.Usage(t.Context(), 0, 401*24*unit.Hour, now, &gathered{}); fault.Of(err) != fault.Invalid {
		t.Errorf("more than 400 days: got %v", err)
	}
	boom := fault.Denied.Errorf("boom")
	if err := m.Usage(t.Context(), companyStart, end, now, refuses{boom}); fault.Of(err) != fault.Denied {
		t.Errorf("a sink that refuses: got %v", err)
	}
}

type refuses struct{ error }

func (r refuses) Hour(ledger.Hour) error     { return r.error }
func (r refuses) Used(ledger.UsedHour) error { return r.error }

// TestCompanyFindsDamage: a changed byte is found, and an hour that was written
// wrong is refused by the bill with machine and hour.
func TestCompanyFindsDamage(t *testing.T) {
	records := companyRecords(4, 200)
	now := records[len(records)-1].At
	c, m := openCompany(t, filepath.Join(t.TempDir(), "company.db"))
	if err := m.Take(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	bill := func() error {
		b, err := rate.NewBill(rate.Default(), "uid", ledger.ByRole, companyStart, now.FloorHour()+unit.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return m.Usage(t.Context(), companyStart, now.FloorHour()+unit.Hour, now, b)
	}
	if err := bill(); err != nil {
		t.Fatal(err)
	}
	hour := companyStart + 3*unit.Hour
	var sealed []byte
	if err := c.write.QueryRowContext(t.Context(), "SELECT value FROM hour WHERE hour = ?", int64(hour)).Scan(&sealed); err != nil {
		t.Fatal(err)
	}
	set := func(value []byte) {
		if _, err := c.write.ExecContext(t.Context(), "UPDATE hour SET value = ? WHERE hour = ?", value, int64(hour)); err != nil {
			t.Fatal(err)
		}
	}
	flipped := bytes.Clone(sealed)
	flipped[9] ^= 1
	set(flipped)
	if err := bill(); err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), ledger.Stamp(hour)) {
		t.Errorf("a changed bit: got %v; want damage in %s", err, ledger.Stamp(hour))
	}
	h, err := ledger.DecodeHour(sealed[:len(sealed)-sealSize])
	if err != nil {
		t.Fatal(err)
	}
	idle := &h.Machines[2].Idle[unit.RAM]
	*idle, _ = idle.Add(unit.Int(1))
	set(newSealer().seal(hourKey("uid", hour), ledger.EncodeHour(h)))
	if err := bill(); err == nil || !strings.Contains(err.Error(), "machine m2, hour "+ledger.Stamp(hour)+", ram") {
		t.Errorf("a MiB-tick more: got %v; want it refused with machine and hour", err)
	}
	if err := m.Take(t.Context(), []state.Record{{Seq: state.Seq(len(records)) + 1, At: now, Kind: state.JobRecord}}); err != nil {
		t.Fatal(err)
	}
	var changed []byte
	if err := c.write.QueryRowContext(t.Context(), "SELECT changed FROM meter_change").Scan(&changed); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		"UPDATE used SET value = x'00'", "UPDATE meter_change SET changed = x'0102030405'", "DELETE FROM meter_change", "UPDATE meter SET fold = x'0102030405'",
	} {
		set(sealed)
		if _, err := c.write.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		m.fold = nil
		if err := bill(); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: got %v; want damage", q, err)
		}
	}
}

// TestCompanyKnowsRestores: a cluster that was set back is not metered on.
func TestCompanyKnowsRestores(t *testing.T) {
	records := companyRecords(5, 50)
	c, m := openCompany(t, filepath.Join(t.TempDir(), "company.db"))
	if err := m.Take(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	last := state.Head{Seq: state.Seq(len(records))}
	if err := m.Follows(t.Context(), last); err != nil {
		t.Errorf("at its own end: %v", err)
	}
	last.Seq--
	if err := m.Follows(t.Context(), last); fault.Of(err) != fault.Conflict {
		t.Errorf("a record shorter: got %v; want a conflict", err)
	}
	again := records[20]
	again.At = records[len(records)-1].At + 1
	if err := m.Take(t.Context(), []state.Record{again}); fault.Of(err) != fault.Conflict {
		t.Errorf("another record 21: got %v; want a conflict", err)
	}
	// Another cluster's meter and another hand on this one.
	other, err := c.Meter(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	if err = other.Take(t.Context(), records[:10]); err != nil {
		t.Fatal(err)
	}
	twin, err := c.Meter(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.Take(t.Context(), records[:15]); err != nil {
		t.Fatal(err)
	}
	if err := other.Take(t.Context(), records[:20]); fault.Of(err) != fault.Unavailable {
		t.Errorf("behind its twin: got %v; want unavailable", err)
	}
	if err := other.Take(t.Context(), records[:20]); err != nil {
		t.Errorf("the next time: %v", err)
	}
	var g gathered
	if err := twin.Usage(t.Context(), companyStart, companyStart+unit.Hour, 0, &g); fault.Of(err) != fault.Unavailable {
		t.Errorf("reading behind its twin: got %v; want unavailable", err)
	}
	if err := twin.Usage(t.Context(), companyStart, companyStart+unit.Hour, 0, &g); err != nil {
		t.Errorf("the next time: %v", err)
	}
}

func TestOpenCompanyRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "company.db")
	var log bytes.Buffer
	c, err := OpenCompany(t.Context(), path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "database upgraded") {
		t.Errorf("log: got %q", log.String())
	}
	refused := func(name, path string, kind fault.Kind, want string) {
		t.Helper()
		if _, err := OpenCompany(t.Context(), path, nil); err == nil || fault.Of(err) != kind || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v error %v; want %v with %q", name, fault.Of(err), err, kind, want)
		}
	}
	refused("in use", path, fault.Conflict, "another server uses")
	refused("no directory", filepath.Join(dir, "none", "x.db"), fault.Denied, "does not exist")
	if _, err := c.write.ExecContext(t.Context(), "UPDATE schema_version SET version_id = 4 WHERE version_id = 2"); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	refused("two versions ahead", path, fault.Invalid, "tables of version 4")

	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCompany(t.Context(), garbage, nil); err == nil {
		t.Error("garbage: got no error")
	}
	cluster := filepath.Join(dir, "cluster.db")
	setUp, _ := openCompany(t, cluster)
	if _, err := setUp.write.ExecContext(t.Context(), fmt.Sprint("PRAGMA application_id = ", application)); err != nil {
		t.Fatal(err)
	}
	if err := setUp.Close(); err != nil {
		t.Fatal(err)
	}
	refused("a cluster's", cluster, fault.Invalid, "not of the company")
}

// BenchmarkCompanyTake takes in tasks' steps and blocks of facts, each step of
// 1,000 records one durable transaction.
func BenchmarkCompanyTake(b *testing.B) {
	for _, kind := range []string{"steps", "facts"} {
		b.Run(kind, func(b *testing.B) {
			_, m := openCompany(b, filepath.Join(b.TempDir(), "company.db"))
			facts := make([]ledger.Used, 1000)
			for i := range facts {
				facts[i] = ledger.Used{Task: task.ID{Job: job.NewKey("www", "prod", fmt.Sprint("j", i/10)), Instance: int32(i % 10), Attempt: 1}, From: companyStart, To: companyStart + unit.Hour, CPU: 987654321, RAM: 123456789012, Disk: 5e11}
			}
			payload := ledger.EncodeUsed(facts)
			records := companyRecords(1, 1000)[:1000]
			seq, n, span := state.Seq(0), 0, records[999].At-records[0].At
			for b.Loop() {
				step := records
				if kind == "facts" {
					step = make([]state.Record, 100)
					for i := range step {
						step[i] = state.Record{Seq: seq + state.Seq(i) + 1, At: companyStart, Kind: state.FactRecord, Fact: &state.Fact{Source: "a", Payload: payload}}
					}
					n += len(step) * len(facts)
				} else {
					for i := range step {
						step[i].Seq = seq + state.Seq(i) + 1
						step[i].At += span
					}
					n += len(step)
				}
				if err := m.Take(b.Context(), step); err != nil {
					b.Fatal(err)
				}
				seq += state.Seq(len(step))
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), kind+"/s")
		})
	}
}
