package ledger

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger/pack"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

var (
	highest = unit.Int128{Hi: math.MaxInt64, Lo: math.MaxUint64}
	jobs    = []job.Key{"www/prod/hello", "www/staging2/hello", "ads/test/x_y.z"}
)

func drawAmounts(t *rapid.T) Amounts {
	var a Amounts
	for i := range a {
		a[i] = unit.Int128{Hi: rapid.Int64().Draw(t, "hi"), Lo: rapid.Uint64().Draw(t, "lo")}
	}
	return a
}

func drawHour(t *rapid.T) Hour {
	h := Hour{From: unit.Tick(rapid.Int64Range(0, 1e6).Draw(t, "hour")) * unit.Hour}
	h.To = h.From + unit.Hour
	for i := range rapid.IntRange(0, 3).Draw(t, "machines") {
		h.Machines = append(h.Machines, MachineHour{machine.ID(rune('a' + i)), drawAmounts(t), drawAmounts(t), drawAmounts(t), drawAmounts(t), drawAmounts(t)})
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "jobs") {
		h.Jobs = append(h.Jobs, JobHour{jobs[i], drawAmounts(t)})
	}
	return h
}

func TestHourIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawHour(t)
		b := EncodeHour(want)
		got, err := DecodeHour(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, err := DecodeHour(b[:cut]); err == nil {
			t.Errorf("%d of %d bytes: got no error", cut, len(b))
		}
	})
}

// TestReadsOneAhead: a later version adds to the end of items, and of the
// whole hour.
func TestReadsOneAhead(t *testing.T) {
	a := Amounts{unit.CPU: unit.Int(5)}
	item := AppendAmounts(pack.AppendString(nil, "www/prod/hello"), a)
	b := []byte{HourFormat + 1, 0, 2, 0, 1}
	b = pack.AppendItem(b, append(item, 1, 2, 3))
	b = append(b, 9, 9)
	got, err := DecodeHour(b)
	want := Hour{From: 0, To: 1, Jobs: []JobHour{{"www/prod/hello", a}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("an hour one ahead: %v (-want +got):\n%s", err, diff)
	}
	if _, err := DecodeHour([]byte{HourFormat + 2, 0, 0, 0, 0}); err == nil {
		t.Error("an hour two ahead: got no error")
	}

	facts := EncodeUsed([]Used{{Task: task.ID{Job: jobs[0], Attempt: 1}, From: 1, To: 2}})
	item = append(slices.Clone(facts[2:]), 7, 7)
	newer := pack.AppendItem([]byte{UsedFormat + 1}, item)
	if got, err := DecodeUsed(append(newer, newer[1:]...)); err != nil || len(got) != 2 {
		t.Errorf("facts one ahead: got %v, %v; want two", got, err)
	}
	newer[0]++
	if _, err := DecodeUsed(newer); err == nil {
		t.Error("facts two ahead: got no error")
	}
}

func drawUsed(t *rapid.T) Used {
	from := unit.Tick(rapid.Int64Range(0, 2e15).Draw(t, "from"))
	end := from.FloorHour() + unit.Hour
	n := func() int64 { return rapid.Int64Min(0).Draw(t, "used") }
	return Used{
		Task: task.ID{Job: rapid.SampledFrom(jobs).Draw(t, "job"), Instance: rapid.Int32Min(0).Draw(t, "instance"), Attempt: rapid.Uint32Min(1).Draw(t, "attempt")},
		From: from, To: from + unit.Tick(rapid.Int64Range(1, int64(end-from)).Draw(t, "span")), CPU: n(), RAM: n(), Disk: n(),
	}
}

func TestFactsAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawUsed), 1, 9).Draw(t, "facts")
		b := EncodeUsed(want)
		got, err := DecodeUsed(b)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		// A cut between two facts leaves whole facts; any other is an error.
		got, err = DecodeUsed(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")])
		if err == nil && (len(got) >= len(want) || cmp.Diff(want[:len(got)], got, equateNone) != "") {
			t.Errorf("cut short: got %v", got)
		}
	})
	if got, err := DecodeUsed(EncodeUsed(nil)); err != nil || len(got) != 0 {
		t.Errorf("no facts: got %v, %v", got, err)
	}
}

// equateNone lets no facts be nil or empty.
var equateNone = cmp.Transformer("none", func(u []Used) []Used { return append([]Used{{}}, u...) })

func TestFactsRefused(t *testing.T) {
	good := Used{Task: task.ID{Job: jobs[0], Attempt: 1}, From: 3*unit.Hour + 5, To: 4 * unit.Hour}
	if _, err := DecodeUsed(EncodeUsed([]Used{good})); err != nil {
		t.Fatalf("a good fact: %v", err)
	}
	for name, change := range map[string]func(u *Used){
		"no job":            func(u *Used) { u.Task.Job = "" },
		"a path for a job":  func(u *Used) { u.Task.Job = "../prod/x" },
		"negative instance": func(u *Used) { u.Task.Instance = -1 },
		"no attempt":        func(u *Used) { u.Task.Attempt = 0 },
		"before 1970":       func(u *Used) { u.From, u.To = -5, -1 },
		"empty span":        func(u *Used) { u.To = u.From },
		"backward span":     func(u *Used) { u.To = u.From - 1 },
		"over the hour":     func(u *Used) { u.To = 4*unit.Hour + 1 },
		"many hours":        func(u *Used) { u.To = 40 * unit.Hour },
		"end of time":       func(u *Used) { u.To = math.MaxInt64 },
		"negative cpu":      func(u *Used) { u.CPU = -1 },
		"negative ram":      func(u *Used) { u.RAM = -1 },
		"negative disk":     func(u *Used) { u.Disk = -1 },
	} {
		u := good
		change(&u)
		if got, err := DecodeUsed(EncodeUsed([]Used{good, u})); fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), "usage fact 2") {
			t.Errorf("%s: got %v, %v; want fact 2 refused", name, got, err)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": {}, "format 0": {0}, "cut": {1, 5, 1}, "huge length": {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"short item": {1, 1, 0}, "overlong number": append([]byte{1, 12, 0x80}, make([]byte, 11)...),
	} {
		if got, err := DecodeUsed(b); fault.Of(err) != fault.Invalid {
			t.Errorf("%s: got %v, %v; want it refused", name, got, err)
		}
	}
}

func FuzzDecodeUsed(f *testing.F) {
	good := Used{Task: task.ID{Job: jobs[0], Instance: 3, Attempt: 1}, From: 3*unit.Hour + 5, To: 4 * unit.Hour, CPU: 1e9, RAM: 5, Disk: 7}
	f.Add(EncodeUsed([]Used{good, good}))
	f.Add([]byte{})
	f.Add([]byte{2, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		facts, err := DecodeUsed(b)
		if err != nil {
			return
		}
		again, err := DecodeUsed(EncodeUsed(facts))
		if diff := cmp.Diff(facts, again, equateNone); diff != "" || err != nil {
			t.Errorf("%x: %v (-first +again):\n%s", b, err, diff)
		}
	})
}

func TestAmounts(t *testing.T) {
	top := Amounts{unit.Disk: highest}
	one := Amounts{unit.Disk: unit.Int(1)}
	if _, err := top.Add(one); err == nil {
		t.Error("highest + 1: got no error")
	}
	if _, err := (Amounts{unit.Disk: unit.Int(-2)}).Sub(top); err == nil {
		t.Error("-2 - highest: got no error")
	}
	if got, err := top.Sub(top); err != nil || !got.Zero() {
		t.Errorf("highest - highest: got %v, %v", got, err)
	}
	if got, want := (Amounts{unit.RAM: unit.Product(1536, int64(unit.Hour))}).Hours(unit.RAM), "1.5"; got != want {
		t.Errorf("1536 MiB-hours: got %s; want %s GiB-hours", got, want)
	}
	if got := one.Hours(unit.Net); got != "0" {
		t.Errorf("net: got %s", got)
	}
}

// TestCheckOverflows: sums that do not fit are errors, not coincidences.
func TestCheckOverflows(t *testing.T) {
	top := Amounts{highest}
	for name, h := range map[string]Hour{
		"accounts": {Machines: []MachineHour{{Billed: top, Overhead: top}}},
		"machines": {Machines: []MachineHour{{Billed: top, Capacity: top}, {Billed: top, Capacity: top}}},
		"jobs":     {Jobs: []JobHour{{Reserved: top}, {Reserved: top}}},
		"capacity": {Machines: []MachineHour{{Capacity: Amounts{{Hi: math.MinInt64}}, Idle: Amounts{unit.Int(1)}}}},
	} {
		if err := h.Check(); err == nil || !strings.Contains(err.Error(), unit.ErrOverflow.Error()) {
			t.Errorf("%s: got %v; want %v", name, err, unit.ErrOverflow)
		}
	}
	if _, err := (Hour{Machines: []MachineHour{{Down: top}, {Down: top}}}).Total(); err == nil {
		t.Error("total: got no error")
	}
}

func TestBalanced(t *testing.T) {
	five, _ := unit.ParseMoney("5")
	minus, _ := unit.ParseMoney("-5")
	owner, platform := Account{"c", jobs[0]}, Account{Cluster: "c"}
	pair := func() []Entry { return []Entry{{1, jobs[0], owner, five}, {1, jobs[0], platform, minus}} }
	if err := Balanced(append(pair(), pair()...)); err != nil {
		t.Errorf("two pairs: %v", err)
	}
	for name, change := range map[string]func(e []Entry) []Entry{
		"one side":     func(e []Entry) []Entry { return e[:1] },
		"same sign":    func(e []Entry) []Entry { e[1].Amount = five; return e },
		"a part more":  func(e []Entry) []Entry { e[1].Amount, _ = minus.Add(unit.MoneyOf(unit.Int(1))); return e },
		"other hour":   func(e []Entry) []Entry { e[1].Hour = 2; return e },
		"other usage":  func(e []Entry) []Entry { e[1].Usage = jobs[1]; return e },
		"same account": func(e []Entry) []Entry { e[1].Account = owner; return e },
		"too much":     func(e []Entry) []Entry { e[0].Amount, e[1].Amount = unit.MoneyOf(highest), five; return e },
	} {
		if err := Balanced(change(pair())); fault.Of(err) != fault.Internal || err == nil {
			t.Errorf("%s: got %v; want it found", name, err)
		}
	}
}

func TestBy(t *testing.T) {
	for _, b := range []By{ByJob, ByRole} {
		if got, err := ParseBy(b.String()); got != b || err != nil {
			t.Errorf("%v: got %v, %v", b, got, err)
		}
	}
	if _, err := ParseBy("team"); fault.Of(err) != fault.Invalid {
		t.Errorf("team: got %v", err)
	}
}
