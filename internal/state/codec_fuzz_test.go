package state_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/tenant"
)

// again decodes a row and, if that works, encodes and decodes it once more.
func again(table state.Table, key string, value []byte) (first, second any, err error) {
	decode := func(v []byte) (any, []byte, error) {
		switch table {
		case state.ClusterTable:
			x, bad := state.DecodeCluster(v)
			return x, state.EncodeCluster(x), bad
		case state.JobTable:
			x, bad := state.DecodeJob(key, v)
			return x, state.EncodeJob(x), bad
		case state.InstanceTable:
			x, bad := state.DecodeInstance(key, v)
			return x, state.EncodeInstance(x), bad
		case state.TaskTable:
			x, bad := state.DecodeTask(key, v)
			return x, state.EncodeTask(x), bad
		case state.MachineTable:
			x, bad := state.DecodeMachine(key, v)
			return x, state.EncodeMachine(x), bad
		case state.CredentialTable:
			x, bad := state.DecodeCredential(key, v)
			return x, state.EncodeCredential(x), bad
		case state.QuotaTable:
			x, bad := state.DecodeQuota(key, v)
			return x, state.EncodeQuota(x), bad
		default:
			x, bad := state.DecodeSource(v)
			return x, state.EncodeSource(x), bad
		}
	}
	first, b, err := decode(value)
	if err != nil {
		return nil, nil, err
	}
	second, _, err = decode(b)
	return first, second, err
}

func FuzzDecodeRow(f *testing.F) {
	x := typical()
	f.Add(uint8(state.TaskTable), state.TaskKey(x.ID), state.EncodeTask(x))
	f.Add(uint8(state.ClusterTable), "cluster", state.EncodeCluster(state.Cluster{Name: "dev", UID: "u", Incarnation: 3, Recovery: true}))
	f.Add(uint8(state.JobTable), "a/prod/b", state.EncodeJob(state.Job{Instances: job.FirstN(7), Config: x.Config, Created: 1, Updated: 2, By: "ann", Rev: 5}))
	f.Add(uint8(state.InstanceTable), state.SlotKey(state.Slot{Job: "a/prod/b", N: 3}), state.EncodeInstance(state.Instance{Attempt: 4, Live: true, Last: state.Outcome{State: task.Failed}}))
	f.Add(uint8(state.MachineTable), "m", state.EncodeMachine(state.Machine{Machine: machine.Machine{
		Host: "h", Attributes: []machine.Attribute{{Name: "host", Value: "h"}}, Limits: []string{""}, Capacity: x.Resources, Up: true,
	}}))
	f.Add(uint8(state.CredentialTable), "h", state.EncodeCredential(state.Credential{Kind: "join", Used: true}))
	f.Add(uint8(state.QuotaTable), "www", state.EncodeQuota(state.Quota{Quota: tenant.Quota{Resources: x.Resources}, Updated: 4, By: "ann", Rev: 5}))
	f.Add(uint8(state.SourceTable), "s", state.EncodeSource(77))
	f.Add(uint8(state.TaskTable), state.TaskKey(x.ID), append([]byte{state.Format + 1}, newer()...))
	f.Fuzz(func(t *testing.T, table uint8, key string, value []byte) {
		first, second, err := again(state.Table(table), key, value)
		if err != nil {
			if fault.Of(err) != fault.Internal {
				t.Fatalf("error %v of kind %v, want internal", err, fault.Of(err))
			}
			return
		}
		if d := cmp.Diff(first, second, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("decoded, encoded and decoded again (-first +second):\n%s", d)
		}
	})
}

func FuzzDecodeRecords(f *testing.F) {
	x := typical().Task
	f.Add(state.EncodeRecords(nil))
	f.Add(state.EncodeRecords([]state.Record{
		{Seq: 7, At: x.Since, Kind: state.TaskRecord, By: "ann", Task: &state.TaskChange{Before: task.Starting, After: x}},
		{Seq: 8, At: x.Since, Kind: state.TaskRecord, Task: &state.TaskChange{After: x}},
		{Seq: 9, Kind: state.JobRecord, Job: &state.JobChange{Job: state.Job{Key: "a/prod/b", By: "bob"}, Dropped: true}},
		{Seq: 3, Kind: state.MachineRecord, Machine: &state.MachineChange{After: machine.Machine{ID: "m", Limits: []string{"l"}}}},
		{Kind: state.ClusterRecord, Cluster: &state.Cluster{Name: "dev"}},
		{Kind: state.FactRecord, Fact: &state.Fact{Source: "m/1", Seq: 4, Payload: []byte("p")}},
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := state.DecodeRecords(b)
		if err != nil {
			if fault.Of(err) != fault.Internal {
				t.Fatalf("error %v of kind %v, want internal", err, fault.Of(err))
			}
			return
		}
		got, err := state.DecodeRecords(state.EncodeRecords(records))
		if err != nil {
			t.Fatalf("decode what was decoded and encoded again: %v", err)
		}
		if d := cmp.Diff(records, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("decoded, encoded and decoded again (-first +second):\n%s", d)
		}
	})
}

// TestDecodeAllocates bounds what hostile blocks make a reader allocate: so
// many bytes for each of theirs.
func TestDecodeAllocates(t *testing.T) {
	const size, most = 1 << 18, 512
	word := append([]byte{state.Format, 1<<3 | 2, 0x80, 0x80, 0x02}, strings.Repeat("w", 1<<15)...)
	for name, b := range map[string][]byte{
		"empty records":       append([]byte{state.Format}, strings.Repeat("\x12\x00", size/2)...),
		"empty tasks":         append([]byte{state.Format}, strings.Repeat("\x12\x04\x18\x01\x2a\x00", size/6)...),
		"words":               append([]byte{state.Format}, strings.Repeat("\x0a\x00", size/2)...),
		"one long word":       append(word, strings.Repeat("\x12\x06\x18\x01\x2a\x02\x10\x01", size/8)...),
		"long word as vector": append(word, strings.Repeat("\x12\x06\x18\x01\x2a\x02\x30\x01", size/8)...),
		"a huge length":       {state.Format, 1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := state.DecodeRecords(b)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(most*len(b)+1<<20) {
			t.Errorf("%s: %d bytes allocated for %d, want at most %d for each (error %v)", name, got, len(b), most, err)
		}
	}
}
