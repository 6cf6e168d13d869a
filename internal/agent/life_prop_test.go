package agent

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
)

// world is a made-up machine: it carries out what a life asks for, at random
// times and with random luck, and holds the life to its promises.
type world struct {
	t      *rapid.T
	spec   LifeSpec
	life   *Life
	now    time.Duration
	events []event
	seq    int // of the latest event
	procs  map[string]*body
	probed time.Duration // when the probe in flight must have been answered; 0 when there is none

	order     map[string][]string // who must have succeeded
	reports   []task.State
	stopping  bool // something of the stop order was seen
	finals    bool // a final process was started
	ended     *End
	stopped   time.Duration // when a stop was asked for; -1 never
	violated  bool
	mustStop  int // steps after which a stop is asked for
	stubborn  bool
	delayMost int // milliseconds that a spawn or the death after SIGKILL may take
}

type event struct {
	at  time.Duration
	seq int // decides between equal times
	in  Input
}

type body struct {
	spec      job.Process
	runs      int
	asked     bool // between Spawn and its answer
	alive     bool
	lastStart time.Duration
	succeeded bool
	failures  int
}

func TestLifeKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.send(Begin{})
		for steps := 0; w.ended == nil; steps++ {
			if steps > 5000 {
				t.Fatal("no end after 5000 steps")
			}
			if steps == w.mustStop && w.stopped < 0 {
				w.stop(rapid.IntRange(0, 3).Draw(t, "how") == 0)
				continue
			}
			w.advance()
		}
		w.checkEnd()
		w.now += time.Hour
		for _, in := range []Input{Tick{}, Stop{"again"}, Violated{"late"}, Begin{}} {
			if a := w.life.Step(w.now, in); len(a) > 0 {
				t.Fatalf("%T after the end: got %v; want nothing", in, a)
			}
		}
		if at, ok := w.life.Next(); ok {
			t.Fatalf("after the end something is due at %v", at)
		}
	})
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, spec: drawSpec(t), procs: map[string]*body{}, order: map[string][]string{}, stopped: -1,
		mustStop: rapid.IntRange(1, 400).Draw(t, "mustStop"), stubborn: rapid.Bool().Draw(t, "stubborn"),
		delayMost: rapid.SampledFrom([]int{0, 500, 3000}).Draw(t, "delayMost"),
	}
	for _, p := range w.spec.Task.Processes {
		w.procs[p.Name] = &body{spec: p}
	}
	for _, chain := range w.spec.Task.Order {
		for i := 1; i < len(chain); i++ {
			w.order[chain[i]] = append(w.order[chain[i]], chain[i-1])
		}
	}
	l, err := NewLife(w.spec)
	if err != nil {
		t.Fatal(err)
	}
	w.life = l
	return w
}

func drawSpec(t *rapid.T) LifeSpec {
	one := func(what string, of int) bool { return rapid.IntRange(1, of).Draw(t, what) == 1 }
	num := func(what string, most int) int32 { return int32(rapid.IntRange(0, most).Draw(t, what)) }
	s := LifeSpec{
		Task:  job.Task{MaxFailures: num("task.max_failures", 2), MaxConcurrency: num("max_concurrency", 3), FinalizationWait: num("finalization_wait", 40)},
		Ports: map[string]uint16{"health": 31000},
	}
	n := rapid.IntRange(1, 6).Draw(t, "processes")
	for i := range n {
		s.Task.Processes = append(s.Task.Processes, job.Process{
			Name: fmt.Sprintf("p%d", i), MaxFailures: num("max_failures", 3), MinDuration: num("min_duration", 9),
			Daemon: one("daemon", 5), Ephemeral: one("ephemeral", 5), Final: one("final", 4),
		})
	}
	for range rapid.IntRange(0, 5).Draw(t, "orders") {
		chain := make([]string, rapid.IntRange(2, 3).Draw(t, "length"))
		for k := range chain {
			chain[k] = fmt.Sprintf("p%d", rapid.IntRange(0, n-1).Draw(t, "who"))
		}
		with := s.Task
		with.Order = append(slices.Clone(with.Order), chain)
		if with.ValidatePlan() == nil {
			s.Task = with
		}
	}
	if one("lifecycle", 2) {
		s.Lifecycle = &job.HTTPLifecycle{Port: "health", Graceful: "/quit", GracefulWaitS: num("quit", 9), Shutdown: "/abort", ShutdownWaitS: num("abort", 9)}
	}
	if one("health", 2) {
		s.Health = &job.Health{
			Shell: &job.ShellCheck{Command: "true"}, InitialMilli: int64(num("initial", 30000)), EveryMilli: 1 + int64(num("interval", 10000)),
			TimeoutMilli: 1 + int64(num("timeout", 3000)), MaxFailures: num("max_failures", 3), MinSuccesses: num("min_successes", 3),
		}
	}
	return s
}

// advance lets the next thing happen: an event of the world or a tick.
func (w *world) advance() {
	at, due := w.life.Next()
	if due && at <= w.now {
		w.t.Fatalf("at %v the life is due at %v", w.now, at)
	}
	slices.SortFunc(w.events, func(a, b event) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq)) })
	if len(w.events) > 0 && (!due || w.events[0].at <= at) {
		e := w.events[0]
		w.events = w.events[1:]
		w.now = max(w.now, e.at)
		w.happens(e)
		return
	}
	if !due {
		w.t.Fatalf("hangs in %v at %v: nothing is due and nothing will happen\n%+v", w.life.Stage(), w.now, w.life.Processes())
	}
	w.now = at
	w.send(Tick{})
}

func (w *world) stop(violate bool) {
	w.stopped = w.now
	if violate {
		w.violated = true
		w.send(Violated{"limit"})
		return
	}
	w.send(Stop{"asked"})
}

// later lets something happen within most milliseconds.
func (w *world) later(most int, in Input) {
	w.seq++
	w.events = append(w.events, event{w.now + time.Duration(rapid.IntRange(0, most).Draw(w.t, "delay"))*time.Millisecond, w.seq, in})
}

// happens delivers an event, unless it was overtaken.
func (w *world) happens(e event) {
	switch in := e.in.(type) {
	case Spawned:
		b := w.procs[in.Process]
		b.asked, b.alive = false, true
		w.exits(in.Process, 20000)
	case SpawnFailed:
		b := w.procs[in.Process]
		b.asked = false
		b.failures++
	case Exited:
		b := w.procs[in.Process]
		if !b.alive || in.Run != b.runs {
			w.send(Tick{})
			return
		}
		b.alive = false
		if b.succeeded = in.Code == 0 && in.Signal == 0; !b.succeeded {
			b.failures++
		}
	case Probed:
		w.probed = 0
	}
	w.send(e.in)
}

// exits lets the present run of a process end within most milliseconds.
func (w *world) exits(process string, most int) {
	e := Exited{Process: process, Run: w.procs[process].runs}
	switch rapid.IntRange(0, 3).Draw(w.t, "exit") {
	case 0:
		e.Code = 1
	case 1:
		e.Signal = 11
	}
	w.later(most, e)
}

// send gives one input to the life and carries out what it answers.
func (w *world) send(in Input) {
	for _, a := range w.life.Step(w.now, in) {
		if w.ended != nil {
			w.t.Fatalf("%T after the end", a)
		}
		switch a := a.(type) {
		case Spawn:
			w.spawn(a)
		case Signal:
			w.stopping = true
			w.signal(a)
		case Post:
			w.stopping = true
			if w.spec.Lifecycle == nil || w.finals {
				w.t.Fatalf("unexpected %+v", a)
			}
			if rapid.Bool().Draw(w.t, "answers") {
				w.later(1000, Posted{})
			}
		case Probe:
			w.probe(a)
		case Report:
			w.reports = append(w.reports, a.State)
		case End:
			w.ended = &a
		}
	}
}

func (w *world) spawn(s Spawn) {
	b := w.procs[s.Process]
	gap := max(time.Duration(b.spec.MinDuration)*time.Second, time.Second)
	switch {
	case b.alive || b.asked:
		w.t.Fatalf("%+v while it lives", s)
	case s.Run != b.runs+1:
		w.t.Fatalf("%+v after run %d", s, b.runs)
	case b.runs > 0 && w.now-b.lastStart < gap:
		w.t.Fatalf("%+v %v after the last start; want %v", s, w.now-b.lastStart, gap)
	case b.spec.MaxFailures > 0 && b.failures >= int(b.spec.MaxFailures):
		w.t.Fatalf("%+v after %d failures", s, b.failures)
	case b.succeeded && !b.spec.Daemon:
		w.t.Fatalf("%+v after success", s)
	case !b.spec.Final && (w.stopping || w.finals || w.stopped >= 0):
		w.t.Fatalf("%+v while the task ends", s)
	case b.spec.Final && w.violated:
		w.t.Fatalf("%+v after a limit was passed", s)
	}
	live := 1
	for _, o := range w.procs {
		if o.alive || o.asked {
			live++
			if b.spec.Final && !o.spec.Final {
				w.t.Fatalf("%+v while %s lives", s, o.spec.Name)
			}
		}
	}
	if most := int(w.spec.Task.MaxConcurrency); most > 0 && live > most {
		w.t.Fatalf("%+v makes %d live; want at most %d", s, live, most)
	}
	for _, p := range w.order[s.Process] {
		if !w.procs[p].succeeded {
			w.t.Fatalf("%+v before %s succeeded", s, p)
		}
	}
	b.runs, b.asked, b.lastStart = s.Run, true, w.now
	w.finals = w.finals || b.spec.Final
	switch rapid.IntRange(0, 15).Draw(w.t, "spawns") {
	case 0:
		w.later(w.delayMost, SpawnFailed{s.Process, s.Run, "no such file", false})
	case 1:
		w.later(w.delayMost, SpawnFailed{s.Process, s.Run, "no cgroup", true})
	default:
		w.later(w.delayMost, Spawned(s))
	}
}

func (w *world) signal(s Signal) {
	for _, p := range w.spec.Task.Processes {
		b := w.procs[p.Name]
		switch {
		case !b.alive || s.Process != "" && s.Process != p.Name:
		case s.Sig == Kill:
			w.later(w.delayMost, Exited{Process: p.Name, Run: b.runs, Signal: 9})
		case !w.stubborn:
			w.exits(p.Name, 5000)
		}
	}
}

func (w *world) probe(p Probe) {
	if w.spec.Health == nil || w.stopping {
		w.t.Fatalf("unexpected %+v", p)
	}
	if w.probed > w.now {
		w.t.Fatalf("%+v while another is in flight", p)
	}
	w.probed = w.now + p.Timeout
	if how := rapid.IntRange(0, 9).Draw(w.t, "healthy"); how < 9 {
		w.later(int(p.Timeout.Milliseconds()), Probed{Seq: p.Seq, OK: how < 6, Snoozed: how == 6})
	}
}

func (w *world) checkEnd() {
	t := w.t
	for _, b := range w.procs {
		if b.alive || b.asked {
			t.Fatalf("ended while %s lives", b.spec.Name)
		}
	}
	if w.stopped >= 0 {
		most := time.Duration(w.spec.Task.FinalizationWait) * time.Second
		if c := w.spec.Lifecycle; c != nil {
			most += 2*postTimeout + time.Duration(c.GracefulWaitS+c.ShutdownWaitS)*time.Second
		}
		most += 2 * time.Duration(w.delayMost) * time.Millisecond // a late start, then a slow death
		if took := w.now - w.stopped; took > most {
			t.Fatalf("ended %v after the stop; want %v", took, most)
		}
	}
	if len(w.reports) > 2 || w.reports[0] != task.Starting || len(w.reports) == 2 && w.reports[1] != task.Running {
		t.Fatalf("reports %v", w.reports)
	}
	failed := 0
	open := ""
	for _, b := range w.procs {
		switch perma := b.spec.MaxFailures > 0 && b.failures >= int(b.spec.MaxFailures); {
		case b.spec.Final || b.spec.Ephemeral:
		case perma:
			failed++
		case b.spec.Daemon || !b.succeeded:
			open = b.spec.Name
		}
	}
	under := w.spec.Task.MaxFailures == 0 || failed < int(w.spec.Task.MaxFailures)
	switch e := *w.ended; e.State {
	case task.Finished:
		if open != "" || !under {
			t.Fatalf("%+v with %q open and %d failed", e, open, failed)
		}
	case task.Failed:
		if e.Reason == "" {
			t.Fatal("FAILED without a reason")
		}
	case task.Killed:
		if w.stopped < 0 || w.violated {
			t.Fatalf("%+v, but nobody asked", e)
		}
	default:
		t.Fatalf("ended as %v", e.State)
	}
}

// TestHealthTwin holds the counting of answers to one that looks at the whole
// history each time.
func TestHealthTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &job.Health{
			InitialMilli: int64(rapid.IntRange(0, 50).Draw(t, "initial")), EveryMilli: int64(rapid.IntRange(1, 20).Draw(t, "every")), TimeoutMilli: 1,
			MaxFailures: int32(rapid.IntRange(0, 3).Draw(t, "failures")), MinSuccesses: int32(rapid.IntRange(0, 3).Draw(t, "successes")),
		}
		answers := rapid.SliceOfN(rapid.Bool(), 1, 20).Draw(t, "answers")
		h := newHealth(c)
		h.start(0)
		now := time.Duration(0)
		for n := range answers {
			p, ok := h.probe(now)
			if !ok || p.Seq != n+1 {
				t.Fatalf("attempt %d: got %+v, %v", n+1, p, ok)
			}
			h.answered(now, Probed{Seq: p.Seq, OK: answers[n]})
			healthy, failed := verdict(c, answers[:n+1])
			if h.healthy != healthy || (h.failed != "") != failed {
				t.Fatalf("answers %v: got healthy %v, failed %q; want %v, %v", answers[:n+1], h.healthy, h.failed, healthy, failed)
			}
			if failed {
				return
			}
			now, _ = h.next()
		}
	})
}

// verdict is the rule as it is written down: was there ever a long enough row
// of successes; is there now too long a row of failures, or too little left.
func verdict(c *job.Health, answers []bool) (healthy, failed bool) {
	forgiven := 0
	for time.Duration(forgiven)*time.Duration(c.EveryMilli) < time.Duration(c.InitialMilli) {
		forgiven++
	}
	want := max(int(c.MinSuccesses), 1)
	for end := want; end <= len(answers); end++ {
		healthy = healthy || !slices.Contains(answers[end-want:end], false)
	}
	row := 0
	for n := len(answers); n > forgiven && !answers[n-1]; n-- {
		row++
	}
	left := forgiven + int(c.MaxFailures) + want - len(answers)
	hopeless := row > 0 && !healthy && left < want
	return healthy, row > int(c.MaxFailures) || hopeless
}
