package sim

import (
	"maps"
	"slices"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// truth is what an eye that sees everything remembers, to hold the cluster to it.
type truth struct {
	jobs     map[job.Key]job.Job   // accepted, and nobody asked for their end
	doubt    map[job.Key]bool      // an end was asked for; it may have happened
	gone     map[job.Key]bool      // its end was accepted
	over     map[state.Slot]uint32 // attempts up to this one were killed, and that was accepted
	starts   map[task.ID]bool      // every id that was ever started
	attempts map[state.Slot]uint32 // the highest attempt ever numbered
	durable  map[task.ID]task.State
	living   map[state.Slot][]task.ID // those of durable
	ever     map[task.ID]unit.Tick    // every id that was ever durable, and when its row was written last
	made     map[string]uint64        // usage facts made, by source
	taken    map[string]uint64        // usage facts committed, by source
	last     state.Seq
	lastAt   unit.Tick
	restored bool
	conduct  conduct
}

func newTruth() truth {
	return truth{
		jobs: map[job.Key]job.Job{}, doubt: map[job.Key]bool{}, gone: map[job.Key]bool{}, over: map[state.Slot]uint32{}, starts: map[task.ID]bool{},
		attempts: map[state.Slot]uint32{}, durable: map[task.ID]task.State{}, living: map[state.Slot][]task.ID{}, ever: map[task.ID]unit.Tick{}, made: map[string]uint64{}, taken: map[string]uint64{},
		conduct: newConduct(),
	}
}

func (t *truth) accepted(j job.Job) {
	t.jobs[j.Key] = j
	delete(t.doubt, j.Key)
	delete(t.gone, j.Key)
}

func (t *truth) doubtful(k job.Key) { t.doubt[k] = true; delete(t.jobs, k) }

// killed notes that the end of some instances of a job was accepted; of all
// of it, when there are none.
func (t *truth) killed(k job.Key, some job.Ranges) {
	t.gone[k] = len(some) == 0
	for at, n := range t.attempts {
		if at.Job == k && (len(some) == 0 || some.Has(at.N)) {
			t.over[at] = n
		}
	}
}

// forget is what a restore from an old copy may forget.
func (t *truth) forget(w *World) {
	t.restored = true
	for k := range t.jobs {
		t.doubt[k] = true
	}
	t.jobs, t.gone, t.over = map[job.Key]job.Job{}, map[job.Key]bool{}, map[state.Slot]uint32{}
	s, err := w.snapshot()
	if err != nil {
		w.fail("restore: %v", err)
		return
	}
	t.last, t.lastAt = s.Seq, s.At
	t.conduct = newConduct()
	for m := range s.Machines() {
		if m.Avoid != "" {
			t.conduct.avoided[m.ID] = m.AvoidUntil
		}
	}
	t.durable, t.living = map[task.ID]task.State{}, map[state.Slot][]task.ID{}
	for x := range s.Tasks() {
		t.lives(x.ID, x.State)
	}
	for src := range t.made {
		t.taken[src] = s.Source(src)
	}
}

// started holds for every start: it was durable before, and it is the first.
// Only a leader of the past may not know yet that the task has ended.
func (t *truth) started(n *node, id task.ID, e machine.Epoch) {
	if t.starts[id] {
		n.w.fail("task %v was started twice, now on %s", id, n.id)
	}
	t.starts[id] = true
	_, live := t.durable[id]
	wrote, ever := t.ever[id]
	switch {
	case !ever:
		n.w.fail("task %v was started on %s before it was durable", id, n.id)
	case !live && !t.restored && e == n.w.leader.epoch && n.w.now-wrote > longestLag+10*Second: // no order is on its way for longer
		n.w.fail("task %v was started on %s after it had ended", id, n.id)
	}
}

// stopped holds for every order to stop: a durable act stands behind it.
func (t *truth) stopped(n *node, d agent.Deed) {
	st, live := t.durable[d.ID]
	if live && !st.Stopping() && st != task.Partitioned {
		n.w.fail("task %v on %s was stopped (%s) while the cluster has it as %v", d.ID, n.id, d.Reason, st)
	}
	n.w.unwatched(n, d, live)
	if _, numbered := t.durable[d.ID]; !numbered && t.restored && t.attempts[slotOf(d.ID)] == 0 {
		n.w.fail("task %v on %s was stopped though a restored cluster cannot know it", d.ID, n.id)
	}
}

func slotOf(id task.ID) state.Slot { return state.Slot{Job: id.Job, N: id.Instance} }

// committed looks at every record that became durable.
func (w *World) committed(b *state.Batch) {
	t := &w.truth
	if b.At < t.lastAt {
		w.fail("time went back from %d to %d", t.lastAt, b.At)
	}
	t.lastAt = b.At
	if b.Epoch != w.disk.epoch {
		w.fail("a commit of term %v became durable, and %v leads", b.Epoch, w.disk.epoch)
	}
	for i := range b.Records {
		r := &b.Records[i]
		w.stats.Records++
		if r.Seq != t.last+1 {
			w.fail("record %d follows %d", r.Seq, t.last)
		}
		t.last = r.Seq
		switch r.Kind {
		case state.TaskRecord:
			w.stepped(r)
		case state.FactRecord:
			w.fact(r.Fact)
		case state.JobRecord, state.MachineRecord, state.ClusterRecord, state.QuotaRecord:
		}
	}
	w.conducted(b)
	w.check(b)
	w.meter(b)
}

// meter has what became durable metered; now and then twice.
func (w *World) meter(b *state.Batch) {
	err := w.bill.books.take(b.Records)
	if err == nil && b.Rev%20 == 0 {
		err = w.bill.books.take(b.Records)
	}
	if err != nil {
		w.fail("%v", err)
	}
}

func (w *World) stepped(r *state.Record) {
	t, x := &w.truth, r.Task.After
	at := slotOf(x.ID)
	if r.Task.Before == task.Init {
		if x.ID.Attempt <= t.attempts[at] && x.State != task.Running && x.State != task.Starting {
			w.fail("task %v was numbered again: the slot was at %d", x.ID, t.attempts[at])
		}
		t.attempts[at] = max(t.attempts[at], x.ID.Attempt)
	}
	if n := w.byID[x.Machine]; n != nil && x.State == task.Lost && r.Task.Before != task.Partitioned && n.up && !n.away {
		if p := n.procs[x.ID]; p != nil && p.alive() && !p.stopping && x.Reason == "machine "+string(n.id)+" does not have it any more" {
			w.fail("task %v was declared lost by %s, which runs it", x.ID, n.id)
		}
	}
	if x.State.Terminal() {
		delete(t.durable, x.ID)
		t.living[at] = slices.DeleteFunc(t.living[at], func(id task.ID) bool { return id == x.ID })
	} else {
		t.lives(x.ID, x.State)
	}
	t.ever[x.ID] = w.now
}

func (t *truth) lives(id task.ID, st task.State) {
	if _, known := t.durable[id]; !known {
		at := slotOf(id)
		t.living[at] = append(t.living[at], id)
	}
	t.durable[id] = st
}

func (w *World) fact(f *state.Fact) {
	t := &w.truth
	gap := f.Seq > t.taken[f.Source]+1 && t.restored // what was acknowledged after the copy is lost with it
	if f.Seq != t.taken[f.Source]+1 && !gap {
		w.fail("fact %d of %s was taken in after %d", f.Seq, f.Source, t.taken[f.Source])
	}
	if f.Seq > t.made[f.Source] {
		w.fail("fact %d of %s was never made", f.Seq, f.Source)
	}
	t.taken[f.Source] = f.Seq
}

// check holds after every commit, for all that it touched: an instance has one
// live task, and no machine is given away twice.
func (w *World) check(b *state.Batch) {
	l := w.leader.loop
	if l == nil || w.err != nil {
		return
	}
	for i := range b.Records {
		r := &b.Records[i]
		if r.Kind != state.TaskRecord {
			continue
		}
		x := r.Task.After
		if x.State == task.Assigned && !(unit.Resources{}).Fits(r.Task.Free) && x.Reason != "adopted after a restore" { // that one is there already
			w.fail("task %v was placed on %s, which has %v left", x.ID, x.Machine, r.Task.Free)
		}
		if at := slotOf(x.ID); len(w.truth.living[at]) > 1 {
			w.fail("slot %v has two live tasks, %v", at, w.truth.living[at])
		}
	}
}

// owed holds for a machine after every turn that touched it: overhead gives
// way to what tasks hold before its idle capacity goes below nothing, and is kept
// back again before any is idle.
func (w *World) owed(s *state.Snapshot, id machine.ID) {
	m, ok := s.Machine(id)
	if !ok {
		return
	}
	idle := s.Free(id).Add(m.Owed)
	for _, x := range unit.Measures() {
		if idle.Of(x) < 0 && m.Overhead.Of(x) > 0 || idle.Of(x) > 0 && m.Owed.Of(x) > 0 || m.Overhead.Of(x) < 0 || m.Owed.Of(x) < 0 {
			w.fail("machine %s keeps back %v and owes %v, and %v of it is idle", id, m.Overhead, m.Owed, idle)
			return
		}
	}
}

// recount holds now and again: the account of each machine equals the sum of
// its tasks, every accepted job is there, and nothing is given away twice.
func (w *World) recount(s *state.Snapshot) {
	for m := range s.Machines() {
		left := m.Allocatable().Sub(m.Strayed())
		for x := range s.TasksOn(m.ID) {
			left = left.Sub(x.Resources)
		}
		if left != s.Free(m.ID) {
			w.fail("machine %s has %v left by its account, %v by its tasks", m.ID, s.Free(m.ID), left)
		}
		w.owed(s, m.ID)
		if m.Foreign == (unit.Resources{}) && !(unit.Resources{}).Fits(left.Add(m.Owed)) && w.calm && !w.truth.restored {
			w.fail("machine %s is given away twice: %v left", m.ID, left)
		}
	}
	for k := range w.truth.jobs {
		if _, ok := s.Job(k); !ok {
			w.fail("job %s was accepted and is gone", k)
		}
	}
	slots := map[state.Slot]int{}
	for x := range s.Tasks() {
		slots[slotOf(x.ID)]++
		if slots[slotOf(x.ID)] > 1 {
			w.fail("slot %v has two live tasks", slotOf(x.ID))
		}
	}
}

// settled holds when the faults have stopped for a while: what should run
// runs, what runs should, and every fact has arrived.
func (w *World) settled() {
	l := w.leader.loop
	if l == nil {
		w.fail("there is no leader")
		return
	}
	s := l.Snapshot()
	w.recount(s)
	running := w.live()
	for j := range s.Jobs("") {
		cfg, _ := s.Config(j.Config)
		for i := range j.Instances.All() {
			w.filled(s, state.Slot{Job: j.Key, N: i}, cfg, running)
		}
	}
	for x := range s.Tasks() {
		j, ok := s.Job(x.ID.Job)
		switch {
		case !ok || !j.Instances.Has(x.ID.Instance):
			w.fail("task %v is %v, and no job wants it", x.ID, x.State)
		case x.ID.Attempt <= w.truth.over[slotOf(x.ID)]:
			w.fail("task %v is %v, and its user has killed it", x.ID, x.State)
		case x.Config != j.Config:
			w.fail("task %v is %v with another config than its job's", x.ID, x.State)
		}
	}
	for k, gone := range w.truth.gone {
		if _, ok := s.Job(k); ok && gone {
			w.fail("job %s was killed, and is there", k)
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(running), task.ID.Compare) {
		n := running[id]
		x, ok := s.Task(id)
		if !ok || x.Machine != n.id {
			w.fail("task %v runs on %s, and the cluster does not know", id, n.id)
		}
	}
	for _, n := range w.nodes {
		if m, ok := s.Machine(n.id); ok && m.Taken() != n.spec.Overhead {
			w.fail("machine %s takes %v for its agent and the supervisors, and the cluster takes it for %v", n.id, n.spec.Overhead, m.Taken())
		}
		src, kept := n.source(), uint64(len(n.journal))
		if made, taken := w.truth.made[src], w.truth.taken[src]; kept > 5 || !w.truth.restored && taken+kept < made {
			w.fail("source %s made %d facts and keeps %d, %d arrived", src, made, kept, taken)
		}
	}
}

// proc is what stands on its machine of a task; nil: nothing does.
func (w *World) proc(x task.Task) *proc {
	if n := w.byID[x.Machine]; n != nil {
		return n.procs[x.ID]
	}
	return nil
}

func (w *World) filled(s *state.Snapshot, at state.Slot, cfg *job.Config, running map[task.ID]*node) {
	for x := range s.TasksIn(at) {
		if x.State == task.Pending {
			if _, waits := w.leader.loop.Waits().Of(x.Task); waits {
				return // there is no room, and it says so
			}
		}
		if x.State == task.Running && running[x.ID] != nil {
			return
		}
		if w.now-x.Since < 6*Minute {
			return // on its way
		}
		if p := w.proc(x.Task); p != nil && p.ended != 0 && w.now-p.ended < Minute {
			return // it has just ended, and the news of that is on its way
		}
		w.fail("task %v is %v on %q since %v", x.ID, x.State, x.Machine, (w.now - x.Since).Duration())
		return
	}
	if in, _ := s.Instance(at); cfg.Service || in.Last.State != task.Finished && in.Failures < cfg.MaxTaskFailures && in.Last.State != task.Failed {
		w.fail("slot %v is empty: %+v", at, in)
	}
}
