// Package sched decides which machine each pending task gets, and says for
// every task that gets none why that is so.
//
// [Plan] is a pure function of a snapshot, the [Index] folded up to it, and
// limits. It takes the most urgent task first: by tier, by priority, by age;
// gives it the machine on which the least is left over; and promises that a
// task which still waits found no machine at its turn. A task that fits
// nowhere holds nobody up. Nothing is stopped to make room: there is no
// pre-emption here.
package sched

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Limits bounds one [Plan]. Zero fields take their defaults.
type Limits struct {
	Placements int // tasks placed at most; 5,000
	Looks      int // machines looked at at most to say why tasks wait; 50,000 a second, or all machines once a second
	Evictions  int // tasks for which others are stopped at most; 1,000. Below 0: none

	// HoldExclusive leaves tasks of exclusive jobs waiting: what runs of them is
	// not known yet.
	HoldExclusive bool
}

const (
	defaultPlacements = 5_000
	defaultLooks      = 50_000
	defaultEvictions  = 1_000
)

// Waits is what a plan leaves pending.
type Waits struct {
	Groups []Wait    // one for each job and config of which no further task fits; most urgent first
	More   bool      // there is more to do at once: fold the changes and plan again
	Next   unit.Tick // plan again at this time, though nothing changed; 0: no need
	Looked int       // machines, and groups of machines, that the search for places looked at
}

// Of returns why t waits. It is false for a task that does not wait, or whose
// turn has not come because the limit of placements was reached.
func (w Waits) Of(t task.Task) (Wait, bool) {
	for _, g := range w.Groups {
		if (g.Room != "" || t.Room != "") && g.Task != t.ID {
			continue
		}
		if g.Job == t.ID.Job && g.Config == t.Config && t.State == task.Pending {
			g.Task = t.ID
			return g, true
		}
	}
	return Wait{}, false
}

// Plan places pending tasks. x must have been folded up to s; it is the same
// after the call as before, so that the changes may be applied, in part or
// not at all: fold what became of them before planning again.
func Plan(s *state.Snapshot, x *Index, now unit.Tick, lim Limits) ([]state.Change, Waits) {
	p := newPlanner(s, x, now, lim)
	p.settle()
	p.run()
	p.explain()
	p.undo()
	return p.changes, p.waits
}

// Fit returns how many more tasks of a job with config c would find a machine
// now, n at most, if no other task took it first. x must have been folded up
// to s, and is the same after the call.
func Fit(s *state.Snapshot, x *Index, k job.Key, c *job.Config, n int) int {
	g := &group{groupKey: groupKey{job: k}, shape: shapeOf(k, c)}
	x.join(s, g)
	defer x.part(g)
	p := newPlanner(s, x, s.At, Limits{})
	defer p.undo()
	for i := range n {
		slot := p.best(g, 0)
		if slot == 0 {
			return i
		}
		p.take(slot, g)
	}
	return n
}

// A planner is one run of Plan.
type planner struct {
	s        *state.Snapshot
	x        *Index
	now      unit.Tick
	lim      Limits
	paced    bool // how much is explained goes by the time
	changes  []state.Change
	placed   []placed
	limited  map[*group]map[place]*front // of groups with limits
	leveled  map[*group]*[trees]level    // of groups that spread
	boards   map[*group]*board           // the same
	watchers map[job.Key][]*group        // groups that a placement of the job may let go
	freed    map[*group]bool             // those that it did
	known    map[*group]bool             // groups that are being watched
	hopeless map[*group]bool             // those of them that no machine takes as long as nothing lets go
	evicted  evicted
	redeemed []placed // promises that became placements
	stuck    []stuck
	hand     hand
	claims   map[*class]*claim
	inOrder  []*claim // of claims
	reckoned bool     // inOrder is, and what is free for each
	sparings map[sparingKey]*board
	stakes   []stake // in claimants of the index, as they stand there; nil: none of them waits
	roomy    bool    // the room of stakes is worked out
	waits    Waits
}

// placed is one placement of this plan.
type placed struct {
	group *group
	slot  int32
}

// stuck is a group of which no further task fits, and its first task that waits.
type stuck struct {
	group *group
	first task.ID
	tasks int
}

func newPlanner(s *state.Snapshot, x *Index, now unit.Tick, lim Limits) *planner {
	lim.Placements = cmp.Or(lim.Placements, defaultPlacements)
	paced := lim.Looks == 0
	if paced {
		lim.Looks = x.looks.at(now, max(defaultLooks, len(x.slots)))
	}
	lim.Evictions = cmp.Or(lim.Evictions, defaultEvictions)
	x.begin()
	return &planner{
		evicted: evicted{tasks: map[task.ID]bool{}},
		s:       s, x: x, now: now, lim: lim, paced: paced, limited: map[*group]map[place]*front{}, leveled: map[*group]*[trees]level{}, boards: map[*group]*board{}, watchers: map[job.Key][]*group{}, freed: map[*group]bool{}, known: map[*group]bool{}, hopeless: map[*group]bool{},
		claims: map[*class]*claim{}, sparings: map[sparingKey]*board{},
	}
}

func (p *planner) run() {
	q := make(turns, 0, len(p.x.groups))
	for _, g := range p.x.groups {
		q = append(q, newTurn(g))
		p.stake(g)
		p.stakeRoom(g)
	}
	heap.Init(&q)
	for len(q) > 0 {
		if len(p.changes) >= p.lim.Placements {
			p.waits.More = true
			return
		}
		t := q[0]
		if p.held(t.group) {
			p.hold(t.group, t.head().id)
			heap.Pop(&q)
			continue
		}
		if !p.place(t) {
			delete(p.freed, t.group) // before it makes room, which may let its own spread go
			if p.makeRoom(t) {
				heap.Pop(&q)
				continue
			}
			p.stuck = append(p.stuck, stuck{t.group, t.head().id, t.group.tasks.Len() - t.taken})
			heap.Pop(&q)
			continue
		}
		if t.next() {
			heap.Fix(&q, 0)
		} else {
			heap.Pop(&q)
		}
	}
	for _, k := range p.stuck {
		p.waits.More = p.waits.More || p.freed[k.group]
	}
}

// held reports whether the tasks of a group are left waiting whatever fits.
func (p *planner) held(g *group) bool {
	return p.lim.HoldExclusive && g.shape != nil && g.shape.exclusive
}

func (p *planner) hold(g *group, first task.ID) {
	p.waits.Groups = append(p.waits.Groups, Wait{Task: first, Job: g.job, Config: g.config, Tasks: g.tasks.Len(), Text: heldExclusive})
}

const heldExclusive = "its job is exclusive, and the leader has just begun: for 20 seconds it waits for machines to say what they run"

// place finds a machine for the task whose turn it is. It reports false when
// neither this task nor any other of its group fits anywhere.
func (p *planner) place(t *turn) bool {
	g := t.group
	if g.shape == nil {
		return false
	}
	w := t.head()
	n := p.best(g, p.avoided(w))
	if n == 0 {
		return false
	}
	p.assign(w.id, w.rev, g, n, g.shape.why())
	return true
}

// why says for what a machine was chosen.
func (w *shape) why() string {
	if w.spreadsOut() {
		return "of the machines that may run it, the one with the fewest tasks of its job"
	}
	return "best fit of the machines that may run it"
}

// assign gives a place on a host to one task.
func (p *planner) assign(id task.ID, rev state.Rev, g *group, n int32, why string) {
	m := p.x.hosts[n].row.ID
	ports, gpus := p.take(n, g)
	p.changes = append(p.changes, state.StepTask{
		ID: id, Base: rev,
		Event: task.Event{To: task.Assigned, At: p.now, Machine: m, Ports: ports, GPUs: gpus, Reason: why},
	})
}

// touch remembers a host as it was before this plan, and returns it.
func (p *planner) touch(n int32) *host {
	p.x.writeHost(n)
	return &p.x.hosts[n]
}

// avoided returns the slot of the machine on which the instance failed or was
// lost last, 0 if there is none.
func (p *planner) avoided(w waiter) int32 {
	if w.avoid == "" {
		return 0
	}
	return p.x.slots[w.avoid]
}

// avoid returns the machine on which the instance of a task failed or was lost
// last, or nothing.
func avoid(s *state.Snapshot, id task.ID) machine.ID {
	in, ok := s.Instance(state.Slot{Job: id.Job, N: id.Instance})
	if !ok || in.Last.State != task.Failed && in.Last.State != task.Lost {
		return ""
	}
	return in.Last.Machine
}

// best returns the slot of the machine that a task of g gets, 0 if none takes
// it: the best fit; but a machine scheduled for maintenance only if no other
// fits, then one that is avoided, and the one where the task failed last of all.
func (p *planner) best(g *group, avoid int32) int32 {
	if p.again(g, avoid) {
		return p.hand.slot
	}
	p.drop()
	if p.know(g) {
		return 0
	}
	q := search{x: p.x, group: g, avoid: avoid, limits: g.moving != nil, looked: &p.waits.Looked}
	for tree := range trees {
		if g.shape.need.GPU <= 0 || !p.x.policy.boards() {
			if n := p.inTree(g, q, tree); n != 0 {
				return n
			}
		}
		if n := p.bestOnBoard(g, tree, avoid); n != 0 {
			return n
		}
	}
	if avoid != 0 && p.x.hosts[avoid].attach != nowhere && q.takes(avoid) {
		return avoid
	}
	return 0
}

// know begins to follow where tasks are that a group's machines depend on. It
// reports whether they rule every machine out, which a placement may change.
func (p *planner) know(g *group) (hopeless bool) {
	if g.moving == nil {
		return false
	}
	if !p.known[g] {
		p.known[g] = true
		p.x.refresh(g)
		p.watch(g)
	}
	hopeless, ok := p.hopeless[g]
	if !ok {
		hopeless = p.x.hopeless(g)
		p.hopeless[g] = hopeless
	}
	return hopeless
}

// front returns how far the search for machines for g has come in a place.
// Fronts of needs outlive the plan. A limit may let go without any change of the
// machine that it ruled out, but never within a plan: a group with limits
// goes on from its need's front and forgets its own with the plan.
func (p *planner) front(g *group, at place) *front {
	f := &p.x.frontsOf(g.need())[at.tree][at.shelf]
	if g.moving == nil {
		return f
	}
	own, ok := p.limited[g]
	if !ok {
		own = map[place]*front{}
		p.limited[g] = own
	}
	if own[at] == nil {
		q := search{x: p.x, group: g, looked: &p.waits.Looked}
		q.next(f, at)
		own[at] = &front{from: f.from, some: slices.Clone(f.some), seen: f.seen}
	}
	return own[at]
}

// take gives a place on a host to a task of g, for the time of this plan, and
// returns its ports and the numbers of its GPUs. The first port moves on with the cluster's records, so
// that a port that was just given up is not given out again at once.
func (p *planner) take(n int32, g *group) (ports, gpus []uint16) {
	h := p.touch(n)
	ports, gpus = h.pickPorts(g.shape.ports, uint64(p.s.Seq)), p.x.pickGPUs(n, g.shape)
	p.x.pick(n)
	was := h.free
	h.take(g.job, g.shape.need, ports, gpus)
	p.settled(g, was, h.free, n)
	p.keep(n, g)
	p.x.tell(g.job, h, +1)
	p.loosen(g.job, &h.row.Machine)
	p.placed = append(p.placed, placed{g, n})
	return ports, gpus
}

// undo leaves the index as the plan found it.
func (p *planner) undo() {
	p.hand = hand{}
	for _, l := range p.placed {
		if y, ok := p.x.tallies[l.group.job]; ok {
			y.add(&p.x.hosts[l.slot].row.Machine, -1)
		}
	}
	for _, w := range p.evicted.winners {
		p.x.tell(w.group.job, &p.x.hosts[w.slot], -1)
	}
	for _, l := range p.redeemed {
		p.x.tell(l.group.job, &p.x.hosts[l.slot], +1)
	}
	p.x.revert()
}

// A turn walks over the tasks of one group in order.
type turn struct {
	group *group
	tier  int8
	prio  int32
	some  []waiter // the next ones
	at    int      // in some
	taken int      // walked over in all
}

// ahead is how many tasks of a group are looked up at a time; at first fewer, as
// most groups get no further in a plan.
const (
	ahead      = 64
	aheadFirst = 4
)

func newTurn(g *group) *turn {
	t := &turn{group: g, tier: noTier}
	if g.shape != nil {
		t.tier, t.prio = g.shape.tier, g.shape.prio
	}
	t.some = make([]waiter, 0, aheadFirst)
	g.tasks.Ascend(t.collect)
	return t
}

func (t *turn) collect(w waiter) bool {
	t.some = append(t.some, w)
	return len(t.some) < cap(t.some)
}

func (t *turn) head() waiter { return t.some[t.at] }

// next moves on to the group's next task, if there is one.
func (t *turn) next() bool {
	t.taken++
	t.at++
	if t.at < len(t.some) {
		return true
	}
	last := t.some[len(t.some)-1]
	if cap(t.some) < ahead {
		t.some = make([]waiter, 0, ahead)
	}
	t.some, t.at = t.some[:0], 0
	t.group.tasks.AscendGreaterOrEqual(last, func(w waiter) bool {
		return w == last || t.collect(w)
	})
	return len(t.some) > 0
}

// turns is a heap of groups, the most urgent task on top.
type turns []*turn

func (q turns) Len() int      { return len(q) }
func (q turns) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *turns) Push(t any)   { *q = append(*q, t.(*turn)) }

func (q *turns) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	*q = (*q)[:last]
	return t
}

func (q turns) Less(i, j int) bool { return urgency(q[i], q[j]) < 0 }

// urgency orders tasks: preferred before preemptible before revocable, then
// the higher priority, then the older, then the lower id.
func urgency(a, b *turn) int {
	switch {
	case a.tier != b.tier:
		return cmp.Compare(a.tier, b.tier)
	case a.prio != b.prio:
		return cmp.Compare(b.prio, a.prio)
	default:
		return a.head().compare(b.head())
	}
}

// noTier puts groups without a config last.
const noTier = math.MaxInt8
