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
	shared := make(map[string]string)
	for _, r := range rows {
		if err := next.follow(r, shared); err != nil {
			return nil, bad(r.Table, r.Key, err)
		}
	}
	return next, nil
}

// follow takes in what became of one row.
func (s *Snapshot) follow(r Row, shared map[string]string) error {
	switch r.Table {
	case TaskTable:
		return s.followTask(r, shared)
	case MachineTable:
		return s.followMachine(r, shared)
	case ClusterTable, JobTable, ConfigTable, InstanceTable, CredentialTable, SourceTable:
	}
	if r.Value != nil {
		return s.restore(r, shared)
	}
	switch r.Table {
	case JobTable:
		s.jobs.Delete(Job{Key: job.Key(r.Key)})
	case CredentialTable:
		s.credentials.Delete(Credential{Hash: r.Key})
	case SourceTable:
		s.sources.Delete(source{name: r.Key})
	case ConfigTable:
		var h job.Hash
		copy(h[:], r.Key)
		s.configs.Delete(config{hash: h})
	case InstanceTable:
		at, err := parseSlot(r.Key, shared)
		s.instances.remove(at)
		return err
	case ClusterTable, TaskTable, MachineTable:
	}
	return nil
}

// followTask keeps the account of the task's machine, as a draft does.
func (s *Snapshot) followTask(r Row, shared map[string]string) error {
	id, err := parseTask(r.Key, shared)
	if err != nil {
		return err
	}
	if old, ok := s.Task(id); ok && old.Machine != "" {
		if _, held := s.on.Delete(place{old.Machine, id}); held {
			s.giveBack(old.Machine, old.Resources)
		}
		id = old.ID // its strings are shared with other rows
	}
	if r.Value == nil {
		s.tasks.remove(id)
		return nil
	}
	t, err := decodeTask(r.Key, r.Value, shared)
	if err != nil {
		return err
	}
	t.ID = id
	s.tasks.put(id, t)
	if t.Machine != "" && t.State.Placed() {
		s.on.ReplaceOrInsert(place{t.Machine, id})
		s.giveBack(t.Machine, unit.Resources{}.Sub(t.Resources))
	}
	return nil
}

func (s *Snapshot) followMachine(r Row, shared map[string]string) error {
	id := machine.ID(share(shared, []byte(r.Key)))
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
