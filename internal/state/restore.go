package state

import (
	"maps"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Restore builds the snapshot of a store from its rows, which load yields in
// any order, as [Store.Load] does; in the order of [Tables] and keys it is
// fastest. A row that makes no sense ends it with an error of kind Internal
// that names table and key. Restore keeps no part of a row after yield has
// returned.
func Restore(load func(yield func(Row) error) (Head, error)) (*Snapshot, error) {
	x := NewRestoring()
	head, err := load(x.Take)
	if err != nil {
		return nil, err
	}
	for _, sum := range x.Sums() {
		sum()
	}
	return x.Done(head), nil
}

// A Restoring is a snapshot that is being built from its rows, for who has
// several goroutines to do that with. What follows from many tasks is summed up
// while they come, and written once.
type Restoring struct {
	snap   *Snapshot
	shared *texts
	slots  *texts                 // of the rows of slots
	tasks  *texts                 // of those of tasks
	refs   map[job.Hash]int       // tasks that run each config
	used   map[machine.ID]*burden // by tasks that hold a place
}

// NewRestoring begins to build a snapshot. Every row is taken, then what
// follows from them is summed up, and then it is done.
func NewRestoring() *Restoring {
	base := newTexts(nil)
	return &Restoring{
		snap: New(), shared: base, slots: newTexts(base), tasks: newTexts(base),
		refs: make(map[job.Hash]int), used: make(map[machine.ID]*burden),
	}
}

// Take takes in one row, as yield does in [Restore]. When all others have been
// taken, one goroutine may take the rows of [InstanceTable] and another one
// those of [TaskTable].
func (x *Restoring) Take(r Row) (err error) {
	switch r.Table {
	case TaskTable:
		err = x.task(r)
	case InstanceTable:
		err = x.snap.restore(r, x.slots)
	case ClusterTable, ConfigTable, JobTable, MachineTable, CredentialTable, SourceTable, QuotaTable:
		err = x.snap.restore(r, x.shared)
	default: // a newer format's; it stays in the store as it is
	}
	if err != nil {
		return bad(r.Table, r.Key, err)
	}
	return nil
}

// Sums returns what sums up what follows from the rows. The functions may run at
// the same time.
func (x *Restoring) Sums() []func() {
	return []func(){x.account, func() {
		x.refer()
		x.snap.consumeAll()
	}}
}

// Done returns the snapshot of a store that stands at head.
func (x *Restoring) Done(head Head) *Snapshot {
	x.snap.Rev, x.snap.Seq, x.snap.At, x.snap.admission = head.Rev, head.Seq, head.At, head.Rev
	return x.snap
}

// A burden is what the tasks on a machine reserve, and which they are.
type burden struct {
	sum  unit.Resources
	rows []*Task
}

func (x *Restoring) task(r Row) error {
	t, err := decodeTask(r.Key, r.Value, x.tasks)
	if err != nil {
		return err
	}
	if _, twice := x.snap.tasks.tree.ReplaceOrInsert(entry[task.ID, Task]{t.ID, t}); twice {
		return fault.Internal.Errorf("it comes twice")
	}
	x.refs[t.Config]++
	if t.Room != "" {
		x.snap.rooms.ReplaceOrInsert(place{machine: t.Room, id: t.ID})
	}
	if t.Machine == "" || !t.State.Placed() {
		return nil
	}
	l := x.used[t.Machine]
	if l == nil {
		l = &burden{}
		x.used[t.Machine] = l
	}
	l.sum, l.rows = l.sum.Add(t.Resources), append(l.rows, t)
	return nil
}

// refer counts who runs each config. From then on it is kept up step by step.
func (x *Restoring) refer() {
	x.snap.jobs.Ascend(func(j Job) bool {
		x.refs[j.Config]++
		return true
	})
	for h, n := range x.refs {
		if c, ok := x.snap.configs.Get(config{hash: h}); ok {
			c.refs = n
			x.snap.configs.ReplaceOrInsert(c)
		}
	}
}

// account works out what is on every machine and what it has left. From then
// on it is kept up step by step. A machine without a row may hold tasks too.
func (x *Restoring) account() {
	byID := func(a, b *Task) int { return a.ID.Compare(b.ID) }
	for _, id := range slices.Sorted(maps.Keys(x.used)) {
		l := x.used[id]
		if !slices.IsSortedFunc(l.rows, byID) {
			slices.SortFunc(l.rows, byID)
		}
		for _, t := range l.rows {
			x.snap.on.ReplaceOrInsert(place{id, t.ID, t})
		}
		if _, known := x.snap.Machine(id); !known {
			x.snap.free.ReplaceOrInsert(free{id, unit.Resources{}.Sub(l.sum)})
		}
	}
	for m := range x.snap.Machines() {
		left := m.Allocatable().Sub(m.Strayed())
		if l := x.used[m.ID]; l != nil {
			left = left.Sub(l.sum)
		}
		x.snap.free.ReplaceOrInsert(free{m.ID, left})
	}
}

// restore adds one row of any table but that of tasks.
func (s *Snapshot) restore(r Row, shared *texts) (err error) {
	switch r.Table {
	case ClusterTable:
		s.Cluster, err = DecodeCluster(r.Value)
	case JobTable:
		var j Job
		if j, err = DecodeJob(r.Key, r.Value); err == nil {
			j.Key = job.Key(shared.job(r.Key))
			s.jobs.ReplaceOrInsert(j)
		}
	case ConfigTable:
		return s.restoreConfig(r)
	case InstanceTable:
		var i *Instance
		if i, err = decodeInstance(r.Key, r.Value, shared); err == nil {
			s.instances.set(i.Slot, i)
		}
	case MachineTable:
		var m Machine
		if m, err = DecodeMachine(r.Key, r.Value); err == nil {
			m.ID = machine.ID(shared.text([]byte(r.Key)))
			s.machines.put(m.ID, m)
		}
	case CredentialTable:
		var c Credential
		if c, err = DecodeCredential(strings.Clone(r.Key), r.Value); err == nil {
			s.putCredential(c)
		}
	case SourceTable:
		var seq uint64
		if seq, err = DecodeSource(r.Value); err == nil {
			s.sources.ReplaceOrInsert(source{strings.Clone(r.Key), seq})
		}
	case QuotaTable:
		var q Quota
		if q, err = DecodeQuota(strings.Clone(r.Key), r.Value); err == nil {
			s.quotas.ReplaceOrInsert(q)
		}
	case TaskTable:
		return fault.Internal.Errorf("a task is restored with what it holds")
	default:
	}
	return err
}

func (s *Snapshot) restoreConfig(r Row) error {
	h := job.HashOf(r.Value)
	if ConfigKey(h) != r.Key {
		return fault.Internal.Errorf("the config there has hash %v; want it under its own hash", h)
	}
	c, err := job.Decode(r.Value)
	if err != nil {
		return fault.Internal.Errorf("%w", err)
	}
	s.configs.ReplaceOrInsert(config{hash: h, decoded: &c, encoded: append([]byte(nil), r.Value...)})
	return nil
}
