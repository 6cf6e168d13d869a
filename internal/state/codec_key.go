package state

import (
	"encoding/binary"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
)

// Keys sort by their bytes as the things sort that they name: the numbers in
// them have a fixed width, the highest byte first. A job key ends at a zero
// byte, which no name may hold.

// ClusterKey returns the key of the only row of [ClusterTable].
func ClusterKey() string { return "cluster" }

// JobKey returns the key of a job in [JobTable].
func JobKey(k job.Key) string { return string(k) }

// ConfigKey returns the key of a config in [ConfigTable]; the value there is
// what [job.Config.Encode] returned.
func ConfigKey(h job.Hash) string { return string(h[:]) }

// SlotKey returns the key of a slot in [InstanceTable].
func SlotKey(s Slot) string { return string(appendSlot(make([]byte, 0, len(s.Job)+5), s.Job, s.N)) }

// TaskKey returns the key of a task in [TaskTable].
func TaskKey(id task.ID) string {
	b := appendSlot(make([]byte, 0, len(id.Job)+9), id.Job, id.Instance)
	return string(binary.BigEndian.AppendUint32(b, id.Attempt))
}

// MachineKey returns the key of a machine in [MachineTable].
func MachineKey(id machine.ID) string { return string(id) }

// CredentialKey returns the key of a credential in [CredentialTable], given
// the hash of its secret.
func CredentialKey(hash string) string { return hash }

// SourceKey returns the key of a source of facts in [SourceTable].
func SourceKey(source string) string { return source }

// QuotaKey returns the key of a role's quota in [QuotaTable].
func QuotaKey(role string) string { return role }

const signBit = 1 << 31

func appendSlot(b []byte, k job.Key, n int32) []byte {
	b = append(append(b, k...), 0)
	return binary.BigEndian.AppendUint32(b, uint32(n)^signBit)
}

// parseSlot reads what appendSlot wrote.
func parseSlot(key string, shared *texts) (Slot, error) {
	i := len(key) - 5
	if i < 0 || key[i] != 0 {
		return Slot{}, fault.Internal.Errorf("the key %.80q names no slot; want a job key, a zero byte and 4 bytes", key)
	}
	n := binary.BigEndian.Uint32([]byte(key[i+1:])) ^ signBit
	return Slot{Job: job.Key(shared.job(key[:i])), N: int32(n)}, nil
}

// parseTask reads what [TaskKey] returned.
func parseTask(key string, shared *texts) (task.ID, error) {
	i := len(key) - 4
	if i < 5 || key[i-5] != 0 {
		return task.ID{}, fault.Internal.Errorf("the key %.80q names no task; want a job key, a zero byte and 8 bytes", key)
	}
	s, err := parseSlot(key[:i], shared)
	if err != nil {
		return task.ID{}, err
	}
	return task.ID{Job: s.Job, Instance: s.N, Attempt: binary.BigEndian.Uint32([]byte(key[i:]))}, nil
}
