package state

import (
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Kind says what a record is about.
type Kind uint8

// The kinds of records. Numbers are stored: never reuse one.
const (
	TaskRecord    Kind = 1 // a task was created, moved or forgotten
	JobRecord     Kind = 2 // a job was written or dropped
	MachineRecord Kind = 3 // a machine came, changed, went down or left
	ClusterRecord Kind = 4 // the cluster started, was adopted, left recovery
	FactRecord    Kind = 5 // an agent's usage facts were taken in
	QuotaRecord   Kind = 6 // a role was given a quota, or it was taken away
)

// A Record is something that happened, numbered. The field for its kind is set.
type Record struct {
	Seq  Seq
	At   unit.Tick
	Kind Kind
	By   string // who asked for it; empty: the platform

	Task    *TaskChange
	Job     *JobChange
	Machine *MachineChange
	Cluster *Cluster
	Fact    *Fact
	Quota   *QuotaChange
}

// A TaskChange is one step of a task.
type TaskChange struct {
	Before task.State // Init for a new one
	After  task.Task
	Free   unit.Resources // what After.Machine has left after the step; zero without a machine
}

// A JobChange is a job written or dropped.
type JobChange struct {
	Job     Job
	Dropped bool
	Reason  string
}

// A QuotaChange is a quota given or taken away.
type QuotaChange struct {
	Quota   Quota
	Dropped bool
}

// A MachineChange is what changed of a machine. The overhead that it shows
// includes what the machine's strays hold, so that a reader who knows nothing of
// strays counts right.
type MachineChange struct {
	Before, After machine.Machine // Before is zero for a new one
	Left          bool
	Free          unit.Resources // what it has left after the change
	Strays        []Stray        // after the change
}

// A Fact is a packed block of usage facts made by one source. (Source, Seq)
// is unique: a fact that comes twice is taken in once.
type Fact struct {
	Source  string // machine id and its agent's journal
	Seq     uint64
	Payload []byte // opaque here; at most [MaxFact] bytes
}

// MaxFact bounds one block of usage facts, in bytes.
const MaxFact = 1 << 20

// A Table is a kind of row. Numbers are stored: never reuse one.
type Table uint8

// The tables.
const (
	ClusterTable    Table = 1
	JobTable        Table = 2
	ConfigTable     Table = 3
	InstanceTable   Table = 4
	TaskTable       Table = 5
	MachineTable    Table = 6
	CredentialTable Table = 7
	SourceTable     Table = 8 // last fact taken in of each source
	QuotaTable      Table = 9
)

// A Row is one encoded row. A nil Value deletes it.
type Row struct {
	Table Table
	Key   string
	Value []byte
}

// A Batch is one commit: what the rows become and what happened. Records are
// numbered on from the last commit.
type Batch struct {
	Epoch   machine.Epoch
	Base    Rev // the revision it follows
	Rev     Rev
	At      unit.Tick
	Rows    []Row
	Ended   []task.Task // rows that leave the live state for the history
	Records []Record
}

// Empty reports whether there is nothing to commit.
func (b *Batch) Empty() bool { return len(b.Rows) == 0 && len(b.Records) == 0 && len(b.Ended) == 0 }

// A Delta is the set of keys that a batch changed, for engines.
type Delta struct {
	Jobs     map[job.Key]bool
	Slots    map[Slot]bool
	Tasks    map[task.ID]bool
	Machines map[machine.ID]bool
}
