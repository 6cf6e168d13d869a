package state

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Change is one intended change of one row. Base is the revision of the row
// that it was worked out from; zero says that there must be no such row.
type Change interface {
	apply(d *Draft) error
}

// PutJob writes a job. Its config is stored with it.
type PutJob struct {
	Job  job.Job
	Base Rev
	By   string
}

// DropJob forgets a job. Its tasks are ended by converge, its slots remember
// their attempts.
type DropJob struct {
	Key    job.Key
	Base   Rev
	By     string
	Reason string
}

// OpenSlot asks for a task in a slot: the first one, or one more after the
// last one ended for good. Base is the slot's revision.
type OpenSlot struct {
	Slot
	Base Rev
}

// NewTask creates the next attempt of an open slot, with the job's present
// config. It is Throttled until the slot's due time, or else Pending.
type NewTask struct {
	Slot
	Base Rev // of the slot
}

// StepTask is an event of a task; task.Step says what becomes of it. A task
// that is taken for lost may live: its room stays kept on its machine as that
// of a [Stray], unless the machine itself has said that it is gone.
type StepTask struct {
	ID    task.ID
	Base  Rev
	Event task.Event
	By    string
	Gone  bool
}

// MakeRoom says that other tasks are being stopped on a machine for a pending
// task, and that what they leave is its own until a time. Without a machine,
// it waits like any other again.
type MakeRoom struct {
	ID      task.ID
	Base    Rev
	Machine machine.ID
	Until   unit.Tick
	Reason  string
}

// AdoptTask takes in a running task that the cluster does not remember, after
// a restore: it becomes its slot's live task.
type AdoptTask struct {
	Task task.Task
}

// DropConfig forgets a config that nothing refers to.
type DropConfig struct {
	Hash job.Hash
}

// PutMachine writes a machine. What its agent and its supervisors take is
// divided into what is kept back and what is owed, whatever the machine says of
// that: see [machine.Machine.Settle].
type PutMachine struct {
	Machine machine.Machine
	Base    Rev
}

// DropMachine forgets a machine that holds no task.
type DropMachine struct {
	ID   machine.ID
	Base Rev
	By   string
}

// PutCredential writes a credential.
type PutCredential struct {
	Credential
	Base Rev
}

// DropCredential forgets a credential.
type DropCredential struct {
	Hash string
	Base Rev
}

// PutCluster writes what the cluster knows of itself.
type PutCluster struct {
	Cluster Cluster
	By      string
}

// TakeFact takes in a block of usage facts, once.
type TakeFact struct {
	Fact Fact
}

func (c PutJob) apply(d *Draft) error {
	old, exists := d.snap.Job(c.Job.Key)
	if err := guard("job", string(c.Job.Key), exists, old.Rev, c.Base); err != nil {
		return err
	}
	h, err := d.putConfig(c.Job.Config)
	if err != nil {
		return err
	}
	defer d.snap.jobMoves(c.Job.Key)()
	row := old
	row.Key, row.Instances, row.Config, row.By = c.Job.Key, c.Job.Instances, h, c.By
	row.Updated, row.Rev = d.snap.At, d.snap.Rev
	if !exists {
		row.Created = d.snap.At
	}
	d.snap.jobs.ReplaceOrInsert(row)
	d.refer(h, +1)
	if exists {
		d.refer(old.Config, -1)
	}
	d.touchJob(row.Key)
	d.record(Record{Kind: JobRecord, By: c.By, Job: &JobChange{Job: row}})
	return nil
}

func (c DropJob) apply(d *Draft) error {
	old, exists := d.snap.Job(c.Key)
	if err := present("job", string(c.Key), exists, old.Rev, c.Base); err != nil {
		return err
	}
	moved := d.snap.jobMoves(c.Key)
	d.snap.jobs.Delete(old)
	d.refer(old.Config, -1)
	moved()
	d.touchJob(c.Key)
	d.record(Record{Kind: JobRecord, By: c.By, Job: &JobChange{Job: old, Dropped: true, Reason: c.Reason}})
	return nil
}

func (c OpenSlot) apply(d *Draft) error {
	in, exists := d.snap.Instance(c.Slot)
	if err := guard("slot", c.String(), exists, in.Rev, c.Base); err != nil {
		return err
	}
	defer d.snap.slotMoves(c.Slot)()
	in.Slot, in.Open = c.Slot, true
	in.Streak, in.Failures, in.Due = 0, 0, 0
	d.putInstance(in)
	return nil
}

func (c NewTask) apply(d *Draft) error {
	in, exists := d.snap.Instance(c.Slot)
	if err := guard("slot", c.String(), exists, in.Rev, c.Base); err != nil {
		return err
	}
	j, ok := d.snap.Job(c.Job)
	if !ok || !in.Open || in.Live {
		return conflict("slot", c.String())
	}
	cfg, ok := d.snap.Config(j.Config)
	if !ok {
		return lostConfig(d.snap.Cluster.Name, j.Key)
	}
	in.Attempt = max(in.Attempt+1, d.snap.Cluster.FirstAttempt())
	if fault.Planted("reused-id") && in.Last.State == task.Lost {
		in.Attempt = in.Last.Attempt
	}
	t := task.Task{
		ID:     task.ID{Job: c.Job, Instance: c.N, Attempt: in.Attempt},
		Config: j.Config, Resources: cfg.Task.Resources, Created: d.snap.At, Failures: in.Failures,
	}
	e := task.Event{To: task.Pending, At: d.snap.At}
	if in.Due > d.snap.At {
		e.To, e.Reason = task.Throttled, throttled(in, d.snap.At)
	}
	next, _, _ := task.Step(t, e, policy(cfg))
	if !j.Instances.Has(c.N) { // otherwise the task holds what its job wants for the slot already
		defer d.snap.slotMoves(c.Slot)()
	}
	in.Live, in.Open = true, false
	d.putInstance(in)
	d.putTask(task.Init, Task{Task: next}, "")
	return nil
}

func (c StepTask) apply(d *Draft) error {
	t, exists := d.snap.Task(c.ID)
	if err := present("task", c.ID.String(), exists, t.Rev, c.Base); err != nil {
		return err
	}
	cfg, ok := d.snap.Config(t.Config)
	if !ok {
		return lostConfig(d.snap.Cluster.Name, c.ID.Job)
	}
	c.Event.At = d.snap.At
	before := t.State
	next, effects, res := task.Step(t.Task, c.Event, policy(cfg))
	if res != task.Done {
		return conflict("task", c.ID.String())
	}
	t.Task = next
	for _, e := range effects {
		if e == task.TransitionToLost {
			d.putTask(before, t, c.By)
			t, _ = d.snap.Task(c.ID)
			return StepTask{c.ID, t.Rev, task.Event{To: task.Lost, Reason: next.Reason}, c.By, c.Gone}.apply(d)
		}
		if e == task.Delete {
			// It never ran: it ends without ever having been anywhere.
			t.State = task.Killed
		}
	}
	d.putTask(before, t, c.By)
	if t.State.Terminal() {
		d.end(before, t, effects)
		if t.State == task.Lost && !c.Gone && before.Placed() {
			d.stray(t)
		}
	}
	return nil
}

func (c MakeRoom) apply(d *Draft) error {
	t, exists := d.snap.Task(c.ID)
	if err := present("task", c.ID.String(), exists, t.Rev, c.Base); err != nil {
		return err
	}
	if t.State != task.Pending {
		return conflict("task", c.ID.String())
	}
	t.Room, t.RoomUntil, t.Reason = c.Machine, c.Until, task.Clip(c.Reason)
	d.putTask(t.State, t, "")
	return nil
}

func (c AdoptTask) apply(d *Draft) error {
	at := Slot{c.Task.ID.Job, c.Task.ID.Instance}
	in, _ := d.snap.Instance(at)
	if in.Live || in.Attempt >= c.Task.ID.Attempt { // its end, or that of a later one, is remembered
		return conflict("slot", at.String())
	}
	if _, ok := d.snap.Config(c.Task.Config); !ok {
		return lostConfig(d.snap.Cluster.Name, c.Task.ID.Job)
	}
	defer d.snap.slotMoves(at)()
	in.Slot, in.Live, in.Open = at, true, false
	in.Attempt = c.Task.ID.Attempt
	d.putInstance(in)
	t := c.Task
	t.Created, t.Since = d.snap.At, d.snap.At
	if t.Ran == 0 && t.State == task.Running {
		t.Ran = d.snap.At
	}
	d.putTask(task.Init, Task{Task: t}, "")
	return nil
}

func (c DropConfig) apply(d *Draft) error {
	row, ok := d.snap.configs.Get(config{hash: c.Hash})
	if !ok || row.refs > 0 {
		return conflict("config", c.Hash.String())
	}
	d.refer(c.Hash, 0)
	return nil
}

func (c PutMachine) apply(d *Draft) error {
	old, exists := d.snap.Machine(c.Machine.ID)
	if err := guard("machine", string(c.Machine.ID), exists, old.Rev, c.Base); err != nil {
		return err
	}
	row := Machine{Machine: c.Machine, Since: old.Since, Strays: old.Strays, Rev: d.snap.Rev, Unknown: old.Unknown}
	if !exists || old.Up != c.Machine.Up {
		row.Since = d.snap.At
	}
	d.snap.giveBack(row.ID, row.Allocatable().Sub(old.Allocatable()))
	row.Machine = row.Settle(d.snap.Free(row.ID))
	d.snap.machines.put(row.ID, row)
	d.touchMachine(row.ID)
	d.record(Record{Kind: MachineRecord, Machine: d.machineChange(d.told(row.ID, old), row)})
	return nil
}

func (c DropMachine) apply(d *Draft) error {
	old, exists := d.snap.Machine(c.ID)
	if err := present("machine", string(c.ID), exists, old.Rev, c.Base); err != nil {
		return err
	}
	for range d.snap.TasksOn(c.ID) {
		return conflict("machine", string(c.ID))
	}
	d.snap.machines.remove(c.ID)
	d.snap.free.Delete(free{machine: c.ID})
	d.touchMachine(c.ID)
	d.record(Record{Kind: MachineRecord, By: c.By, Machine: &MachineChange{Before: d.told(c.ID, old), Left: true}})
	return nil
}

func (c PutCredential) apply(d *Draft) error {
	old, exists := d.snap.Credential(c.Hash)
	if err := guard("credential", c.Subject, exists, old.Rev, c.Base); err != nil {
		return err
	}
	c.Rev = d.snap.Rev
	d.snap.putCredential(c.Credential)
	d.snap.admission = d.snap.Rev
	d.dirty[rowKey{CredentialTable, CredentialKey(c.Hash)}] = true
	return nil
}

func (c DropCredential) apply(d *Draft) error {
	old, exists := d.snap.Credential(c.Hash)
	if err := present("credential", old.Subject, exists, old.Rev, c.Base); err != nil {
		return err
	}
	d.snap.dropCredential(c.Hash)
	d.snap.admission = d.snap.Rev
	d.dirty[rowKey{CredentialTable, CredentialKey(c.Hash)}] = true
	return nil
}

func (c PutCluster) apply(d *Draft) error {
	if c.Cluster.Name == "" || c.Cluster.UID == "" || c.Cluster.Incarnation == 0 {
		return fault.Internal.Errorf("a cluster needs a name, a UID and an incarnation; this one has %q, %q and %d", c.Cluster.Name, c.Cluster.UID, c.Cluster.Incarnation)
	}
	d.snap.Cluster = c.Cluster
	d.dirty[rowKey{ClusterTable, ClusterKey()}] = true
	cl := c.Cluster
	d.record(Record{Kind: ClusterRecord, By: c.By, Cluster: &cl})
	return nil
}

func (c TakeFact) apply(d *Draft) error {
	if n := len(c.Fact.Payload); n > MaxFact {
		return fault.Invalid.Errorf("source %s: a block of usage facts has %d bytes; want at most %d", c.Fact.Source, n, MaxFact)
	}
	last := d.snap.Source(c.Fact.Source)
	if c.Fact.Seq <= last && !fault.Planted("doubled-fact") {
		return nil // it was taken in before
	}
	d.snap.sources.ReplaceOrInsert(source{c.Fact.Source, c.Fact.Seq})
	d.dirty[rowKey{SourceTable, SourceKey(c.Fact.Source)}] = true
	if fault.Planted("dropped-fact") && c.Fact.Seq%7 == 0 {
		return nil
	}
	f := c.Fact
	d.record(Record{Kind: FactRecord, Fact: &f})
	return nil
}

func policy(c *job.Config) task.Policy {
	return task.Policy{Service: c.Service, MaxFailures: c.MaxTaskFailures}
}

// attemptsPerIncarnation is how many attempts of one slot an incarnation has
// before they could meet those of the next: a restored database does not know
// which attempts were made after the copy was taken, so a new incarnation
// starts far above them.
const attemptsPerIncarnation = 1 << 20

// FirstAttempt returns the first attempt that the present incarnation numbers.
// What became of an earlier one after the copy was taken, nobody remembers.
func (c Cluster) FirstAttempt() uint32 {
	if c.Incarnation <= 1 {
		return 1
	}
	return uint32(min(c.Incarnation-1, 1<<11))*attemptsPerIncarnation + 1
}

// EarlyDeath is how soon an end counts as early (Aurora S-20), and the bounds
// of the delay that follows the second one in a row.
const (
	earlyDeath    = 5 * unit.Hour / 60
	firstThrottle = unit.Hour / 3600
	maxThrottle   = 5 * unit.Hour / 60
	refusedDelay  = unit.Hour / 3600
	maxRefused    = 30 * refusedDelay
)

// delay returns how long a slot waits after its streak of early deaths: not at
// all after the first, then 1, 2, 4 ... seconds, at most 5 minutes.
func delay(streak int32) unit.Tick {
	if streak < 2 {
		return 0
	}
	return min(firstThrottle<<min(streak-2, 10), maxThrottle)
}

// refusalDelay returns how long a slot waits whose task a machine did not start:
// 1 second, and when the one before was not started either, twice as long as it
// waited then, at most 30 seconds. The next attempt goes to another machine if
// any takes it, so a second refusal says that there may be none that will.
func refusalDelay(in Instance) unit.Tick {
	if waited := in.Due - in.Last.At; in.Last.State == task.Lost && waited >= refusedDelay {
		return min(2*waited, maxRefused)
	}
	return refusedDelay
}
