package state

import (
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// Follow returns what a commit made of s, given its rows and where the store
// stands after it. Whoever sees every batch of a leader holds what the leader
// holds, without asking it. An error is as from [Restore]; s never changes.
func (s *Snapshot) Follow(rows []Row, head Head) (*Snapshot, error) {
	next := s.clone()
	next.Rev, next.Seq, next.At = head.Rev, head.Seq, head.At
	f := following{
		Snapshot: next, shared: newTexts(nil), refs: make(map[job.Hash]int),
		written: make(map[job.Key]bool), moved: make(map[Slot]bool),
	}
	for _, r := range rows {
		if err := f.follow(r); err != nil {
			return nil, bad(r.Table, r.Key, err)
		}
	}
	f.refer()
	f.consume(s)
	return next, nil
}

// following is a snapshot that takes in the rows of a batch, which come in any
// order.
type following struct {
	*Snapshot
	shared  *texts
	refs    map[job.Hash]int // how many more run each config
	written map[job.Key]bool // jobs whose rows have changed
	moved   map[Slot]bool    // slots of which the memory or a task has changed
}

// consume keeps up what each role reserves, as drafts do; base is the snapshot
// before the batch.
func (s following) consume(base *Snapshot) {
	for k := range s.written {
		s.Snapshot.consume(k.Role(), base.jobConsumes(k), s.jobConsumes(k))
	}
	for at := range s.moved {
		if !s.written[at.Job] {
			s.Snapshot.consume(at.Job.Role(), base.slotConsumes(at), s.slotConsumes(at))
		}
	}
}

// refer counts who runs each config, as drafts do.
func (s following) refer() {
	for h, n := range s.refs {
		if c, ok := s.configs.Get(config{hash: h}); ok && n != 0 {
			c.refs += n
			s.configs.ReplaceOrInsert(c)
		}
	}
}

// follow takes in what became of one row.
func (s following) follow(r Row) error {
	switch r.Table {
	case TaskTable:
		return s.followTask(r)
	case MachineTable:
		return s.followMachine(r)
	case JobTable:
		return s.followJob(r)
	case ConfigTable:
		return s.followConfig(r)
	case InstanceTable:
		return s.followInstance(r)
	case ClusterTable, CredentialTable, SourceTable, QuotaTable:
	}
	if r.Table == CredentialTable {
		s.admission = s.Rev
	}
	if r.Value != nil {
		return s.restore(r, s.shared)
	}
	switch r.Table {
	case CredentialTable:
		s.dropCredential(r.Key)
	case SourceTable:
		s.sources.Delete(source{name: r.Key})
	case QuotaTable:
		s.quotas.Delete(Quota{Role: r.Key})
	case ClusterTable, JobTable, ConfigTable, InstanceTable, TaskTable, MachineTable:
	}
	return nil
}

func (s following) followInstance(r Row) error {
	at, err := parseSlot(r.Key, s.shared)
	if err != nil {
		return err
	}
	s.moved[at] = true
	if r.Value == nil {
		s.instances.remove(at)
		return nil
	}
	return s.restore(r, s.shared)
}

func (s following) followJob(r Row) error {
	s.written[job.Key(r.Key)] = true
	if old, ok := s.jobs.Get(Job{Key: job.Key(r.Key)}); ok {
		s.refs[old.Config]--
	}
	if r.Value == nil {
		s.jobs.Delete(Job{Key: job.Key(r.Key)})
		return nil
	}
	if err := s.restore(r, s.shared); err != nil {
		return err
	}
	j, _ := s.jobs.Get(Job{Key: job.Key(r.Key)})
	s.refs[j.Config]++
	return nil
}

func (s following) followConfig(r Row) error {
	var h job.Hash
	copy(h[:], r.Key)
	if r.Value == nil {
		s.configs.Delete(config{hash: h})
		return nil
	}
	if _, ok := s.configs.Get(config{hash: h}); ok {
		return nil // under its hash there is nothing else
	}
	return s.restoreConfig(r)
}

// followTask keeps the account of the task's machine, as a draft does.
func (s following) followTask(r Row) error {
	id, err := parseTask(r.Key, s.shared)
	if err != nil {
		return err
	}
	s.moved[Slot{id.Job, id.Instance}] = true
	if old, ok := s.Task(id); ok {
		s.refs[old.Config]--
		if _, held := s.on.Delete(place{machine: old.Machine, id: id}); held {
			s.giveBack(old.Machine, old.Resources)
		}
		if old.Room != "" {
			s.rooms.Delete(place{machine: old.Room, id: id})
		}
		id = old.ID // its strings are shared with other rows
	}
	if r.Value == nil {
		s.tasks.remove(id)
		return nil
	}
	t, err := decodeTask(r.Key, r.Value, s.shared)
	if err != nil {
		return err
	}
	t.ID = id
	s.tasks.set(id, t)
	s.refs[t.Config]++
	if t.Room != "" {
		s.rooms.ReplaceOrInsert(place{machine: t.Room, id: id})
	}
	if t.Machine != "" && t.State.Placed() {
		s.on.ReplaceOrInsert(place{t.Machine, id, t})
		s.giveBack(t.Machine, unit.Resources{}.Sub(t.Resources))
	}
	return nil
}

func (s following) followMachine(r Row) error {
	id := machine.ID(s.shared.text([]byte(r.Key)))
	old, _ := s.Machine(id)
	if r.Value == nil {
		s.machines.remove(id)
		s.free.Delete(free{machine: id})
		return nil
	}
	m, err := DecodeMachine(r.Key, r.Value)
	if err != nil {
		return err
	}
	m.ID = id
	s.machines.put(id, m)
	s.giveBack(id, m.Allocatable().Sub(m.Strayed()).Sub(old.Allocatable().Sub(old.Strayed())))
	return nil
}
