package state

import (
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A row's value is a format byte and the fields of a protocol buffer message.
// What the key says is not said again. The numbers of fields are stored: never
// reuse one. Decoding fails with an error of kind Internal.

// String returns the table's name, as stores spell it.
func (t Table) String() string {
	switch t {
	case ClusterTable:
		return "cluster"
	case JobTable:
		return "job"
	case ConfigTable:
		return "config"
	case InstanceTable:
		return "instance"
	case TaskTable:
		return "task"
	case MachineTable:
		return "machine"
	case CredentialTable:
		return "credential"
	case SourceTable:
		return "source"
	case QuotaTable:
		return "quota"
	default:
		return "table " + strconv.Itoa(int(t))
	}
}

// Tables returns every table, in the order in which a store yields them.
func Tables() []Table {
	return []Table{
		ClusterTable, ConfigTable, JobTable, InstanceTable, TaskTable, MachineTable, CredentialTable, SourceTable,
		QuotaTable,
	}
}

// EncodeCluster returns the row of a cluster.
func EncodeCluster(c Cluster) []byte {
	w := newWriter(64)
	w.str(1, c.Name)
	w.str(2, c.UID)
	w.uint(3, c.Incarnation)
	w.flag(4, c.Recovery)
	w.raw(c.Unknown)
	return w
}

// DecodeCluster reads what [EncodeCluster] returned.
func DecodeCluster(value []byte) (Cluster, error) {
	var c Cluster
	r := newReader(value, nil)
	for r.next() {
		switch r.num {
		case 1:
			c.Name = r.str()
		case 2:
			c.UID = r.str()
		case 3:
			c.Incarnation = r.uint(math.MaxUint64)
		case 4:
			c.Recovery = r.flag()
		default:
			r.keep()
		}
	}
	c.Unknown = string(r.unknown)
	return c, r.err
}

// EncodeJob returns the row of a job. Its key is [JobKey].
func EncodeJob(j Job) []byte {
	w := newWriter(96)
	if len(j.Instances) > 0 {
		b := make([]byte, 0, 4*len(j.Instances))
		for _, x := range j.Instances {
			b = protowire.AppendVarint(protowire.AppendVarint(b, uint64(x.From)), uint64(x.To))
		}
		w.bytes(1, b)
	}
	w.hash(2, j.Config)
	w.int(3, int64(j.Created))
	w.int(4, int64(j.Updated))
	w.str(5, j.By)
	w.uint(6, uint64(j.Rev))
	w.raw(j.Unknown)
	return w
}

// DecodeJob reads what [EncodeJob] returned.
func DecodeJob(key string, value []byte) (Job, error) {
	j := Job{Key: job.Key(key)}
	r := newReader(value, nil)
	for r.next() {
		switch r.num {
		case 1:
			j.Instances = nil
			for p := r.packed(); p.more(); {
				j.Instances = append(j.Instances, job.Range{From: p.int32(), To: p.int32()})
			}
		case 2:
			j.Config = r.hash()
		case 3:
			j.Created = unit.Tick(r.int())
		case 4:
			j.Updated = unit.Tick(r.int())
		case 5:
			j.By = r.str()
		case 6:
			j.Rev = Rev(r.uint(math.MaxUint64))
		default:
			r.keep()
		}
	}
	j.Unknown = string(r.unknown)
	return j, r.err
}

func (w *writer) hash(n protowire.Number, h job.Hash) {
	if h != (job.Hash{}) {
		w.bytes(n, h[:])
	}
}

func (r *reader) hash() job.Hash {
	b := r.bytes()
	if len(b) != len(job.Hash{}) {
		r.fail("field %d has %d bytes; want a hash of %d", r.num, len(b), len(job.Hash{}))
		return job.Hash{}
	}
	return job.Hash(b)
}

// EncodeInstance returns the row of a slot. Its key is [SlotKey].
func EncodeInstance(i Instance) []byte {
	w := newWriter(64)
	w.uint(1, uint64(i.Attempt))
	w.flag(2, i.Live)
	w.flag(3, i.Open)
	w.int(4, int64(i.Due))
	w.int(5, int64(i.Streak))
	w.int(6, int64(i.Failures))
	w.uint(7, uint64(i.Last.Attempt))
	w.uint(8, uint64(i.Last.State))
	w.int(9, int64(i.Last.At))
	w.str(10, string(i.Last.Machine))
	w.str(11, i.Last.Reason)
	w.uint(12, uint64(i.Rev))
	w.raw(i.Unknown)
	return w
}

// DecodeInstance reads what [EncodeInstance] returned.
func DecodeInstance(key string, value []byte) (Instance, error) {
	i, err := decodeInstance(key, value, nil)
	if err != nil {
		return Instance{}, err
	}
	return *i, nil
}

func decodeInstance(key string, value []byte, shared *texts) (*Instance, error) {
	at, err := parseSlot(key, shared)
	if err != nil {
		return nil, err
	}
	i := &Instance{Slot: at}
	r := newReader(value, shared)
	for r.next() {
		switch r.num {
		case 1:
			i.Attempt = uint32(r.uint(math.MaxUint32))
		case 2:
			i.Live = r.flag()
		case 3:
			i.Open = r.flag()
		case 4:
			i.Due = unit.Tick(r.int())
		case 5:
			i.Streak = r.int32()
		case 6:
			i.Failures = r.int32()
		case 7:
			i.Last.Attempt = uint32(r.uint(math.MaxUint32))
		case 8:
			i.Last.State = r.state()
		case 9:
			i.Last.At = unit.Tick(r.int())
		case 10:
			i.Last.Machine = machine.ID(r.share())
		case 11:
			i.Last.Reason = r.share()
		case 12:
			i.Rev = Rev(r.uint(math.MaxUint64))
		default:
			r.keep()
		}
	}
	i.Unknown = string(r.unknown)
	return i, r.err
}

func (r *reader) state() task.State { return task.State(r.uint(uint64(task.States - 1))) }

// EncodeCredential returns the row of a credential. Its key is [CredentialKey].
func EncodeCredential(c Credential) []byte {
	w := newWriter(48)
	w.str(1, c.Kind)
	w.str(2, c.Subject)
	w.int(3, int64(c.Expires))
	w.flag(4, c.Used)
	w.uint(5, uint64(c.Rev))
	w.raw(c.Unknown)
	return w
}

// DecodeCredential reads what [EncodeCredential] returned.
func DecodeCredential(key string, value []byte) (Credential, error) {
	c := Credential{Hash: key}
	r := newReader(value, nil)
	for r.next() {
		switch r.num {
		case 1:
			c.Kind = r.str()
		case 2:
			c.Subject = r.str()
		case 3:
			c.Expires = unit.Tick(r.int())
		case 4:
			c.Used = r.flag()
		case 5:
			c.Rev = Rev(r.uint(math.MaxUint64))
		default:
			r.keep()
		}
	}
	c.Unknown = string(r.unknown)
	return c, r.err
}

// EncodeSource returns the row of a source of facts: the last one taken in.
// Its key is [SourceKey].
func EncodeSource(seq uint64) []byte {
	w := newWriter(12)
	w.uint(1, seq)
	return w
}

// DecodeSource reads what [EncodeSource] returned. The row of a source is
// written whole from a fact, so nothing else in it is kept.
func DecodeSource(value []byte) (seq uint64, err error) {
	r := newReader(value, nil)
	for r.next() {
		if r.num == 1 {
			seq = r.uint(math.MaxUint64)
		}
	}
	return seq, r.err
}

// EncodeQuota returns the row of a role's quota. Its key is [QuotaKey].
func EncodeQuota(q Quota) []byte {
	w := newWriter(64)
	w.resources(1, q.Resources)
	w.int(2, int64(q.Updated))
	w.str(3, q.By)
	w.uint(4, uint64(q.Rev))
	w.raw(q.Unknown)
	return w
}

// DecodeQuota reads what [EncodeQuota] returned.
func DecodeQuota(key string, value []byte) (Quota, error) {
	q := Quota{Role: key}
	r := newReader(value, nil)
	for r.next() {
		switch r.num {
		case 1:
			q.Resources = r.resources()
		case 2:
			q.Updated = unit.Tick(r.int())
		case 3:
			q.By = r.str()
		case 4:
			q.Rev = Rev(r.uint(math.MaxUint64))
		default:
			r.keep()
		}
	}
	q.Unknown = string(r.unknown)
	return q, r.err
}

// bad says which row an error is about.
func bad(t Table, key string, err error) error {
	return fault.Internal.Errorf("%v row %.100q cannot be read: %w", t, key, err)
}
