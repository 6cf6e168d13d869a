package meter

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/ledger/pack"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// Format is the version of an encoded fold, as its first byte. A program reads
// the formats from one back to one ahead; a later one may add to the end of an
// item, and nothing else.
const Format = 1 + format.Ahead

// Encode returns the fold as it is stored: the same fold gives the same bytes.
func (f *Fold) Encode() []byte {
	return f.encode(slices.Sorted(maps.Keys(f.machines)), slices.Sorted(maps.Keys(f.jobs)))
}

// Changes returns what is different from what was stored when [Fold.Stored]
// was called last: much less than the whole, unless an hour has ended since.
// Then, and for a new fold, it is false: only the whole will do.
func (f *Fold) Changes() ([]byte, bool) {
	if f.since.whole {
		return nil, false
	}
	return f.encode(slices.Sorted(maps.Keys(f.since.machines)), slices.Sorted(maps.Keys(f.since.jobs))), true
}

// Stored says that the fold is stored as it is: whole, or by its changes.
func (f *Fold) Stored() { f.since = changes{} }

// encode writes the head of the fold and some of its accounts.
func (f *Fold) encode(machines []machine.ID, jobs []job.Key) []byte {
	b := make([]byte, 1, 64+len(machines)*192+len(jobs)*64)
	b[0] = Format
	b = binary.AppendUvarint(b, uint64(f.seq))
	b = binary.AppendVarint(b, int64(f.at))
	b = binary.AppendVarint(b, int64(f.hour))
	b = binary.AppendUvarint(b, uint64(len(machines)))
	var item []byte
	for _, id := range machines {
		item = f.machines[id].append(pack.AppendString(item[:0], string(id)), f.hour)
		b = pack.AppendItem(b, format.AppendAdded(item))
	}
	b = binary.AppendUvarint(b, uint64(len(jobs)))
	for _, key := range jobs {
		item = f.jobs[key].append(pack.AppendString(item[:0], string(key)))
		b = pack.AppendItem(b, format.AppendAdded(item))
	}
	return b
}

// Decode reads what [Fold.Encode] wrote.
func Decode(b []byte) (*Fold, error) {
	f := New()
	return f, f.Follow(b)
}

// Follow takes in what [Fold.Changes] returned, on top of what was stored before.
func (f *Fold) Follow(b []byte) error {
	r := pack.NewReader(b)
	if v := int(r.Byte()); v < max(1, Format-1) || v > Format+1 {
		return fault.Internal.Errorf("the stored meter is of format %d; want %d to %d: upgrade one version at a time", v, max(1, Format-1), Format+1)
	}
	f.seq, f.at, f.hour = state.Seq(r.Uint()), unit.Tick(r.Int()), unit.Tick(r.Int())
	for range r.Count() {
		it := r.Item()
		id := machine.ID(it.String())
		if old := f.machines[id]; old != nil {
			f.setStrays(id, old, nil)
		}
		m := readAccount(&it, f.hour)
		strays := m.strays
		m.strays, f.machines[id] = nil, m
		f.setStrays(id, m, strays)
		r.Join(&it)
	}
	for range r.Count() {
		it := r.Item()
		key := job.Key(it.String())
		f.jobs[key] = new(readHeld(&it))
		r.Join(&it)
	}
	if err := r.Err(); err != nil {
		return fault.Internal.Errorf("the stored meter: %w; restore the company's database from a backup", err)
	}
	f.Stored()
	return nil
}

// append appends the account. Times are stored since the hour's start, which
// makes them short; none is after the last record.
func (m *account) append(b []byte, hour unit.Tick) []byte {
	b = appendLevel(b, m.capacity.has)
	b = binary.AppendVarint(b, int64(m.capacity.since-hour))
	b = ledger.AppendAmounts(b, m.capacity.sum)
	b = m.billed.append(b)
	b = appendLevel(b, m.overhead.now)
	b = binary.AppendVarint(b, int64(m.overhead.mark))
	b = ledger.AppendAmounts(b, m.overhead.sum)
	b = appendBool(b, m.idle.up)
	b = appendLevel(b, m.idle.free)
	b = binary.AppendVarint(b, int64(m.idle.since-hour))
	b = ledger.AppendAmounts(b, m.idle.sum)
	b = appendBool(b, m.down.down)
	b = appendLevel(b, m.down.free)
	b = appendLevel(b, m.down.kept)
	b = binary.AppendVarint(b, int64(m.down.since-hour))
	b = ledger.AppendAmounts(b, m.down.sum)
	return appendStretches(b, m.strays, hour)
}

func readAccount(r *pack.Reader, hour unit.Tick) *account {
	// The parts of a composite literal are read in the order they are written.
	return &account{
		capacity: life{readLevel(r), hour + unit.Tick(r.Int()), ledger.ReadAmounts(r)},
		billed:   readHeld(r),
		overhead: kept{readLevel(r), unit.Tick(r.Int()), ledger.ReadAmounts(r)},
		idle:     left{r.Bool(), readLevel(r), hour + unit.Tick(r.Int()), ledger.ReadAmounts(r)},
		down:     gone{r.Bool(), readLevel(r), readLevel(r), hour + unit.Tick(r.Int()), ledger.ReadAmounts(r)},
		strays:   readStretches(r, hour),
	}
}

func (a *held) append(b []byte) []byte { return ledger.AppendAmounts(appendLevel(b, a.now), a.before) }

func readHeld(r *pack.Reader) held { return held{readLevel(r), ledger.ReadAmounts(r)} }

func appendLevel(b []byte, l level) []byte {
	for _, n := range l {
		b = binary.AppendVarint(b, n)
	}
	return b
}

func readLevel(r *pack.Reader) level {
	var l level
	for i := range l {
		l[i] = r.Int()
	}
	return l
}

func appendBool(b []byte, x bool) []byte {
	if x {
		return append(b, 1)
	}
	return append(b, 0)
}
