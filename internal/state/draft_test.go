package state_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
)

var (
	jobKeys    = []job.Key{"a/prod/x", "a/prod/y", "b/test/x"}
	machineIDs = []machine.ID{"m1", "m2"}
	sources    = []string{"m1/j", "m2/j"}
)

// dump is everything that a snapshot shows.
func dump(s *state.Snapshot) map[string]any {
	out := map[string]any{"head": state.Head{Rev: s.Rev, Seq: s.Seq, At: s.At}, "cluster": s.Cluster}
	for j := range s.Jobs("") {
		cfg, ok := s.Config(j.Config)
		out["job "+string(j.Key)] = []any{j, cfg, ok, s.ConfigBytes(j.Config)}
	}
	for in := range s.AllInstances() {
		out["slot "+in.String()] = in
	}
	for t := range s.Tasks() {
		out["task "+t.ID.String()] = t
	}
	for m := range s.Machines() {
		var on []task.ID
		for t := range s.TasksOn(m.ID) {
			on = append(on, t.ID)
		}
		out["machine "+string(m.ID)] = []any{m, s.Free(m.ID), on}
	}
	for c := range s.Credentials() {
		out["credential "+c.Hash] = c
	}
	for role, sum := range s.Consumers("") {
		out["consumed by "+role] = sum
	}
	for q := range s.Quotas("") {
		out["quota of "+q.Role] = q
	}
	for _, src := range sources {
		out["source "+src] = s.Source(src)
	}
	for h, refs := range state.ConfigRefs(s) { // one that nobody runs is gone
		out["config "+h.String()] = []any{refs, refs > 0}
		if refs == 0 {
			out["unused "+h.String()] = h
		}
	}
	return out
}

// differ is cmp.Diff for what is mostly equal.
func differ(a, b any) string {
	if reflect.DeepEqual(a, b) {
		return ""
	}
	return cmp.Diff(a, b, cmpopts.EquateEmpty())
}

// anyChange makes up a change that may or may not be refused: its base is the
// row's revision, or a wrong one.
func anyChange(t *rapid.T, s *state.Snapshot) state.Change {
	key := rapid.SampledFrom(jobKeys).Draw(t, "job")
	id := rapid.SampledFrom(machineIDs).Draw(t, "machine")
	at := state.Slot{Job: key, N: rapid.Int32Range(0, 2).Draw(t, "slot")}
	base := func(r state.Rev) state.Rev {
		if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
			return r + 1
		}
		return r
	}
	in, _ := s.Instance(at)
	j, _ := s.Job(key)
	m, _ := s.Machine(id)
	switch rapid.IntRange(0, 18).Draw(t, "kind") {
	case 0, 1:
		cfg := job.Config{Service: rapid.Bool().Draw(t, "service"), MaxTaskFailures: 2, Priority: rapid.Int32Range(0, 2).Draw(t, "priority")}
		cfg.Task.Resources = unit.Resources{CPU: rapid.Int64Range(1, 9).Draw(t, "cpu"), RAM: unit.MiB}
		cfg.Tier = rapid.SampledFrom([]string{job.Preferred, job.Preferred, job.Preemptible}).Draw(t, "tier")
		if rapid.IntRange(0, 3).Draw(t, "dedicated") == 0 {
			cfg.Constraints = []job.Constraint{{Attribute: "dedicated", Values: []string{"*/x"}}}
		}
		return state.PutJob{Job: job.Job{Key: key, Instances: job.FirstN(rapid.Int32Range(1, 3).Draw(t, "instances")), Config: cfg}, Base: base(j.Rev), By: "ann"}
	case 2:
		return state.DropJob{Key: key, Base: base(j.Rev)}
	case 3:
		return state.OpenSlot{Slot: at, Base: base(in.Rev)}
	case 4, 5:
		return state.NewTask{Slot: at, Base: base(in.Rev)}
	case 6:
		row := machine.Machine{ID: id, Up: rapid.Bool().Draw(t, "up"), Capacity: unit.Resources{CPU: rapid.Int64Range(0, 99).Draw(t, "capacity")}}
		row.Overhead.CPU = rapid.Int64Range(0, 99).Draw(t, "overhead")
		return state.PutMachine{Machine: row, Base: base(m.Rev)}
	case 7:
		return state.DropMachine{ID: id, Base: base(m.Rev)}
	case 8:
		return state.TakeFact{Fact: state.Fact{Source: rapid.SampledFrom(sources).Draw(t, "source"), Seq: rapid.Uint64Range(1, 5).Draw(t, "n")}}
	case 9:
		h := rapid.SampledFrom([]string{"h", "i"}).Draw(t, "hash")
		c, _ := s.Credential(h)
		if rapid.Bool().Draw(t, "drop") {
			return state.DropCredential{Hash: h, Base: base(c.Rev)}
		}
		return state.PutCredential{Credential: state.Credential{Hash: h, Kind: rapid.SampledFrom(bearerKinds).Draw(t, "bearer"), Subject: string(id)}, Base: base(c.Rev)}
	case 17:
		role := rapid.SampledFrom([]string{"a", "b", tenant.EveryRole}).Draw(t, "role")
		q, _ := s.Quota(role)
		if rapid.Bool().Draw(t, "drop") {
			return state.DropQuota{Role: role, Base: base(q.Rev), By: "ann"}
		}
		return state.PutQuota{Role: role, Quota: tenant.Quota{Resources: unit.Resources{CPU: rapid.Int64Range(0, 9).Draw(t, "quota")}}, Base: base(q.Rev), By: "ann"}
	case 16:
		x := state.Stray{ID: task.ID{Job: key, Attempt: rapid.Uint32Range(1, 3).Draw(t, "stray")}, Resources: unit.Resources{CPU: rapid.Int64Range(0, 9).Draw(t, "holds")}}
		return state.PutStrays{ID: id, Base: base(m.Rev), Strays: append(slices.Clone(m.Strays), x)[rapid.IntRange(0, len(m.Strays)).Draw(t, "first"):]}
	case 10:
		if j.Key == "" {
			return state.DropJob{Key: key}
		}
		x := task.Task{ID: task.ID{Job: key, Instance: at.N, Attempt: rapid.Uint32Range(1, 9).Draw(t, "attempt")}, Config: j.Config, State: task.Running, Machine: id}
		return state.AdoptTask{Task: x}
	default:
		return anyStep(t, s, id)
	}
}

func anyStep(t *rapid.T, s *state.Snapshot, id machine.ID) state.Change {
	all := slices.Collect(s.Tasks())
	if len(all) == 0 {
		return state.StepTask{ID: task.ID{Job: "no/prod/job"}}
	}
	x := rapid.SampledFrom(all).Draw(t, "task")
	to := rapid.SampledFrom([]task.State{
		task.Pending, task.Starting, task.Running, task.Running, task.Finished, task.Failed, task.Killed, task.Lost, task.Killing,
		task.Restarting, task.Partitioned, task.Throttled,
	}).Draw(t, "to")
	if x.State == task.Pending && rapid.Bool().Draw(t, "place") {
		to = task.Assigned
	}
	return state.StepTask{ID: x.ID, Base: x.Rev, Event: task.Event{To: to, Machine: id, Ports: []uint16{31000}}, Gone: rapid.Bool().Draw(t, "gone")}
}

// TestDraft holds random histories to what a draft promises: a refused change
// leaves nothing, the base stays as it is, what is sealed restores to the same
// snapshot, and no number of a task is used twice, whatever is deleted or put back.
func TestDraft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &drafting{t: t, mem: &state.Mem{}, base: state.New(), now: 1000 * unit.Hour, numbered: map[task.ID]bool{}, told: map[machine.ID]*state.MachineChange{}}
		w.acquire()
		for range rapid.IntRange(1, 25).Draw(t, "commits") {
			w.commit()
			if rapid.IntRange(0, 9).Draw(t, "restore") == 0 {
				w.restore()
			}
		}
	})
}

type drafting struct {
	t        *rapid.T
	mem      *state.Mem
	copy     *state.Mem
	epoch    machine.Epoch
	base     *state.Snapshot
	now      unit.Tick
	numbered map[task.ID]bool
	told     map[machine.ID]*state.MachineChange // what the last record of it said
	copied   map[machine.ID]*state.MachineChange // the same when the copy was made
}

func (w *drafting) acquire() {
	e, err := w.mem.Acquire(context.Background(), "leader")
	if err != nil {
		w.t.Fatal(err)
	}
	w.epoch = e
}

func (w *drafting) commit() {
	t := w.t
	w.now += unit.Tick(rapid.Int64Range(-1e6, 400e6).Draw(t, "time")) // back a little, or up to 24 minutes on
	before := dump(w.base)
	d := state.NewDraft(w.base, w.now)
	var taken []state.Change
	for range rapid.IntRange(0, 12).Draw(t, "changes") {
		was := dump(d.Snapshot())
		c := anyChange(t, d.Snapshot())
		err := d.Apply(c)
		if err == nil {
			taken = append(taken, c)
			continue
		}
		if fault.Of(err) != fault.Conflict {
			t.Fatalf("%+v: %v; want kind conflict", c, err)
		}
		if diff := differ(was, dump(d.Snapshot())); diff != "" {
			t.Fatalf("%T was refused (%v) and left this (-before +after):\n%s", c, err, diff)
		}
	}
	batch, snap, _ := d.Seal(w.epoch)
	if left := snap.Unused(); len(left) > 0 {
		t.Fatalf("configs %v are kept though nothing runs them", left)
	}
	w.same(batch, snap, taken)
	w.records(batch, snap)
	if diff := differ(before, dump(w.base)); diff != "" {
		t.Fatalf("the base has changed:\n%s", diff)
	}
	if !batch.Empty() {
		if err := w.mem.Commit(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
	}
	followed, err := w.base.Follow(batch.Rows, state.Head{Rev: snap.Rev, Seq: snap.Seq, At: snap.At})
	if err != nil {
		w.t.Fatal(err)
	}
	if diff := differ(dump(followed), dump(snap)); diff != "" {
		w.t.Fatalf("what a follower would see is not what was sealed (-followed +sealed):\n%s", diff)
	}
	w.base = snap
	restored := w.load()
	if diff := differ(dump(restored), dump(snap)); diff != "" {
		t.Fatalf("what a restart would see is not what was sealed (-restored +sealed):\n%s", diff)
	}
	for _, s := range []*state.Snapshot{snap, followed, restored} {
		bearers(t, s)
	}
}

// same holds a draft with refused changes to one that never saw them.
func (w *drafting) same(batch *state.Batch, snap *state.Snapshot, taken []state.Change) {
	d := state.NewDraft(w.base, w.now)
	for _, c := range taken {
		if err := d.Apply(c); err != nil {
			w.t.Fatalf("%T was taken before: %v", c, err)
		}
	}
	again, s, _ := d.Seal(w.epoch)
	if diff := differ(again, batch); diff != "" {
		w.t.Fatalf("the batch holds something of a refused change (-without +with):\n%s", diff)
	}
	if diff := differ(dump(s), dump(snap)); diff != "" {
		w.t.Fatalf("the snapshot holds something of a refused change (-without +with):\n%s", diff)
	}
}

// records holds the records of a batch to its rows: numbered on, no task
// numbered twice, whoever ended in the history and gone from the rows.
func (w *drafting) records(b *state.Batch, s *state.Snapshot) {
	var ended []task.ID
	next := w.base.Seq
	for i := range b.Records {
		r := &b.Records[i]
		next++
		if r.Seq != next || r.At != b.At || b.At <= w.base.At {
			w.t.Fatalf("record %d at %d in a batch at %d after %d; want %d", r.Seq, r.At, b.At, w.base.At, next)
		}
		if r.Machine != nil {
			w.told[r.Machine.After.ID] = r.Machine
		}
		if r.Task == nil {
			continue
		}
		id := r.Task.After.ID
		if r.Task.Before == task.Init {
			if w.numbered[id] && r.Task.After.State != task.Running { // who runs already was adopted
				w.t.Fatalf("task %v was numbered twice", id)
			}
			w.numbered[id] = true
		}
		if r.Task.After.State.Terminal() {
			ended = append(ended, id)
			if _, live := s.Task(id); live {
				w.t.Fatalf("task %v has ended and is live", id)
			}
		}
	}
	got := make([]task.ID, 0, len(b.Ended))
	for _, x := range b.Ended {
		got = append(got, x.ID)
	}
	if diff := cmp.Diff(ended, got, cmpopts.EquateEmpty()); diff != "" {
		w.t.Fatalf("ended tasks (-records +history):\n%s", diff)
	}
	w.accounts(s)
}

// accounts works out anew what each machine has left, and who holds a slot.
func (w *drafting) accounts(s *state.Snapshot) {
	for m := range s.Machines() {
		left := m.Allocatable()
		for i, x := range m.Strays {
			left = left.Sub(x.Resources)
			if i > 0 && m.Strays[i-1].ID.Compare(x.ID) > 0 {
				w.t.Fatalf("machine %s has %v before %v", m.ID, m.Strays[i-1].ID, x.ID)
			}
		}
		for t := range s.Tasks() {
			if t.Machine == m.ID && t.State.Placed() {
				left = left.Sub(t.Resources)
			}
		}
		if left != s.Free(m.ID) {
			w.t.Fatalf("machine %s has %v left by its account, %v by its tasks", m.ID, s.Free(m.ID), left)
		}
		if told := w.told[m.ID]; told.After.Owed != m.Owed || told.After.Overhead != m.Overhead.Add(m.Strayed()) {
			w.t.Fatalf("machine %s keeps back %v, its strays %v, and owes %v; the last record says %v and %v", m.ID, m.Overhead, m.Strayed(), m.Owed, told.After.Overhead, told.After.Owed)
		}
		if settled := m.Settle(left); settled.Owed != m.Owed || settled.Overhead != m.Overhead {
			w.t.Fatalf("machine %s keeps back %v and owes %v; want %v and %v", m.ID, m.Overhead, m.Owed, settled.Overhead, settled.Owed)
		}
	}
	w.consumption(s)
	live := map[state.Slot]task.ID{}
	for t := range s.Tasks() {
		at := state.Slot{Job: t.ID.Job, N: t.ID.Instance}
		if other, two := live[at]; two {
			w.t.Fatalf("slot %v has two live tasks, %v and %v", at, other, t.ID)
		}
		live[at] = t.ID
	}
	for in := range s.AllInstances() {
		id, has := live[in.Slot]
		if in.Live != has || has && id.Attempt != in.Attempt {
			w.t.Fatalf("slot %+v, live task %v", in, id)
		}
	}
}

// restore puts an old copy back, as a new incarnation.
func (w *drafting) restore() {
	if w.copy == nil {
		w.copy, w.copied = w.mem.Clone(), maps.Clone(w.told)
		return
	}
	incarnation := w.base.Cluster.Incarnation
	w.mem, w.copy, w.told = w.copy, nil, w.copied
	w.acquire()
	w.base = w.load()
	d := state.NewDraft(w.base, w.now)
	if err := d.Apply(state.PutCluster{Cluster: state.Cluster{Name: "c", UID: "u", Incarnation: max(1, incarnation) + 1}}); err != nil {
		w.t.Fatal(err)
	}
	b, s, _ := d.Seal(w.epoch)
	if err := w.mem.Commit(context.Background(), b); err != nil {
		w.t.Fatal(err)
	}
	w.base = s
}

// load is what a restart would see.
func (w *drafting) load() *state.Snapshot {
	s, err := state.Restore(func(yield func(state.Row) error) (state.Head, error) { return w.mem.Load(context.Background(), yield) })
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// TestChanged tells an engine what has changed since it looked last, and the
// batch's delta all of it.
func TestChanged(t *testing.T) {
	d := state.NewDraft(state.New(), 5)
	apply(t, d, state.PutMachine{Machine: machine.Machine{ID: "m1"}})
	apply(t, d, state.PutJob{Job: job.Job{Key: "a/prod/x", Instances: job.FirstN(1)}})
	first := d.Changed()
	if !first.Machines["m1"] || !first.Jobs["a/prod/x"] || len(first.Slots)+len(first.Tasks) != 0 {
		t.Errorf("first look: %+v", first)
	}
	apply(t, d, state.OpenSlot{Slot: state.Slot{Job: "a/prod/x"}})
	second := d.Changed()
	if !second.Slots[state.Slot{Job: "a/prod/x"}] || len(second.Machines)+len(second.Jobs) != 0 {
		t.Errorf("second look: %+v", second)
	}
	if third := d.Changed(); len(third.Slots) != 0 {
		t.Errorf("third look: %+v, want nothing", third)
	}
	_, _, all := d.Seal(machine.Epoch{})
	if !all.Machines["m1"] || !all.Jobs["a/prod/x"] || len(all.Slots) != 1 {
		t.Errorf("the batch's delta: %+v", all)
	}
}

// TestEmptyDraft: whoever changes nothing commits nothing.
func TestEmptyDraft(t *testing.T) {
	base := state.New()
	b, s, _ := state.NewDraft(base, 7).Seal(machine.Epoch{N: 3})
	if !b.Empty() || s != base || b.Rev != b.Base {
		t.Errorf("batch %+v, same snapshot %v; want nothing new", b, s == base)
	}
}

// TestConfigsAreShared stores equal configs once.
func TestConfigsAreShared(t *testing.T) {
	d := state.NewDraft(state.New(), 5)
	for _, k := range jobKeys {
		apply(t, d, state.PutJob{Job: job.Job{Key: k, Instances: job.FirstN(1), Config: job.Config{Contact: "ann"}}})
	}
	b, s, _ := d.Seal(machine.Epoch{})
	n := 0
	for _, r := range b.Rows {
		if r.Table == state.ConfigTable {
			n++
			if !bytes.Equal(r.Value, s.ConfigBytes(job.HashOf(r.Value))) {
				t.Errorf("config row %x is not stored under its hash", r.Key)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d configs stored, want 1", n)
	}
}

func apply(t *testing.T, d *state.Draft, c state.Change) {
	t.Helper()
	if err := d.Apply(c); err != nil {
		t.Fatal(fmt.Errorf("%T: %w", c, err))
	}
}

// TestUnusedConfig: a config that an earlier version left behind is found and
// forgotten, one that a job runs is not.
func TestUnusedConfig(t *testing.T) {
	old := job.Config{Service: true, Priority: 7}
	text, err := old.Encode()
	if err != nil {
		t.Fatal(err)
	}
	h := job.HashOf(text)
	s, err := state.Restore(func(yield func(state.Row) error) (state.Head, error) {
		return state.Head{}, yield(state.Row{Table: state.ConfigTable, Key: state.ConfigKey(h), Value: text})
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]job.Hash{h}, s.Unused()); d != "" {
		t.Fatalf("unused configs (-want +got):\n%s", d)
	}
	d := state.NewDraft(s, 1)
	if err = d.Apply(state.DropConfig{Hash: h}); err != nil {
		t.Fatal(err)
	}
	b, s, _ := d.Seal(machine.Epoch{})
	if want := []state.Row{{Table: state.ConfigTable, Key: state.ConfigKey(h)}}; !reflect.DeepEqual(want, b.Rows) || len(s.Unused()) != 0 {
		t.Errorf("rows %+v and unused configs %v; want one row deleted and none", b.Rows, s.Unused())
	}
	d = state.NewDraft(s, 2)
	if err = d.Apply(state.PutJob{Job: job.Job{Key: "a/prod/x", Instances: job.FirstN(1), Config: old}}); err != nil {
		t.Fatal(err)
	}
	if err = d.Apply(state.DropConfig{Hash: h}); fault.Of(err) != fault.Conflict {
		t.Errorf("a config that a job runs was dropped: %v; want conflict", err)
	}
}
