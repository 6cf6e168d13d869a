package whatif

import (
	"cmp"
	"container/heap"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A What is a kind of event of a file.
type What string

// The events.
const (
	MachineDown What = "machine-down" // its tasks are lost
	MachineUp   What = "machine-up"   // it takes tasks again, and holds none
	JobEnd      What = "job-end"      // somebody kills the job
)

// An Event happens at a second after the beginning, to a machine or to a job.
type Event struct {
	At   int64
	What What
	Name string
	Line int
}

var eventColumns = []string{"at_s", "what", "name"}

// ReadEvents reads a file of events, in any order.
func ReadEvents(file string, r io.Reader) (all []Event, notes []string, err error) {
	t, err := ReadTable(file, r, eventColumns...)
	if err != nil {
		return nil, nil, err
	}
	notes = t.note(eventColumns...)
	for {
		ok, err := t.Next()
		if err != nil || !ok {
			return all, notes, err
		}
		e := Event{What: What(t.Text("what")), Name: t.Text("name"), Line: t.line}
		if e.At, err = t.Number("at_s", 0, maxSeconds); err != nil {
			return nil, nil, err
		}
		if e.What != MachineDown && e.What != MachineUp && e.What != JobEnd {
			return nil, nil, t.Errorf("what is %.40q; want %s, %s or %s", e.What, MachineDown, MachineUp, JobEnd)
		}
		if len(all) == maxTasks {
			return nil, nil, t.Errorf("it has more than %d events", maxTasks)
		}
		all = append(all, e)
	}
}

// maxSeconds bounds the times of files: 100 years.
const maxSeconds = 100 * 366 * 86_400

// Weather is how machines fail by chance.
type Weather struct {
	Seed   uint64
	MTBF   int64 // mean seconds from a machine's return to its next failure; 0: none fail
	Repair int64 // mean seconds until it returns
}

// A Sample is a cluster at one moment.
type Sample struct {
	At       int64          // seconds after the beginning
	Machines int            // up
	Running  int            // tasks that hold a place
	Waiting  int            // tasks that wait for one
	Has      unit.Resources // of the machines that are up
	Held     unit.Resources // on them
}

// A History is what happened in a span of time.
type History struct {
	Samples   []Sample
	Arrived   int // tasks of jobs that came
	Finished  int // tasks that ran as long as they should
	Lost      int // tasks that ended with their machine
	Killed    int // tasks that ended with their job
	Preempted int
	Failures  int                 // of machines
	Waits     map[string]*Latency // of placed tasks, by tier
	Left      sched.Waits         // what waits at the end, and why
	Stopped   []Stop
}

// A Latency is how long tasks waited for a machine, in seconds.
type Latency struct {
	Placed        int
	Mean          float64
	P50, P90, P99 float64
	Max           float64
	all           []float64
}

func (l *Latency) sum() {
	slices.Sort(l.all)
	l.Placed = len(l.all)
	total := 0.0
	for _, x := range l.all {
		total += x
	}
	at := func(p int) float64 { return l.all[min(len(l.all)*p/100, len(l.all)-1)] }
	l.Mean, l.P50, l.P90, l.P99, l.Max = total/float64(l.Placed), at(50), at(90), at(99), l.all[l.Placed-1]
}

// Values returns every wait, the shortest first.
func (l *Latency) Values() []float64 { return l.all }

// samples is how many moments of a span are looked at.
const samples = 240

// A moment is something that will happen.
type moment struct {
	at  int64
	seq int // what was planned first comes first
	do  func() error
}

type moments []moment

func (m moments) Len() int      { return len(m) }
func (m moments) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m moments) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(m[i].at, m[j].at), cmp.Compare(m[i].seq, m[j].seq)) < 0
}
func (m *moments) Push(x any) { *m = append(*m, x.(moment)) }

func (m *moments) Pop() any {
	last := len(*m) - 1
	x := (*m)[last]
	*m = (*m)[:last]
	return x
}

// A film is one run through a span of time.
type film struct {
	w       *World
	began   unit.Tick
	until   int64
	seq     int
	next    moments
	runs    map[job.Key]int64 // seconds that a task of the job runs
	rand    *rand.Rand
	sky     Weather
	downs   map[machine.ID]int // reasons for which it is down
	out     History
	stops   int
	ending  []task.ID // tasks that have run for long enough
	changed bool      // place what waits
	look    bool      // take a sample
}

// Play lets jobs come and go and machines fail from now on, for until seconds.
// The same input gives the same history.
func (w *World) Play(asks []Ask, events []Event, sky Weather, until int64) (History, error) {
	f := &film{
		w: w, began: w.now, until: until, runs: map[job.Key]int64{}, rand: rand.New(rand.NewPCG(sky.Seed, 1)), sky: sky,
		downs: map[machine.ID]int{}, stops: len(w.order), out: History{Waits: map[string]*Latency{}},
	}
	for _, a := range asks {
		f.runs[a.Job.Key] = a.Run
		f.plan(a.Arrive, func() error { return f.arrive(a) })
	}
	for _, e := range events {
		f.plan(e.At, func() error { return f.event(e) })
	}
	if sky.MTBF > 0 {
		for m := range w.s.Machines() {
			f.fail(0, m.ID)
		}
	}
	for i := range int64(samples + 1) {
		f.plan(i*until/samples, func() error {
			f.look = true
			return nil
		})
	}
	if err := f.play(); err != nil {
		return f.out, err
	}
	for _, l := range f.out.Waits {
		l.sum()
	}
	f.out.Stopped = w.Stopped()[f.stops:]
	f.out.Preempted = len(f.out.Stopped)
	var err error
	f.out.Left, err = w.Place(surveyed)
	return f.out, err
}

func (f *film) plan(at int64, do func() error) {
	if at > f.until {
		return
	}
	f.seq++
	heap.Push(&f.next, moment{at, f.seq, do})
}

// play takes what happens in the same second together, then places, then looks.
func (f *film) play() error {
	for len(f.next) > 0 {
		at := f.next[0].at
		f.w.now = max(f.w.now, f.began+unit.Tick(at)*second)
		for len(f.next) > 0 && f.next[0].at == at {
			if err := heap.Pop(&f.next).(moment).do(); err != nil {
				return err
			}
		}
		if err := f.finish(); err != nil {
			return err
		}
		if f.changed {
			f.changed = false
			if _, err := f.w.Place(1); err != nil {
				return err
			}
			if err := f.start(at); err != nil {
				return err
			}
		}
		if f.look {
			f.look = false
			f.sample(at)
		}
	}
	return nil
}

func (f *film) arrive(a Ask) error {
	f.changed = true
	f.out.Arrived += a.Job.Instances.Len()
	return f.w.Submit(a.Job)
}

// start lets the tasks that were placed run, for as long as their job says.
func (f *film) start(at int64) error {
	var steps []state.Change
	for _, id := range f.w.placed {
		t, ok := f.w.s.Task(id)
		if !ok || t.State != task.Assigned {
			continue // stopped again in the same second
		}
		steps = append(steps, state.StepTask{ID: id, Base: t.Rev, Event: task.Event{To: task.Running}})
		f.latency(t).all = append(f.latency(t).all, max(0, float64(t.Since-t.Created)/float64(second)))
		if run := f.runs[id.Job]; run > 0 {
			f.plan(at+run, func() error {
				f.ending = append(f.ending, id)
				return nil
			})
		}
	}
	f.w.placed = f.w.placed[:0]
	if len(steps) == 0 {
		return nil
	}
	_, err := f.w.do(steps...)
	return err
}

func (f *film) latency(t state.Task) *Latency {
	tier := ""
	if cfg, ok := f.w.s.Config(t.Config); ok {
		tier = cfg.Tier
	}
	l, ok := f.out.Waits[tier]
	if !ok {
		l = &Latency{}
		f.out.Waits[tier] = l
	}
	return l
}

// finish ends the tasks that have run for long enough.
func (f *film) finish() error {
	var steps []state.Change
	for _, id := range f.ending {
		if t, ok := f.w.s.Task(id); ok && t.State == task.Running {
			steps = append(steps, state.StepTask{ID: id, Base: t.Rev, Event: task.Event{To: task.Finished}})
		}
	}
	f.ending = f.ending[:0]
	if len(steps) == 0 {
		return nil
	}
	f.changed = true
	f.out.Finished += len(steps)
	_, err := f.w.do(steps...)
	return err
}

func (f *film) event(e Event) error {
	switch e.What {
	case MachineDown:
		return f.down(machine.ID(e.Name))
	case MachineUp:
		return f.up(machine.ID(e.Name))
	case JobEnd:
		return f.end(KeyOf(e.Name))
	}
	return nil
}

func (f *film) down(id machine.ID) error {
	f.downs[id]++
	if f.downs[id] > 1 {
		return nil
	}
	f.changed = true
	f.out.Failures++
	gone, err := f.w.Kill(id)
	f.out.Lost += len(gone)
	return err
}

func (f *film) up(id machine.ID) error {
	if f.downs[id] == 0 {
		return nil // it was never down
	}
	f.downs[id]--
	m, ok := f.w.s.Machine(id)
	if f.downs[id] > 0 || !ok {
		return nil
	}
	f.changed = true
	m.Up = true
	_, err := f.w.do(state.PutMachine{Machine: m.Machine, Base: m.Rev})
	return err
}

func (f *film) end(k job.Key) error {
	row, ok := f.w.s.Job(k)
	if !ok {
		return nil // it has not come yet, or has ended before
	}
	f.changed = true
	for range f.w.s.TasksOf(k) {
		f.out.Killed++
	}
	made, err := f.w.do(state.DropJob{Key: k, Base: row.Rev})
	if err != nil {
		return err
	}
	return f.w.settle(made)
}

// fail plans the next failure of a machine, and its return.
func (f *film) fail(from int64, id machine.ID) {
	draw := func(mean int64) int64 { return max(1, int64(math.Round(f.rand.ExpFloat64()*float64(mean)))) }
	at := from + draw(f.sky.MTBF)
	back := at + draw(f.sky.Repair)
	f.plan(at, func() error { return f.down(id) })
	f.plan(back, func() error {
		f.fail(back, id)
		return f.up(id)
	})
}

func (f *film) sample(at int64) {
	x := Sample{At: at}
	for m := range f.w.s.Machines() {
		if m.Up {
			x.Machines++
			x.Has = x.Has.Add(m.Allocatable())
			x.Held = x.Held.Add(m.Allocatable().Sub(f.w.s.Free(m.ID)))
		}
	}
	x.Running, x.Waiting = f.w.Count()
	f.out.Samples = append(f.out.Samples, x)
}

// CheckEvents reports the first event of a file that names a machine or a job
// that there is not.
func (w *World) CheckEvents(file string, events []Event, asks []Ask) error {
	jobs := make(map[string]bool, len(asks))
	for _, a := range asks {
		jobs[a.Job.Key.Name()] = true
	}
	for _, e := range events {
		_, known := w.s.Machine(machine.ID(e.Name))
		if e.What == JobEnd {
			known = jobs[e.Name]
		}
		if !known {
			return fault.Invalid.Errorf("%s:%d: %s of %.80q, which is in neither file", file, e.Line, e.What, e.Name)
		}
	}
	return nil
}
