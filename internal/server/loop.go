package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// Bounds of the loop.
const (
	maxQueue  = 4096 // what may wait for a turn; who comes then waits in line
	maxInputs = 2000 // taken into one turn
	maxHeld   = 1000 // held tasks that are shown
	leaseTTL  = 10 * time.Second
	renewal   = time.Second
	breath    = time.Second // after a commit that was refused
	// A loop that was not awake for so long has not heard its agents either. It
	// is well below the lease of an agent, and far above the pause between turns.
	stall = 4 * time.Second
)

// clusterStore is what the loop needs of a store.
type clusterStore interface {
	state.Store
	state.Lease
}

// input is something for the next turn. done is called once: with what became
// of it when it is durable, or with why it is not.
type input struct {
	do   func(*control.Turn) error
	beat func(*control.Loop, unit.Tick) // instead of do: no turn is needed
	done func(error)
}

// looper takes the turns of one cluster.
type looper struct {
	store   clusterStore
	log     *slog.Logger
	name    string // of the cluster
	holder  string // of the lease
	inputs  chan input
	stats   *stats
	steady0 time.Time

	loop     *control.Loop
	clock    control.Clock
	due      time.Time               // the next turn at the latest
	sessions map[machine.ID]*session // of this term; touched by the loop's goroutine only

	tail      tail
	view      atomic.Pointer[rpc.View]
	mu        sync.Mutex
	published chan struct{}
}

func newLooper(store clusterStore, cluster string, st *stats, log *slog.Logger) *looper {
	return &looper{
		store: store, log: log, name: cluster, holder: "server-" + rand.Text()[:8], inputs: make(chan input, maxQueue), stats: st,
		steady0: time.Now(), sessions: map[machine.ID]*session{}, published: make(chan struct{}),
	}
}

// steady is a clock that nobody sets.
func (l *looper) steady() unit.Tick { return unit.FromDuration(time.Since(l.steady0)) + 1 }

// begin takes the lease and reads the state: the start of a term.
func (l *looper) begin(ctx context.Context) error {
	asked := l.steady()
	epoch, err := l.store.Acquire(ctx, l.holder)
	if err != nil {
		return err
	}
	var rows []state.Row
	head, err := l.store.Load(ctx, func(r state.Row) error { rows = append(rows, r); return nil })
	if err != nil {
		return err
	}
	snap, err := state.Restore(each(rows), head)
	if err != nil {
		return err
	}
	if have := snap.Cluster.Name; have != "" && have != l.name {
		return fault.Conflict.Errorf("the database is that of cluster %s, not of %s; start with --cluster %s, or name another data directory", have, l.name, have)
	}
	for _, s := range l.sessions {
		s.end()
	}
	l.sessions = map[machine.ID]*session{}
	l.clock = control.Clock{}
	l.clock.Since(snap.At, l.steady())
	l.loop = control.New(snap, epoch, l.steady(), control.Defaults())
	l.loop.Prove(asked)
	l.log.InfoContext(ctx, "this server leads", "cluster", l.name, "uid", snap.Cluster.UID, "epoch", epoch.String(), "rev", uint64(snap.Rev))
	l.tail.reset(snap.Seq)
	l.publish()
	if snap.Cluster.UID == "" {
		birth := control.Birth{Cluster: state.Cluster{Name: l.name, UID: rand.Text(), Incarnation: 1}}
		return l.turn(ctx, []input{{do: func(t *control.Turn) error { _, err := t.Do(birth); return err }, done: func(error) {}}})
	}
	return nil
}

// each yields rows that were read.
func each(rows []state.Row) func(func(state.Row) error) error {
	return func(yield func(state.Row) error) error {
		for _, r := range rows {
			if err := yield(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// run takes turns until ctx ends. A term that ends by a commit of which nobody
// knows the outcome is followed by another one.
func (l *looper) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	lastRenewal := time.Now()
	awake := time.Now()
	for {
		var batch []input
		select {
		case <-ctx.Done():
			return nil
		case in := <-l.inputs:
			batch = l.gather(in)
		case <-timer.C:
		}
		if d := time.Since(awake); d > stall {
			l.log.WarnContext(ctx, "this server stood still, or has too much to do: it cannot tell which agents were silent, and gives all of them more time", "for", d)
			l.loop.Excuse(l.steady())
		}
		awake = time.Now()
		if time.Since(lastRenewal) >= renewal {
			asked := l.steady()
			if err := l.store.Renew(ctx, l.holder, l.loopEpoch()); err == nil {
				l.loop.Prove(asked)
			} else if ctx.Err() == nil {
				l.log.WarnContext(ctx, "the lease was not renewed", "error", err)
			}
			lastRenewal = time.Now()
		}
		if err := l.turn(ctx, batch); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			l.log.ErrorContext(ctx, "the term ended; the state is read again", "error", err)
			if err := l.begin(ctx); err != nil {
				return err
			}
		}
		timer.Reset(l.pause())
	}
}

// gather takes what else waits into the same turn.
func (l *looper) gather(first input) []input {
	batch := []input{first}
	for len(batch) < maxInputs {
		select {
		case in := <-l.inputs:
			batch = append(batch, in)
		default:
			return batch
		}
	}
	return batch
}

// turn takes one turn. An error ends the term.
func (l *looper) turn(ctx context.Context, batch []input) error {
	steady := l.steady()
	work := batch[:0:0]
	for _, in := range batch {
		if in.beat != nil {
			in.beat(l.loop, steady)
			continue
		}
		work = append(work, in)
	}
	if len(work) == 0 && len(batch) > 0 {
		return nil
	}
	began := time.Now()
	t := l.loop.Begin(l.clock.Read(unit.TickAt(began), steady), steady)
	kept := work[:0]
	for _, in := range work {
		if err := in.do(t); err != nil {
			in.done(err)
			continue
		}
		kept = append(kept, in)
	}
	b, err := t.End()
	if err == nil && !b.Empty() {
		err = l.store.Commit(ctx, b)
		l.stats.committed(b, time.Since(began), err)
	}
	if err == nil {
		l.tail.add(b.Records)
		l.deliver(l.loop.Commit(t))
		l.publish()
		finish(kept, nil)
		return nil
	}
	finish(kept, err)
	if k := fault.Of(err); k == fault.Timeout || k == fault.Conflict || k == fault.Internal {
		return err
	}
	l.log.WarnContext(ctx, "a commit was refused; nothing of it happened", "error", err)
	l.loop.Abort(t)
	for id, s := range l.sessions {
		s.end()
		delete(l.sessions, id)
	}
	select { // the disk is full, or the like: another try at once would not help
	case <-ctx.Done():
	case <-time.After(breath):
	}
	return nil
}

func finish(batch []input, err error) {
	for _, in := range batch {
		in.done(err)
	}
}

// deliver hands a committed turn's orders to the sessions.
func (l *looper) deliver(r control.Result) {
	bye := map[machine.ID]bool{}
	for _, send := range r.Sends {
		bye[send.Machine] = send.Bye
	}
	for _, id := range r.Drop {
		if s := l.sessions[id]; s != nil && !bye[id] {
			s.end()
			delete(l.sessions, id)
		}
	}
	snap := l.loop.Snapshot()
	for _, send := range r.Sends {
		s := l.sessions[send.Machine]
		if s == nil {
			continue
		}
		o := rpc.Orders{Epoch: l.loop.Epoch(), Rev: snap.Rev, UID: snap.Cluster.UID, Orders: send.Orders, Configs: s.configs(snap, send.Orders), Acks: send.Acks, Bye: send.Bye}
		if !s.put(o) {
			l.log.Warn("an agent does not take its orders; its session ends", "machine", string(send.Machine))
			s.end()
			delete(l.sessions, send.Machine)
		} else if send.Bye {
			s.end() // with this as its last word
			delete(l.sessions, send.Machine)
		}
	}
	l.stats.turn(r)
	l.next(r)
}

// next remembers when the loop wants another turn though nothing is said.
func (l *looper) next(r control.Result) {
	now := time.Now()
	l.due = now.Add(renewal) // at the latest, for the lease
	sooner := func(d time.Duration) {
		if at := now.Add(max(0, d)); at.Before(l.due) {
			l.due = at
		}
	}
	if r.Next != 0 {
		sooner((r.Next - l.clock.Told()).Duration())
	}
	if r.Steady != 0 {
		sooner((r.Steady - l.steady()).Duration())
	}
	if r.Busy {
		sooner(0)
	}
}

// pause is how long nothing needs to be done. It does not begin anew with
// every input: what is due stays due.
func (l *looper) pause() time.Duration { return max(time.Until(l.due), time.Millisecond) }

// publish shows the committed state to readers.
func (l *looper) publish() {
	l.view.Store(&rpc.View{
		Snapshot: l.loop.Snapshot(), Waits: l.loop.Waits(), Epoch: l.loop.Epoch(), Paused: l.loop.Paused(), Held: l.loop.Held(maxHeld),
	})
	l.mu.Lock()
	close(l.published)
	l.published = make(chan struct{})
	l.mu.Unlock()
}

func (l *looper) loopEpoch() machine.Epoch { return l.loop.Lease() }

// ask gives something to the next turn and waits until it is durable.
func (l *looper) ask(ctx context.Context, do func(*control.Turn) error) error {
	answer := make(chan error, 1)
	in := input{do: do, done: func(err error) { answer <- err }}
	select {
	case l.inputs <- in:
	case <-ctx.Done():
		return fault.Unavailable.Errorf("the server has too much to do: %w; try again", context.Cause(ctx))
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fault.Timeout.Errorf("no answer from the loop: %w; look whether it happened", context.Cause(ctx))
	}
}

func itoa(fd uintptr) string { return strconv.FormatUint(uint64(fd), 10) }
