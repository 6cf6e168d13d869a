package state

import (
	"maps"
	"slices"

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
	s := New()
	x := restoring{Snapshot: s, shared: make(map[string]string), refs: make(map[job.Hash]int), used: make(map[machine.ID]*burden)}
	head, err := load(func(r Row) (err error) {
		if r.Table == TaskTable {
			err = x.task(r)
		} else {
			err = s.restore(r, x.shared)
		}
		if err != nil {
			return bad(r.Table, r.Key, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.Rev, s.Seq, s.At, s.admission = head.Rev, head.Seq, head.At, head.Rev
	x.account()
	x.refer()
	s.consumeAll()
	return s, nil
}

// restoring is a snapshot that is being built from its rows. What follows from
// many tasks is summed up while they come, and written once.
type restoring struct {
	*Snapshot
	shared map[string]string
	refs   map[job.Hash]int       // tasks that run each config
	used   map[machine.ID]*burden // by tasks that hold a place
}

// A burden is what the tasks on a machine reserve, and which they are.
type burden struct {
	sum  unit.Resources
	rows []*Task
}

func (x *restoring) task(r Row) error {
	t, err := decodeTask(r.Key, r.Value, x.shared)
	if err != nil {
		return err
	}
	if _, twice := x.tasks.tree.ReplaceOrInsert(entry[task.ID, Task]{t.ID, &t}); twice {
		return fault.Internal.Errorf("it comes twice")
	}
	x.refs[t.Config]++
	if t.Room != "" {
		x.rooms.ReplaceOrInsert(place{machine: t.Room, id: t.ID})
	}
	if t.Machine == "" || !t.State.Placed() {
		return nil
	}
	l := x.used[t.Machine]
	if l == nil {
		l = &burden{}
		x.used[t.Machine] = l
	}
	l.sum, l.rows = l.sum.Add(t.Resources), append(l.rows, &t)
	return nil
}

// refer counts who runs each config. From then on it is kept up step by step.
func (x *restoring) refer() {
	x.jobs.Ascend(func(j Job) bool {
		x.refs[j.Config]++
		return true
	})
	for h, n := range x.refs {
		if c, ok := x.configs.Get(config{hash: h}); ok {
			c.refs = n
			x.configs.ReplaceOrInsert(c)
		}
	}
}

// account works out what is on every machine and what it has left. From then
// on it is kept up step by step. A machine without a row may hold tasks too.
func (x *restoring) account() {
	byID := func(a, b *Task) int { return a.ID.Compare(b.ID) }
	for _, id := range slices.Sorted(maps.Keys(x.used)) {
		l := x.used[id]
		if !slices.IsSortedFunc(l.rows, byID) {
			slices.SortFunc(l.rows, byID)
		}
		for _, t := range l.rows {
			x.on.ReplaceOrInsert(place{id, t.ID, t})
		}
		if _, known := x.Machine(id); !known {
			x.free.ReplaceOrInsert(free{id, unit.Resources{}.Sub(l.sum)})
		}
	}
	for m := range x.Machines() {
		left := m.Allocatable().Sub(m.Strayed())
		if l := x.used[m.ID]; l != nil {
			left = left.Sub(l.sum)
		}
		x.free.ReplaceOrInsert(free{m.ID, left})
	}
}

// restore adds one row of any table but that of tasks.
func (s *Snapshot) restore(r Row, shared map[string]string) (err error) {
	switch r.Table {
	case ClusterTable:
		s.Cluster, err = DecodeCluster(r.Value)
	case JobTable:
		var j Job
		if j, err = DecodeJob(r.Key, r.Value); err == nil {
			j.Key = job.Key(share(shared, []byte(r.Key)))
			s.jobs.ReplaceOrInsert(j)
		}
	case ConfigTable:
		return s.restoreConfig(r)
	case InstanceTable:
		var i Instance
		if i, err = decodeInstance(r.Key, r.Value, shared); err == nil {
			s.instances.put(i.Slot, i)
		}
	case MachineTable:
		var m Machine
		if m, err = DecodeMachine(r.Key, r.Value); err == nil {
			m.ID = machine.ID(share(shared, []byte(r.Key)))
			s.machines.put(m.ID, m)
		}
	case CredentialTable:
		var c Credential
		if c, err = DecodeCredential(r.Key, r.Value); err == nil {
			s.putCredential(c)
		}
	case SourceTable:
		var seq uint64
		if seq, err = DecodeSource(r.Value); err == nil {
			s.sources.ReplaceOrInsert(source{r.Key, seq})
		}
	case QuotaTable:
		var q Quota
		if q, err = DecodeQuota(r.Key, r.Value); err == nil {
			s.quotas.ReplaceOrInsert(q)
		}
	case TaskTable:
		return fault.Internal.Errorf("a task is restored with what it holds")
	default: // a newer format's; it stays in the store as it is
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
