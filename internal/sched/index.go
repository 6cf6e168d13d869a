package sched

import (
	"cmp"
	"maps"
	"slices"

	"github.com/google/btree"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// An Index is what placing remembers of a snapshot so that its cost follows
// the change: the machines in order of what they have left, and the tasks that
// wait. It holds nothing that [NewIndex] could not work out from the snapshot
// in one scan. It belongs to one goroutine.
type Index struct {
	slots   map[machine.ID]int32
	hosts   []host // by slot; slot 0 is no host
	nodes   []node // by slot
	roots   [allTrees][shelves]int32
	spare   []int32        // slots of machines that left
	largest unit.Resources // the most that any machine may give, in each measure

	groups  map[groupKey]*group
	waiting map[task.ID]waiting // every pending task
	classes map[string]*class
	tallies map[job.Key]*tally
	clock   uint64 // counts questions for classes

	tilt      tilt
	asks      map[job.Key]ask // of the tilt; none that asks for nothing
	insistent demands
	claimants []*claimant // in order of their keys; none while there is plenty
	parted    uint64      // how often there were others

	policy  Policy
	withGPU map[int32]bool // slots of hosts that are on boards
	boards  map[need]*board
	trail   []int32 // the slots of those that were put last
	changes uint64  // how many there were
	taste   *taste
	given   bool                // the taste was given, and is not worked out from the jobs
	demand  map[job.Key]Typical // of the jobs that ask for GPUs

	domains map[domainKey]*domain
	kinds   map[job.Hash]kind   // of configs
	tenants map[task.ID]*tenant // the pending tasks for which room is being made

	reasons map[reasonKey]reason // of the groups that the last plan left waiting
	looks   allowance            // to find them

	ranks   map[standing]map[int32]int32 // how many hosts have tasks of a priority that may be stopped
	ladders map[ladderKey]*ladder

	fronts map[need]*frontSet
	log    []int32 // the slots that were put last, into a tree or aside, or that are free
	puts   uint64  // how many there were
	looked int     // machines and tasks looked at to keep all of this, in all

	journal journal
}

// A group is the pending tasks of one job that run the same config: all of
// them fit on the same machines.
type group struct {
	groupKey
	shape  *shape // nil when the config is not stored
	class  *class
	moving *moving // nil without limits, spread or affinity
	tasks  *btree.BTreeG[waiter]
	wants  string // what it insists on, as demands name it; empty: nothing
}

type groupKey struct {
	job    job.Key
	config job.Hash
}

// waiting says where a pending task is kept.
type waiting struct {
	group   *group
	created unit.Tick
}

// A waiter is one pending task of a group.
type waiter struct {
	created unit.Tick
	id      task.ID
	rev     state.Rev
	avoid   machine.ID // where its instance failed or was lost last; that does not change while it waits
}

func waiterOf(s *state.Snapshot, t state.Task) waiter {
	w := waiter{created: t.Created, id: t.ID, rev: t.Rev}
	if t.ID.Attempt > 1 {
		w.avoid = avoid(s, t.ID)
	}
	return w
}

func (a waiter) compare(b waiter) int {
	if a.created != b.created {
		return cmp.Compare(a.created, b.created)
	}
	return a.id.Compare(b.id)
}

// A tally counts the tasks of a job on machines by the values of attributes.
type tally struct {
	groups int
	by     map[string]map[string]int32 // attribute, or onMachine; value
}

// NewIndex works an index out from s alone.
func NewIndex(s *state.Snapshot) *Index { return NewIndexFor(s, Covey) }

// NewIndexFor works an index out that places by another policy than Covey's own.
func NewIndexFor(s *state.Snapshot, policy Policy) *Index {
	_, _, machines := s.Len()
	x := &Index{
		domains: map[domainKey]*domain{}, kinds: map[job.Hash]kind{}, tenants: map[task.ID]*tenant{},
		policy: policy, withGPU: map[int32]bool{}, boards: map[need]*board{}, taste: &taste{},
		slots: make(map[machine.ID]int32, machines), hosts: make([]host, 1, machines+1), nodes: make([]node, 1, machines+1),
		groups: map[groupKey]*group{}, waiting: map[task.ID]waiting{}, classes: map[string]*class{}, tallies: map[job.Key]*tally{},
		asks: map[job.Key]ask{}, insistent: newDemands(), fronts: map[need]*frontSet{}, log: make([]int32, putsKept),
		ranks: map[standing]map[int32]int32{}, ladders: map[ladderKey]*ladder{},
	}
	for row := range s.Machines() {
		n := x.slot(row.ID)
		x.hosts[n] = look(s, row, x.kindOf)
		x.rankHosts(&x.hosts[n], +1)
		x.largest = largestOf(x.largest, x.hosts[n].all)
		x.tilt.has = x.tilt.has.plus(mib(x.hosts[n].all))
	}
	x.learn(s)
	for j := range s.Jobs("") {
		x.weigh(s, j.Key)
	}
	x.reclaim()
	for n := range x.hosts[1:] {
		x.put(int32(n + 1))
	}
	for t := range s.Tasks() {
		x.foldTask(s, t.ID, t, true)
	}
	return x
}

// Fold brings the index up to s, which differs from the snapshot that it was
// at in the keys of d, and in no other. It may name more.
func (x *Index) Fold(s *state.Snapshot, d state.Delta) {
	var changed []int32
	rescale := false
	for _, id := range slices.Sorted(maps.Keys(d.Machines)) {
		n, r := x.foldMachine(s, id)
		if n != 0 {
			changed = append(changed, n)
		}
		rescale = rescale || r
	}
	if rescale && x.rescale() {
		changed = nil
	}
	x.relearn(s, d.Jobs)
	for k := range d.Jobs {
		x.weigh(s, k)
	}
	x.reclaim()
	for _, n := range changed {
		x.put(n)
	}
	for _, id := range slices.SortedFunc(maps.Keys(d.Tasks), task.ID.Compare) {
		t, ok := s.Task(id)
		x.foldTask(s, id, t, ok)
	}
}

// slot returns the slot of a machine, a new one if need be.
func (x *Index) slot(id machine.ID) int32 {
	n, ok := x.slots[id]
	if ok {
		return n
	}
	if last := len(x.spare) - 1; last >= 0 {
		n, x.spare = x.spare[last], x.spare[:last]
	} else {
		n = int32(len(x.hosts))
		x.hosts, x.nodes = append(x.hosts, host{attach: nowhere}), append(x.nodes, node{})
	}
	x.slots[id] = n
	return n
}

// foldMachine takes one machine out of its tree and looks at it anew. It
// returns the slot that must be put back, 0 if the machine is gone, and
// whether the largest machine may be another one now.
func (x *Index) foldMachine(s *state.Snapshot, id machine.ID) (n int32, rescale bool) {
	row, exists := s.Machine(id)
	_, known := x.slots[id]
	if !exists && !known {
		return 0, false
	}
	n = x.slot(id)
	old := x.hosts[n]
	x.pick(n)
	x.count(&old, -1)
	x.rankHosts(&old, -1)
	var before unit.Resources
	if known {
		before = old.all
	}
	x.tilt.has = x.tilt.has.minus(mib(before))
	moved := !known || !exists || old.row.Rev != row.Rev
	if moved {
		x.redomain(n, &old.row.Machine, -1)
	}
	if !exists {
		x.unboard(n)
		x.hosts[n] = host{attach: nowhere}
		x.note(n)
		x.reclass(n)
		delete(x.slots, id)
		x.spare = append(x.spare, n)
		return 0, x.mayRescale(before, unit.Resources{})
	}
	h := look(s, row, x.kindOf)
	x.tilt.has = x.tilt.has.plus(mib(h.all))
	x.looked += 1 + len(h.jobs)
	x.count(&h, +1)
	x.rankHosts(&h, +1)
	h.mask = old.mask
	if !x.boarded(&h) {
		x.unboard(n)
	}
	x.hosts[n] = h
	if !known || !slices.Equal(old.row.Attributes, row.Attributes) {
		x.reclass(n)
	}
	if moved {
		x.redomain(n, &h.row.Machine, +1)
	}
	return n, x.mayRescale(before, h.all)
}

// mayRescale reports whether the largest machine may be another one when a
// machine gives after instead of before: in some measure it is the largest now,
// or it was one of them and gives less. To find out takes a look at every host.
func (x *Index) mayRescale(before, after unit.Resources) bool {
	if largestOf(x.largest, after) != x.largest {
		return true
	}
	l := x.largest
	less := func(was, is, most int64) bool { return was == most && is < was }
	return less(before.CPU, after.CPU, l.CPU) || less(before.RAM, after.RAM, l.RAM) || less(before.Disk, after.Disk, l.Disk) ||
		less(before.GPU, after.GPU, l.GPU) || less(before.Net, after.Net, l.Net)
}

// rescale looks for the largest machine again. If it is another one, every
// host is put into its tree anew, which fronts take note of as of any other
// put, and rescale returns true.
func (x *Index) rescale() bool {
	var largest unit.Resources
	for n := 1; n < len(x.hosts); n++ {
		if x.hosts[n].row.ID != "" {
			largest = largestOf(largest, x.hosts[n].all)
		}
	}
	if largest == x.largest {
		return false
	}
	x.looked += len(x.hosts)
	x.largest = largest
	x.putAll()
	return true
}

// putAll puts every host into its tree, of which all are made anew.
func (x *Index) putAll() {
	x.looked += len(x.hosts)
	x.roots = [allTrees][shelves]int32{}
	for n := 1; n < len(x.hosts); n++ {
		if x.hosts[n].row.ID != "" {
			x.put(int32(n))
		}
	}
}

// foldTask notes whether a task waits. It is live when there is one.
func (x *Index) foldTask(s *state.Snapshot, id task.ID, t state.Task, live bool) {
	x.looked++
	x.foldTenant(s, id, t, live && t.State == task.Pending && t.Room != "")
	old, waited := x.waiting[id]
	waits := live && t.State == task.Pending && t.Room == ""
	if !waited && !waits {
		return
	}
	if waited && waits && old.created == t.Created && old.group.config == t.Config {
		old.group.tasks.ReplaceOrInsert(waiterOf(s, t))
		return
	}
	if waited {
		delete(x.waiting, id)
		x.leave(old, id)
	}
	if waits {
		g := x.group(s, groupKey{id.Job, t.Config})
		x.waiting[id] = waiting{g, t.Created}
		g.tasks.ReplaceOrInsert(waiterOf(s, t))
	}
}

// foldTenant notes whether a task has room of its own.
func (x *Index) foldTenant(s *state.Snapshot, id task.ID, t state.Task, has bool) {
	old, had := x.tenants[id]
	if had && has && old.machine == t.Room && old.group.config == t.Config {
		return
	}
	if had {
		delete(x.tenants, id)
		x.part(old.group)
	}
	if !has {
		return
	}
	g := &group{groupKey: groupKey{id.Job, t.Config}}
	if cfg, ok := s.Config(t.Config); ok {
		g.shape = shapeOf(id.Job, cfg)
		x.join(s, g)
	}
	x.tenants[id] = &tenant{g, t.Room}
}

// group returns the group of a key, new or known.
func (x *Index) group(s *state.Snapshot, key groupKey) *group {
	if g, ok := x.groups[key]; ok {
		return g
	}
	g := &group{groupKey: key, tasks: btree.NewG(16, func(a, b waiter) bool { return a.compare(b) < 0 })}
	x.groups[key] = g
	cfg, ok := s.Config(key.config)
	if !ok {
		return g
	}
	g.shape = shapeOf(key.job, cfg)
	x.join(s, g)
	return g
}

// join finds what a group needs to be placed: its class and its job's tally.
func (x *Index) join(s *state.Snapshot, g *group) {
	g.class = x.classOf(g.shape)
	g.class.groups++
	g.moving = x.movingOf(s, g.job, g.shape)
	if w := g.shape.insists(); w != nil {
		g.wants = w.classKey()
	}
}

// part is the opposite of join.
func (x *Index) part(g *group) {
	if g.class != nil {
		g.class.groups--
	}
	if g.moving != nil {
		x.partMoving(g.job, g.moving)
	}
}

// leave takes a task out of its group, and forgets a group that is empty.
func (x *Index) leave(at waiting, id task.ID) {
	g := at.group
	g.tasks.Delete(waiter{created: at.created, id: id})
	if g.tasks.Len() > 0 {
		return
	}
	delete(x.groups, g.groupKey)
	x.part(g)
}

// tallyOf returns the tally of a job, which counts by the limits' attributes.
func (x *Index) tallyOf(s *state.Snapshot, k job.Key, limits []job.Constraint) *tally {
	y, ok := x.tallies[k]
	if !ok {
		y = &tally{by: map[string]map[string]int32{}}
		x.tallies[k] = y
	}
	for _, c := range limits {
		if _, known := y.by[c.Attribute]; known {
			continue
		}
		y.by[c.Attribute] = countBy(s, k, c.Attribute)
	}
	return y
}

// countBy counts the tasks of a job by the values of an attribute of the
// machines on which they hold a place.
func countBy(s *state.Snapshot, k job.Key, attribute string) map[string]int32 {
	n := map[string]int32{}
	for t := range s.TasksOf(k) {
		on := t.Machine
		if !t.State.Placed() {
			on = t.Room
		}
		if on == "" {
			continue
		}
		if m, ok := s.Machine(on); ok {
			addValues(n, &m.Machine, attribute, +1)
		}
	}
	return n
}

// tell counts one task of a job on a host in its tally, if it has one.
func (x *Index) tell(k job.Key, h *host, by int32) {
	if y, ok := x.tallies[k]; ok {
		y.add(&h.row.Machine, by)
	}
}

// count adds the tasks on a host to the tallies of their jobs, or takes them away.
func (x *Index) count(h *host, by int32) {
	for _, k := range h.jobs {
		if y, ok := x.tallies[k]; ok {
			y.add(&h.row.Machine, by)
		}
	}
}

// add counts one task on m.
func (y *tally) add(m *machine.Machine, by int32) {
	for attribute, n := range y.by {
		addValues(n, m, attribute, by)
	}
}

func addValues(n map[string]int32, m *machine.Machine, attribute string, by int32) {
	if attribute == onMachine {
		addTo(n, string(m.ID), by)
		return
	}
	for i, a := range m.Attributes {
		if a.Name != attribute || i > 0 && m.Attributes[i-1] == a {
			continue
		}
		addTo(n, a.Value, by)
	}
}

func addTo(n map[string]int32, value string, by int32) {
	if n[value] += by; n[value] == 0 {
		delete(n, value)
	}
}
