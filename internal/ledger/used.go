package ledger

import (
	"encoding/binary"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger/pack"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Used is a fact made by an agent: what one task used from From to To, which
// lie in one hour. To may be the hour's end.
type Used struct {
	Task     task.ID
	From, To unit.Tick
	CPU      int64 // milli-core-ticks
	RAM      int64 // MiB-ticks
	Disk     int64 // MiB-ticks
}

// UsedFormat is the version of packed facts, as their first byte.
const UsedFormat = 1 + format.Ahead

// EncodeUsed packs facts.
func EncodeUsed(facts []Used) []byte {
	b := make([]byte, 1, 1+len(facts)*64)
	b[0] = UsedFormat
	var item []byte
	for _, u := range facts {
		item = pack.AppendString(item[:0], string(u.Task.Job))
		item = binary.AppendVarint(item, int64(u.Task.Instance))
		item = binary.AppendUvarint(item, uint64(u.Task.Attempt))
		item = binary.AppendVarint(item, int64(u.From))
		item = binary.AppendVarint(item, int64(u.To-u.From))
		item = binary.AppendVarint(item, u.CPU)
		item = binary.AppendVarint(item, u.RAM)
		item = binary.AppendVarint(item, u.Disk)
		b = pack.AppendItem(b, format.AppendAdded(item))
	}
	return b
}

// DecodeUsed reads what [EncodeUsed] packed, also one version ahead, and
// validates every fact. Errors are of kind Invalid and name the fact.
func DecodeUsed(b []byte) ([]Used, error) {
	r := pack.NewReader(b)
	if err := readable("a block of usage facts", r.Byte(), UsedFormat); err != nil {
		return nil, err
	}
	var facts []Used
	var key job.Key // of the fact before: blocks name one job many times
	for r.More() {
		it := r.Item()
		name := it.Bytes()
		if string(name) != string(key) || len(facts) == 0 {
			key = job.Key(name)
			if err := key.Validate(); err != nil {
				return nil, fault.Invalid.Errorf("usage fact %d: %w", len(facts)+1, err)
			}
		}
		u := Used{Task: task.ID{Job: key}}
		instance, attempt := it.Int(), it.Uint()
		u.From = unit.Tick(it.Int())
		span := unit.Tick(it.Int())
		u.CPU, u.RAM, u.Disk = it.Int(), it.Int(), it.Int()
		if it.Err() != nil {
			return nil, fault.Invalid.Errorf("usage fact %d: %w", len(facts)+1, it.Err())
		}
		u.Task.Instance, u.Task.Attempt, u.To = int32(instance), uint32(attempt), u.From+span // compared below
		if int64(u.Task.Instance) != instance || uint64(u.Task.Attempt) != attempt || span > unit.Hour {
			return nil, fault.Invalid.Errorf("usage fact %d of job %s: instance %d, attempt %d or length %d is out of range", len(facts)+1, key, instance, attempt, span)
		}
		if err := u.Validate(); err != nil {
			return nil, fault.Invalid.Errorf("usage fact %d: %w", len(facts)+1, err)
		}
		facts = append(facts, u)
	}
	if err := r.Err(); err != nil {
		return nil, fault.Invalid.Errorf("usage fact %d: %w", len(facts)+1, err)
	}
	return facts, nil
}

// Validate reports what is wrong with the fact, if anything, beside its job key.
func (u Used) Validate() error {
	switch {
	case u.Task.Instance < 0 || u.Task.Attempt == 0:
		return fault.Invalid.Errorf("%v is no task", u.Task)
	case u.From < 0 || u.To <= u.From || u.From.FloorHour() != (u.To-1).FloorHour():
		return fault.Invalid.Errorf("task %v: from %d to %d ticks; want a span inside one hour", u.Task, u.From, u.To)
	case u.CPU < 0 || u.RAM < 0 || u.Disk < 0:
		return fault.Invalid.Errorf("task %v: used cpu %d, ram %d, disk %d; want 0 or more", u.Task, u.CPU, u.RAM, u.Disk)
	}
	return nil
}

// Amounts returns what was used.
func (u Used) Amounts() Amounts {
	return Amounts{unit.CPU: unit.Int(u.CPU), unit.RAM: unit.Int(u.RAM), unit.Disk: unit.Int(u.Disk)}
}
