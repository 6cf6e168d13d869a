package meter

import (
	"math/big"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/ledger/pack"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestSurplusUse: a task is given up at a quarter past, lives on as a stray, and
// is gone at a quarter to. What it used goes to its owner up to its row's end,
// and to the platform from there, also when the facts come much later. The task
// beside it is none of that.
func TestSurplusUse(t *testing.T) {
	const (
		hour    = 1000 * unit.Hour
		quarter = unit.Hour / 4
	)
	stray := task.ID{Job: job.NewKey("www", "prod", "web"), Attempt: 1}
	other := task.ID{Job: job.NewKey("www", "prod", "web"), Attempt: 2}
	strays := []state.Stray{{ID: stray, Since: hour + quarter}}
	used := func(id task.ID, from, to unit.Tick) ledger.Used {
		return ledger.Used{Task: id, From: from, To: to, CPU: 1001, RAM: 8, Disk: 3}
	}
	amounts := func(cpu, ram, disk int64) ledger.Amounts {
		return ledger.Used{CPU: cpu, RAM: ram, Disk: disk}.Amounts()
	}
	for name, c := range map[string]struct {
		fact ledger.Used
		at   unit.Tick
		want map[job.Key]ledger.Amounts
	}{
		"before":        {used(stray, hour, hour+quarter), hour + unit.Hour, map[job.Key]ledger.Amounts{stray.Job: amounts(1001, 8, 3)}},
		"across":        {used(stray, hour, hour+2*quarter), hour + unit.Hour, map[job.Key]ledger.Amounts{stray.Job: amounts(501, 4, 2), "": amounts(500, 4, 1)}},
		"after":         {used(stray, hour+quarter, hour+3*quarter), hour + unit.Hour, map[job.Key]ledger.Amounts{"": amounts(1001, 8, 3)}},
		"the next day":  {used(stray, hour+quarter, hour+3*quarter), hour + 24*unit.Hour, map[job.Key]ledger.Amounts{"": amounts(1001, 8, 3)}},
		"days later":    {used(stray, hour+quarter, hour+3*quarter), hour + 25*unit.Hour, map[job.Key]ledger.Amounts{stray.Job: amounts(1001, 8, 3)}},
		"another":       {used(other, hour, hour+unit.Hour), hour + unit.Hour, map[job.Key]ledger.Amounts{stray.Job: amounts(1001, 8, 3)}},
		"has a row now": {used(stray, hour+2*quarter, hour+unit.Hour), hour + unit.Hour, map[job.Key]ledger.Amounts{stray.Job: amounts(501, 4, 2), "": amounts(500, 4, 1)}},
	} {
		m := machine.Machine{ID: "m1", Up: true}
		f, b := New(), newBook()
		foldAll(t, f, []state.Record{
			{Seq: 1, At: hour, Kind: state.MachineRecord, Machine: &state.MachineChange{After: m}},
			{Seq: 2, At: hour + quarter, Kind: state.MachineRecord, Machine: &state.MachineChange{After: m, Strays: strays}},
			{Seq: 3, At: hour + 3*quarter, Kind: state.MachineRecord, Machine: &state.MachineChange{After: m}},
			{Seq: 4, At: c.at, Kind: state.FactRecord, Fact: &state.Fact{Source: "m1/j", Seq: 1, Payload: ledger.EncodeUsed([]ledger.Used{c.fact})}},
		}, b)
		if d := cmp.Diff(c.want, b.used[hour]); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
}

// An account that was stored before there were stretches is read.
func TestAccountWithoutStretches(t *testing.T) {
	m := account{capacity: life{has: level{unit.CPU: 4000}, since: 5}}
	b := m.append(nil, 0)
	r := pack.NewReader(b[:len(b)-1]) // their number, 0
	got := readAccount(&r, 0)
	if err := r.Err(); err != nil || got.capacity != m.capacity || got.strays != nil {
		t.Errorf("got %+v, %v; want %+v", got, err, m)
	}
}

// TestUsed: what agents say was used comes out by job and hour, however late;
// what a task used while it was a stray is the platform's. Nothing is lost.
func TestUsed(t *testing.T) {
	seen := map[string]int{}
	defer func() {
		if seen["owner"] == 0 || seen["platform"] == 0 || seen["divided"] == 0 {
			t.Errorf("seen %v; want all of owner, platform and divided", seen)
		}
	}()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		got, want := newBook(), newBook()
		foldAll(t, New(), w.records, got)
		for _, r := range w.records {
			if r.Kind != state.FactRecord {
				continue
			}
			facts, err := ledger.DecodeUsed(r.Fact.Payload)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range facts {
				d := w.surplus(r.At, u)
				rest := u
				part := func(n int64) int64 {
					x := new(big.Int).Mul(big.NewInt(n), big.NewInt(int64(d)))
					return x.Div(x, big.NewInt(int64(u.To-u.From))).Int64()
				}
				rest.CPU, rest.RAM, rest.Disk = part(u.CPU), part(u.RAM), part(u.Disk)
				u.CPU, u.RAM, u.Disk = u.CPU-rest.CPU, u.RAM-rest.RAM, u.Disk-rest.Disk
				hour := u.From - u.From%unit.Hour
				if d < u.To-u.From {
					seen["owner"]++
					if err := want.Used(ledger.UsedHour{Hour: hour, Job: u.Task.Job, Used: u.Amounts()}); err != nil {
						t.Fatal(err)
					}
				}
				if d > 0 {
					seen["platform"]++
					if err := want.Used(ledger.UsedHour{Hour: hour, Used: rest.Amounts()}); err != nil {
						t.Fatal(err)
					}
				}
				if d > 0 && d < u.To-u.From {
					seen["divided"]++
				}
			}
		}
		if diff := cmp.Diff(want.used, got.used); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
