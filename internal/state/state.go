// Package state is the one place where the floors meet: what a cluster is, and
// the only way to change it.
//
// A [Snapshot] is the cluster at one revision. It never changes, taking one
// costs nothing, and its order is always the same, so a decision made on it
// can be replayed. A [Draft] is a snapshot that is being changed: a [Change]
// names the revision of the row it was worked out from and is refused, alone,
// if that row has moved on. Sealing a draft gives a [Batch]: the rows and the
// records that a [Store] must make durable in one commit before anyone sees
// the new snapshot.
package state

import (
	"cmp"
	"context"
	"iter"
	"strings"

	"github.com/google/btree"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
)

// A Rev counts commits of one cluster. It never goes back.
type Rev uint64

// A Seq numbers the records of one cluster, from 1, without gaps.
type Seq uint64

// A Cluster is what a cluster knows of itself.
type Cluster struct {
	Name        string
	UID         string // made at birth, never reused
	Incarnation uint64 // from 1; a restored database starts a new one
	Recovery    bool   // tasks that are not known are adopted or held, never stopped
	Unknown     string // fields of a later version, kept as they came
}

// A Job is the row of a job: its config stands once, under its hash.
type Job struct {
	Key       job.Key
	Instances job.Ranges
	Config    job.Hash
	Created   unit.Tick
	Updated   unit.Tick
	By        string // who wrote it last
	Rev       Rev
	Unknown   string // fields of a later version, kept as they came
}

// A Slot names one instance of a job.
type Slot struct {
	Job job.Key
	N   int32
}

// Compare orders slots.
func (s Slot) Compare(o Slot) int {
	if c := strings.Compare(string(s.Job), string(o.Job)); c != 0 {
		return c
	}
	return cmp.Compare(s.N, o.N)
}

// An Instance is the memory of a slot. It outlives its tasks and its job, so
// that an attempt is never numbered twice.
type Instance struct {
	Slot
	Attempt  uint32    // the last one used
	Live     bool      // that attempt has not ended
	Open     bool      // it wants a task (again)
	Due      unit.Tick // no task before this
	Streak   int32     // early deaths in a row
	Failures int32     // counted failures of an ad hoc job
	Last     Outcome   // how the last attempt ended, if it did
	Rev      Rev
	Unknown  string // fields of a later version, kept as they came
}

// An Outcome is how an attempt ended.
type Outcome struct {
	Attempt uint32
	State   task.State
	At      unit.Tick
	Machine machine.ID
	Reason  string
}

// A Task is the row of a task that has not ended.
type Task struct {
	task.Task
	Rev     Rev
	Unknown string // fields of a later version, kept as they came
}

// A Machine is the row of a machine.
type Machine struct {
	machine.Machine
	Since   unit.Tick // when it became up or down
	Strays  []Stray   // in order of their IDs
	Rev     Rev
	Unknown string // fields of a later version, kept as they came
}

// A Credential lets somebody in. Its secret is never stored.
type Credential struct {
	Hash    string // SHA-256 of the secret, hex
	Kind    string // admin, join, agent
	Subject string // the user, or the machine it is bound to
	Expires unit.Tick
	Used    bool // join: it was used up
	Rev     Rev
	Unknown string // fields of a later version, kept as they came
}

// A Quota is the row of what a role may reserve in the tier preferred; the one
// of [tenant.EveryRole] is for those that have none of their own.
type Quota struct {
	Role string
	tenant.Quota
	Updated unit.Tick
	By      string // who wrote it last
	Rev     Rev
	Unknown string // fields of a later version, kept as they came
}

// A Snapshot is the cluster at one revision. Its methods may be called by
// several goroutines at once.
type Snapshot struct {
	Rev     Rev
	Seq     Seq       // of the last record
	At      unit.Tick // time of the last commit: it never goes back
	Cluster Cluster

	jobs        *btree.BTreeG[Job]
	configs     *btree.BTreeG[config]
	instances   shelf[Slot, Instance]
	tasks       shelf[task.ID, Task]
	on          *btree.BTreeG[place]
	rooms       *btree.BTreeG[place] // of tasks that wait for others to leave
	machines    shelf[machine.ID, Machine]
	credentials *btree.BTreeG[Credential]
	bearers     *btree.BTreeG[bearer] // whose they are
	admission   Rev                   // the revision at which a credential changed last, or a later one
	sources     *btree.BTreeG[source]
	free        *btree.BTreeG[free]
	quotas      *btree.BTreeG[Quota]
	consumed    *btree.BTreeG[consumed]
}

// free is what a machine has left to reserve: kept up step by step, so that it
// is an account of its own beside the sum of the tasks.
type free struct {
	machine machine.ID
	left    unit.Resources
}

type config struct {
	hash    job.Hash
	decoded *job.Config
	encoded []byte // as it was stored, so that a later version's fields are kept
	refs    int    // jobs and live tasks that run it; with the last one it is forgotten
}

// source is where an agent's usage facts come from, and the last one taken in.
type source struct {
	name string
	seq  uint64
}

// A place is a task on a machine, or one that waits for room there.
type place struct {
	machine machine.ID
	id      task.ID
	row     *Task // of a task that is there: the same that the tasks hold
}

func (p place) before(o place) bool {
	if c := strings.Compare(string(p.machine), string(o.machine)); c != 0 {
		return c < 0
	}
	return p.id.Compare(o.id) < 0
}

const degree = 32

// New returns an empty cluster.
func New() *Snapshot {
	return &Snapshot{
		jobs:        btree.NewG(degree, func(a, b Job) bool { return a.Key < b.Key }),
		configs:     btree.NewG(degree, func(a, b config) bool { return string(a.hash[:]) < string(b.hash[:]) }),
		instances:   newShelf[Slot, Instance](Slot.Compare),
		tasks:       newShelf[task.ID, Task](task.ID.Compare),
		on:          btree.NewG(degree, place.before),
		rooms:       btree.NewG(degree, place.before),
		machines:    newShelf[machine.ID, Machine](cmp.Compare[machine.ID]),
		credentials: btree.NewG(degree, func(a, b Credential) bool { return a.Hash < b.Hash }),
		bearers:     btree.NewG(degree, func(a, b bearer) bool { return a.compare(b) < 0 }),
		sources:     btree.NewG(degree, func(a, b source) bool { return a.name < b.name }),
		free:        btree.NewG(degree, func(a, b free) bool { return a.machine < b.machine }),
		quotas:      btree.NewG(degree, func(a, b Quota) bool { return a.Role < b.Role }),
		consumed:    btree.NewG(degree, func(a, b consumed) bool { return a.role < b.role }),
	}
}

// clone shares everything with s until one of the two is changed.
func (s *Snapshot) clone() *Snapshot {
	c := *s
	c.jobs, c.configs, c.instances = s.jobs.Clone(), s.configs.Clone(), s.instances.clone()
	c.tasks, c.on, c.machines = s.tasks.clone(), s.on.Clone(), s.machines.clone()
	c.rooms = s.rooms.Clone()
	c.credentials, c.bearers = s.credentials.Clone(), s.bearers.Clone()
	c.sources, c.free = s.sources.Clone(), s.free.Clone()
	c.quotas, c.consumed = s.quotas.Clone(), s.consumed.Clone()
	return &c
}

// Job returns the row of a job.
func (s *Snapshot) Job(k job.Key) (Job, bool) { return s.jobs.Get(Job{Key: k}) }

// Jobs yields every job from key from on, in key order.
func (s *Snapshot) Jobs(from job.Key) iter.Seq[Job] {
	return func(yield func(Job) bool) { s.jobs.AscendGreaterOrEqual(Job{Key: from}, yield) }
}

// Config returns a config by its hash. It is shared: nobody changes it.
func (s *Snapshot) Config(h job.Hash) (*job.Config, bool) {
	c, ok := s.configs.Get(config{hash: h})
	return c.decoded, ok
}

// ConfigBytes returns a config in its canonical form, as it was stored; nil if
// there is none.
func (s *Snapshot) ConfigBytes(h job.Hash) []byte {
	c, _ := s.configs.Get(config{hash: h})
	return c.encoded
}

// Unused returns the configs that no job and no live task refers to: what an
// earlier version left behind.
func (s *Snapshot) Unused() (out []job.Hash) {
	s.configs.Ascend(func(c config) bool {
		if c.refs == 0 {
			out = append(out, c.hash)
		}
		return true
	})
	return out
}

// Instance returns the memory of a slot.
func (s *Snapshot) Instance(at Slot) (Instance, bool) { return s.instances.get(at) }

// Instances yields the memory of every slot of a job, in order, also of slots
// that the job no longer has.
func (s *Snapshot) Instances(k job.Key) iter.Seq[Instance] {
	return func(yield func(Instance) bool) {
		s.instances.from(Slot{Job: k}, func(at Slot) bool { return at.Job == k }, yield)
	}
}

// AllInstances yields the memory of every slot there ever was, in order.
func (s *Snapshot) AllInstances() iter.Seq[Instance] {
	return func(yield func(Instance) bool) { s.instances.all(yield) }
}

// Task returns a task that has not ended.
func (s *Snapshot) Task(id task.ID) (Task, bool) { return s.tasks.get(id) }

// Tasks yields every task that has not ended, in ID order.
func (s *Snapshot) Tasks() iter.Seq[Task] {
	return func(yield func(Task) bool) { s.tasks.all(yield) }
}

// TasksOf yields the tasks of a job that have not ended, in ID order.
func (s *Snapshot) TasksOf(k job.Key) iter.Seq[Task] {
	return func(yield func(Task) bool) {
		s.tasks.from(task.ID{Job: k}, func(id task.ID) bool { return id.Job == k }, yield)
	}
}

// TasksIn yields the tasks of a slot that have not ended, in order of attempt.
func (s *Snapshot) TasksIn(at Slot) iter.Seq[Task] {
	return func(yield func(Task) bool) {
		within := func(id task.ID) bool { return id.Job == at.Job && id.Instance == at.N }
		s.tasks.from(task.ID{Job: at.Job, Instance: at.N}, within, yield)
	}
}

// TasksOn yields the tasks that hold a place on a machine, in ID order.
func (s *Snapshot) TasksOn(m machine.ID) iter.Seq[Task] {
	return func(yield func(Task) bool) {
		s.on.AscendGreaterOrEqual(place{machine: m}, func(p place) bool {
			return p.machine == m && yield(*p.row)
		})
	}
}

// TasksFor yields the pending tasks for which room is being made on a machine,
// in ID order.
func (s *Snapshot) TasksFor(m machine.ID) iter.Seq[Task] {
	return func(yield func(Task) bool) {
		s.rooms.AscendGreaterOrEqual(place{machine: m}, func(p place) bool {
			if p.machine != m {
				return false
			}
			t, ok := s.Task(p.id)
			return !ok || yield(t)
		})
	}
}

// Machine returns the row of a machine.
func (s *Snapshot) Machine(id machine.ID) (Machine, bool) {
	return s.machines.get(id)
}

// Machines yields every machine, in ID order.
func (s *Snapshot) Machines() iter.Seq[Machine] {
	return func(yield func(Machine) bool) { s.machines.all(yield) }
}

// MachinesFrom yields every machine from an id on, in order.
func (s *Snapshot) MachinesFrom(id machine.ID) iter.Seq[Machine] {
	return func(yield func(Machine) bool) { s.machines.from(id, func(machine.ID) bool { return true }, yield) }
}

// Free returns what a machine has left to reserve. It is negative where its
// pool took capacity back.
func (s *Snapshot) Free(id machine.ID) unit.Resources {
	f, _ := s.free.Get(free{machine: id})
	return f.left
}

// Source returns the number of the last fact taken in from a source, 0 if none.
func (s *Snapshot) Source(name string) uint64 {
	x, _ := s.sources.Get(source{name: name})
	return x.seq
}

// Len returns the number of jobs, live tasks and machines.
func (s *Snapshot) Len() (jobs, tasks, machines int) {
	return s.jobs.Len(), s.tasks.tree.Len(), s.machines.tree.Len()
}

// A Store makes batches durable and gives them back. Every method may be
// called by several goroutines at once, but only one of them commits.
type Store interface {
	// Load yields every live row and returns where the store stands.
	Load(ctx context.Context, yield func(Row) error) (Head, error)
	// Commit makes b durable, all of it or none. Errors of kind Conflict say
	// that b.Epoch is no longer the leader's or that b does not follow the
	// last commit; of kind Timeout, that nobody knows whether it happened:
	// both end the leadership. Any other error means that nothing happened.
	Commit(ctx context.Context, b *Batch) error
	// Records returns up to limit records that follow seq after, in order.
	// An error of kind Compacted says that some of them are gone.
	Records(ctx context.Context, after Seq, limit int) ([]Record, error)
	// History returns ended tasks, newest first.
	History(ctx context.Context, q HistoryQuery) ([]task.Task, error)
	// Trim forgets records and ended tasks that q no longer keeps, a bounded
	// number at a time, and reports whether there is more.
	Trim(ctx context.Context, q TrimQuery) (more bool, err error)
}

// A Lease elects a leader. Memory never decides who leads; the store does.
type Lease interface {
	// Acquire makes holder the leader and returns its new epoch, or an error
	// of kind Conflict that names who leads.
	Acquire(ctx context.Context, holder string) (machine.Epoch, error)
	// Renew prolongs the lease; an error of kind Conflict says it is lost.
	Renew(ctx context.Context, holder string, e machine.Epoch) error
	// Release gives the lease up.
	Release(ctx context.Context, holder string, e machine.Epoch) error
}

// A Head is where a store stands.
type Head struct {
	Rev Rev
	Seq Seq
	At  unit.Tick
}

// A HistoryQuery selects ended tasks of one job, or of one slot of it.
type HistoryQuery struct {
	Job      job.Key
	Instance int32 // -1: all
	Limit    int   // 1 to 1000
}

// A TrimQuery says what to keep.
type TrimQuery struct {
	RecordsBefore unit.Tick // records older than this may go
	UpTo          Seq       // but none after this, which some consumer has not passed
	EndedBefore   unit.Tick // ended tasks older than this go
	PerJob        int       // and those beyond so many of one job, if older than KeepEnded
	KeepEnded     unit.Tick
	Limit         int // rows removed in one call at most
}
