// Package sim runs a cluster in no time at all. It is one goroutine, one heap
// of events and one seeded source of chance: the same seed gives the same run.
// The loop, the engines, the agents' minds and the format of rows and records
// are the real ones; only machines, processes, clocks, disks and the network
// are made up, and they are bad: machines die, agents crash, messages are lost,
// doubled, late and out of order, commits fail in every way, clocks jump.
//
// After every commit the world checks what must always hold ([World.check]),
// and [World.Settle] what must hold again once the faults have stopped. The
// first thing that does not ends the run with the time and the seed.
package sim

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Lengths of time in ticks.
const (
	Millisecond = unit.Hour / 3_600_000
	Second      = unit.Hour / 3600
	Minute      = 60 * Second
)

// birth is when every world begins: midnight, 1 January 2030.
const birth = 525_960 * unit.Hour

// A Config is the size of a world and how bad it is.
type Config struct {
	Seed          uint64
	Machines      int
	Tasks         int // instances of all jobs together, about
	FaultsPerHour int
	Exclusive     int  // of a hundred jobs, how many have one live task per instance at most
	AlwaysLook    bool // see [control.Config]
	Restores      bool // the database is replaced by an old copy of itself, once
}

// A World is a simulated cluster. Make one with [New].
type World struct {
	cfg    Config
	rand   *rand.Rand
	now    unit.Tick // true time; nobody in the world sees it but through a clock
	skew   unit.Tick // what the leader's wall clock shows beyond it
	events queue
	seq    int

	disk   *disk
	leader *leader
	zombie *leader // a former one that does not know
	nodes  []*node
	byID   map[machine.ID]*node
	calm   bool // no new faults

	exclusive map[job.Hash]bool // configs of which an instance has one live task at most

	truth truth
	bill  *bill
	err   error
	stats Stats
}

// Stats counts what happened in a world.
type Stats struct {
	Faults, Commits, Records, Starts, Ends, Leaders int
}

// New returns a world of cfg at midnight, 1 January 2030, with its machines up
// and its jobs asked for within the first minute.
func New(cfg Config) *World {
	w := &World{
		cfg: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 0)), now: birth, byID: map[machine.ID]*node{},
		truth: newTruth(), bill: newBill(), exclusive: map[job.Hash]bool{},
	}
	w.disk = newDisk(w)
	w.leader = &leader{w: w}
	for i := range cfg.Machines {
		n := newNode(w, i)
		w.nodes = append(w.nodes, n)
		w.byID[n.id] = n
		w.after(w.jitter(Second), n.boot)
	}
	w.after(0, w.leader.start)
	for _, j := range w.jobs() {
		w.after(w.jitter(Minute), func() { w.user(j) })
	}
	if cfg.FaultsPerHour > 0 {
		w.after(w.jitter(2*unit.Hour/unit.Tick(cfg.FaultsPerHour)), w.fault)
	}
	if cfg.Restores {
		w.after(w.jitter(unit.Hour/2), func() {
			w.disk.keep()
			w.after(w.jitter(unit.Hour/2), w.restore)
		})
	}
	w.after(unit.Hour/4, w.housekeep)
	return w
}

// Run lets d pass. It returns the first thing that went wrong, ever.
func (w *World) Run(d unit.Tick) error {
	end := w.now + d
	for w.err == nil && len(w.events) > 0 && w.events[0].at <= end {
		e := w.events.pop()
		w.now = e.at
		if n := e.via; n == nil || n.on && !n.away {
			e.do()
		}
	}
	w.now = max(w.now, min(end, w.now+d))
	return w.err
}

// Stats returns what happened so far.
func (w *World) Stats() Stats { return w.stats }

// fail ends the run.
func (w *World) fail(format string, args ...any) {
	if w.err == nil {
		at := (w.now - birth).Duration()
		w.err = fmt.Errorf("seed %d, after %v: "+format, append([]any{w.cfg.Seed, at}, args...)...)
	}
}

func (w *World) after(d unit.Tick, f func()) {
	w.seq++
	w.events.push(event{w.now + d, w.seq, nil, f})
}

// jitter returns a random time up to d.
func (w *World) jitter(d unit.Tick) unit.Tick { return 1 + unit.Tick(w.rand.Int64N(int64(d))) }

// chance is true once in n times.
func (w *World) chance(n int) bool { return w.rand.IntN(n) == 0 }

// jobs makes up work: services, ad hoc jobs that end, and some that fail.
func (w *World) jobs() []job.Job {
	var out []job.Job
	left := w.cfg.Tasks
	for i := 0; left > 0; i++ {
		n := min(left, 1+w.rand.IntN(12))
		left -= n
		cfg := job.Config{
			Service: i%4 != 3, Tier: job.Preemptible, MaxTaskFailures: 3, Priority: int32(w.rand.IntN(3)),
			Partition: job.Partition{Reschedule: true},
			Task: job.Task{
				Name:      "t",
				Processes: []job.Process{{Name: "p", Cmdline: "true", MaxFailures: 1, MinDuration: 5}},
				Resources: unit.Resources{
					CPU: int64(100 * (1 + w.rand.IntN(8))), RAM: int64(128*(1+w.rand.IntN(8))) * unit.MiB, Disk: 64 * unit.MiB,
				},
				MaxFailures: 1, FinalizationWait: 30,
			},
		}
		if i%5 == 1 {
			cfg.Constraints = []job.Constraint{{Attribute: "host", Limit: 2}}
		}
		cfg.Exclusive = i*w.cfg.Exclusive/100 != (i+1)*w.cfg.Exclusive/100 // evenly among them
		if i%7 == 2 {
			cfg.Task.Ports = []string{"http"}
		}
		out = append(out, job.Job{Key: job.NewKey(fmt.Sprintf("team%d", i%3), "prod", fmt.Sprintf("job%d", i)), Instances: job.FirstN(int32(n)), Config: cfg})
	}
	return out
}

// user asks for a job until it is accepted, and then, now and again, restarts
// it, kills some of it, or kills all of it and perhaps asks for it anew.
func (w *World) user(j job.Job) {
	if text, err := j.Config.Encode(); err == nil {
		w.exclusive[job.HashOf(text)] = j.Config.Exclusive
	}
	w.bill.wants(j)
	w.leader.ask(control.CreateJob{Job: j, By: "user"}, func(err error) {
		if err != nil && fault.Of(err) != fault.Conflict { // a conflict: it was accepted, and nobody could say so
			w.after(w.jitter(10*Second), func() { w.user(j) })
			return
		}
		w.truth.accepted(j)
		w.later(j)
	})
}

func (w *World) later(j job.Job) { w.after(unit.Hour/6+w.jitter(3*unit.Hour), func() { w.change(j) }) }

func (w *World) change(j job.Job) {
	if w.calm {
		return
	}
	switch w.rand.IntN(4) {
	case 0:
		w.leader.ask(control.RestartJob{Key: j.Key, By: "user"}, func(error) { w.later(j) })
	case 1:
		w.killSome(j)
	case 2:
		w.killAll(j)
	default:
		w.later(j)
	}
}

// killSome kills the last instance of a job, unless it is the only one.
func (w *World) killSome(j job.Job) {
	last := int32(j.Instances.Len() - 1)
	if last == 0 {
		w.later(j)
		return
	}
	some := job.Ranges{{From: last, To: last}}
	w.leader.ask(control.KillJob{Key: j.Key, Instances: some, By: "user"}, func(err error) {
		if err == nil {
			j.Instances = job.FirstN(last)
			w.truth.killed(j.Key, some)
		}
		w.later(j)
	})
}

// killAll kills a job. Every other time it is wanted again, with another config.
func (w *World) killAll(j job.Job) {
	w.truth.doubtful(j.Key)
	w.leader.ask(control.KillJob{Key: j.Key, By: "user"}, func(err error) {
		if err == nil {
			w.truth.killed(j.Key, nil)
		}
		if err == nil && w.chance(2) {
			return
		}
		j.Config.Metadata = []job.Metadata{{Key: "asked", Value: strconv.Itoa(w.seq)}}
		w.after(w.jitter(Minute), func() { w.user(j) })
	})
}

// housekeep is what the server's shell does now and again.
func (w *World) housekeep() {
	w.after(unit.Hour/4, w.housekeep)
	w.disk.trim()
	if l := w.leader.loop; l != nil {
		if err := l.Audit(); err != nil {
			w.fail("%v", err)
		}
		w.recount(l.Snapshot())
	}
	w.audit()
}

// Settle stops the faults, mends everything and waits until the cluster must
// be whole again; then it checks that it is.
func (w *World) Settle() error {
	w.calm = true
	for _, n := range w.nodes {
		n.mend()
	}
	w.leader.mend()
	if w.truth.restored {
		w.after(10*Minute, w.endRecovery) // machines that came back late may hold tasks still
	}
	w.after(12*Minute, w.endOrphans) // the same of orphans
	if err := w.Run(45 * Minute); err != nil {
		return err
	}
	w.settled()
	w.audit()
	return w.err
}

// live lists the tasks that really run, by id.
func (w *World) live() map[task.ID]*node {
	out := map[task.ID]*node{}
	for _, n := range w.nodes {
		for id, p := range n.procs {
			if p.alive() {
				out[id] = n
			}
		}
	}
	return out
}

// snapshot returns the durable state, read as a restart would.
func (w *World) snapshot() (*state.Snapshot, error) { return w.disk.load() }
