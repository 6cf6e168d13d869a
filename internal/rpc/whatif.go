package rpc

import (
	"context"
	"io"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/whatif"
)

// maxFits is how many questions of FitJob are worked on at once: each one makes
// an index of the whole cluster.
const maxFits = 1

// FitJob places a job on a copy of the cluster that nobody else sees.
func (s *services) FitJob(ctx context.Context, req *connect.Request[pb.FitJobRequest]) (*connect.Response[pb.FitJobResponse], error) {
	m := req.Msg
	snap := s.b.View().Snapshot
	key, err := keyOf(snap, m.GetKey())
	if err != nil {
		return nil, err
	}
	if n := m.GetInstances(); n < 0 || n > job.MaxInstances {
		return nil, fault.Invalid.Errorf("instances is %d; want 1 to %d, or 0 for what the configuration says", n, job.MaxInstances)
	}
	j, err := s.evaluate(ctx, snap, key, &pb.CreateJobRequest{Key: m.GetKey(), Main: m.GetMain(), Files: m.GetFiles(), Binds: m.GetBinds(), User: m.GetUser()})
	if err != nil {
		return nil, err
	}
	if n := m.GetInstances(); n > 0 {
		j.Instances = job.FirstN(n)
	}
	if err = j.Validate(); err != nil {
		return nil, fault.Of(err).Errorf("job %s: %w", fullKey(snap, j.Key), err)
	}
	select {
	case s.fits <- struct{}{}:
		defer func() { <-s.fits }()
	case <-ctx.Done():
		return nil, fault.Unavailable.Errorf("the server works on another such question: %w", ctx.Err())
	}
	f, err := whatif.From(snap, nil, sched.NewIndex).Fit(j)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(fitToWire(fullKey(snap, key), f)), nil
}

// evaluate works out which job a bundle describes, and holds it to the key that
// was asked for.
func (s *services) evaluate(ctx context.Context, snap *state.Snapshot, key job.Key, m *pb.CreateJobRequest) (job.Job, error) {
	if err := checkBundle(m); err != nil {
		return job.Job{}, err
	}
	b := Bundle{Key: m.GetKey(), Main: m.GetMain(), Files: m.GetFiles(), Binds: m.GetBinds(), User: m.GetUser()}
	cluster, j, err := s.b.Evaluate(ctx, b)
	if err != nil {
		return job.Job{}, err
	}
	if cluster != snap.Cluster.Name || j.Key != key {
		return job.Job{}, fault.Invalid.Errorf("%s describes job %s/%s, not %s", b.Main, cluster, j.Key, b.Key)
	}
	return j, nil
}

func fitToWire(key string, f whatif.Fit) *pb.FitJobResponse {
	resp := &pb.FitJobResponse{Key: key, Instances: count(f.Asked), Fits: count(f.Fits), Replaces: f.Replaces, Stops: count(len(f.Stopped)), Refused: text(f.Refused)}
	if f.Fits < f.Asked {
		resp.Waits = &pb.InstanceExplanation{Instance: f.Wait.Task.Instance, Status: task.Pending.String()}
		fillExplanation(resp.Waits, f.Wait, true)
	}
	for _, l := range f.Machines[:min(len(f.Machines), maxPage)] {
		resp.Machines = append(resp.Machines, &pb.MachineCount{Machine: string(l.Machine), Tasks: count(l.Tasks)})
	}
	for _, x := range f.Stopped[:min(len(f.Stopped), maxPage)] {
		resp.Stopped = append(resp.Stopped, &pb.StoppedTask{TaskId: x.Task.String(), Tier: x.Tier, Reason: text(x.Reason)})
	}
	return resp
}

// ExportState sends a snapshot. The cluster goes on meanwhile: a snapshot never
// changes, and one piece at a time is in memory.
func (s *services) ExportState(ctx context.Context, _ *connect.Request[pb.ExportStateRequest], stream *connect.ServerStream[pb.ExportStateResponse]) error {
	d := deadlinesOf(ctx)
	p := &pieces{send: func(b []byte) error {
		if err := s.still(callerOf(ctx)); err != nil {
			return err
		}
		d.write(time.Now().Add(streamLimit))
		return stream.Send(&pb.ExportStateResponse{Data: b})
	}}
	if err := state.WriteExport(p, s.b.View().Snapshot); err != nil {
		return err
	}
	return p.flush()
}

// pieces joins what is written into pieces of maxPiece bytes.
type pieces struct {
	send func([]byte) error
	buf  []byte
}

var _ io.Writer = (*pieces)(nil)

func (p *pieces) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		some := min(len(b), maxPiece-len(p.buf))
		p.buf, b = append(p.buf, b[:some]...), b[some:]
		if len(p.buf) == maxPiece {
			if err := p.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (p *pieces) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	err := p.send(p.buf)
	p.buf = p.buf[:0]
	return err
}

// maxSteps bounds the steps of one task that an explanation tells.
const maxSteps = 100

// ExplainTask says where a task is and why, from its records.
func (s *services) ExplainTask(ctx context.Context, req *connect.Request[pb.ExplainTaskRequest]) (*connect.Response[pb.ExplainTaskResponse], error) {
	v := s.b.View()
	m := req.Msg
	key, err := keyOf(v.Snapshot, m.GetKey())
	if err != nil {
		return nil, err
	}
	if m.GetInstance() < 0 || m.GetInstance() >= job.MaxInstances {
		return nil, fault.Invalid.Errorf("instance is %d; want 0 to %d", m.GetInstance(), job.MaxInstances-1)
	}
	t, err := s.taskOf(ctx, v.Snapshot, state.Slot{Job: key, N: m.GetInstance()}, m.GetAttempt())
	if err != nil {
		return nil, err
	}
	resp := &pb.ExplainTaskResponse{TaskId: t.ID.String(), Status: t.State.String(), Text: text(explainPlaced(v.shunned(v.partitioned(throttled(v.Snapshot, t)))))}
	if t.State == task.Pending {
		w, failed := sched.Explain(v.Snapshot, t.ID, maxVerdicts)
		if failed != nil {
			return nil, failed
		}
		resp.Text = text(w.Text)
		resp.Waits = &pb.InstanceExplanation{TaskId: resp.GetTaskId(), Instance: t.ID.Instance, Status: resp.GetStatus()}
		fillExplanation(resp.Waits, w, true)
		if why := v.heldBack(slotOf(t), t.Config); why != "" {
			resp.Text, resp.Waits.Text = text(why), text(why)
		}
	}
	if t.State.Placed() {
		a, failed := sched.Elsewhere(v.Snapshot, t.ID, maxScores)
		if failed != nil {
			return nil, failed
		}
		resp.Machines, resp.Allowed, resp.Room = count(a.Machines), count(a.Allowed), count(a.Room)
		for _, x := range a.Scores {
			resp.Scores = append(resp.Scores, &pb.MachineScore{Machine: string(x.Machine), Thousandths: x.Thousandths, Last: x.Last, Here: x.Here, Tasks: x.Tasks, Gpus: x.GPUs, Kept: text(x.Kept), Avoided: x.Avoided, Avoid: text(avoidance(v.Snapshot, x.Machine))})
		}
		resp.Placement = job.BestFit
		if a.Spread {
			resp.Placement = job.Spread
		}
	}
	all, truncated, err := s.lastEvents(ctx, v.Snapshot, eventFilter{key: key, instance: t.ID.Instance, attempt: t.ID.Attempt, limit: maxSteps})
	if err != nil {
		return nil, err
	}
	resp.Events = all
	resp.Truncated = truncated && (len(all) == 0 || all[0].GetFrom() != task.Init.String())
	return connect.NewResponse(resp), nil
}

// avoidance says why a machine is avoided; empty: it is not.
func avoidance(s *state.Snapshot, id machine.ID) string {
	m, _ := s.Machine(id)
	return m.Avoid
}

// taskOf returns a task of a slot, alive or ended; attempt 0 is the last one.
func (s *services) taskOf(ctx context.Context, snap *state.Snapshot, at state.Slot, attempt uint32) (task.Task, error) {
	if t, ok := current(snap, at); ok && (attempt == 0 || t.ID.Attempt == attempt) {
		return t, nil
	}
	if t, ok := snap.Task(task.ID{Job: at.Job, Instance: at.N, Attempt: attempt}); ok {
		return t.Task, nil
	}
	past, err := s.ended(ctx, at.Job, at.N)
	if err != nil {
		return task.Task{}, err
	}
	in, _ := snap.Instance(at)
	if attempt == 0 {
		if t, ok := lastOf(in, past); ok {
			return t, nil
		}
	}
	if t, ok := past[task.ID{Job: at.Job, Instance: at.N, Attempt: attempt}]; ok {
		return t, nil
	}
	if attempt == 0 {
		return task.Task{}, fault.NotFound.Errorf("instance %d of job %s has had no task; covey job status %s shows those there are", at.N, fullKey(snap, at.Job), fullKey(snap, at.Job))
	}
	return task.Task{}, fault.NotFound.Errorf("there is no task %s/%d.%d, or it is no longer remembered; the last attempt is %d", fullKey(snap, at.Job), at.N, attempt, in.Attempt)
}
