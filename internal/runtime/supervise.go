package runtime

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

// An Env is what main hands to [SuperviseMain].
type Env struct {
	Args   []string // after the name of the program and of the command
	Stderr *os.File
}

// The descriptors that a supervisor is started with.
const (
	listenerFD = 3
	lockFD     = 4
)

// SuperviseMain runs one task from its start to its end. Its only argument is
// the task's directory; what to run stands in there, never on a command line.
// A supervisor that is started in advance gets no directory but is given one.
// It returns the exit code of the program.
func SuperviseMain(env Env) int {
	log := slog.New(slog.NewTextHandler(env.Stderr, nil))
	if len(env.Args) != 1 {
		log.Error("supervisor: want one argument, the directory of a task")
		return 2
	}
	inside.Shrug(unix.SIGTERM, unix.SIGINT, unix.SIGHUP) // meant for the agent; a task is stopped by name
	_ = os.Chdir("/")
	unix.Umask(0o022)
	t, err := takeTask(env.Args[0])
	if errors.Is(err, errSpared) {
		return 0
	}
	if err != nil {
		log.Error("supervisor cannot start", "error", err)
		return 1
	}
	log = log.With("task", filepath.Base(t.dir))
	s, err := newSupervisor(t, log)
	if err != nil {
		log.Error("supervisor cannot start", "error", err)
		return 1
	}
	if err := s.run(); err != nil {
		log.Error("supervisor failed", "error", err)
		return 1
	}
	return 0
}

// supervised is what a supervisor is given: the task's directory, the socket
// it listens on, and the lock that it holds until it is gone.
type supervised struct {
	dir            string
	listener, lock *os.File
	grouped        bool // it is in the supervisors' cgroup already
}

func takeTask(arg string) (supervised, error) {
	if !filepath.IsAbs(arg) {
		unix.CloseOnExec(spareFD)
		inside.CloseStrangers(spareFD)
		return awaitTask()
	}
	unix.CloseOnExec(listenerFD)
	unix.CloseOnExec(lockFD)
	inside.CloseStrangers(lockFD)
	return supervised{dir: arg, listener: os.NewFile(listenerFD, "listener"), lock: os.NewFile(lockFD, "lock")}, nil
}

// supervisor runs one task. All that changes is touched by its own goroutine
// alone; the others send it events.
type supervisor struct {
	supervised
	log    *slog.Logger
	rec    taskRecord
	life   *agent.Life
	plan   inside.Plan
	group  group
	over   group // of all supervisors
	status Status
	began  time.Time

	done   <-chan struct{} // the task has ended
	cancel context.CancelFunc
	within func(time.Duration) (context.Context, context.CancelFunc) // and not after done
	events chan any
	init   *initHandle
	lines  lines // to agents
	pumps  sync.WaitGroup
	logs   logDir
	home   held // the task's directory
	box    held // its sandbox

	procs     map[string]*Process
	asked     map[string]int // runs whose spawn init has not answered
	checks    map[int]chan inside.Note
	waiting   int            // preparations that are not done
	grouping  sync.WaitGroup // the one that makes the cgroups
	ooms      int64          // kills for want of memory that were acted on
	oomsSeen  int64          // kills that a sample has seen
	decisive  *Process       // whose exit decided a failure
	until     time.Duration  // an exclusive task's lease, of BootTime; 0: it has none
	doom      inside.Doom    // likewise
	begun     bool
	elsewhere string             // where the agent has the directory; empty: nobody has asked to go there
	cool      context.CancelFunc // ends the warming of the cgroups
	ended     *agent.End
	saveDue   <-chan time.Time // nil: nothing to save
}

// The events, beside [note].
type (
	initGone    struct{ err error }
	prepared    struct{ err error } // one of the preparations
	stopOrdered struct{ reason string }
	renewed     struct{ until time.Duration }
	sent        struct{ dir string } // where the agent has the directory
	sampled     struct {
		disk     diskUse
		ram, cpu int64 // of reduced mode; 0: not measured
		measured bool  // disk was
	}
	input struct{ in agent.Input } // straight to the life
)

func newSupervisor(t supervised, log *slog.Logger) (*supervisor, error) {
	rec, err := readTask(t.dir)
	if err != nil {
		return nil, err
	}
	id, err := task.ParseID(rec.ID)
	if err != nil {
		return nil, err
	}
	boot, err := inside.BootID()
	if err != nil {
		return nil, err
	}
	me, ok := inside.ReadProcess(os.Getpid())
	if !ok {
		return nil, fault.Unavailable.Errorf("no /proc/self/stat")
	}
	g := newGroups(probeMounts(rec.Reduced), rec.CgroupRoot)
	s := &supervisor{
		supervised: t, log: log, rec: rec, group: g.of(name.Escape(rec.ID)), over: g.of(overheadName), began: time.Now(),
		events: make(chan any, 64), procs: map[string]*Process{}, asked: map[string]int{}, checks: map[int]chan inside.Note{},
	}
	s.status = Status{
		Version: version, Fields: format.Added(), ID: id, Task: rec.ID, Boot: boot, Supervisor: os.Getpid(), SupervisorStart: me.Start, StartedAt: s.began,
	}
	s.status.set(task.Starting, "")
	ctx, cancel := context.WithCancel(context.Background())
	s.done, s.cancel = ctx.Done(), cancel
	s.within = func(d time.Duration) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
	if err = s.bound(); err != nil {
		return nil, err
	}
	c := rec.Config
	s.life, err = agent.NewLife(agent.LifeSpec{Task: c.Task, Health: c.Health, Lifecycle: c.Lifecycle, Ports: rec.Ports, Until: s.lifeUntil()})
	if err != nil {
		return nil, err
	}
	s.plan = s.makePlan()
	return s, nil
}

// run goes from start to end. An error means that the end is not on disk.
func (s *supervisor) run() error {
	defer s.cancel()
	if err := reserveExit(s.dir, s.log); err != nil {
		return err
	}
	var err error
	if s.home, err = hold(s.dir); err != nil {
		return err
	}
	l, err := net.FileListener(s.listener)
	if err != nil {
		return fault.Internal.Errorf("listener: %w", err)
	}
	go s.accept(l)
	s.listenByName()
	go s.heed()
	s.prepare()
	go s.sample()
	tick := time.NewTimer(time.Hour)
	defer tick.Stop()
	for s.ended == nil {
		if due, ok := s.life.Next(); ok {
			tick.Reset(max(due-s.now(), 0))
		} else {
			tick.Reset(time.Hour)
		}
		select {
		case e := <-s.events:
			s.handle(e)
		case <-tick.C:
			s.step(agent.Tick{})
		case <-s.saveDue:
			s.save()
		}
	}
	return s.finish()
}

func (s *supervisor) now() time.Duration { return time.Since(s.began) }

// send hands an event to the loop; after the end nobody listens any more.
func (s *supervisor) send(e any) {
	select {
	case s.events <- e:
	case <-s.done:
	}
}

func (s *supervisor) handle(e any) {
	switch e := e.(type) {
	case inside.Note:
		s.noted(e)
	case initGone:
		s.initGone(e)
	case prepared:
		s.prepared(e)
	case stopOrdered:
		s.stopOrdered(e.reason)
	case renewed:
		s.renewed(e.until)
	case sent:
		s.settle(e.dir)
	case sampled:
		s.sampled(e)
	case input:
		s.step(e.in)
	case askInit:
		e.f()
	}
}

// step gives the life an input and does what it answers.
func (s *supervisor) step(in agent.Input) {
	for _, a := range s.life.Step(s.now(), in) {
		s.act(a)
	}
}

func (s *supervisor) act(a agent.Action) {
	switch a := a.(type) {
	case agent.Spawn:
		s.spawn(a)
	case agent.Probe:
		go s.probe(a)
	case agent.Post:
		go s.post(a)
	case agent.Signal:
		s.signal(a)
	case agent.Report:
		s.status.set(a.State, a.Reason)
		s.changed()
	case agent.End:
		s.ended = &a
	}
}

// stopOrdered passes a stop on. Before the life has begun nothing runs, and
// the end is at once.
func (s *supervisor) stopOrdered(reason string) {
	if reason == "" {
		reason = "stopped"
	}
	s.step(agent.Stop{Reason: reason})
}

func (s *supervisor) signal(a agent.Signal) {
	sig := unix.SIGTERM
	if a.Sig == agent.Kill {
		sig = unix.SIGKILL
	}
	o := inside.Order{Op: "signal", Name: a.Process, Sig: int(sig)}
	if a.Process == "" {
		o.Op = "signal-all"
		if a.Sig == agent.Kill {
			s.group.unthrottle() // init, which sends it, has its part of the ration only
		}
	}
	s.init.tell(o)
}

// spawn asks init for a process and begins to write its logs.
func (s *supervisor) spawn(a agent.Spawn) {
	i := slices.IndexFunc(s.rec.Config.Task.Processes, func(p jobProcess) bool { return p.Name == a.Process })
	if i < 0 {
		s.fail(a.Process, a.Run, "no such process", true)
		return
	}
	s.procs[a.Process] = &Process{Name: a.Process, Run: a.Run, StartedAt: time.Now()}
	s.asked[a.Process] = a.Run
	out, errs, err := s.openLogs(s.rec.Config.Task.Processes[i], a.Run)
	if err != nil {
		s.fail(a.Process, a.Run, err.Error(), true)
		return
	}
	s.init.tell(inside.Order{Op: "spawn", Name: a.Process, Run: a.Run}, out, errs)
	inside.CloseAll([]int{out, errs})
}

// fail tells the life that a process could not be started, after the present
// step.
func (s *supervisor) fail(process string, run int, why string, platform bool) {
	delete(s.asked, process)
	if p := s.procs[process]; p != nil {
		p.Reason, p.EndedAt, p.Live = why, time.Now(), false
	}
	go s.send(input{agent.SpawnFailed{Process: process, Run: run, Why: why, Platform: platform}})
}

// noted handles what init says.
func (s *supervisor) noted(n inside.Note) {
	switch {
	case n.Op == "ready":
		s.prepared(prepared{})
	case n.Op == "fault":
		s.prepared(prepared{fault.Unavailable.Errorf("%s", n.Why)})
	case n.Check:
		if c := s.checks[n.Run]; c != nil {
			c <- n // buffered for all that a check can say
		}
	case n.Op == "unsettled":
		s.log.Error("processes that start from now on have the sandbox as it was", "error", n.Why)
	case n.Op == "started":
		s.started(n)
	case n.Op == "failed":
		s.fail(n.Name, n.Run, n.Why, false)
		s.changed()
	case n.Op == "exited":
		s.exited(n)
	}
}

func (s *supervisor) started(n inside.Note) {
	p := s.procs[n.Name]
	if p == nil || p.Run != n.Run {
		return
	}
	delete(s.asked, n.Name)
	p.Live = true
	if n.Pidfd >= 0 {
		if pid, ok := inside.PidOfPidfd(n.Pidfd); ok {
			if st, ok := inside.ReadProcess(pid); ok {
				p.Pid, p.Start = pid, st.Start
			}
		}
		_ = unix.Close(n.Pidfd)
	}
	s.step(agent.Spawned{Process: n.Name, Run: n.Run})
	s.changed()
}

func (s *supervisor) exited(n inside.Note) {
	p := s.procs[n.Name]
	if p == nil || p.Run != n.Run {
		return
	}
	p.Live, p.ExitCode, p.Signal, p.EndedAt = false, n.Code, n.Signal, time.Now()
	if n.Code != 0 || n.Signal != 0 {
		s.decisive = p
	}
	if n.Signal == int(unix.SIGKILL) || n.Code == 128+int(unix.SIGKILL) {
		s.checkOOM(n.Name)
	} else {
		s.checkOOM("") // of a child whose parent did not mind
	}
	s.step(agent.Exited{Process: n.Name, Run: n.Run, Code: n.Code, Signal: n.Signal})
	s.changed()
}

// initGone ends the task when its init is dead: then every process is, and how
// they ended nobody knows.
func (s *supervisor) initGone(e initGone) {
	if s.ended != nil || s.init.gone {
		return
	}
	s.init.gone = true
	if !s.begun {
		s.prepared(prepared(e))
		return
	}
	s.checkOOM("")
	s.step(agent.Violated{Reason: "the task's init died"})
	for _, p := range s.rec.Config.Task.Processes {
		switch q := s.procs[p.Name]; {
		case q == nil || s.ended != nil:
		case s.asked[p.Name] == q.Run:
			s.step(agent.SpawnFailed{Process: p.Name, Run: q.Run, Why: "init died", Platform: true})
		case q.Live:
			q.Live, q.Reason, q.EndedAt = false, "its init died", time.Now()
			s.decisive = nil
			s.step(agent.Exited{Process: p.Name, Run: q.Run, Signal: int(unix.SIGKILL)})
		}
	}
}

// saveAfter is how long a change may wait to be saved together with the next.
const saveAfter = 50 * time.Millisecond

// changed brings the status up to date, tells the agents, and sees that it is
// saved.
func (s *supervisor) changed() {
	s.collect()
	if s.saveDue == nil {
		s.saveDue = time.After(saveAfter)
	}
	s.lines.publish(s.status)
}

// collect copies the processes into the status.
func (s *supervisor) collect() {
	s.status.Processes = s.status.Processes[:0:0]
	for _, p := range s.rec.Config.Task.Processes {
		if q := s.procs[p.Name]; q != nil {
			s.status.Processes = append(s.status.Processes, *q)
		}
	}
}

// save keeps the status for an agent that comes later. That it cannot be
// written, as on a full disk, ends nothing.
func (s *supervisor) save() {
	s.saveDue = nil
	if err := s.write(func(dir string) error { return writeJSON(filepath.Join(dir, stateFile), s.status) }); err != nil {
		s.log.Warn("status not saved", "error", err)
	}
}

// accept serves agents: the running one, and one that was started meanwhile.
func (s *supervisor) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("accept", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.lines.add(c)
		go s.listenTo(c)
	}
}

func (s *supervisor) listenTo(c net.Conn) {
	defer s.lines.drop(c)
	for sc := frames(c); sc.Scan(); {
		f, err := decodeFrame(sc.Bytes())
		if err != nil {
			s.log.Warn("agent", "error", err)
			return
		}
		switch f.Op {
		case opStop:
			s.send(stopOrdered{f.Reason})
		case opLease:
			s.send(renewed{f.Until})
		case opHome:
			s.send(sent{f.Dir})
		}
	}
}
