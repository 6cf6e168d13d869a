package server

import (
	"context"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/unit"
)

// sharedStore is a store that several servers use at once.
type sharedStore interface {
	clusterStore
	// Steps returns commits that follow a head; see [store.Postgres.Steps].
	Steps(ctx context.Context, after state.Head) ([]store.Step, error)
	// Head returns where the store stands.
	Head(ctx context.Context) (state.Head, error)
	// Leader returns who leads now; its holder is empty when anybody may.
	Leader(ctx context.Context) (state.Term, error)
	// Announce says that a server lives, and returns all that do.
	Announce(ctx context.Context, me store.Member) ([]store.Member, error)
	// Leave says that a server ends.
	Leave(ctx context.Context, name string) error
	// TrimFeed forgets steps that nobody needs any more.
	TrimFeed(ctx context.Context) error
}

// Bounds of following.
const (
	lookEvery    = 100 * time.Millisecond // a follower looks for commits, and whether somebody leads
	lookDeadline = 5 * time.Second
	feedEvery    = 10 * time.Second // the leader trims the feed
	settling     = 2 * renewal      // by then the leader knows that it is followed
	doubt        = 2 * renewal      // a leader that has not renewed its lease for so long may be gone
)

// View returns the cluster as this server knows it.
func (l *looper) View() rpc.View { return *l.view.Load() }

// start makes the first view: as the leader, or as one that follows it.
func (l *looper) start(ctx context.Context) error {
	if l.shared == nil {
		return l.begin(ctx)
	}
	if err := l.ring.announce(ctx, l.shared); err != nil {
		return err
	}
	term, err := l.shared.Leader(ctx)
	if err != nil {
		return err
	}
	if term.Holder == "" {
		if err = l.begin(ctx); fault.Of(err) != fault.Conflict || l.leads {
			return err
		}
		l.log.InfoContext(ctx, "another server was faster", "error", err)
	}
	select { // from then on every commit is in the feed
	case <-ctx.Done():
	case <-time.After(settling):
	}
	snap, err := l.load(ctx)
	if err == nil {
		err = l.named(snap)
	}
	if err != nil {
		return err
	}
	l.heed(snap, term, time.Now())
	l.log.InfoContext(ctx, "this server follows", "cluster", l.name, "leader", term.Holder, "rev", uint64(snap.Rev))
	return nil
}

// heed shows what a follower knows: snap was the newest at since.
func (l *looper) heed(snap *state.Snapshot, term state.Term, since time.Time) {
	old := l.view.Load()
	v := &rpc.View{
		Snapshot: snap, Epoch: machine.Epoch{Incarnation: max(snap.Cluster.Incarnation, 1), N: term.Epoch.N},
		Servers: l.ring.servers(term.Holder), Following: &rpc.Following{Since: since},
	}
	l.tail.reset(snap.Seq)
	if old != nil && old.Following != nil && old.Snapshot == snap && old.Epoch == v.Epoch && sameServers(old.Servers, v.Servers) {
		l.view.Store(v) // nobody waits for that
		return
	}
	l.show(v)
}

func sameServers(a, b []rpc.Server) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// follow keeps the view as new as it can be, until this server leads or ctx
// ends. What it cannot do it says: the database may come back.
func (l *looper) follow(ctx context.Context) error {
	var failing time.Time // when that was logged; zero: it is not
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := l.look(ctx)
		l.giveUp()
		switch {
		case l.leads, ctx.Err() != nil:
			return nil
		case fault.Of(err) == fault.Invalid:
			return err
		case err != nil && time.Since(failing) > time.Minute:
			failing = time.Now()
			l.log.WarnContext(ctx, "what this server shows grows old", "error", err)
		case err == nil && !failing.IsZero():
			failing = time.Time{}
			l.log.InfoContext(ctx, "this server is up to date again")
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil
			case in := <-l.asked:
				refuse(l.gather(in), l.View())
			case in := <-l.coming:
				refuse(l.gather(in), l.View())
			case in := <-l.inputs:
				refuse(l.gather(in), l.View())
			case <-tick.C:
				waiting = false
			}
		}
	}
}

// look takes in what the leader has committed, and takes the lead when nobody
// has it.
func (l *looper) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookDeadline)
	defer cancel()
	if err := l.ring.announce(ctx, l.shared); err != nil {
		return err
	}
	term, err := l.shared.Leader(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if term.Holder == "" || term.Holder == l.holder {
		if err = l.begin(context.WithoutCancel(ctx)); fault.Of(err) != fault.Conflict || l.leads {
			return err
		}
		return nil // another one was faster
	}
	snap, err := l.advance(ctx, l.View().Snapshot)
	if fault.Of(err) == fault.Compacted {
		l.log.InfoContext(ctx, "this server fell behind and reads everything again", "error", err)
		long, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		snap, err = l.load(long)
	}
	if err != nil {
		return err
	}
	l.heed(snap, term, began)
	l.settle(ctx, term.Epoch)
	l.foresee(snap, term, time.Now())
	return nil
}

// foresee gets ready to lead while the lease of who led runs out: to work out
// of a large cluster what a leader needs takes about as long as that. It does so
// once, although the leader may yet go on to commit.
func (l *looper) foresee(snap *state.Snapshot, term state.Term, now time.Time) {
	switch {
	case term.Until != l.until:
		l.until, l.moved, l.foreseen = term.Until, now, nil
	case now.Sub(l.moved) < doubt, l.foreseen != nil:
	default:
		o := control.Foresee(snap)
		beside(o.Parts())
		l.foreseen = o
	}
}

// advance returns snap with every commit that followed it.
func (l *looper) advance(ctx context.Context, snap *state.Snapshot) (*state.Snapshot, error) {
	for {
		steps, err := l.shared.Steps(ctx, state.Head{Rev: snap.Rev, Seq: snap.Seq, At: snap.At})
		if err != nil || len(steps) == 0 {
			return snap, err
		}
		for _, s := range steps {
			if snap, err = snap.Follow(s.Rows, s.Head); err != nil {
				return nil, err
			}
		}
	}
}

// refuse answers what only a leader can do.
func refuse(batch []input, v rpc.View) {
	err := v.Elsewhere()
	for _, in := range batch {
		in.done(err)
	}
}

// refused answers who asked for what did not happen, because the database is
// not reached: another server may reach it.
func (l *looper) refused(batch []input, err error) {
	if l.shared != nil {
		err = rpc.View{}.Elsewhere()
	}
	finish(batch, err)
}

// stepDown makes a leader a follower. What its machines were told stands.
func (l *looper) stepDown() {
	v := l.View()
	l.leads = false
	l.endSessions()
	since := time.Now().Add(-(l.steady() - unit.Tick(l.renewed.Load())).Duration()) // when it led for certain
	l.heed(l.loop.Snapshot(), state.Term{Epoch: v.Epoch}, since)
	l.loop = nil
}

// tenure is the time in which a lease is kept.
type tenure struct {
	over chan struct{} // closed when it is kept no more; nil: it needs no keeping
	why  error         // of over
	drop func()        // ends it
}

// hold begins to keep the lease of a term.
func (l *looper) hold(ctx context.Context, epoch machine.Epoch) {
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	t := &tenure{over: make(chan struct{}), drop: end}
	l.held = t
	go func() {
		defer end()
		t.why = l.keep(ctx, epoch)
		close(t.over)
	}()
}

// keep prolongs the lease until ctx ends, beside the turns, which may take
// long. It returns why it is lost. Nothing else waits for the database here, and
// a renewal that hangs does not hold up the next one, on a connection of its own.
func (l *looper) keep(ctx context.Context, epoch machine.Epoch) error {
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	lost := make(chan error, 1)
	for {
		go l.renew(ctx, epoch, lost)
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			return err
		case <-time.After(leaseTTL - l.unrenewed()):
		case <-tick.C:
		}
		if err := l.fresh(); err != nil {
			return err
		}
	}
}

// renew prolongs the lease once, and tells lost when another server has it.
func (l *looper) renew(ctx context.Context, epoch machine.Epoch, lost chan<- error) {
	asked, began := l.steady(), time.Now()
	try, cancel := context.WithTimeout(ctx, leaseTTL)
	defer cancel()
	err := l.shared.Renew(try, l.holder, epoch)
	switch took := time.Since(began); {
	case err == nil:
		for was := l.renewed.Load(); was < int64(asked) && !l.renewed.CompareAndSwap(was, int64(asked)); was = l.renewed.Load() {
		}
		if took > renewal {
			l.log.WarnContext(ctx, "the database took long to renew the lease", "took", took, "limit", leaseTTL)
		}
	case ctx.Err() != nil:
	case fault.Of(err) == fault.Conflict:
		select {
		case lost <- err:
		default:
		}
	default:
		l.log.WarnContext(ctx, "the lease was not renewed", "error", err)
	}
}

// tend does what a leader owes the servers that follow, until ctx ends.
func (l *looper) tend(ctx context.Context) {
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	trimmed := time.Now()
	for {
		if err := l.ring.announce(ctx, l.shared); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "the other servers are not known", "error", err)
		}
		if time.Since(trimmed) > feedEvery {
			if err := l.shared.TrimFeed(ctx); err != nil && ctx.Err() == nil {
				l.log.WarnContext(ctx, "the feed was not trimmed", "error", err)
			}
			trimmed = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// fresh reports why this server may not act: its lease may have run out while
// it stood still or the database was silent, and another one may lead.
func (l *looper) fresh() error {
	if l.shared == nil {
		return nil
	}
	if d := l.unrenewed(); d >= leaseTTL {
		return fault.Conflict.Errorf("the lease was renewed %v ago, and lasts %v: another server may lead", d.Round(time.Millisecond), leaseTTL)
	}
	return nil
}

// unrenewed is how long ago the lease was renewed.
func (l *looper) unrenewed() time.Duration {
	return (l.steady() - unit.Tick(l.renewed.Load())).Duration()
}

// leave gives the lease up, so that another server leads at once.
func (l *looper) leave(ctx context.Context) {
	if l.shared == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewal)
	defer cancel()
	if l.leads {
		if err := l.shared.Release(ctx, l.holder, l.loopEpoch()); err != nil {
			l.log.WarnContext(ctx, "the lease was not given up; another server leads when it has run out", "error", err)
		}
	}
	if err := l.shared.Leave(ctx, l.holder); err != nil {
		l.log.DebugContext(ctx, "this server did not take its leave", "error", err)
	}
}

// unsure is a commit of which nobody knows whether it happened, and who asks.
type unsure struct {
	batch *state.Batch
	asked []input
	since time.Time
}

// unsureLimit is how long who asks waits for the database to come back.
const unsureLimit = 5 * time.Second

// giveUp answers who has waited for long what became of a commit: nobody knows.
func (l *looper) giveUp() {
	for len(l.unsure) > 0 && time.Since(l.unsure[0].since) > unsureLimit {
		finish(l.unsure[0].asked, errUnsure)
		l.unsure = l.unsure[1:]
	}
}

var errUnsure = fault.Timeout.Errorf("the connection to the database broke in the middle of it; look whether it happened")

// settle finds out what became of commits of terms before epoch: from now on
// they cannot happen any more.
func (l *looper) settle(ctx context.Context, epoch machine.Epoch) {
	var later []unsure
	for _, u := range l.unsure {
		if u.batch.Epoch.Compare(epoch) >= 0 {
			later = append(later, u)
			continue
		}
		finish(u.asked, l.outcome(ctx, u.batch))
	}
	l.unsure = later
}

// outcome looks for the first record of a batch. A commit has records, or
// changes nothing that somebody asked for.
func (l *looper) outcome(ctx context.Context, b *state.Batch) error {
	if len(b.Records) == 0 {
		return errUnsure
	}
	got, err := l.store.Records(ctx, b.Records[0].Seq-1, 1)
	switch {
	case err != nil && fault.Of(err) != fault.Compacted:
		return fault.Timeout.Errorf("the connection to the database broke in the middle of it: %w; look whether it happened", err)
	case len(got) == 1 && got[0].At == b.At:
		return nil
	default:
		return fault.Unavailable.Errorf("the connection to the database broke, and it did not happen; try again")
	}
}
