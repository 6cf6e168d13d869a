package agentd

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
	"github.com/covey-platform/covey/internal/wall"
)

// How often things are done that nothing else brings about.
const (
	pulse       = time.Second
	sampleEvery = 5 * time.Second
	fullEvery   = 30 * time.Second
	gcEvery     = time.Minute
	roomEvery   = 5 * time.Second // between two looks whether the disk has room for what was promised
	factsAtOnce = 20
	ackPatience = 10 * time.Second // then facts are sent again
)

// daemon is a running agent. Its fields belong to the goroutine of its loop.
type daemon struct {
	cfg     Config
	log     *slog.Logger
	id      identity
	missing string // a guarantee that this machine cannot give; empty: none
	oldCopy bool   // the data directory is one of itself
	witness *witness
	leaving atomic.Bool // the agent ends and takes no new tasks
	depart  departure
	rt      *runtime.Runtime
	mind    *agent.Agent
	journal *journal
	book    *book
	hands   *hands
	lease   *lease
	self    machine.Machine // but for what changes: see describe
	over    *overhead
	keeps   atomic.Pointer[unit.Resources]   // what is kept back, for who says hello
	measure func() (runtime.Overhead, error) // what the agent and the supervisors take
	retell  bool                             // the leader is to hear of the machine anew
	began   time.Time
	servers func() []string // of the cluster, as far as they are known

	session  *link
	n        uint64 // orders taken in this session
	live     map[task.ID]runtime.Status
	starting map[task.ID]bool // that the hands were told to start, and nothing is known of yet
	going    map[task.ID]bool // told to be put away, and perhaps still there
	sent     time.Time        // when facts were sent last; zero: none are under way

	sampled, full time.Time

	seen  atomic.Pointer[agent.Seen] // what the mind has seen, for who says hello
	since atomic.Pointer[agent.Seen] // the same of how far back it remembers
}

// Run runs an agent until ctx ends. The tasks run on.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	l, err := lock(cfg.DataDir)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the lock ends with the file
	id, err := identify(ctx, cfg)
	if err != nil {
		return err
	}
	d := &daemon{cfg: cfg, log: cfg.Log.With("machine", cfg.Machine), id: id, live: map[task.ID]runtime.Status{}, starting: map[task.ID]bool{}, going: map[task.ID]bool{}}
	var seen agent.Seen
	if d.witness, seen, d.missing, err = openWitness(runDir(), id.UID, cfg.Machine); err != nil {
		return err
	}
	defer d.witness.close()
	if d.id.Seen = later(id.Seen, seen); d.id.Seen != id.Seen {
		d.oldCopy = true
		d.log.WarnContext(ctx, "this data directory is an old copy: the machine has obeyed a later term or revision than it knows", "known", id.Seen.Epoch.String(), "obeyed", seen.Epoch.String())
	}
	if d.journal, err = openJournal(cfg.DataDir, cfg.Machine); err != nil {
		return err
	}
	if d.book, err = openBook(filepath.Join(cfg.DataDir, "orders")); err != nil {
		return err
	}
	d.rt, err = runtime.New(runtime.Config{
		Dir: filepath.Join(cfg.DataDir, "tasks"), Self: cfg.Self, CgroupRoot: "/covey/" + id.UID + "/" + cfg.Machine,
		Hide: append([]string{cfg.DataDir}, cfg.Hide...), Reduced: cfg.Reduced, Spare: true, Keep: cfg.keepEnded(), Log: d.log,
	})
	if err != nil {
		return err
	}
	defer d.rt.Close()
	return d.start(ctx)
}

func (d *daemon) start(ctx context.Context) error {
	missing := d.rt.Abilities()
	if d.missing != "" {
		missing = append(missing, d.missing)
	}
	for _, s := range missing {
		d.log.WarnContext(ctx, "this machine cannot give a guarantee", "missing", s)
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	d.self = d.cfg.describe(boot, missing)
	d.over, d.measure, d.began = newOverhead(d.cfg, d.id.Kept, boot), d.rt.Overhead, time.Now()
	keeps := d.over.resources()
	d.keeps.Store(&keeps)
	d.weigh(ctx, d.began)
	d.mind = agent.New(d.id.UID, d.id.Seen, d.recall(boot))
	seen := d.id.Seen
	d.seen.Store(&seen)
	since := d.mind.Since()
	d.since.Store(&since)
	found, err := d.rt.List(ctx)
	if err != nil {
		return err
	}
	d.log.InfoContext(ctx, "agent starts", "server", d.cfg.Server, "cluster", d.id.Cluster, "uid", d.id.UID, "tasks", len(found))
	d.lease = newLease()
	d.cfg.renewed = d.lease.renewed
	client, err := d.cfg.dial(d.id)
	if err != nil {
		return err
	}
	defer client.Close()
	d.servers = client.Servers
	g, ctx := errgroup.WithContext(ctx)
	d.hands = newHands(d.rt, d.log)
	g.Go(func() error { return d.hands.run(ctx) })
	g.Go(func() error { return d.renew(ctx, client) })
	g.Go(func() error { return d.lease.run(ctx, d.rt) })
	links := make(chan event, 64)
	g.Go(func() error { return connect(ctx, client, d.hello, links, d.log) })
	g.Go(func() error { return look(ctx, client, machine.ID(d.cfg.Machine), d.rt, d.log) })
	g.Go(func() error { return d.collect(ctx) })
	statuses := d.rt.Watch(ctx)
	shown := make(map[task.ID]bool, len(found))
	for _, s := range found {
		shown[s.ID] = true
	}
	d.journal.keepOnly(shown)
	for _, s := range found {
		d.see(s)
	}
	d.seeGone(shown)
	g.Go(func() error { return d.loop(ctx, statuses, links) })
	return g.Wait()
}

// hello is what a new session begins with. What this machine has obeyed tells
// a leader whose database is an old copy that it is one. It is called by the
// goroutine of the connection.
func (d *daemon) hello() control.Hello {
	return control.Hello{UID: d.id.UID, Machine: d.describe(), Seen: obeyed(d.seen.Load()), Since: obeyed(d.since.Load())}
}

// describe returns the machine as it is now. Any goroutine may call it.
func (d *daemon) describe() machine.Machine {
	self := d.self
	self.Overhead, self.Leaving = *d.keeps.Load(), d.leaving.Load()
	return self
}

// loop is the one goroutine that thinks.
func (d *daemon) loop(ctx context.Context, statuses <-chan runtime.Status, links <-chan event) error {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	stop, kill := d.cfg.StopTasks, d.cfg.KillTasks
	for !d.departed() {
		select {
		case <-ctx.Done():
			return nil
		case <-stop:
			stop = nil
			d.leave()
		case <-kill:
			kill = nil
			d.hurry()
		case <-d.depart.late:
			return d.late(ctx)
		case s, ok := <-statuses:
			if !ok {
				return nil
			}
			d.see(s)
			d.drain(statuses)
			d.say(false)
		case e := <-links:
			d.linked(e)
		case f := <-d.hands.failed:
			d.refused(f)
			d.say(false)
		case now := <-tick.C:
			d.pulse(ctx, now)
		}
	}
	return errStopped
}

// drain takes in what else has been seen, so that it goes into one message.
func (d *daemon) drain(statuses <-chan runtime.Status) {
	for range 1000 {
		select {
		case s, ok := <-statuses:
			if !ok {
				return
			}
			d.see(s)
		default:
			return
		}
	}
}

// see takes in what the machine shows of a task.
func (d *daemon) see(s runtime.Status) {
	x := d.book.sighting(s.ID)
	x.State, x.Reason, x.Orphan = s.State, s.Reason, s.Orphan
	if s.Orphan && x.Resources == (unit.Resources{}) {
		x.Resources = s.Holds
	}
	delete(d.starting, s.ID)
	if s.Orphan && !s.Ended {
		d.journal.resume(s.ID, unit.TickAt(wall.Now()), s.CPUNanos)
	}
	if s.Ended {
		d.ended(s)
		if s.State == task.Killed && s.Reason == shutdownReason {
			x.State = task.Lost // nobody's failure: it is started again
		}
		delete(d.live, s.ID)
	} else {
		d.live[s.ID] = s
	}
	d.mind.See(x)
}

// say tells the leader what is news, or everything.
func (d *daemon) say(full bool) {
	if d.session == nil {
		return
	}
	m := control.Message{Full: full, Sightings: d.mind.Report(full), Obeyed: state.Rev(d.mind.Seen().Rev)}
	if full || d.retell {
		self := d.describe()
		m.Machine, d.retell = &self, false
	}
	if full {
		d.full = time.Now()
	}
	if d.sent.IsZero() || time.Since(d.sent) > ackPatience {
		if m.Facts = d.journal.waiting(factsAtOnce); len(m.Facts) > 0 {
			d.sent = time.Now()
		}
	}
	if len(m.Sightings) == 0 && len(m.Facts) == 0 && m.Machine == nil {
		return
	}
	if !d.session.put(m) {
		d.log.Warn("the server takes nothing in; the session ends")
		d.session.close()
	}
}

// linked takes in what a session brings.
func (d *daemon) linked(e event) {
	switch {
	case e.up != nil:
		d.session, d.n, d.sent, d.depart.bye = e.up, 0, time.Time{}, false
		d.mind.Open()
		d.log.Info("the leader let this machine in", "epoch", e.up.peer.Orders.Epoch.String(), "server", e.up.peer.Version)
		d.remember(d.servers())
		d.obey(e.up.peer.Orders)
		d.say(true)
	case e.down != nil:
		if d.session == e.down {
			d.session = nil
		}
	case d.session == e.from:
		d.obey(e.orders)
		d.depart.over = d.depart.over || e.orders.Bye
	}
}

// remember writes down where the cluster's servers are, so that the next agent
// finds one of them.
func (d *daemon) remember(servers []string) {
	if slices.Equal(servers, d.id.Servers) || len(servers) < 2 {
		return
	}
	d.id.Servers = servers
	if err := d.id.write(d.cfg.DataDir, false); err != nil {
		d.log.Error("the cluster's servers could not be written down", "error", err)
	}
}

// obey carries orders out.
func (d *daemon) obey(o rpc.Orders) {
	configs := make(map[job.Hash]job.Config, len(o.Configs))
	for h, text := range o.Configs {
		c, err := job.Decode(text)
		if err != nil || job.HashOf(text) != h {
			d.log.Error("a config that the leader sent is damaged", "hash", h.String())
			continue
		}
		configs[h] = c
	}
	d.n++
	before := d.mind.Seen()
	deeds, err := d.mind.Obey(agent.Orders{UID: o.UID, Epoch: o.Epoch, Rev: uint64(o.Rev), N: d.n, Orders: o.Orders})
	if err != nil {
		d.log.Warn("orders were refused", "error", err)
		d.session.close()
		return
	}
	if seen := d.mind.Seen(); seen != before {
		d.id.Seen = seen
		d.seen.Store(&seen)
		if err := d.id.write(d.cfg.DataDir, seen.Epoch != before.Epoch); err != nil {
			d.log.Error("the leader's term could not be written down", "error", err)
		}
		if err := d.witness.note(seen); err != nil {
			d.log.Error("the leader's term could not be written down outside the data directory", "error", err)
		}
	}
	d.reach()
	for _, x := range deeds {
		d.do(x, o.Orders, configs)
	}
	if err := d.journal.acked(o.Acks); err != nil {
		d.log.Error("the usage journal", "error", err)
	}
	if len(o.Acks) > 0 {
		d.sent = time.Time{}
	}
	d.say(false)
}

func (d *daemon) do(x agent.Deed, orders []task.Order, configs map[job.Hash]job.Config) {
	switch x.Verb {
	case task.Run:
		if d.leaving.Load() {
			d.refused(failure{id: x.ID, state: task.Lost, why: leavingReason})
			return
		}
		cfg, ok := configs[x.Config]
		if !ok || len(cfg.Task.Ports) > len(x.Ports) {
			d.refused(failure{id: x.ID, state: task.Lost, why: "refused: its config did not arrive"})
			return
		}
		until, ok := d.bound(cfg)
		if !ok {
			d.refused(failure{id: x.ID, state: task.Lost, why: noLease})
			return
		}
		s := task.Sighting{ID: x.ID, Config: x.Config, Ports: x.Ports, GPUs: x.GPUs, State: task.Starting}
		for _, o := range orders {
			if o.ID == x.ID {
				s.Resources = o.Resources
			}
		}
		if err := d.book.note(s); err != nil {
			d.refused(failure{id: x.ID, state: task.Lost, why: "refused: " + err.Error()})
			return
		}
		d.mind.See(s)
		if _, runs := d.live[x.ID]; !runs {
			d.starting[x.ID] = true
		}
		d.hands.start(runtime.Spec{ID: x.ID, ClusterUID: d.id.UID, Config: cfg, Ports: named(cfg, x.Ports), GPUs: x.GPUs, Hostname: d.self.Host}, until)
	case task.Stop:
		d.hands.stop(x.ID, x.Reason)
	case task.Forget:
		d.hands.forget(x.ID)
		d.book.forget(x.ID)
		d.going[x.ID] = true
	}
}

const noLease = "refused: it is exclusive, and the leader has not acknowledged this machine lately"

// bound returns what gives the end of an exclusive task's lease when it is
// about to start, which may be later; false when it may not be started.
func (d *daemon) bound(cfg job.Config) (until func() (time.Duration, bool), ok bool) {
	if !cfg.Exclusive {
		return func() (time.Duration, bool) { return 0, true }, true
	}
	g, ok := d.lease.grant()
	return func() (time.Duration, bool) { return d.lease.extend(g) }, ok
}

func named(cfg job.Config, ports []uint16) map[string]uint16 {
	out := make(map[string]uint16, len(cfg.Task.Ports))
	for i, p := range cfg.Task.Ports {
		out[p] = ports[i]
	}
	return out
}

// refused tells the leader that a task was never started, or could not be.
func (d *daemon) refused(f failure) {
	x := d.book.sighting(f.id)
	x.State, x.Reason = f.state, f.why
	delete(d.starting, f.id)
	d.mind.See(x)
}

// pulse does what only time brings about.
func (d *daemon) pulse(ctx context.Context, now time.Time) {
	if now.Sub(d.sampled) >= sampleEvery || d.hourTurned(now) {
		d.sample(now)
		d.weigh(ctx, now)
	}
	switch {
	case now.Sub(d.full) >= fullEvery:
		d.putAway(ctx)
		d.say(true)
	case len(d.journal.kept.Blocks) > 0, d.retell:
		d.say(false)
	}
}

// putAway lets the journal drop tasks that the machine will not show again.
func (d *daemon) putAway(ctx context.Context) {
	found, err := d.rt.List(ctx)
	if err != nil {
		return // the next time
	}
	shown := make(map[task.ID]bool, len(found))
	for _, s := range found {
		shown[s.ID] = true
	}
	for id := range d.going {
		if !shown[id] {
			d.journal.drop(id)
			delete(d.going, id)
		}
	}
}

// collect removes old sandboxes, and others when the disk is short of room.
func (d *daemon) collect(ctx context.Context) error {
	var all time.Time // when all were looked at last
	for {
		now, remove := time.Now(), d.rt.MakeRoom
		if now.Sub(all) >= gcEvery {
			all, remove = now, d.rt.GC
		}
		if _, err := remove(ctx, now); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "old sandboxes were not removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(roomEvery):
		}
	}
}

// facts of the past hour are cut at its end, and by an agent that has just
// started: it does not know whether an hour ended before.
func (d *daemon) hourTurned(now time.Time) bool {
	return d.sampled.IsZero() || unit.TickAt(wall.At(now)).FloorHour() != unit.TickAt(wall.At(d.sampled)).FloorHour()
}
