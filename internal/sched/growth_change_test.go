package sched

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A pool is a cluster that is nearly full, in which one thing changes at a time.
// It counts the machines and tasks that folds and plans look at.
type pool struct {
	testing.TB
	s      *state.Snapshot
	x      *Index
	looked int
	turn   int // tells rounds apart
}

// newPool returns a cluster of n machines, twenty in a rack, of three
// generations, every tenth with a GPU and a disk; with two tasks on each, of three
// roles and two tiers.
func newPool(t testing.TB, n int) *pool {
	var machines []machine.Machine
	for i := range n {
		id := "m" + strconv.Itoa(100_000+i)
		r := unit.Resources{CPU: 4000, RAM: 16 * gib}
		if i%10 == 0 {
			r.GPU, r.Disk = 1000, 100*gib
		}
		machines = append(machines, machine.Machine{
			ID: machine.ID(id), Up: true, Ports: machine.PortRange{From: 31000, To: 31099}, Capacity: r,
			Attributes: []machine.Attribute{{Name: "gen", Value: "g" + strconv.Itoa(i%3)}, {Name: "host", Value: id}, {Name: "rack", Value: "r" + strconv.Itoa(i/20)}},
		})
	}
	var jobs []job.Job
	for i := range n / 20 {
		c := asks(unit.Resources{CPU: []int64{1500, 2000}[i%2], RAM: 4 * gib}, 0)
		c.Priority = int32(i % 2)
		if i%5 == 0 {
			c.Tier, c.Priority, c.Task.Resources.CPU = job.Preferred, 3, 2000 // they come first, while there is room that is allowed
			c.Constraints = append(c.Constraints, is("gen", "g0"))
		}
		jobs = append(jobs, job.Job{Key: job.NewKey("role"+strconv.Itoa(i%3), "prod", "j"+strconv.Itoa(i)), Instances: job.FirstN(40), Config: c})
	}
	s := load(t, machines, jobs)
	p := &pool{TB: t, s: s, x: NewIndex(s)}
	for p.plan().More {
	}
	return p
}

// do applies changes in one commit and folds them.
func (p *pool) do(changes ...state.Change) {
	p.Helper()
	d := state.NewDraft(p.s, p.s.At+second)
	for _, c := range changes {
		if err := d.Apply(c); err != nil {
			p.Fatalf("%T: %v", c, err)
		}
	}
	p.s = d.Snapshot()
	was := p.x.looked
	p.x.Fold(p.s, d.Changed())
	p.looked += p.x.looked - was
}

// plan plans without reasons, which are asked of all machines, and carries the
// plan out.
func (p *pool) plan() Waits {
	p.Helper()
	was := p.x.looked
	changes, waits := Plan(p.s, p.x, p.s.At, Limits{Looks: 1})
	p.looked += waits.Looked + p.x.looked - was
	p.do(changes...)
	return waits
}

// submit makes a job of n tasks.
func (p *pool) submit(k job.Key, n int32, c job.Config) {
	p.Helper()
	c.Tier = max(c.Tier, job.Preemptible)
	p.do(state.PutJob{Job: job.Job{Key: k, Instances: job.FirstN(n), Config: c}})
	for i := range n {
		p.open(state.Slot{Job: k, N: i})
	}
}

func (p *pool) open(at state.Slot) {
	p.Helper()
	in, _ := p.s.Instance(at)
	p.do(state.OpenSlot{Slot: at, Base: in.Rev})
	in, _ = p.s.Instance(at)
	p.do(state.NewTask{Slot: at, Base: in.Rev})
}

// end ends tasks.
func (p *pool) end(to task.State, all ...state.Task) {
	p.Helper()
	for _, t := range all {
		now, _ := p.s.Task(t.ID)
		p.do(state.StepTask{ID: t.ID, Base: now.Rev, Event: task.Event{To: to}})
	}
}

// again loses tasks, and has others in their place.
func (p *pool) again(all ...state.Task) {
	p.Helper()
	p.end(task.Lost, all...)
	for _, t := range all {
		if in, _ := p.s.Instance(state.Slot{Job: t.ID.Job, N: t.ID.Instance}); !in.Live {
			p.open(in.Slot)
		}
	}
}

// gone ends every task of a job: it runs no more.
func (p *pool) gone(k job.Key) {
	p.Helper()
	for _, t := range slices.Collect(p.s.TasksOf(k)) {
		if t.State == task.Pending {
			p.end(task.Killing, t)
		} else {
			p.end(task.Lost, t)
		}
	}
}

// all holds a job to having a place for all its tasks.
func (p *pool) all(k job.Key, want int) {
	p.Helper()
	n := 0
	for t := range p.s.TasksOf(k) {
		if t.State.Placed() {
			n++
		}
	}
	if n != want {
		p.Errorf("%d tasks of %s have a place; want %d", n, k, want)
	}
}

// some returns a machine, another one in each round.
func (p *pool) some() state.Machine {
	n := p.turn * 7919 % (len(p.x.hosts) - 1)
	return p.x.hosts[n+1].row
}

func (p *pool) up(m machine.ID, up bool) {
	p.Helper()
	row, _ := p.s.Machine(m)
	row.Up = up
	p.do(state.PutMachine{Machine: row.Machine, Base: row.Rev})
}

// changesOfPool is what happens to a pool. Each leaves it about as full as it
// was, and returns how many changes its cost is to be shared among.
var changesOfPool = []struct {
	name string
	make func(p *pool) int
}{
	{"place one task", func(p *pool) int {
		k := job.NewKey("role1", "prod", "one"+strconv.Itoa(p.turn))
		p.submit(k, 1, asks(cpu(250), 1))
		p.plan()
		p.all(k, 1)
		p.gone(k)
		return 1
	}},
	{"a job with a limit", func(p *pool) int {
		k := job.NewKey("role1", "prod", "limited"+strconv.Itoa(p.turn))
		p.submit(k, 10, asks(cpu(250), 0, most("rack", 1)))
		p.plan()
		p.all(k, 10)
		p.gone(k)
		return 10
	}},
	{"a job away from another", func(p *pool) int {
		k := job.NewKey("role1", "prod", "away"+strconv.Itoa(p.turn))
		p.submit(k, 10, asks(cpu(250), 0, job.Constraint{Attribute: "rack", With: "role0/prod/j0", Negated: true}))
		p.plan()
		p.all(k, 10)
		p.gone(k)
		return 10
	}},
	{"a job near one that does not run", func(p *pool) int {
		k := job.NewKey("role1", "prod", "lonely"+strconv.Itoa(p.turn))
		p.submit(k, 2, asks(cpu(250), 0, job.Constraint{Attribute: "rack", With: "role0/prod/none"}))
		p.plan()
		p.gone(k)
		return 2
	}},
	{"a job that spreads", func(p *pool) int {
		k := job.NewKey("role1", "prod", "even"+strconv.Itoa(p.turn))
		p.submit(k, 10, asks(cpu(250), 0, job.Constraint{Attribute: "gen", Spread: 1}))
		p.plan()
		p.all(k, 10)
		p.gone(k)
		return 10
	}},
	{"pre-emption of a weaker tier", func(p *pool) int {
		k := job.NewKey("role2", "prod", "strong"+strconv.Itoa(p.turn))
		c := asks(unit.Resources{CPU: 4000, RAM: gib}, 0)
		c.Tier = job.Preferred
		p.submit(k, 1, c)
		return p.preempts(k)
	}},
	{"pre-emption in the role", func(p *pool) int {
		k := job.NewKey("role2", "prod", "high"+strconv.Itoa(p.turn))
		c := asks(unit.Resources{CPU: 3900, RAM: gib}, 0)
		c.Priority = 9
		p.submit(k, 1, c)
		return p.preempts(k)
	}},
	{"kill one, and replace it", func(p *pool) int {
		on := slices.Collect(p.s.TasksOn(p.some().ID))
		if len(on) == 0 {
			return 0
		}
		p.again(on[0])
		p.plan()
		return 1
	}},
	{"machine back", func(p *pool) int {
		m, looked := p.some(), p.looked
		p.up(m.ID, false)
		p.plan()
		p.looked = looked
		p.up(m.ID, true)
		p.plan()
		return 1
	}},
	{"machine lost", func(p *pool) int {
		m := p.some()
		on := slices.Collect(p.s.TasksOn(m.ID))
		p.up(m.ID, false)
		p.again(on...)
		p.plan()
		looked := p.looked
		p.up(m.ID, true)
		p.plan()
		p.looked = looked
		return 1
	}},
}

// preempts sees a task through that has others stopped.
func (p *pool) preempts(k job.Key) int {
	p.plan()
	if winner := slices.Collect(p.s.TasksOf(k))[0]; winner.Room == "" {
		p.Errorf("no room is made for %s", winner.ID)
	}
	var stopping []state.Task
	for t := range p.s.Tasks() {
		if t.State.Stopping() {
			stopping = append(stopping, t)
		}
	}
	p.end(task.Killed, stopping...)
	p.plan()
	p.all(k, 1)
	return 1
}

// TestGrowthOfChanges: what one change costs, in machines and tasks looked at by
// folds and plans, is the same in a cluster of 50,000 machines as in one of
// 1,000, within two to one.
func TestGrowthOfChanges(t *testing.T) {
	const warm, rounds = 30, 15 // ladders, boards, classes and domains cost a pass over the machines when they are made
	cost := map[string]map[int]float64{}
	sizes := []int{1000, 10_000, 50_000}
	for _, n := range sizes {
		p := newPool(t, n)
		for _, c := range changesOfPool {
			changes := 0
			for range warm {
				p.turn++
				c.make(p)
			}
			p.looked = 0
			for range rounds {
				p.turn++
				changes += c.make(p)
			}
			if cost[c.name] == nil {
				cost[c.name] = map[int]float64{}
			}
			cost[c.name][n] = float64(p.looked) / float64(changes)
		}
		if d := p.x.Audit(p.s); d != "" {
			t.Error(d)
		}
	}
	for _, of := range changesOfPool {
		c := cost[of.name]
		line := fmt.Sprintf("%-35s %7.1f at 1,000 machines, %7.1f at 10,000, %7.1f at 50,000", of.name, c[1000], c[10_000], c[50_000])
		t.Log(line)
		if c[10_000] > 2*c[1000] || c[50_000] > 2*c[1000] {
			t.Errorf("%s: looks a change grow with the cluster; want at most twice as many as at 1,000", line)
		}
	}
}
