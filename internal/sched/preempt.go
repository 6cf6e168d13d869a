package sched

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Pre-emption: a task that no machine has room for may have others stopped.
// Which ones is Aurora's rule: see [mayEvict]. Of the machines where that would
// make room, in the order of best fit, the first few are looked into; the one
// whose victims matter least is taken. No victim is stopped that could have
// lived: without any one of them, the task would not fit. What they leave is
// the winner's until a time, and nobody else's.

const (
	candidates = 8                   // machines looked into for one task
	roomKept   = 5 * unit.Hour / 60  // how long room is kept, beyond what the victims may take to end
	second     = unit.Hour / 60 / 60 //
)

// A kind is what a config says of how much a task matters.
type kind struct {
	tier int8
	prio int32
	wait unit.Tick // how long its tasks may take to end
}

// kindsKept bounds the kinds remembered.
const kindsKept = 1 << 16

// kindOf looks a config up.
func (x *Index) kindOf(s *state.Snapshot, h job.Hash) kind {
	k, ok := x.kinds[h]
	if ok {
		return k
	}
	c, ok := s.Config(h)
	if !ok {
		return kind{} // it matters most: nobody knows what it is
	}
	k = kind{tier: tierRank(c.Tier), prio: c.Priority, wait: unit.Tick(c.Task.FinalizationWait) * second}
	if l := c.Lifecycle; l != nil {
		k.wait += unit.Tick(l.GracefulWaitS+l.ShutdownWaitS) * second
	}
	if len(x.kinds) >= kindsKept {
		clear(x.kinds)
	}
	x.kinds[h] = k
	return k
}

// mayEvict is the rule (Aurora S-02): a task of tier preferred may have tasks
// of the weaker tiers stopped, whoever owns them; beyond that a task may have
// those of its own role stopped that are as strong and of a lower priority.
func mayEvict(w *shape, winner job.Key, v kind, victim job.Key) bool {
	if winner == victim {
		return false
	}
	if w.tier == 0 && v.tier != 0 {
		return true
	}
	return (w.tier == 0) == (v.tier == 0) && w.role == victim.Role() && w.prio > v.prio
}

// evictable reports whether a task in this state may be stopped for another.
func evictable(s task.State) bool {
	return s == task.Assigned || s == task.Starting || s == task.Running
}

// An eviction is what it takes to make room on one machine.
type eviction struct {
	slot    int32
	victims []victim
}

type victim struct {
	state.Task
	kind
	size int64
}

// worse orders evictions: the stronger tier that is hurt, then the higher
// priority, then the number of tasks.
func (e *eviction) worse(o *eviction) int {
	worst := func(e *eviction) (tier int8, prio int32) {
		tier = 3
		for _, v := range e.victims {
			if v.tier < tier || v.tier == tier && v.prio > prio {
				tier, prio = v.tier, v.prio
			}
		}
		return tier, prio
	}
	t1, p1 := worst(e)
	t2, p2 := worst(o)
	return cmp.Or(cmp.Compare(t2, t1), cmp.Compare(p1, p2), cmp.Compare(len(e.victims), len(o.victims)))
}

// makeRoom has tasks stopped for the group's tasks that are left, one after
// another, as long as that helps. It reports whether all of them got room.
func (p *planner) makeRoom(t *turn) bool {
	g := t.group
	if g.shape == nil || p.lim.Evictions < 0 {
		return false
	}
	for {
		if len(p.evicted.winners) >= p.lim.Evictions {
			p.waits.More = true
			return false
		}
		row, ok := p.s.Task(t.head().id)
		if ok && row.State == task.Pending {
			e := p.leastHarm(g)
			if e == nil {
				return false
			}
			p.evict(g, row, e)
		}
		if !t.next() {
			return true
		}
	}
}

// leastHarm returns the best of the first candidates, nil if there is none.
func (p *planner) leastHarm(g *group) *eviction {
	if p.know(g) {
		return nil
	}
	var found []*eviction
	ofRole := false
	try := func(n int32) bool {
		p.waits.Looked++
		h := &p.x.hosts[n]
		if !g.class.allowed[n] || g.moving != nil && !g.moving.passes(&h.row.Machine) {
			return true
		}
		if e, some := p.victims(n, g); e != nil && (some || !ofRole) {
			found = append(found, e)
		}
		return len(found) < candidates
	}
	if g.shape.tier == 0 {
		l := p.x.ladderOf(g.weakerKey(), &p.waits.Looked)
		l.climb(l.root, g, &p.waits.Looked, try)
	}
	if len(found) == 0 && p.x.outranks(g.shape) {
		ofRole = true
		l := p.x.ladderOf(g.roleKey(), &p.waits.Looked)
		l.climb(l.root, g, &p.waits.Looked, try)
	}
	var best *eviction
	for _, e := range found {
		if best == nil || e.worse(best) < 0 {
			best = e
		}
	}
	return best
}

// victims returns whom it takes on a host to make room for a task of g, nil if
// even all of them would not do. It may take nobody: those that are ending.
// some tells whether there was anybody, also if this plan has them stopped already.
func (p *planner) victims(n int32, g *group) (e *eviction, some bool) {
	h := &p.x.hosts[n]
	room := vacancy{free: h.free, ports: h.portsLeft(), devs: h.devs, host: h}
	var all []victim
	for t := range p.s.TasksOn(h.row.ID) {
		k := p.x.kindOf(p.s, t.Config)
		may := evictable(t.State) && mayEvict(g.shape, g.job, k, t.ID.Job)
		some = some || may
		if t.State.Stopping() || p.evicted.tasks[t.ID] {
			room.leave(&t, +1)
		} else if may {
			all = append(all, victim{t, k, leftover(t.Resources, p.x.largest)})
		}
	}
	slices.SortFunc(all, func(a, b victim) int {
		return cmp.Or(cmp.Compare(b.tier, a.tier), cmp.Compare(a.prio, b.prio), cmp.Compare(b.size, a.size),
			cmp.Compare(b.Created, a.Created), a.ID.Compare(b.ID))
	})
	n1 := 0
	for ; n1 < len(all) && !room.fits(g.shape); n1++ {
		room.leave(&all[n1].Task, +1)
	}
	if !room.fits(g.shape) {
		return nil, some
	}
	e = &eviction{slot: n}
	for i := n1 - 1; i >= 0; i-- { // those that matter most first
		room.leave(&all[i].Task, -1)
		if !room.fits(g.shape) {
			room.leave(&all[i].Task, +1)
			e.victims = append(e.victims, all[i])
		}
	}
	slices.Reverse(e.victims)
	return e, some
}

// A vacancy is what a host would have free if some tasks left it.
type vacancy struct {
	host  *host
	free  unit.Resources
	ports int
	devs  []int16
}

// leave takes a task away, or puts it back.
func (v *vacancy) leave(t *state.Task, times int64) {
	v.free = v.free.Add(t.Resources.Times(times))
	for _, q := range t.Ports {
		if q >= v.host.row.Ports.From && q <= v.host.row.Ports.To {
			v.ports += int(times)
		}
	}
	if t.Resources.GPU > 0 {
		gpus := t.GPUs
		if len(gpus) == 0 {
			return // which ones it has nobody knows: they are counted when they are free
		}
		_, each := gpusOf(t.Resources.GPU)
		v.devs = slices.Clone(v.devs)
		for _, q := range gpus {
			if int(q) < len(v.devs) {
				v.devs[q] += int16(each * times)
			}
		}
	}
}

func (v *vacancy) fits(w *shape) bool {
	return w.need.Fits(v.free) && w.ports <= v.ports && (w.need.GPU <= 0 || gpusHold(v.devs, w.need.GPU))
}

// evicted is what a plan has decided to stop.
type evicted struct {
	tasks   map[task.ID]bool
	winners []winner
}

type winner struct {
	group *group
	slot  int32
}

// evict has the victims stopped and keeps their room for the winner.
func (p *planner) evict(g *group, row state.Task, e *eviction) {
	h := p.touch(e.slot)
	p.x.pick(e.slot)
	h.ranks = slices.Clone(h.ranks) // the host as it was has them too
	until := p.now + roomKept
	for _, v := range e.victims {
		p.evicted.tasks[v.ID] = true
		r := h.rankOf(v.ID.Job.Role(), v.kind)
		r.holds = r.holds.Sub(v.Resources)
		if v.tier != 0 {
			h.weak = h.weak.Sub(v.Resources)
		}
		h.ending = h.ending.Add(v.Resources)
		until = max(until, p.now+roomKept+v.wait)
		p.changes = append(p.changes, state.StepTask{
			ID: v.ID, Base: v.Rev,
			Event: task.Event{To: task.Preempting, At: p.now, Reason: "its room goes to " + row.ID.String() + ", which is more urgent"},
		})
	}
	was := h.free
	h.promise(g.job, g.shape.need)
	p.settled(g, was, h.free, e.slot)
	p.x.put(e.slot)
	p.x.tell(g.job, h, +1)
	p.loosen(g.job, &h.row.Machine)
	p.evicted.winners = append(p.evicted.winners, winner{g, e.slot})
	why := roomText(h.row.ID, len(e.victims))
	p.changes = append(p.changes, state.MakeRoom{ID: row.ID, Base: row.Rev, Machine: h.row.ID, Until: until, Reason: why})
	p.waits.Groups = append(p.waits.Groups, Wait{Task: row.ID, Job: g.job, Config: g.config, Tasks: 1, Text: why, Room: h.row.ID})
	p.waits.due(until)
}

// roomText says why a task with room of its own still waits.
func roomText(m machine.ID, stopping int) string {
	switch stopping {
	case 0:
		return "room is being made on " + string(m)
	case 1:
		return "room is being made on " + string(m) + ": 1 task is stopping there"
	}
	return fmt.Sprintf("room is being made on %s: %d tasks are stopping there", m, stopping)
}

// due notes that the plan should be made again at a time.
func (w *Waits) due(at unit.Tick) {
	if w.Next == 0 || at < w.Next {
		w.Next = at
	}
}

// promise keeps room on the host for a task that is still pending.
func (h *host) promise(k job.Key, need unit.Resources) {
	h.free = h.free.Sub(need)
	h.jobs = append(h.jobs, k)
}

// redeem takes a promise back, so that it can be kept or given up.
func (h *host) redeem(k job.Key, need unit.Resources) {
	h.free = h.free.Add(need)
	at := len(h.jobs) - 1
	for ; h.jobs[at] != k; at-- {
	}
	h.jobs = slices.Concat(h.jobs[:at], h.jobs[at+1:])
}

// A tenant is a pending task with room of its own.
type tenant struct {
	group   *group // of it alone
	machine machine.ID
}

// settle looks at the tasks for which room was made: those whose room is free
// get it, those whose room is lost wait like others from the next plan on.
func (p *planner) settle() {
	for _, id := range p.x.tenantsInOrder() {
		row, ok := p.s.Task(id)
		if !ok || row.Room == "" || p.held(p.x.tenants[id].group) {
			continue // the index is behind its snapshot, or the task waits whatever fits
		}
		p.settleOne(row, p.x.tenants[id].group)
	}
}

func (p *planner) settleOne(row state.Task, g *group) {
	n := p.x.slots[row.Room]
	why := p.lost(row, g, n)
	if why != "" {
		p.changes = append(p.changes, state.MakeRoom{ID: row.ID, Base: row.Rev, Reason: "its room on " + string(row.Room) + " is lost: " + why})
		p.waits.More = true // it waits like others then
		return
	}
	if p.moveIn(row, g, n) {
		return
	}
	text := roomText(row.Room, p.x.hosts[n].stops)
	p.waits.Groups = append(p.waits.Groups, Wait{Task: row.ID, Job: g.job, Config: row.Config, Tasks: 1, Text: text, Room: row.Room})
	p.waits.due(row.RoomUntil)
}

// moveIn gives a task the room that was made for it, if that is free.
func (p *planner) moveIn(row state.Task, g *group, n int32) bool {
	if h := &p.x.hosts[n]; !g.shape.need.Fits(h.free.Add(g.shape.need)) || g.shape.ports > h.portsLeft() {
		return false
	}
	free := p.x.hosts[n]
	p.x.tell(g.job, &free, -1)
	if g.moving != nil {
		p.x.refresh(g)
	}
	free.redeem(g.job, g.shape.need)
	if !free.fits(g.shape) || g.moving != nil && !g.moving.passes(&free.row.Machine) {
		p.x.tell(g.job, &free, +1)
		return false
	}
	h := p.touch(n)
	p.x.pick(n)
	*h, h.attach = free, nowhere
	p.x.put(n)
	p.redeemed = append(p.redeemed, placed{g, n})
	p.assign(row.ID, row.Rev, g, n, "room was made for it")
	return true
}

// lost says why room that was made is no good any more, if so.
func (p *planner) lost(row state.Task, g *group, n int32) string {
	switch {
	case g.shape == nil:
		return lostConfig
	case n == 0:
		return "the machine is gone"
	case p.x.hosts[n].attach == nowhere:
		return "the machine takes no tasks now"
	case !g.class.allowed[n]:
		return "its constraints do not allow the machine any more"
	case row.RoomUntil <= p.now:
		return "it was not free in time"
	}
	return ""
}

// tenantsInOrder returns the tasks with room of their own, in order.
func (x *Index) tenantsInOrder() []task.ID {
	ids := make([]task.ID, 0, len(x.tenants))
	for id := range x.tenants {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, task.ID.Compare)
	return ids
}

// roomOf explains a task with room of its own.
func roomOf(s *state.Snapshot, t state.Task) string {
	stopping := 0
	for o := range s.TasksOn(t.Room) {
		if o.State.Stopping() {
			stopping++
		}
	}
	return roomText(t.Room, stopping)
}
