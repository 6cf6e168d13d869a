package rpc

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// keyOf reads cluster/role/env/name and holds it to this cluster.
func keyOf(s *state.Snapshot, full string) (job.Key, error) {
	cluster, k, err := job.ParseKey(full)
	if err != nil {
		return "", err
	}
	if cluster != s.Cluster.Name {
		return "", fault.Invalid.Errorf("job key %.200q is of cluster %s, and this server is cluster %s; choose the server with --server or covey cluster use", full, cluster, s.Cluster.Name)
	}
	return k, nil
}

// fullKey is a key with its cluster, as users write it.
func fullKey(s *state.Snapshot, k job.Key) string { return s.Cluster.Name + "/" + string(k) }

func jobToWire(s *state.Snapshot, j state.Job) (*pb.Job, error) {
	p := &pb.Job{
		Key: fullKey(s, j.Key), Instances: j.Instances.String(), ConfigHash: hashToWire(j.Config),
		CreatedUnixNanos: nanos(j.Created), UpdatedUnixNanos: nanos(j.Updated), By: text(j.By),
	}
	cfg, ok := s.Config(j.Config)
	if !ok {
		return nil, fault.Internal.Errorf("the config of job %s is not stored; restore the database from a backup", fullKey(s, j.Key))
	}
	var err error
	p.ConfigJson, err = cfg.Encode()
	return p, err
}

// taskToWire shows a task as of v: with the names of its ports, and, while it
// waits for a machine, why it waits.
func taskToWire(v View, t task.Task) *pb.Task {
	p := &pb.Task{
		Id: t.ID.String(), Instance: t.ID.Instance, Status: t.State.String(), Machine: string(t.Machine), Reason: text(t.Reason),
		SinceUnixNanos: nanos(t.Since), CreatedUnixNanos: nanos(t.Created), RanUnixNanos: nanos(t.Ran),
		Resources: resourcesToWire(t.Resources), Failures: t.Failures, ConfigHash: hashToWire(t.Config),
	}
	if m, ok := v.Snapshot.Machine(t.Machine); ok {
		p.Host = text(m.Host)
	}
	if cfg, ok := v.Snapshot.Config(t.Config); ok {
		for i, n := range cfg.Task.Ports {
			if i < len(t.Ports) {
				if p.Ports == nil {
					p.Ports = map[string]uint32{}
				}
				p.Ports[n] = uint32(t.Ports[i])
			}
		}
	}
	switch t.State {
	case task.Pending:
		if why := v.heldBack(slotOf(t), t.Config); why != "" {
			p.Reason = text(why)
		} else if w, ok := v.Waits.Of(t); ok {
			p.Reason = text(w.Text)
		}
	case task.Partitioned:
		p.Reason = text(v.partitioned(t).Reason)
	case task.Throttled:
		p.Reason = text(throttled(v.Snapshot, t).Reason)
	default:
	}
	return p
}

func slotOf(t task.Task) state.Slot { return state.Slot{Job: t.ID.Job, N: t.ID.Instance} }

// heldBack says why no task is numbered or placed in a slot; empty: none is
// held back.
func (v View) heldBack(at state.Slot, h job.Hash) string {
	cfg, _ := v.Snapshot.Config(h)
	return v.Holds.Of(at, cfg)
}

// delayed is an ended task with the reason why no other takes its place yet,
// if one is to: its slot is open, or not numbered yet.
func (v View) delayed(at state.Slot, t task.Task) task.Task {
	j, ok := v.Snapshot.Job(at.Job)
	in, numbered := v.Snapshot.Instance(at)
	if !ok || !j.Instances.Has(at.N) || in.Live || numbered && !in.Open {
		return t
	}
	if why := v.heldBack(at, j.Config); why != "" {
		t.Reason = strings.TrimPrefix(t.Reason+"; the next task waits: "+why, "; ")
	}
	return t
}

// partitioned is a task with how long it waits for its machine. A task in
// another state is as it was.
func (v View) partitioned(t task.Task) task.Task {
	if row, ok := v.Snapshot.Task(t.ID); ok && t.State == task.Partitioned {
		t.Reason = strings.TrimPrefix(t.Reason+"; "+v.Holds.Partitioned(v.Snapshot, row), "; ")
	}
	return t
}

// shunned is a task with why machines are avoided that have to do with it: the
// one that it is on, and the one where its instance was before.
func (v View) shunned(t task.Task) task.Task {
	in, _ := v.Snapshot.Instance(slotOf(t))
	for i, id := range []machine.ID{t.Machine, in.Last.Machine} {
		if i == 1 && (id == t.Machine || in.Last.Attempt >= t.ID.Attempt) {
			continue
		}
		if m, ok := v.Snapshot.Machine(id); ok && m.Avoid != "" {
			t.Reason = strings.TrimPrefix(fmt.Sprintf("%s; machine %s is avoided: %s", t.Reason, id, m.Avoid), "; ")
		}
	}
	return t
}

// throttled is a task with the reason why it waits out a delay: how often its
// slot's tasks ended early, which it says by itself, and how the last one did.
// A task in another state is as it was.
func throttled(s *state.Snapshot, t task.Task) task.Task {
	in, _ := s.Instance(state.Slot{Job: t.ID.Job, N: t.ID.Instance})
	if o := in.Last; t.State == task.Throttled && o.Attempt != 0 {
		t.Reason += "; the last time: " + cmp.Or(o.Reason, "it was "+o.State.String())
	}
	return t
}

// eventToWire is a record of a task, or nil if it is of something else.
func eventToWire(r state.Record) *pb.TaskEvent {
	if r.Task == nil {
		return nil
	}
	a := r.Task.After
	e := &pb.TaskEvent{
		Seq: uint64(r.Seq), AtUnixNanos: nanos(r.At), TaskId: a.ID.String(), From: r.Task.Before.String(),
		To: a.State.String(), Machine: string(a.Machine), Reason: text(a.Reason), By: text(r.By),
	}
	if a.Machine != "" {
		e.Left = resourcesToWire(r.Task.Free)
	}
	return e
}

// current returns the newest task of a slot that has not ended.
func current(s *state.Snapshot, at state.Slot) (task.Task, bool) {
	var last task.Task
	found := false
	for t := range s.TasksIn(at) {
		last, found = t.Task, true
	}
	return last, found
}

// ended returns the last tasks of a job that have ended, by id.
func (s *services) ended(ctx context.Context, k job.Key, instance int32) (map[task.ID]task.Task, error) {
	ts, err := s.b.History(ctx, state.HistoryQuery{Job: k, Instance: instance, Limit: state.MaxHistory})
	if err != nil {
		return nil, err
	}
	byID := make(map[task.ID]task.Task, len(ts))
	for _, t := range ts {
		byID[t.ID] = t
	}
	return byID, nil
}

// lastOf returns the last task of a slot that ended: from the history, or as
// much of it as the slot remembers.
func lastOf(in state.Instance, ended map[task.ID]task.Task) (task.Task, bool) {
	o := in.Last
	if o.Attempt == 0 {
		return task.Task{}, false
	}
	id := task.ID{Job: in.Job, Instance: in.N, Attempt: o.Attempt}
	if t, ok := ended[id]; ok {
		return t, true
	}
	return task.Task{ID: id, State: o.State, Since: o.At, Machine: o.Machine, Reason: o.Reason, Failures: in.Failures}, true
}

// verdicts says what rules machines out, by the number of machines.
func verdicts(w sched.Wait) []*pb.Verdict {
	var out []*pb.Verdict
	for _, r := range w.Reasons {
		out = append(out, &pb.Verdict{Reason: text(lackText(r.Lack, false)), Machines: count(r.Machines)})
	}
	return out
}

// lackText says what a machine lacks: with amounts for one machine, without
// for a count of them.
func lackText(l sched.Lack, amounts bool) string {
	switch l.Rule {
	case sched.Down, sched.Leaving, sched.Draining, sched.Drained:
		return string(l.Rule)
	case sched.Dedicated:
		return "dedicated to " + l.Detail
	case sched.Attribute:
		return "no attribute " + l.Detail
	case sched.Constraint:
		return "constraint " + l.Detail
	case sched.Limit:
		return "limit of the job on one " + l.Detail
	case sched.Spreading:
		return "spread of the job over " + l.Detail
	case sched.Affinity:
		return "affinity " + l.Detail
	case sched.CPU, sched.RAM, sched.Disk, sched.GPU, sched.Net, sched.Ports:
	}
	what := "insufficient " + string(l.Rule)
	if amounts {
		what += " (needs " + amount(l.Rule, l.Need) + ", has " + amount(l.Rule, l.Have) + ")"
	}
	return what
}
