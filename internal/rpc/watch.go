package rpc

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
)

const (
	signOfLife  = 10 * time.Second // a stream to a user says so often that it lives
	streamLimit = 30 * time.Second // to send one message to a user
	recordPage  = 1000             // records read at once
	maxScan     = 1_000_000        // records that one question looks at
)

// WatchJob sends the steps of a job's tasks. It holds no queue: it reads the
// records from where its caller is, as fast as the caller takes them.
func (s *services) WatchJob(ctx context.Context, req *connect.Request[pb.WatchJobRequest], stream *connect.ServerStream[pb.WatchJobResponse]) error {
	key, err := keyOf(s.b.View().Snapshot, req.Msg.GetKey())
	if err != nil {
		return err
	}
	d := deadlinesOf(ctx)
	send := func(m *pb.WatchJobResponse) error {
		d.write(time.Now().Add(streamLimit))
		return stream.Send(m)
	}
	at := state.Seq(req.Msg.GetAfterSeq())
	greeted := false
	beat := time.NewTicker(signOfLife)
	defer beat.Stop()
	for {
		news := s.b.Published() // before reading, so that no commit is missed
		recs, err := s.b.Records(ctx, at, recordPage)
		if err != nil {
			return err
		}
		for _, r := range recs {
			at = r.Seq
			if e := eventToWire(r); e != nil && r.Task.After.ID.Job == key {
				if err := send(&pb.WatchJobResponse{Event: e, Seq: uint64(at)}); err != nil {
					return err
				}
			}
		}
		if len(recs) == recordPage {
			continue
		}
		if !greeted { // says that the past is over
			greeted = true
			if err := send(&pb.WatchJobResponse{Seq: uint64(at)}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		case <-beat.C:
			if err := send(&pb.WatchJobResponse{Seq: uint64(at)}); err != nil {
				return err
			}
		}
	}
}

// ListTaskEvents shows the last steps of a job's tasks, or of one slot's.
func (s *services) ListTaskEvents(ctx context.Context, req *connect.Request[pb.ListTaskEventsRequest]) (*connect.Response[pb.ListTaskEventsResponse], error) {
	snap := s.b.View().Snapshot
	key, err := keyOf(snap, req.Msg.GetKey())
	if err != nil {
		return nil, err
	}
	limit := int(req.Msg.GetLimit())
	switch {
	case limit < 0 || limit > maxPage:
		return nil, fault.Invalid.Errorf("limit is %d; want 1 to %d", limit, maxPage)
	case limit == 0:
		limit = 200
	case req.Msg.GetInstance() < -1 || req.Msg.GetInstance() >= job.MaxInstances:
		return nil, fault.Invalid.Errorf("instance is %d; want -1 for all, or 0 to %d", req.Msg.GetInstance(), job.MaxInstances-1)
	}
	if _, ok := snap.Job(key); !ok && !known(snap, key) {
		return nil, control.NoJob(snap, key)
	}
	f := eventFilter{key: key, instance: req.Msg.GetInstance(), limit: limit}
	events, truncated, err := s.lastEvents(ctx, snap, f)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ListTaskEventsResponse{Events: events, Truncated: truncated}), nil
}

// known reports whether a job ever had a slot here.
func known(s *state.Snapshot, k job.Key) bool {
	for range s.Instances(k) {
		return true
	}
	return false
}

type eventFilter struct {
	key      job.Key
	instance int32  // -1: all
	attempt  uint32 // 0: all
	limit    int
}

func (f eventFilter) takes(r state.Record) bool {
	return r.Task != nil && r.Task.After.ID.Job == f.key && (f.instance < 0 || r.Task.After.ID.Instance == f.instance) &&
		(f.attempt == 0 || r.Task.After.ID.Attempt == f.attempt)
}

// lastEvents reads the records backwards, a page at a time, until it has
// enough, or came to the first that is kept, or to where the job was created.
func (s *services) lastEvents(ctx context.Context, snap *state.Snapshot, f eventFilter) (events []*pb.TaskEvent, truncated bool, err error) {
	created := snap.At + 1
	if j, ok := snap.Job(f.key); ok {
		created = j.Created
	}
	hasJob := created <= snap.At
	for end := snap.Seq; end > 0 && len(events) < f.limit; {
		if snap.Seq-end >= maxScan {
			return events, true, nil
		}
		from := state.Seq(0)
		if end > recordPage {
			from = end - recordPage
		}
		recs, floor, err := s.page(ctx, from, end)
		if err != nil {
			return nil, false, err
		}
		var older []*pb.TaskEvent
		for _, r := range recs {
			if r.Seq <= end && f.takes(r) {
				older = append(older, eventToWire(r))
			}
		}
		events = append(older, events...)
		if floor {
			return clipEvents(events, f.limit, true)
		}
		if hasJob && len(recs) > 0 && recs[0].At < created {
			break // nothing before concerns this job
		}
		end = from
	}
	return clipEvents(events, f.limit, false)
}

// clipEvents keeps the newest.
func clipEvents(events []*pb.TaskEvent, limit int, truncated bool) ([]*pb.TaskEvent, bool, error) {
	if over := len(events) - limit; over > 0 {
		return slices.Clip(events[over:]), true, nil
	}
	return events, truncated, nil
}

// page reads the records after from up to end. Where some of them are gone it
// finds the first that is not, and reports that this is the floor.
func (s *services) page(ctx context.Context, from, end state.Seq) (recs []state.Record, floor bool, err error) {
	n := int(end - from)
	recs, err = s.b.Records(ctx, from, n)
	if fault.Of(err) != fault.Compacted {
		return recs, false, err
	}
	low, high := from, end // gone after low; after high nothing is asked for
	for high-low > 1 {
		mid := low + (high-low)/2
		_, err = s.b.Records(ctx, mid, 1)
		switch {
		case fault.Of(err) == fault.Compacted:
			low = mid
		case err != nil:
			return nil, false, err
		default:
			high = mid
		}
	}
	if high == end {
		return nil, true, nil
	}
	recs, err = s.b.Records(ctx, high, n)
	return recs, true, err
}
