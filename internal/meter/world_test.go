package meter

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// tb is what tests, properties and benchmarks have in common.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// A world is a cluster that lives at random, and beside it the truth: after
// every commit, what its snapshot says of every machine and job.
type world struct {
	t       tb
	rand    *rand.Rand
	snap    *state.Snapshot
	records []state.Record
	truth   []moment
	facts   uint64
}

// A moment is what holds from one commit to the next.
type moment struct {
	at       unit.Tick
	machines map[machine.ID][5]unit.Resources // capacity, billed, overhead, idle, down
	jobs     map[job.Key]unit.Resources
	strays   map[machine.ID]map[task.ID]bool
}

var (
	worldStart  = 500_000*unit.Hour - 17
	worldStates = []task.State{
		task.Starting, task.Running, task.Running, task.Finished, task.Failed, task.Killed, task.Lost,
		task.Preempting, task.Restarting, task.Draining, task.Killing, task.Partitioned,
	}
)

func newWorld(t tb, seed uint64, commits int) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), snap: state.New()}
	at := worldStart
	for range commits {
		at = w.later(at)
		d := state.NewDraft(w.snap, at)
		for range 1 + w.rand.IntN(4) {
			w.act(d)
		}
		b, snap, _ := d.Seal(machine.Epoch{})
		w.snap, w.records = snap, append(w.records, b.Records...)
		at = max(at, snap.At)
		if len(b.Records) > 0 {
			w.truth = append(w.truth, w.look())
		}
	}
	return w
}

// later draws the time of the next commit: at once, soon, on an hour or hours away.
func (w *world) later(at unit.Tick) unit.Tick {
	switch w.rand.IntN(8) {
	case 0:
		return at
	case 1:
		return at.FloorHour() + unit.Hour
	case 2:
		return at.FloorHour() + unit.Hour - 1
	case 3:
		return at + unit.Tick(w.rand.Int64N(int64(5*unit.Hour)))
	default:
		return at + unit.Tick(w.rand.Int64N(int64(unit.Hour/4)))
	}
}

func (w *world) amounts(most int64) unit.Resources {
	n := func() int64 { return w.rand.Int64N(most) }
	return unit.Resources{CPU: n() * 37, RAM: n() * unit.MiB, Disk: n() * 3 * unit.MiB, GPU: n() * 5}
}

// act changes one thing at random. What the cluster refuses did not happen.
func (w *world) act(d *state.Draft) {
	s := d.Snapshot()
	id := machine.ID(fmt.Sprintf("m%d", w.rand.IntN(4)))
	m, exists := s.Machine(id)
	key := job.NewKey("role", "prod", fmt.Sprintf("job%d", w.rand.IntN(3)))
	slot := state.Slot{Job: key, N: int32(w.rand.IntN(4))}
	switch w.rand.IntN(11) {
	case 10:
		x := state.Stray{ID: task.ID{Job: key, Attempt: uint32(1 + w.rand.IntN(3))}, Resources: w.amounts(500), Since: s.At}
		w.try(d, state.PutStrays{ID: id, Base: m.Rev, Strays: append(slices.Clone(m.Strays), x)[w.rand.IntN(1+len(m.Strays)):]})
	case 0:
		m.ID, m.Capacity, m.Overhead, m.Foreign = id, w.amounts(5000), w.amounts(50), w.amounts(100)
		m.Up = m.Up || !exists
		w.try(d, state.PutMachine{Machine: m.Machine, Base: m.Rev})
	case 1:
		if exists {
			m.Up = !m.Up
			w.try(d, state.PutMachine{Machine: m.Machine, Base: m.Rev})
		}
	case 2:
		w.try(d, state.DropMachine{ID: id, Base: m.Rev})
	case 3:
		j, _ := s.Job(key)
		c := job.Config{Service: w.rand.IntN(2) == 0, Tier: job.Preemptible, Task: job.Task{Name: "t", Resources: w.amounts(1500)}}
		w.try(d, state.PutJob{Job: job.Job{Key: key, Instances: job.FirstN(4), Config: c}, Base: j.Rev})
	case 4, 5:
		in, _ := s.Instance(slot)
		if !in.Live && !in.Open {
			w.try(d, state.OpenSlot{Slot: slot, Base: in.Rev})
			in, _ = s.Instance(slot)
		}
		w.try(d, state.NewTask{Slot: slot, Base: in.Rev})
	case 6:
		w.try(d, state.TakeFact{Fact: w.fact(s)})
	default:
		w.step(d, id, exists)
	}
}

// step moves a task at random, one that waits to machine id if there is one.
func (w *world) step(d *state.Draft, id machine.ID, exists bool) {
	live := slices.Collect(d.Snapshot().Tasks())
	if len(live) == 0 {
		return
	}
	t := live[w.rand.IntN(len(live))]
	e := task.Event{To: worldStates[w.rand.IntN(len(worldStates))]}
	if t.State == task.Pending && exists && w.rand.IntN(5) > 0 {
		e.To, e.Machine = task.Assigned, id
	}
	if t.State == task.Throttled {
		e.To = task.Pending
	}
	w.try(d, state.StepTask{ID: t.ID, Base: t.Rev, Event: e, Gone: w.rand.IntN(2) == 0})
}

func (w *world) fact(s *state.Snapshot) state.Fact {
	hour := s.At.FloorHour() - unit.Tick(w.rand.IntN([]int{3, 40}[w.rand.IntN(2)]))*unit.Hour
	span := min(s.At-hour, unit.Hour)
	var facts []ledger.Used
	for range w.rand.IntN(4) {
		if span == 0 {
			break // what is to come nobody knows
		}
		from := hour + unit.Tick(w.rand.Int64N(int64(span)))
		facts = append(facts, ledger.Used{
			Task: task.ID{Job: job.NewKey("role", "prod", fmt.Sprintf("job%d", w.rand.IntN(3))), Instance: int32(w.rand.IntN(2)), Attempt: uint32(1 + w.rand.IntN(3))},
			From: from, To: from + 1 + unit.Tick(w.rand.Int64N(int64(hour+span-from))),
			CPU: w.rand.Int64N(1e12), RAM: w.rand.Int64N(1e12), Disk: w.rand.Int64N(1e12),
		})
	}
	w.facts++
	return state.Fact{Source: "agent", Seq: w.facts, Payload: ledger.EncodeUsed(facts)}
}

func (w *world) try(d *state.Draft, c state.Change) { _ = d.Apply(c) }

// look reads the truth off the snapshot, without its records and without the
// free amounts that the leader counts.
func (w *world) look() moment {
	now := moment{w.snap.At, map[machine.ID][5]unit.Resources{}, map[job.Key]unit.Resources{}, map[machine.ID]map[task.ID]bool{}}
	for m := range w.snap.Machines() {
		var l [5]unit.Resources
		l[0] = m.Capacity
		for t := range w.snap.TasksOn(m.ID) {
			l[1] = l[1].Add(t.Resources)
			now.jobs[t.ID.Job] = now.jobs[t.ID.Job].Add(t.Resources)
		}
		now.strays[m.ID] = map[task.ID]bool{}
		for _, x := range m.Strays {
			now.strays[m.ID][x.ID] = true
		}
		kept := m.Overhead.Add(m.Foreign)
		for _, x := range m.Strays {
			kept = kept.Add(x.Resources)
		}
		free := m.Capacity.Sub(kept).Sub(l[1])
		if m.Up {
			l[2], l[3] = kept, free
		} else {
			l[4] = kept.Add(free)
		}
		now.machines[m.ID] = l
	}
	return now
}

// surplus is for how much of a fact's time its task was a stray, as the
// snapshots say: of what was over for more than a day when the fact came, nobody
// knows any more.
func (w *world) surplus(at unit.Tick, u ledger.Used) unit.Tick {
	var d unit.Tick
	for m := range 4 {
		id := machine.ID(fmt.Sprintf("m%d", m))
		for i := 0; i < len(w.truth); i++ {
			if !w.truth[i].strays[id][u.Task] {
				continue
			}
			from, to := w.truth[i].at, unit.Tick(math.MaxInt64)
			for ; i < len(w.truth) && w.truth[i].strays[id][u.Task]; i++ {
			}
			if i < len(w.truth) {
				to = w.truth[i].at
			}
			if at-to <= 24*unit.Hour {
				d += max(0, min(to, u.To)-max(from, u.From))
			}
		}
	}
	return min(d, u.To-u.From)
}

// A cell is one number of the truth: what, of whom, in which hour.
type cell struct {
	hour    unit.Tick
	what    string // the account, or reserved
	who     string
	measure unit.Measure
}

// integrate sums the truth up to end, in core-hours and GiB-hours.
func (w *world) integrate(end unit.Tick) map[cell]*big.Rat {
	sums := map[cell]*big.Rat{}
	for i, now := range w.truth {
		until := end
		if i+1 < len(w.truth) {
			until = min(end, w.truth[i+1].at)
		}
		for from := now.at; from < until; {
			to := min(until, from.FloorHour()+unit.Hour)
			for id, l := range now.machines {
				for j, what := range accounts {
					addTruth(sums, cell{from.FloorHour(), what, string(id), 0}, l[j], to-from)
				}
			}
			for key, r := range now.jobs {
				addTruth(sums, cell{from.FloorHour(), "reserved", string(key), 0}, r, to-from)
			}
			from = to
		}
	}
	return sums
}

var accounts = [5]string{"capacity", "billed", "overhead", "idle", "down"}

func addTruth(sums map[cell]*big.Rat, c cell, r unit.Resources, d unit.Tick) {
	for _, m := range ledger.Measures() {
		den := int64(1000)
		if m == unit.RAM || m == unit.Disk {
			den = 1 << 30
		}
		x := big.NewRat(r.Of(m), den)
		if x.Sign() == 0 || d == 0 {
			continue
		}
		c.measure = m
		if sums[c] == nil {
			sums[c] = new(big.Rat)
		}
		sums[c].Add(sums[c], x.Mul(x, big.NewRat(int64(d), int64(unit.Hour))))
	}
}

// A book keeps what a fold gives out.
type book struct {
	hours []ledger.Hour
	used  map[unit.Tick]map[job.Key]ledger.Amounts
}

func newBook() *book { return &book{used: map[unit.Tick]map[job.Key]ledger.Amounts{}} }

func (b *book) Hour(h ledger.Hour) error {
	b.hours = append(b.hours, h)
	return nil
}

func (b *book) Used(u ledger.UsedHour) (err error) {
	if b.used[u.Hour] == nil {
		b.used[u.Hour] = map[job.Key]ledger.Amounts{}
	}
	b.used[u.Hour][u.Job], err = b.used[u.Hour][u.Job].Add(u.Used)
	return err
}

// cells lists what the hours say, in the truth's terms.
func (b *book) cells() map[cell]*big.Rat {
	cells := map[cell]*big.Rat{}
	put := func(c cell, a ledger.Amounts) {
		for _, m := range ledger.Measures() {
			if a[m].Sign() != 0 {
				c.measure = m
				cells[c], _ = new(big.Rat).SetString(a.Hours(m))
			}
		}
	}
	for _, h := range b.hours {
		for _, m := range h.Machines {
			for i, a := range []ledger.Amounts{m.Capacity, m.Billed, m.Overhead, m.Idle, m.Down} {
				put(cell{h.From, accounts[i], string(m.Machine), 0}, a)
			}
		}
		for _, j := range h.Jobs {
			put(cell{h.From, "reserved", string(j.Job), 0}, j.Reserved)
		}
	}
	return cells
}
