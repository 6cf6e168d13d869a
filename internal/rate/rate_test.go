package rate

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

var day = unit.TickAt(time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC))

func money(t *testing.T, s string) unit.Money {
	t.Helper()
	m, err := unit.ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// oneCore is an hour, or a part of it, in which a job reserved one core of a
// machine of four.
func oneCore(from, to unit.Tick, k job.Key) ledger.Hour {
	cores := func(n int64) ledger.Amounts { return ledger.Amounts{unit.CPU: unit.Product(n*1000, int64(to-from))} }
	return ledger.Hour{
		From: from, To: to,
		Machines: []ledger.MachineHour{{Machine: "m1", Capacity: cores(4), Billed: cores(1), Overhead: cores(1), Idle: cores(2)}},
		Jobs:     []ledger.JobHour{{Job: k, Reserved: cores(1)}},
	}
}

// TestPriceChangesAtNoon: usage is priced hour by hour, never by averages.
func TestPriceChangesAtNoon(t *testing.T) {
	book, err := Parse([]byte(`{"currency": "USD", "prices": [
		{"to": "2026-03-14T12:00:00Z", "cpu_core_hour": 1, "ram_gib_hour": 0, "disk_gib_hour": 0, "gpu_hour": 0},
		{"from": "2026-03-14T12:00:00Z", "cpu_core_hour": 2, "ram_gib_hour": 0, "disk_gib_hour": 0, "gpu_hour": 0}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		from, to unit.Tick // the job's life
		want     string
	}{
		{"all day", 0, 24, "36"},
		{"from noon", 12, 24, "24"},
		{"until noon", 0, 12, "12"},
		{"around noon", 11, 13, "3"},
	} {
		b, err := NewBill(book, "uid", ledger.ByJob, day, day+24*unit.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for h := tt.from; h < tt.to; h++ {
			if err = b.Hour(oneCore(day+h*unit.Hour, day+(h+1)*unit.Hour, "www/prod/hello")); err != nil {
				t.Fatal(err)
			}
		}
		s, err := b.Statement()
		if err != nil || s.Billed.String() != tt.want || s.Rows[0].Amount.String() != tt.want {
			t.Errorf("%s: got %v, %v; want %s", tt.name, s.Billed, err, tt.want)
		}
	}
}

// TestStatement shows a whole bill by role, with an hour that is not over.
func TestStatement(t *testing.T) {
	b, err := NewBill(Default(), "uid", ledger.ByRole, day, day+24*unit.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []ledger.Hour{
		oneCore(day+unit.Hour, day+2*unit.Hour, "www/prod/hello"),
		oneCore(day+2*unit.Hour, day+3*unit.Hour, "www/test/hello"),
		{From: day + 3*unit.Hour, To: day + 4*unit.Hour},
		oneCore(day+4*unit.Hour, day+4*unit.Hour+1, "ads/prod/serve"),
	} {
		if err = b.Hour(h); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []job.Key{"www/prod/hello", "www/prod/gone"} {
		if err = b.Used(ledger.UsedHour{Hour: day + unit.Hour, Job: k, Used: ledger.Amounts{unit.RAM: unit.Int(7)}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.Statement()
	if err != nil {
		t.Fatal(err)
	}
	core := func(s string) ledger.Amounts {
		n, _ := new(big.Int).SetString(s, 10)
		x, _ := unit.FromBig(n)
		return ledger.Amounts{unit.CPU: x}
	}
	cost := func(from, to unit.Tick, a, b, c, d string) ledger.HourCost {
		return ledger.HourCost{From: from, To: to, Capacity: money(t, a), Billed: money(t, b), Overhead: money(t, c), Idle: money(t, d)}
	}
	want := ledger.Statement{
		Cluster: "uid", Currency: "USD", By: ledger.ByRole, From: day, To: day + 24*unit.Hour,
		Hours: []ledger.HourCost{
			cost(day+unit.Hour, day+2*unit.Hour, "0.126444", "0.031611", "0.031611", "0.063222"),
			cost(day+2*unit.Hour, day+3*unit.Hour, "0.126444", "0.031611", "0.031611", "0.063222"),
			cost(day+3*unit.Hour, day+4*unit.Hour, "0", "0", "0", "0"),
			cost(day+4*unit.Hour, day+4*unit.Hour+1, "0.000000000126444", "0.000000000031611", "0.000000000031611", "0.000000000063222"),
		},
		Rows: []ledger.Row{
			{Role: "ads", Reserved: core("1000"), Amount: money(t, "0.000000000031611")},
			{Role: "www", Reserved: core("2000000000000"), Used: ledger.Amounts{unit.RAM: unit.Int(14)}, Amount: money(t, "0.063222")},
		},
		Billed: money(t, "0.063222000031611"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// drawHours draws hours whose accounts add up, over a few machines and jobs.
func drawHours(t *rapid.T) []ledger.Hour {
	amount := func() unit.Int128 { return unit.Product(rapid.Int64Range(0, 1e13).Draw(t, "amount"), 3) }
	var hours []ledger.Hour
	for i := range rapid.IntRange(1, 6).Draw(t, "hours") {
		h := ledger.Hour{From: day + unit.Tick(i)*unit.Hour, To: day + unit.Tick(i+1)*unit.Hour}
		for j := range rapid.IntRange(1, 3).Draw(t, "machines") {
			m := ledger.MachineHour{Machine: machine.ID(fmt.Sprint("m", j))}
			k := job.Key(fmt.Sprintf("role%d/prod/j%d", rapid.IntRange(0, 2).Draw(t, "role"), j))
			for _, x := range ledger.Measures() {
				m.Billed[x], m.Overhead[x], m.Idle[x], m.Down[x] = amount(), amount(), amount(), amount()
			}
			m.Idle[unit.CPU], _ = unit.Int128{}.Sub(m.Idle[unit.CPU]) // taken back by its pool
			for _, a := range []ledger.Amounts{m.Billed, m.Overhead, m.Idle, m.Down} {
				m.Capacity, _ = m.Capacity.Add(a)
			}
			h.Machines = append(h.Machines, m)
			h.Jobs = append(h.Jobs, ledger.JobHour{Job: k, Reserved: m.Billed})
		}
		hours = append(hours, h)
	}
	return hours
}

func drawBook(t *rapid.T) Book {
	b := Book{Currency: "EUR"}
	from := Always
	for _, cut := range append(rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 0, 3, rapid.ID).Draw(t, "cuts"), 99) {
		to := day + unit.Tick(cut)*unit.Hour
		if cut == 99 {
			to = Forever
		}
		if to <= from {
			continue
		}
		n := func() int64 { return rapid.Int64Range(0, 1e12).Draw(t, "price") }
		b.Prices = append(b.Prices, Price{from, to, n(), n(), n(), n()})
		from = to
	}
	return b
}

// TestBillIsExact holds every number of a bill to fractions worked out on the
// side, and the sums to one another.
func TestBillIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hours, book := drawHours(t), drawBook(t)
		by := rapid.SampledFrom([]ledger.By{ledger.ByJob, ledger.ByRole}).Draw(t, "by")
		b, err := NewBill(book, "uid", by, day, day+24*unit.Hour)
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string]*big.Rat{}
		for _, h := range hours {
			if err = b.Hour(h); err != nil {
				t.Fatal(err)
			}
			for _, j := range h.Jobs {
				who := string(j.Job)
				if by == ledger.ByRole {
					who = j.Job.Role()
				}
				if rows[who] == nil {
					rows[who] = new(big.Rat)
				}
				rows[who].Add(rows[who], exact(book, h.From, j.Reserved))
			}
		}
		s, err := b.Statement()
		if err != nil {
			t.Fatal(err)
		}
		total := new(big.Rat)
		for i, h := range s.Hours {
			m, err := hours[i].Total()
			if err != nil {
				t.Fatal(err)
			}
			for what, x := range map[string]struct {
				got  unit.Money
				want ledger.Amounts
			}{"capacity": {h.Capacity, m.Capacity}, "billed": {h.Billed, m.Billed}, "overhead": {h.Overhead, m.Overhead}, "idle": {h.Idle, m.Idle}, "down": {h.Down, m.Down}} {
				if want := exact(book, h.From, x.want); rat(x.got).Cmp(want) != 0 {
					t.Errorf("hour %d, %s: got %v; want %v", i, what, x.got, want)
				}
			}
			total.Add(total, exact(book, h.From, m.Billed))
		}
		for _, r := range s.Rows {
			who := string(r.Job)
			if by == ledger.ByRole {
				who = r.Role
			}
			if rat(r.Amount).Cmp(rows[who]) != 0 {
				t.Errorf("row %s: got %v; want %v", who, r.Amount, rows[who])
			}
			delete(rows, who)
		}
		if len(rows) > 0 || rat(s.Billed).Cmp(total) != 0 {
			t.Errorf("billed %v with %v left; want %v with none", s.Billed, rows, total)
		}
	})
}

func rat(m unit.Money) *big.Rat {
	r, _ := new(big.Rat).SetString(m.String())
	return r
}

// exact prices amounts by the definitions: hours of the measure times the price.
func exact(b Book, at unit.Tick, a ledger.Amounts) *big.Rat {
	sum := new(big.Rat)
	for _, p := range b.Prices {
		if at < p.From || at >= p.To {
			continue
		}
		for i, price := range []int64{p.CPU, p.RAM, p.Disk, p.GPU} {
			x := new(big.Rat).SetFrac(a[i].Big(), big.NewInt([]int64{1000, 1024, 1024, 1000}[i]*1e9))
			sum.Add(sum, x.Mul(x, big.NewRat(price, 1e9)))
		}
	}
	return sum
}

// TestBillRefuses: no bill is made of hours that are wrong, missing or doubled.
func TestBillRefuses(t *testing.T) {
	at := func(n unit.Tick) unit.Tick { return day + n*unit.Hour }
	good := func(n unit.Tick) ledger.Hour { return oneCore(at(n), at(n+1), "www/prod/hello") }
	top := unit.Int128{Hi: math.MaxInt64, Lo: math.MaxUint64}
	gap := Book{"USD", []Price{{Always, at(1), 1, 1, 1, 1}, {at(2), Forever, 1, 1, 1, 1}}}
	for name, tt := range map[string]struct {
		book  Book
		hours []ledger.Hour
		want  string
	}{
		"missing hour": {Default(), []ledger.Hour{good(0), good(2)}, "is missing"},
		"hour twice":   {Default(), []ledger.Hour{good(0), good(0)}, "is missing"},
		"too early":    {Default(), []ledger.Hour{good(-1)}, "no hour of the bill"},
		"too late":     {Default(), []ledger.Hour{good(24)}, "no hour of the bill"},
		"two at once":  {Default(), []ledger.Hour{oneCore(at(0), at(2), "www/prod/hello")}, "no hour of the bill"},
		"no price":     {gap, []ledger.Hour{good(0), good(1)}, "no price for 2026-03-14T01:00:00Z"},
		"planted": {Default(), []ledger.Hour{good(0), func() ledger.Hour {
			h := good(1)
			h.Machines[0].Idle[unit.Disk] = unit.Int(1)
			return h
		}()}, "machine m1, hour 2026-03-14T01:00:00Z, disk"},
		"planted in a job": {Default(), []ledger.Hour{func() ledger.Hour {
			h := good(0)
			h.Jobs[0].Reserved[unit.GPU] = unit.Int(-1)
			return h
		}()}, "all machines, hour 2026-03-14T00:00:00Z, gpu"},
		"too much money": {Default(), []ledger.Hour{{
			From: at(0), To: at(1),
			Machines: []ledger.MachineHour{{Capacity: ledger.Amounts{top}, Billed: ledger.Amounts{top}}},
			Jobs:     []ledger.JobHour{{Job: "www/prod/hello", Reserved: ledger.Amounts{top}}},
		}}, unit.ErrOverflow.Error()},
	} {
		b, err := NewBill(tt.book, "uid", ledger.ByJob, at(0), at(24))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range tt.hours {
			if err = b.Hour(h); err != nil {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v; want %q", name, err, tt.want)
		}
	}
	b, _ := NewBill(Default(), "uid", ledger.ByJob, at(0), at(24))
	if err := b.Used(ledger.UsedHour{Hour: at(24), Job: "www/prod/hello"}); err == nil {
		t.Error("usage outside the bill: got no error")
	}
	if _, err := Charge(gap, "uid", oneCore(at(0), at(2), "www/prod/hello")); err == nil {
		t.Error("usage across a change of price: got no error")
	}
}

// What strays used is the platform's: in no row, and whoever the rows are by.
func TestPlatformUse(t *testing.T) {
	for _, by := range []ledger.By{ledger.ByJob, ledger.ByRole} {
		b, err := NewBill(Default(), "uid", by, day, day+24*unit.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []job.Key{"", "www/prod/hello", ""} {
			if err := b.Used(ledger.UsedHour{Hour: day + 3*unit.Hour, Job: k, Used: ledger.Amounts{unit.RAM: unit.Int(7)}}); err != nil {
				t.Fatal(err)
			}
		}
		got, err := b.Statement()
		if want := (ledger.Amounts{unit.RAM: unit.Int(14)}); err != nil || got.Platform != want || len(got.Rows) != 1 || got.Rows[0].Used != (ledger.Amounts{unit.RAM: unit.Int(7)}) {
			t.Errorf("by %v: got %+v, %v; want 14 of the platform, and 7 of one owner", by, got, err)
		}
	}
}

func TestSpan(t *testing.T) {
	for name, tt := range map[string]struct{ from, to unit.Tick }{
		"inside an hour": {day + 1, day + unit.Hour}, "to inside": {day, day + unit.Hour + 1},
		"nothing": {day, day}, "backward": {day, day - unit.Hour}, "ages": {day, day + MaxSpan + unit.Hour},
	} {
		if _, err := NewBill(Default(), "uid", ledger.ByJob, tt.from, tt.to); fault.Of(err) != fault.Invalid {
			t.Errorf("%s: got %v; want it refused", name, err)
		}
	}
	if err := Span(day, day+MaxSpan); err != nil {
		t.Errorf("the longest: %v", err)
	}
}

func BenchmarkCharge(b *testing.B) {
	h := ledger.Hour{From: day, To: day + unit.Hour}
	for i := range 20_000 {
		h.Jobs = append(h.Jobs, ledger.JobHour{Job: job.Key(fmt.Sprintf("role/prod/j%d", i)), Reserved: ledger.Amounts{
			unit.Product(2000, int64(unit.Hour)), unit.Product(4096, int64(unit.Hour)), unit.Product(10240, int64(unit.Hour)),
		}})
	}
	book := Default()
	n := 0
	for b.Loop() {
		if _, err := Charge(book, "uid", h); err != nil {
			b.Fatal(err)
		}
		n += len(h.Jobs)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "job-hours/s")
}
