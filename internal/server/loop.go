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
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/unit"
	"github.com/covey-platform/covey/internal/wall"
)

// Bounds of the loop.
const (
	maxQueue  = 4096 // what agents say that may wait for a turn; who comes then waits in line
	maxAsked  = 1024 // commands that may wait for a turn; who comes then waits in line for a moment
	maxComing = 1024 // agents that come and may wait for a turn; the same
	maxInputs = 2000 // taken into one turn
	maxHeld   = 1000 // held tasks that are shown
	leaseTTL  = 3 * time.Second
	renewal   = time.Second
	breath    = time.Second // after a commit that was refused
	inLine    = 2 * time.Second
	comeAgain = time.Second // after that
	// A loop that was not awake for so long has not heard its agents either. It
	// is well below the lease of an agent, and far above the pause between turns.
	stall = 4 * time.Second
	// While agents wait in line to be let in, all have more time, so often.
	crowdEvery = 5 * time.Second
)

// clusterStore is what the loop needs of a store.
type clusterStore interface {
	state.Store
	state.Lease
	// Size returns the room that it takes; see [store.SQLite.Size].
	Size(ctx context.Context) (store.Size, error)
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
	shared  sharedStore // the same, if other servers use it too; else nil
	log     *slog.Logger
	name    string        // of the cluster
	holder  string        // of the lease
	inputs  chan input    // what agents say, and what is done beside
	asked   chan input    // commands: they are taken first
	coming  chan input    // agents that come: they are taken next
	inLine  time.Duration // how long a request waits when the queue is full
	ended   chan struct{} // closed when no more turns are taken
	stats   *stats
	steady0 time.Time

	loop     *control.Loop
	clock    control.Clock
	due      time.Time               // the next turn at the latest
	sessions map[machine.ID]*session // of this term; touched by the loop's goroutine only

	leads    bool         // touched by the loop's goroutine only
	recovers bool         // likewise; what was logged last
	renewed  atomic.Int64 // the lease, on the steady clock; see keep
	held     *tenure      // of the lease, if other servers use the store too
	unsure   []unsure     // commits of which nobody knows whether they happened
	ring     ring
	witness  witness     // of a database that no other server uses
	crowded  atomic.Bool // agents wait in line to be let in, since the loop looked last
	excused  time.Time   // when it last gave all of them more time for that

	foreseen *control.Outlook // of a follower that may soon lead; nil: there is none
	until    unit.Tick        // the lease of who leads, as seen last
	moved    time.Time        // when that was seen to change

	tail      tail
	view      atomic.Pointer[rpc.View]
	mu        sync.Mutex
	published chan struct{}
}

func newLooper(cluster clusterStore, name, holder string, st *stats, log *slog.Logger) *looper {
	shared, _ := cluster.(sharedStore)
	return &looper{
		store: cluster, shared: shared, log: log, name: name, holder: holder, inputs: make(chan input, maxQueue), asked: make(chan input, maxAsked), coming: make(chan input, maxComing), held: &tenure{drop: func() {}}, inLine: inLine, ended: make(chan struct{}), stats: st,
		steady0: time.Now(), sessions: map[machine.ID]*session{}, published: make(chan struct{}),
	}
}

// steady is a clock that nobody sets.
func (l *looper) steady() unit.Tick { return unit.FromDuration(time.Since(l.steady0)) + 1 }

// begin takes the lease and reads the state: the start of a term. The lease is
// kept from then on: to read a large state may take longer than it lasts.
func (l *looper) begin(ctx context.Context) error {
	defer hush()()
	asked := l.steady()
	epoch, err := l.store.Acquire(ctx, l.holder)
	if err != nil {
		return err
	}
	l.renewed.Store(int64(asked))
	if l.shared != nil {
		l.hold(ctx, epoch)
	}
	snap, warm, err := l.newest(ctx)
	if err == nil {
		err = l.reign(ctx, snap, epoch, warm)
	}
	if err != nil {
		l.held.drop()
	}
	return err
}

// newest returns the state as it stands in the store. A server that followed
// has it already: then it is warm.
func (l *looper) newest(ctx context.Context) (snap *state.Snapshot, warm bool, err error) {
	if v := l.view.Load(); v != nil && v.Following != nil {
		if snap, err = l.advance(ctx, v.Snapshot); err == nil {
			return snap, true, nil
		}
		l.log.WarnContext(ctx, "the state is read again", "because", err)
	}
	snap, err = l.load(ctx)
	return snap, false, err
}

// reign begins a term at snap.
func (l *looper) reign(ctx context.Context, snap *state.Snapshot, epoch machine.Epoch, warm bool) error {
	if err := l.named(snap); err != nil {
		return err
	}
	l.endSessions()
	l.clock = control.Clock{}
	l.clock.Since(snap.At, l.steady())
	l.loop = l.outlook(snap).New(epoch, l.steady(), control.Defaults())
	l.foreseen = nil
	l.loop.Prove(unit.Tick(l.renewed.Load()))
	if l.shared == nil {
		if warm = l.witness.saw(snap); !warm {
			l.witness.forget()
		}
	}
	if warm {
		l.loop.Warm()
	}
	l.leads, l.recovers = true, false
	l.log.InfoContext(ctx, "this server leads", "cluster", l.name, "uid", snap.Cluster.UID, "epoch", epoch.String(), "rev", uint64(snap.Rev), "warm", warm)
	l.tail.reset(snap.Seq)
	l.settle(ctx, epoch)
	l.publish()
	if snap.Cluster.UID == "" {
		birth := control.Birth{Cluster: state.Cluster{Name: l.name, UID: rand.Text(), Incarnation: 1}}
		return l.turn(ctx, []input{{do: func(t *control.Turn) error { _, err := t.Do(birth); return err }, done: func(error) {}}})
	}
	return nil
}

// named refuses the database of another cluster.
func (l *looper) named(snap *state.Snapshot) error {
	if have := snap.Cluster.Name; have != "" && have != l.name {
		return fault.Conflict.Errorf("the database is that of cluster %s, not of %s; start with --cluster %s, or name another data directory or database", have, l.name, have)
	}
	return nil
}

// endSessions ends those of the last term.
func (l *looper) endSessions() {
	for _, s := range l.sessions {
		s.end()
	}
	l.sessions = map[machine.ID]*session{}
}

// errEnded is the answer to who asks a loop that takes no more turns.
var errEnded = fault.Unavailable.Errorf("the server ends; try again")

// run takes turns until ctx ends, or follows who does.
func (l *looper) run(ctx context.Context) error {
	defer l.endSessions()
	defer close(l.ended)
	for ctx.Err() == nil {
		step := l.follow
		if l.leads {
			step = l.term
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	l.leave(ctx)
	return nil
}

// term leads until the term ends: by a commit of which nobody knows the
// outcome, or because the lease is lost. Another one follows, or another leader.
func (l *looper) term(ctx context.Context) error {
	why := l.lead(ctx)
	select {
	case <-ctx.Done():
		return nil
	default:
	}
	if l.shared != nil {
		l.log.WarnContext(ctx, "the term ended; this server follows", "error", why)
		l.stepDown()
		return nil
	}
	l.log.ErrorContext(ctx, "the term ended; the state is read again", "error", why)
	return l.begin(ctx)
}

// lead takes turns until the term ends, and returns why.
func (l *looper) lead(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	// A commit is waited for also when the server is to end, but not when the
	// lease is lost: then it is another one's to find out.
	term, lose := context.WithCancel(context.WithoutCancel(ctx))
	defer lose()
	held := l.held
	defer held.drop()
	if l.shared != nil {
		go l.tend(ctx)
		go func() {
			<-held.over
			lose()
		}()
	}
	select {
	case <-held.over: // while the state was read
		return held.why
	default:
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	lastRenewal := time.Now()
	awake := time.Now()
	for {
		var batch []input
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-held.over:
			return held.why
		case in := <-l.asked:
			batch = l.gather(in)
		case in := <-l.coming:
			batch = l.gather(in)
		case in := <-l.inputs:
			batch = l.gather(in)
		case <-timer.C:
		}
		if err := l.fresh(); err != nil {
			refuse(batch, l.View())
			return err
		}
		slept := awake
		if awake = time.Now(); l.deaf(ctx, awake, awake.Sub(slept)) {
			l.loop.Excuse(l.steady())
		}
		if l.shared == nil && time.Since(lastRenewal) >= renewal {
			asked := l.steady()
			if err := l.store.Renew(ctx, l.holder, l.loopEpoch()); err == nil {
				l.renewed.Store(int64(asked))
			} else if ctx.Err() == nil {
				l.log.WarnContext(ctx, "the lease was not renewed", "error", err)
			}
			lastRenewal = time.Now()
		}
		l.loop.Prove(unit.Tick(l.renewed.Load()))
		if err := l.turn(term, batch); err != nil {
			return err
		}
		timer.Reset(l.pause())
	}
}

// deaf reports whether the loop cannot tell which agents are silent: it was not
// awake, or agents wait in line to be let in.
func (l *looper) deaf(ctx context.Context, now time.Time, slept time.Duration) bool {
	if slept > stall {
		l.log.WarnContext(ctx, "this server stood still, or has too much to do: it cannot tell which agents were silent, and gives all of them more time", "for", slept)
		return true
	}
	if now.Sub(l.excused) < crowdEvery || !l.crowded.Swap(false) {
		return false
	}
	l.excused = now
	return true
}

// gather takes what else waits into the same turn: commands first, so that
// nobody who asks waits behind ten thousand agents that come, or behind what
// they have to say.
func (l *looper) gather(first input) []input {
	batch := []input{first}
	for _, queue := range []chan input{l.asked, l.coming, l.inputs} {
		for more := true; more && len(batch) < maxInputs; {
			select {
			case in := <-queue:
				batch = append(batch, in)
			default:
				more = false
			}
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
	t := l.loop.Begin(l.clock.Read(unit.TickAt(wall.At(began)), steady), steady)
	t.Waiting(l.speaks)
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
		r := l.loop.Commit(t)
		l.vouch(ctx)
		l.deliver(r)
		l.publish()
		finish(kept, nil)
		return nil
	}
	switch fault.Of(err) {
	case fault.Timeout:
		l.unsure = append(l.unsure, unsure{b, kept, time.Now()})
		return err
	case fault.Conflict, fault.Internal:
		finish(kept, err)
		return err
	case fault.Unavailable:
		l.refused(kept, err)
	default:
		finish(kept, err)
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
	l.tellAvoided(r.Records)
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
		o := rpc.Orders{Epoch: l.loop.Epoch(), Rev: snap.Rev, UID: snap.Cluster.UID, Orders: send.Orders, Configs: configs(snap, send.Orders), Acks: send.Acks, Leased: send.Leased, Bye: send.Bye}
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

func (l *looper) loopEpoch() machine.Epoch { return l.loop.Lease() }

// ask gives something to the next turn and waits until it is durable. When the
// queue is full it waits in line, for as long as its caller does.
func (l *looper) ask(ctx context.Context, do func(*control.Turn) error) error {
	return l.enter(ctx, l.inputs, input{do: do}, nil)
}

// request is [looper.ask] for commands and for agents that come, which have
// queues of their own: one that stays full is an error of kind Exhausted that
// says when to come again, and nothing of it has happened.
func (l *looper) request(ctx context.Context, queue chan<- input, do func(*control.Turn) error) error {
	late := time.NewTimer(l.inLine)
	defer late.Stop()
	return l.enter(ctx, queue, input{do: do}, late.C)
}

func (l *looper) enter(ctx context.Context, queue chan<- input, in input, late <-chan time.Time) error {
	answer := make(chan error, 1)
	in.done = func(err error) { answer <- err }
	select {
	case queue <- in:
	case <-late:
		return rpc.Busy(comeAgain, "the server has too much to do: %d acts wait for their turn, and nothing of this one has happened; try again in a moment", cap(queue))
	case <-ctx.Done():
		return fault.Unavailable.Errorf("the server has too much to do: %w; try again", context.Cause(ctx))
	case <-l.ended:
		return errEnded
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fault.Timeout.Errorf("no answer from the loop: %w; look whether it happened", context.Cause(ctx))
	case <-l.ended:
		select {
		case err := <-answer: // from its last turn
			return err
		default:
			return fault.Timeout.Errorf("the server ends; look whether it happened")
		}
	}
}

func itoa(fd uintptr) string { return strconv.FormatUint(uint64(fd), 10) }
