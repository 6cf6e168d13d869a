package state

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Draft is a snapshot that is being changed. It belongs to one goroutine.
type Draft struct {
	base    *Snapshot
	snap    *Snapshot
	dirty   map[rowKey]bool
	tasks   map[task.ID]bool
	slots   map[Slot]bool
	delta   Delta
	fresh   Delta // like delta, since the last call of Changed
	records []Record
	ended   []task.Task
	settled map[machine.ID]settled
}

type rowKey struct {
	table Table
	key   string
}

// NewDraft starts changing s at time now. Time never goes back: the draft's
// time is now, or one tick after the last commit when now is not later.
func NewDraft(s *Snapshot, now unit.Tick) *Draft {
	d := &Draft{base: s, snap: s.clone(), dirty: map[rowKey]bool{}, tasks: map[task.ID]bool{}, slots: map[Slot]bool{}, settled: map[machine.ID]settled{}}
	d.snap.Rev = s.Rev + 1
	d.snap.At = max(now, s.At+1)
	if fault.Planted("time-goes-back") {
		d.snap.At = now
	}
	d.delta, d.fresh = NewDelta(), NewDelta()
	return d
}

// sortRows puts rows in the order of their tables and keys: one draft has one batch.
func sortRows(rows []Row) {
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Key, b.Key))
	})
}

// NewDelta returns the delta of nothing.
func NewDelta() Delta {
	return Delta{map[job.Key]bool{}, map[Slot]bool{}, map[task.ID]bool{}, map[machine.ID]bool{}}
}

// Merge adds what has changed in from.
func (d Delta) Merge(from Delta) {
	for k := range from.Jobs {
		d.Jobs[k] = true
	}
	for k := range from.Slots {
		d.Slots[k] = true
	}
	for k := range from.Tasks {
		d.Tasks[k] = true
	}
	for k := range from.Machines {
		d.Machines[k] = true
	}
}

// Snapshot returns the proposed state. It changes with the next Apply.
func (d *Draft) Snapshot() *Snapshot { return d.snap }

// Apply applies c to the proposed state. If the row it was worked out from has
// moved on, the error is of kind Conflict and nothing changed.
func (d *Draft) Apply(c Change) error { return c.apply(d) }

// Changed returns what has changed since the last call, for the engines.
func (d *Draft) Changed() Delta {
	c := d.fresh
	d.fresh = NewDelta()
	return c
}

// Empty reports whether nothing has changed at all.
func (d *Draft) Empty() bool { return len(d.records)+len(d.dirty)+len(d.tasks)+len(d.slots) == 0 }

// Seal ends the draft. The batch must be durable before anyone sees the
// snapshot. A draft that changed nothing seals to its base and an empty batch.
func (d *Draft) Seal(e machine.Epoch) (*Batch, *Snapshot, Delta) {
	d.recordSettled()
	if d.Empty() {
		return &Batch{Epoch: e, Base: d.base.Rev, Rev: d.base.Rev, At: d.base.At}, d.base, d.delta
	}
	b := &Batch{Epoch: e, Base: d.base.Rev, Rev: d.snap.Rev, At: d.snap.At, Ended: d.ended, Records: d.records}
	b.Rows = make([]Row, 0, len(d.dirty)+len(d.tasks)+len(d.slots))
	for k := range d.dirty {
		b.Rows = append(b.Rows, Row{k.table, k.key, d.encode(k)})
	}
	for at := range d.slots {
		if in, ok := d.snap.Instance(at); ok {
			b.Rows = append(b.Rows, Row{InstanceTable, SlotKey(at), EncodeInstance(in)})
		}
	}
	for id := range d.tasks {
		r := Row{Table: TaskTable, Key: TaskKey(id)}
		if t, ok := d.snap.Task(id); ok {
			r.Value = EncodeTask(t)
		}
		b.Rows = append(b.Rows, r)
	}
	sortRows(b.Rows)
	return b, d.snap, d.delta
}

// encode returns the proposed value of a row of the small tables, nil if it is gone.
func (d *Draft) encode(k rowKey) []byte {
	switch k.table {
	case ClusterTable:
		return EncodeCluster(d.snap.Cluster)
	case JobTable:
		if j, ok := d.snap.Job(job.Key(k.key)); ok {
			return EncodeJob(j)
		}
	case ConfigTable:
		var h job.Hash
		copy(h[:], k.key)
		return d.snap.ConfigBytes(h)
	case MachineTable:
		if m, ok := d.snap.Machine(machine.ID(k.key)); ok {
			return EncodeMachine(m)
		}
	case CredentialTable:
		if c, ok := d.snap.Credential(k.key); ok {
			return EncodeCredential(c)
		}
	case SourceTable:
		return EncodeSource(d.snap.Source(k.key))
	case QuotaTable:
		if q, ok := d.snap.Quota(k.key); ok {
			return EncodeQuota(q)
		}
	case InstanceTable, TaskTable:
	}
	return nil
}

func (d *Draft) record(r Record) {
	d.snap.Seq++
	r.Seq, r.At = d.snap.Seq, d.snap.At
	d.records = append(d.records, r)
}

func (d *Draft) putConfig(c job.Config) (job.Hash, error) {
	b, err := c.Encode()
	if err != nil {
		return job.Hash{}, err
	}
	h := job.HashOf(b)
	if _, ok := d.snap.Config(h); !ok {
		// Decoded from its own bytes, so that every reader sees what a restart would.
		own, err := job.Decode(b)
		if err != nil {
			return job.Hash{}, err
		}
		d.snap.configs.ReplaceOrInsert(config{hash: h, decoded: &own, encoded: b})
		d.dirty[rowKey{ConfigTable, ConfigKey(h)}] = true
	}
	return h, nil
}

// refer counts who runs a config. It is forgotten with the last one: what ended
// is remembered without it.
func (d *Draft) refer(h job.Hash, by int) {
	c, ok := d.snap.configs.Get(config{hash: h})
	if !ok {
		return
	}
	if c.refs += by; c.refs > 0 {
		d.snap.configs.ReplaceOrInsert(c)
		return
	}
	d.snap.configs.Delete(c)
	d.dirty[rowKey{ConfigTable, ConfigKey(h)}] = true
}

func (d *Draft) putInstance(in Instance) {
	in.Rev = d.snap.Rev
	d.snap.instances.put(in.Slot, in)
	d.slots[in.Slot] = true
	d.delta.Slots[in.Slot], d.fresh.Slots[in.Slot] = true, true
}

// putTask writes a task that came from state before and records the step.
func (d *Draft) putTask(before task.State, t Task, by string) {
	t.Rev = d.snap.Rev
	if before == task.Pending && (t.Room != "" || d.snap.rooms.Len() > 0) {
		d.moveRoom(t)
	}
	row := &t
	d.snap.tasks.set(t.ID, row)
	if before == task.Init {
		d.refer(t.Config, +1)
	}
	if t.Machine != "" {
		at := place{t.Machine, t.ID, row}
		if t.State.Placed() {
			if _, held := d.snap.on.ReplaceOrInsert(at); !held && !fault.Planted("overcommit") {
				d.snap.giveBack(t.Machine, unit.Resources{}.Sub(t.Resources))
			}
		} else if _, held := d.snap.on.Delete(at); held {
			d.snap.giveBack(t.Machine, t.Resources)
		}
		d.touchPlace(t.Machine)
	}
	d.tasks[t.ID] = true
	d.delta.Tasks[t.ID], d.fresh.Tasks[t.ID] = true, true
	d.record(Record{Kind: TaskRecord, By: by, Task: &TaskChange{before, t.Task, d.left(t.Machine)}})
}

// moveRoom keeps up for which machine a task waits that is being written.
func (d *Draft) moveRoom(t Task) {
	old, _ := d.snap.Task(t.ID)
	if old.Room == t.Room {
		return
	}
	if old.Room != "" {
		d.snap.rooms.Delete(place{machine: old.Room, id: t.ID})
		d.touchPlace(old.Room)
	}
	if t.Room != "" {
		d.snap.rooms.ReplaceOrInsert(place{machine: t.Room, id: t.ID})
		d.touchPlace(t.Room)
	}
}

// giveBack adds r to what a machine has left.
func (s *Snapshot) giveBack(id machine.ID, r unit.Resources) {
	s.free.ReplaceOrInsert(free{machine: id, left: s.Free(id).Add(r)})
}

// left settles what a machine owes its overhead when what is on it has changed,
// and returns what it has left. What is owed is not taken off that, since records
// do not show it as kept back.
func (d *Draft) left(id machine.ID) unit.Resources {
	if id == "" {
		return unit.Resources{}
	}
	free := d.snap.Free(id)
	row, _ := d.snap.Machine(id)
	if m := row.Settle(free); m.Owed != row.Owed && !fault.Planted("debt-forgotten") {
		d.settling(row, false)
		row.Machine, row.Rev = m, d.snap.Rev
		d.snap.machines.put(id, row)
		d.touchMachine(id)
	}
	return free.Add(row.Owed)
}

// end moves a task that has ended, from state before, out of the live state,
// and tells its slot.
func (d *Draft) end(before task.State, t Task, effects []task.Effect) {
	at := Slot{t.ID.Job, t.ID.Instance}
	defer d.snap.slotMoves(at)()
	d.snap.tasks.remove(t.ID)
	d.refer(t.Config, -1)
	d.ended = append(d.ended, t.Task)
	in, _ := d.snap.Instance(at)
	in.Slot = at
	refused := refusalDelay(in)
	in.Last = Outcome{t.ID.Attempt, t.State, t.Since, t.Machine, t.Reason}
	if !in.Open { // opened while this one was being stopped, it begins anew
		in.Failures = t.Failures
	}
	if in.Attempt == t.ID.Attempt {
		in.Live = false
	}
	for _, e := range effects {
		if e == task.Reschedule {
			in.Open = true
		}
	}
	d.streak(&in, before, t, refused)
	d.putInstance(in)
}

// streak counts the early deaths of a slot. An end that the platform or a user
// brought about is nobody's early death, and whoever ran for long may die early again.
// A slot that machines refuse waits for refused.
func (d *Draft) streak(in *Instance, before task.State, t Task, refused unit.Tick) {
	byItself := !before.Stopping() && (t.State == task.Failed || t.State == task.Finished || t.State == task.Killed && !t.Wanted)
	if t.Ran != 0 && t.Since-t.Ran >= earlyDeath {
		in.Streak, in.Due = 0, 0
		return
	}
	switch {
	case t.State == task.Lost && t.Ran == 0 && t.Machine != "":
		in.Due = d.snap.At + refused // its machine would not have it: not at once again
	case !byItself || !in.Open:
	default:
		in.Streak++
		in.Due = d.snap.At + delay(in.Streak)
	}
}

func (d *Draft) touchJob(k job.Key) {
	d.dirty[rowKey{JobTable, JobKey(k)}] = true
	d.delta.Jobs[k], d.fresh.Jobs[k] = true, true
}

func (d *Draft) touchMachine(id machine.ID) {
	d.dirty[rowKey{MachineTable, MachineKey(id)}] = true
	d.touchPlace(id)
}

// touchPlace says that what a machine holds has changed, not its row.
func (d *Draft) touchPlace(id machine.ID) {
	d.delta.Machines[id], d.fresh.Machines[id] = true, true
}

// String returns role/env/name/instance.
func (s Slot) String() string { return fmt.Sprintf("%s/%d", s.Job, s.N) }

func guard(what, name string, exists bool, have, base Rev) error {
	if exists && have == base || !exists && base == 0 {
		return nil
	}
	return conflict(what, name)
}

// present is guard for a change of a row that must be there.
func present(what, name string, exists bool, have, base Rev) error {
	if !exists {
		return conflict(what, name)
	}
	return guard(what, name, exists, have, base)
}

func conflict(what, name string) error {
	return fault.Conflict.Errorf("%s %s has changed meanwhile; look again", what, name)
}

func lostConfig(cluster string, k job.Key) error {
	return fault.Internal.Errorf("job %s/%s: its config is not stored; restore the database from a backup", cluster, k)
}

func throttled(in Instance, now unit.Tick) string {
	wait := (in.Due - now).Duration().Round(time.Second)
	if in.Streak < 2 {
		return fmt.Sprintf("its last machine did not start it; waits %v", wait)
	}
	return fmt.Sprintf("ended early %d times in a row; waits %v", in.Streak, wait)
}
