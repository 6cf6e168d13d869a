package agentd

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/bits"
	"os"
	"path/filepath"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// journal keeps what the tasks of a machine used until the server has
// committed it. It is one small file that is replaced whole: the facts that
// wait, and where each living task was cut last, change together or not at all.
type journal struct {
	path    string
	kept    journalFile
	unknown map[string]json.RawMessage // fields of the file that a newer agent wrote
	open    map[task.ID]*span
	// durable is kept.Next as the file has it. A block that is not in the file
	// is not sent: after a crash its number would name another one.
	durable uint64
}

// journalFile is DataDir/journal.json.
type journalFile struct {
	format.Fields
	Version int            `json:"version"`
	Source  string         `json:"source"` // machine/random: never reused
	Next    uint64         `json:"next"`   // number of the next block
	Blocks  []block        `json:"blocks,omitzero"`
	Cuts    map[string]cut `json:"cuts,omitzero"` // by task id, until the machine has put the task away
}

// block is a block of facts that the server has not acknowledged.
type block struct {
	Seq     uint64 `json:"seq"`
	Payload []byte `json:"payload"`
}

// cut is up to where a task's use was told.
type cut struct {
	To  unit.Tick `json:"to"`
	CPU int64     `json:"cpu"` // milli-core-ticks since the task's start
}

// span is what a task used since its last cut.
type span struct {
	cut
	at        unit.Tick // of the last sample
	ram, disk int64     // MiB, at the last sample
	ramTicks  int64     // MiB-ticks since the cut
	diskTicks int64
	cpu       int64 // milli-core-ticks since the task's start
}

const (
	journalVersion = 1 + format.Ahead
	maxBlocks      = 4096 // of facts that wait; the oldest hours are merged by then long ago
)

func openJournal(dir, machineID string) (*journal, error) {
	j := &journal{path: filepath.Join(dir, "journal.json"), open: map[task.ID]*span{}}
	data, err := os.ReadFile(j.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		j.kept = journalFile{Source: machineID + "/" + rand.Text()[:12], Next: 1, Cuts: map[string]cut{}}
		return j, j.write()
	case err != nil:
		return nil, fault.Denied.Errorf("usage journal: %w", err)
	}
	err = json.Unmarshal(data, &j.kept)
	if err == nil && j.kept.Source == "" {
		err = errors.New("it names no source")
	}
	if err != nil {
		return nil, fault.Invalid.Errorf("usage journal %s is damaged (%w); move it away: what it holds that the server does not have is lost then", j.path, err)
	}
	if j.kept.Version > journalVersion+1 {
		return nil, fault.Invalid.Errorf("usage journal %s has format %d, and this agent reads up to %d; start a newer agent", j.path, j.kept.Version, journalVersion+1)
	}
	j.unknown = format.Unknown(data, j.kept)
	if j.kept.Cuts == nil {
		j.kept.Cuts = map[string]cut{}
	}
	j.durable = j.kept.Next
	return j, nil
}

func (j *journal) write() error {
	j.kept.Version, j.kept.Fields = journalVersion, format.Added()
	data, err := json.Marshal(j.kept)
	if err == nil {
		data, err = format.Keep(data, j.unknown)
	}
	if err != nil {
		return fault.Internal.Errorf("usage journal: %w", err)
	}
	if err := replaceFile(j.path, data, true); err != nil {
		return err
	}
	j.durable = j.kept.Next
	return nil
}

// milliCoreTicks floors cpu time to milli-core-ticks: one is 3.6 ns.
func milliCoreTicks(nanos int64) int64 { return nanos/18*5 + nanos%18*5/18 }

// sample takes in a task's counters at now. started is when it began.
func (j *journal) sample(id task.ID, now, started unit.Tick, cpuNanos, ram, disk int64) {
	s := j.open[id]
	if s == nil {
		s = &span{cut: cut{To: started}, at: started}
		if c, ok := j.kept.Cuts[id.String()]; ok {
			s.cut, s.at = c, max(c.To, started)
		}
		s.at = max(s.at, s.To)
		j.open[id] = s
	}
	if now > s.at {
		s.ramTicks += int64(now-s.at) * (ram / unit.MiB)
		s.diskTicks += int64(now-s.at) * (disk / unit.MiB)
		s.at = now
	}
	s.ram, s.disk = ram/unit.MiB, disk/unit.MiB
	s.cpu = max(s.cpu, milliCoreTicks(cpuNanos))
}

// resume begins the account of a task that ran before and that the journal does
// not know: what it used up to now was told, or is lost. Counted from its
// start, it would be told twice.
func (j *journal) resume(id task.ID, now unit.Tick, cpuNanos int64) {
	if _, known := j.kept.Cuts[id.String()]; known || j.open[id] != nil {
		return
	}
	c := cut{To: now, CPU: milliCoreTicks(cpuNanos)}
	j.open[id] = &span{cut: c, at: now, cpu: c.CPU}
}

// cutAll makes facts of what every task used up to now. When too much waits
// for the server, it makes none: the hours are told of later, in one.
func (j *journal) cutAll(now unit.Tick) error {
	if len(j.kept.Blocks) >= maxBlocks {
		return fault.Exhausted.Errorf("usage journal %s holds %d blocks that no server took in; bring the server back", j.path, len(j.kept.Blocks))
	}
	var facts []ledger.Used
	for _, id := range slices.SortedFunc(maps.Keys(j.open), task.ID.Compare) {
		facts = append(facts, j.take(id, now)...)
	}
	return j.store(facts)
}

// end makes the last facts of tasks that have ended. Up to where they were
// told stays known: a machine may show an ended task again.
func (j *journal) end(ids ...task.ID) error {
	var facts []ledger.Used
	for _, id := range ids {
		if s := j.open[id]; s != nil {
			facts = append(facts, j.take(id, s.at)...)
		}
		delete(j.open, id)
	}
	return j.store(facts)
}

// drop forgets tasks that the machine has put away. It is written down with
// the next facts.
func (j *journal) drop(id task.ID) { delete(j.kept.Cuts, id.String()) }

// keepOnly drops every task but those that the machine shows at its start.
func (j *journal) keepOnly(found map[task.ID]bool) {
	maps.DeleteFunc(j.kept.Cuts, func(s string, _ cut) bool {
		id, err := task.ParseID(s)
		return err != nil || !found[id]
	})
}

// take cuts a task's span at to. A span that runs over hours that nobody
// watched is divided among them by their length, without losing a unit.
func (j *journal) take(id task.ID, to unit.Tick) []ledger.Used {
	s := j.open[id]
	if to <= s.To {
		return nil
	}
	var facts []ledger.Used
	left := ledger.Used{Task: id, CPU: max(0, s.cpu-s.CPU), RAM: s.ramTicks, Disk: s.diskTicks}
	for from := s.To; from < to; {
		end := min(to, from.FloorHour()+unit.Hour)
		u := ledger.Used{Task: id, From: from, To: end, CPU: left.CPU, RAM: left.RAM, Disk: left.Disk}
		if end < to {
			u.CPU, u.RAM, u.Disk = share(left.CPU, end-from, to-from), share(left.RAM, end-from, to-from), share(left.Disk, end-from, to-from)
		}
		left.CPU, left.RAM, left.Disk = left.CPU-u.CPU, left.RAM-u.RAM, left.Disk-u.Disk
		facts = append(facts, u)
		from = end
	}
	s.cut = cut{To: to, CPU: max(s.cpu, s.CPU)}
	s.ramTicks, s.diskTicks = 0, 0
	j.kept.Cuts[id.String()] = s.cut
	return facts
}

// share is n * part / whole, cut down.
func share(n int64, part, whole unit.Tick) int64 {
	hi, lo := bits.Mul64(uint64(max(0, n)), uint64(part)) // part is below whole, so the quotient fits
	q, _ := bits.Div64(hi, lo, uint64(whole))
	return int64(q)
}

// store makes facts durable.
func (j *journal) store(facts []ledger.Used) error {
	if len(facts) == 0 {
		return nil
	}
	for chunk := range slices.Chunk(facts, 5000) {
		j.kept.Blocks = append(j.kept.Blocks, block{j.kept.Next, ledger.EncodeUsed(chunk)})
		j.kept.Next++
	}
	return j.write()
}

// waiting returns up to n blocks that the server has not acknowledged. What
// could not be written is tried again first.
func (j *journal) waiting(n int) []state.Fact {
	if j.durable != j.kept.Next {
		_ = j.write() // the blocks that are not in the file wait for the next time
	}
	var out []state.Fact
	for _, b := range j.kept.Blocks[:min(n, len(j.kept.Blocks))] {
		if b.Seq >= j.durable {
			break
		}
		out = append(out, state.Fact{Source: j.kept.Source, Seq: b.Seq, Payload: b.Payload})
	}
	return out
}

// acked forgets what the server has committed.
func (j *journal) acked(acks map[string]uint64) error {
	upTo, ok := acks[j.kept.Source]
	if !ok || len(j.kept.Blocks) == 0 || j.kept.Blocks[0].Seq > upTo {
		return nil
	}
	j.kept.Blocks = slices.DeleteFunc(j.kept.Blocks, func(b block) bool { return b.Seq <= upTo })
	return j.write()
}
