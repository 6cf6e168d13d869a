// Package rpc is the wire: the only package that knows both the messages of
// api/ and the domain. [Handler] answers users and agents for a [Backend];
// [DialAgent] is the agent's end of it.
//
// It promises that every call passes one permission rule before anything is
// done for it, that nothing which is sent to it makes it panic or grow without
// bound, and that the kind of an error is the same on both ends.
package rpc

import (
	"context"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Wire is the version of the wire. Peers work together with the version before
// and after their own.
const Wire = 1 + format.Ahead

// A Backend is the cluster as the wire needs it. Its methods may be called by
// several goroutines at once, and return when their context ends.
type Backend interface {
	// View returns the cluster as of the last commit.
	View() View
	// Do carries out a command. It is durable when Do returns; the number is
	// that of the last record then.
	Do(ctx context.Context, c control.Command) (control.Answer, state.Seq, error)
	// Records returns up to limit records that follow after, in order; an error
	// of kind Compacted says that some of them are gone.
	Records(ctx context.Context, after state.Seq, limit int) ([]state.Record, error)
	// Published returns a channel that is closed at the next commit.
	Published() <-chan struct{}
	// History returns ended tasks, newest first.
	History(ctx context.Context, q state.HistoryQuery) ([]task.Task, error)
	// Attach lets an agent in, or says why not. From then on news is called
	// whenever Take of the session has something, also before Attach returns. It
	// returns at once.
	Attach(ctx context.Context, h control.Hello, news func()) (AgentSession, error)
	// Evaluate works out which job a bundle of files describes, in a child
	// process with limits. The first result is the cluster that its key names.
	Evaluate(ctx context.Context, b Bundle) (string, job.Job, error)
	// Bill returns what [from, to) cost; an error of kind Internal says that
	// the accounts of an hour do not add up.
	Bill(ctx context.Context, by ledger.By, from, to unit.Tick) (ledger.Statement, error)
	// Usage returns what was reserved and used in [from, to), one row for each
	// owner in order; their amounts of money are zero.
	Usage(ctx context.Context, by ledger.By, from, to unit.Tick) (rows []ledger.Row, platform ledger.Amounts, err error)
}

// A View is what a backend shows of one moment.
type View struct {
	Snapshot *state.Snapshot
	Waits    sched.Waits // why tasks wait
	Epoch    machine.Epoch
	Paused   string         // why rescheduling is paused; empty: it is not
	Holds    control.Holds  // what is not started yet
	Held     []control.Held // tasks that nobody knows and that are left alone; at most 1000
	// Servers are those of the cluster when several share its database.
	Servers   []Server
	Following *Following // nil: this server leads
}

// An AgentSession is the life of one agent at the backend.
type AgentSession interface {
	// Hear takes in a message. It reports whether the message prolonged the
	// machine's lease at a leader that surely leads. An error ends the session.
	Hear(ctx context.Context, m control.Message) (leased bool, err error)
	// Take returns what the machine must be told, all of it at once, if there is
	// some. over is true when the backend has ended the session: then there will
	// be no more.
	Take() (o Orders, some, over bool)
	// Close says that the connection is gone. It may be called again.
	Close()
}

// Orders is what a leader tells one machine.
type Orders struct {
	Epoch   machine.Epoch
	Rev     state.Rev
	UID     string // of the cluster
	Orders  []task.Order
	Configs map[job.Hash][]byte // encoded configs that the orders name
	Acks    map[string]uint64   // usage facts: source and last block that is durable
	Leased  uint64              // the message that prolonged the lease last, told before the orders; 0: none
	Bye     bool                // the agent's goodbye is durable: the session is over
}

// A Bundle is a configuration as a user sends it.
type Bundle struct {
	Key   string            `json:"key"`   // cluster/role/env/name: which of its jobs is meant
	Main  string            `json:"main"`  // the file that was named
	Files map[string][]byte `json:"files"` // every file, by the path under which it is included
	Binds []string          `json:"binds"` // such as profile.instances=3
	User  string            `json:"user"`  // for getpass
}

// What says what a [Question] is about.
type What string

// The questions.
const (
	List What = "list" // a folder of the sandbox
	Read What = "read" // a file of the sandbox
	Logs What = "logs" // which logs there are: entries named process/run/stream, with all bytes ever written as size
	Log  What = "log"  // a piece of one of them
)

// A Question is what the server asks an agent about a task's files.
type Question struct {
	Task   task.ID
	What   What
	Path   string // list and read: below the sandbox; log: process/run/stream
	Offset int64  // read and log: where to begin, in bytes; of a log, since its process started; negative: before the end
	Max    int64  // read and log: bytes at most; list: entries at most
}

// A LookAnswer is an agent's answer to a [Question].
type LookAnswer struct {
	Data    []byte      // read and log
	Entries []LookEntry // list and logs
	Offset  int64       // where Data begins; later than asked for when a log was rotated
	Next    int64       // where the next piece begins
	EOF     bool        // there is no more, now
}

// A LookEntry is one entry of a folder, or one log.
type LookEntry struct {
	Name     string
	Size     int64 // bytes
	Dir      bool
	Mode     string // as ls prints it
	Modified int64  // nanoseconds since the Unix epoch
}
