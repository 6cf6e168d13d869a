package rpc

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// maxTargets bounds the tasks whose logs one call merges.
const maxTargets = 100

// A target is a task whose files can be looked at.
type target struct {
	id      task.ID
	machine machine.ID
	live    bool
}

// slots returns the slots of a job, or those that are meant: some, else the one
// instance, -1 being all. It looks at what is remembered when the job itself is
// gone.
func slots(s *state.Snapshot, k job.Key, instance int32, some job.Ranges) ([]state.Slot, error) {
	j, exists := s.Job(k)
	if !exists && !known(s, k) {
		return nil, control.NoJob(s, k)
	}
	switch {
	case some.Len() > maxTargets:
		return nil, tooMany(s, k, some.Len())
	case some != nil:
		var out []state.Slot
		for n := range some.All() {
			at := state.Slot{Job: k, N: n}
			if _, ok := s.Instance(at); !ok {
				return nil, noInstance(s, k, n, j)
			}
			out = append(out, at)
		}
		return out, nil
	case instance < -1 || instance >= job.MaxInstances:
		return nil, fault.Invalid.Errorf("instance is %d; want -1 for all, or 0 to %d", instance, job.MaxInstances-1)
	case instance >= 0:
		at := state.Slot{Job: k, N: instance}
		if _, ok := s.Instance(at); !ok {
			return nil, noInstance(s, k, instance, j)
		}
		return []state.Slot{at}, nil
	}
	var out []state.Slot
	if exists {
		for n := range j.Instances.All() {
			out = append(out, state.Slot{Job: k, N: n})
		}
	} else {
		for in := range s.Instances(k) {
			out = append(out, in.Slot)
		}
	}
	if len(out) > maxTargets {
		return nil, tooMany(s, k, len(out))
	}
	return out, nil
}

func noInstance(s *state.Snapshot, k job.Key, n int32, j state.Job) error {
	return fault.NotFound.Errorf("job %s has no instance %d; it has %v", fullKey(s, k), n, j.Instances)
}

func tooMany(s *state.Snapshot, k job.Key, n int) error {
	return fault.Exhausted.Errorf("logs of job %s are asked for of %d instances, and of at most %d they are merged; name fewer, such as %s/0-%d",
		fullKey(s, k), n, maxTargets, fullKey(s, k), maxTargets-1)
}

// targetOf finds the task of a slot to look at: the present one, or the last
// one that ended while there is none on a machine; or the one before.
func (s *services) targetOf(ctx context.Context, snap *state.Snapshot, at state.Slot, previous bool) (target, bool, error) {
	now, live := current(snap, at)
	if live && now.Machine != "" && !previous {
		return target{now.ID, now.Machine, true}, true, nil
	}
	in, _ := snap.Instance(at)
	if !previous {
		last, ok := lastOf(in, nil)
		return target{last.ID, last.Machine, false}, ok && last.Machine != "", nil
	}
	past, err := s.b.History(ctx, state.HistoryQuery{Job: at.Job, Instance: at.N, Limit: maxPage})
	if err != nil {
		return target{}, false, err
	}
	slices.SortFunc(past, func(a, b task.Task) int { return b.ID.Compare(a.ID) })
	for _, t := range past { // the newest first; those that never ran anywhere left nothing
		if t.ID.Attempt < in.Attempt && t.Machine != "" {
			return target{t.ID, t.Machine, false}, true, nil
		}
	}
	return target{}, false, nil
}

// oneTarget finds the task of one slot, or says that there is nothing to see.
func (s *services) oneTarget(ctx context.Context, full string, instance int32) (target, error) {
	snap := s.b.View().Snapshot
	key, err := keyOf(snap, full)
	if err != nil {
		return target{}, err
	}
	if instance < 0 {
		return target{}, fault.Invalid.Errorf("instance is %d; want 0 to %d", instance, job.MaxInstances-1)
	}
	at, err := slots(snap, key, instance, nil)
	if err != nil {
		return target{}, err
	}
	t, ok, err := s.targetOf(ctx, snap, at[0], false)
	if err == nil && !ok {
		err = fault.NotFound.Errorf("no task of %s/%d has been on a machine yet; covey job explain %s says why", full, instance, full)
	}
	return t, err
}

// cleanPath holds a path to the sandbox that it is below.
func cleanPath(p string) (string, error) {
	if err := cleanText("path", p, maxPath); err != nil {
		return "", err
	}
	if slices.Contains(strings.Split(p, "/"), "..") {
		return "", fault.Invalid.Errorf("path %.200q leaves the sandbox; want one without ..", p)
	}
	return strings.TrimPrefix(path.Clean("/"+p), "/"), nil
}

// ListFiles shows a folder of a task's sandbox.
func (s *services) ListFiles(ctx context.Context, req *connect.Request[pb.ListFilesRequest]) (*connect.Response[pb.ListFilesResponse], error) {
	below, err := cleanPath(req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	t, err := s.oneTarget(ctx, req.Msg.GetKey(), req.Msg.GetInstance())
	if err != nil {
		return nil, err
	}
	a, err := s.looks.ask(ctx, t.machine, Question{Task: t.id, What: List, Path: below, Max: maxEntries})
	if err != nil {
		return nil, err
	}
	resp := &pb.ListFilesResponse{}
	for _, e := range a.Entries {
		resp.Files = append(resp.Files, &pb.File{
			Name: e.Name, Size: e.Size, Dir: e.Dir, Mode: e.Mode, ModifiedUnixNanos: e.Modified,
		})
	}
	slices.SortFunc(resp.Files, func(a, b *pb.File) int { return strings.Compare(a.GetName(), b.GetName()) })
	return connect.NewResponse(resp), nil
}

// ReadFile sends a file of a task's sandbox, as far as it reaches when it is
// read.
func (s *services) ReadFile(ctx context.Context, req *connect.Request[pb.ReadFileRequest], stream *connect.ServerStream[pb.ReadFileResponse]) error {
	below, err := cleanPath(req.Msg.GetPath())
	if err != nil {
		return err
	}
	t, err := s.oneTarget(ctx, req.Msg.GetKey(), req.Msg.GetInstance())
	if err != nil {
		return err
	}
	d := deadlinesOf(ctx)
	for at := int64(0); ; {
		a, err := s.looks.ask(ctx, t.machine, Question{Task: t.id, What: Read, Path: below, Offset: at, Max: maxPiece})
		if err != nil {
			return err
		}
		d.write(time.Now().Add(streamLimit))
		if err := stream.Send(&pb.ReadFileResponse{Data: a.Data}); err != nil {
			return err
		}
		if a.EOF || a.Next <= at {
			return nil
		}
		at = a.Next
	}
}
