package state

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// Restore builds the snapshot of a store that stands at head from its rows, in
// any order; in the order of [Tables] and keys it is fastest. A row that makes
// no sense ends it with an error of kind Internal that names table and key.
// Restore keeps no part of a row after yield has returned.
func Restore(rows func(yield func(Row) error) error, head Head) (*Snapshot, error) {
	s := New()
	s.Rev, s.Seq, s.At = head.Rev, head.Seq, head.At
	shared := make(map[string]string)
	err := rows(func(r Row) error {
		if err := s.restore(r, shared); err != nil {
			return bad(r.Table, r.Key, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.account()
	s.refer()
	return s, nil
}

// refer counts who runs each config. From then on it is kept up step by step.
func (s *Snapshot) refer() {
	refs := make(map[job.Hash]int, s.configs.Len())
	s.jobs.Ascend(func(j Job) bool {
		refs[j.Config]++
		return true
	})
	s.tasks.all(func(t Task) bool {
		refs[t.Config]++
		return true
	})
	for h, n := range refs {
		if c, ok := s.configs.Get(config{hash: h}); ok {
			c.refs = n
			s.configs.ReplaceOrInsert(c)
		}
	}
}

// account works out what every machine has left. From then on it is kept up
// step by step. A machine without a row may hold tasks too.
func (s *Snapshot) account() {
	for m := range s.Machines() {
		s.free.ReplaceOrInsert(free{m.ID, s.less(m.Allocatable(), m.ID).Sub(m.Strayed())})
	}
	var last machine.ID
	s.on.Ascend(func(p place) bool {
		if p.machine == last {
			return true
		}
		last = p.machine
		if _, known := s.Machine(last); !known {
			s.free.ReplaceOrInsert(free{last, s.less(unit.Resources{}, last)})
		}
		return true
	})
}

// less returns r less what the tasks on a machine reserve.
func (s *Snapshot) less(r unit.Resources, id machine.ID) unit.Resources {
	for t := range s.TasksOn(id) {
		r = r.Sub(t.Resources)
	}
	return r
}

// restore adds one row.
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
	case TaskTable:
		var t Task
		if t, err = decodeTask(r.Key, r.Value, shared); err == nil {
			s.tasks.put(t.ID, t)
			if t.Machine != "" && t.State.Placed() {
				s.on.ReplaceOrInsert(place{t.Machine, t.ID})
			}
			if t.Room != "" {
				s.rooms.ReplaceOrInsert(place{t.Room, t.ID})
			}
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
			s.credentials.ReplaceOrInsert(c)
		}
	case SourceTable:
		var seq uint64
		if seq, err = DecodeSource(r.Value); err == nil {
			s.sources.ReplaceOrInsert(source{r.Key, seq})
		}
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
