package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// When a machine is avoided: so many starts in a row have failed on it within
// failuresCount. It refused them itself, and not all at once; or they are of one
// job or of several, and the same configs started elsewhere since the first. At
// most one machine in shunShare is avoided, or one in all.
const (
	refusalsEnough   = 3
	failuresOfOneJob = 5
	failuresOfSome   = 3
	failuresKept     = 10 // of a machine: those of jobs that start nowhere do not hide the others
	failuresCount    = 10 * unit.Hour / 60
	shunShare        = 2
)

// conduct is how starts of tasks went, as the records tell: on which machines
// they failed again and again while others started the same. It is a fold over
// records; what a new leader does not know of it, it sees again soon. Whom that
// led to avoid stands in the machines' rows.
type conduct struct {
	failed   map[machine.ID][]failedStart // the last starts in a row that failed, oldest first
	fine     map[job.Hash]unit.Tick       // when a task of a config began to run last
	swept    unit.Tick                    // when what is too old was taken out of fine
	avoided  map[machine.ID]unit.Tick     // those that are avoided for a time, until then
	parole   unit.Tick                    // when the first of them is not any more; 0: none is
	verdicts map[machine.ID]string        // for the next turn: why a machine is to be avoided; empty: it is trusted
}

// A failedStart is a task that ended before it ran.
type failedStart struct {
	job     job.Key
	config  job.Hash
	at      unit.Tick
	refused bool // by the machine: it is nobody's failure
}

// behaviour is the conduct of machines as a leader knows it that begins at s.
func behaviour(s *state.Snapshot) conduct {
	c := conduct{
		failed: map[machine.ID][]failedStart{}, fine: map[job.Hash]unit.Tick{}, swept: s.At, avoided: map[machine.ID]unit.Tick{}, verdicts: map[machine.ID]string{},
	}
	for m := range s.Machines() {
		c.follow(m.ID, m.Machine)
	}
	c.first()
	return c
}

// follow notes until when a machine is avoided.
func (c *conduct) follow(id machine.ID, m machine.Machine) {
	if m.Avoid != "" && m.AvoidUntil != 0 {
		c.avoided[id] = m.AvoidUntil
	} else {
		delete(c.avoided, id)
	}
}

// first works out who is avoided for the shortest time.
func (c *conduct) first() {
	c.parole = 0
	for _, until := range c.avoided {
		if (c.parole == 0 || until < c.parole) && !fault.Planted("avoided-for-ever") {
			c.parole = until
		}
	}
}

// fold takes in the records of a turn that was committed. s is what it led to.
func (c *conduct) fold(s *state.Snapshot, records []state.Record, d state.Delta) {
	clear(c.verdicts) // that turn has followed them
	moved := false
	for id := range d.Machines {
		m, _ := s.Machine(id)
		was := c.avoided[id]
		c.follow(id, m.Machine)
		moved = moved || was != c.avoided[id]
	}
	if moved {
		c.first()
	}
	for i := range records {
		if records[i].Kind == state.TaskRecord {
			c.step(s, records[i].Task, records[i].At)
		}
	}
	if s.At-c.swept > failuresCount {
		c.swept = s.At
		maps.DeleteFunc(c.fine, func(_ job.Hash, at unit.Tick) bool { return s.At-at > failuresCount })
		maps.DeleteFunc(c.failed, func(_ machine.ID, f []failedStart) bool { return s.At-f[len(f)-1].at > failuresCount })
	}
}

// step takes in one step of a task.
func (c *conduct) step(s *state.Snapshot, x *state.TaskChange, at unit.Tick) {
	m, ok := s.Machine(x.After.Machine)
	switch {
	case !ok || x.Before == task.Init || x.Before.Stopping():
	case x.After.State == task.Running && x.After.Ran == at, x.After.State == task.Finished && x.After.Ran == 0:
		c.fine[x.After.Config] = at
		delete(c.failed, m.ID)
		delete(c.verdicts, m.ID)
		if _, held := m.Trust(); held {
			c.verdicts[m.ID] = ""
		}
	case x.After.Ran != 0 || x.Before == task.Partitioned || !m.Up || m.Leaving || s.Cluster.Recovery: // that says nothing of starts
	case x.After.State == task.Lost || x.After.State == task.Failed:
		c.failed[m.ID] = append(c.failed[m.ID], failedStart{x.After.ID.Job, x.After.Config, at, x.After.State == task.Lost})
		c.failed[m.ID] = c.failed[m.ID][max(0, len(c.failed[m.ID])-failuresKept):]
		if why := c.judge(s, m.Machine, cmp.Or(x.After.Reason, x.After.State.String()), at); why != "" {
			c.verdicts[m.ID] = why
		}
	}
}

// judge says why a machine is to be avoided on which a start has just failed;
// empty: it is not.
func (c *conduct) judge(s *state.Snapshot, m machine.Machine, last string, now unit.Tick) string {
	_, _, machines := s.Len()
	full := len(c.avoided)+c.pending(m.ID) >= max(1, machines/shunShare) && !fault.Planted("everybody-avoided")
	if m.Avoid != "" || full || fault.Planted("black-hole-trusted") {
		return ""
	}
	recent := c.failed[m.ID]
	for now-recent[0].at > failuresCount {
		recent = recent[1:]
	}
	if started, ok := c.fine[recent[len(recent)-1].config]; ok && m.Suspect(now) && now-started <= failuresCount {
		return "it was avoided before, and again a task did not start here, while others of its job start elsewhere; " + task.Clip("the last: "+last)
	}
	refused, borne, jobs := 0, 0, map[job.Key]bool{}
	for _, f := range recent {
		if f.refused {
			refused++
		}
		if started, ok := c.fine[f.config]; ok && started >= recent[0].at { // not here: that would have cleared it
			borne++
			jobs[f.job] = true
		}
	}
	if refused >= refusalsEnough && recent[0].at < now {
		return fmt.Sprintf("it did not take %d tasks, and none has started here since the first of them; %s", refused, task.Clip("the last: "+last))
	}
	if enough := borne >= failuresOfOneJob || borne >= failuresOfSome && len(jobs) > 1; !enough {
		return ""
	}
	return fmt.Sprintf("%d tasks in a row did not start here, while others of their jobs started elsewhere; %s", borne, task.Clip("the last: "+last))
}

// pending counts the machines that the next turn will begin to avoid, less one.
func (c *conduct) pending(but machine.ID) int {
	n := 0
	for id, why := range c.verdicts {
		if id != but && why != "" {
			n++
		}
	}
	return n
}

// conduct begins to avoid machines on which tasks do not start, and ends it when
// its time is over or a task has started.
func (t *Turn) conduct() error {
	c, s := &t.loop.conduct, t.draft.Snapshot()
	put := func(m machine.Machine, base state.Rev) error {
		return t.apply(state.PutMachine{Machine: m, Base: base})
	}
	for _, id := range slices.Sorted(maps.Keys(c.verdicts)) {
		row, ok := s.Machine(id)
		m, held := row.Trust()
		if why := c.verdicts[id]; why != "" {
			m, held = row.Shun(why, s.At), true
		}
		if !ok || !held {
			continue
		}
		if err := put(m, row.Rev); err != nil {
			return err
		}
	}
	if c.parole == 0 || s.At < c.parole {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(c.avoided)) {
		row, _ := s.Machine(id)
		m, over := row.Parole(s.At)
		if !over {
			continue
		}
		if err := put(m, row.Rev); err != nil {
			return err
		}
	}
	return nil
}
