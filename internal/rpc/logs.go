package rpc

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
)

const (
	followEvery = 200 * time.Millisecond // a followed log is asked for more
	patience    = 5                      // looks after which half a line is sent nevertheless
	maxTail     = 10_000                 // lines, of the last maxPiece bytes
	maxLogs     = 1000                   // of one task
)

// ReadLog sends what tasks wrote, in whole lines, one log after the other, and
// goes on with what they write if it is asked to follow.
func (s *services) ReadLog(ctx context.Context, req *connect.Request[pb.ReadLogRequest], stream *connect.ServerStream[pb.ReadLogResponse]) error {
	m := req.Msg
	key, err := keyOf(s.b.View().Snapshot, m.GetKey())
	switch {
	case err != nil:
		return err
	case m.GetTail() < 0 || m.GetTail() > maxTail:
		return fault.Invalid.Errorf("tail is %d; want 0 to %d lines", m.GetTail(), maxTail)
	case m.GetStream() != "" && m.GetStream() != "stdout" && m.GetStream() != "stderr":
		return fault.Invalid.Errorf("stream is %.40q; want stdout, stderr or nothing for both", m.GetStream())
	case m.GetFollow() && m.GetPrevious():
		return fault.Invalid.Errorf("the attempt before is over: follow does not go with previous")
	}
	if err = cleanText("process", m.GetProcess(), maxNote); err != nil {
		return err
	}
	if len(m.GetAfter()) > maxLogs {
		return fault.Invalid.Errorf("%d positions in logs; want at most %d", len(m.GetAfter()), maxLogs)
	}
	some, err := rangesOf(m.GetInstances())
	if err != nil {
		return err
	}
	r := &logReader{s: s, key: key, some: some, req: m, at: map[task.ID]map[string]*logCursor{}, after: map[string]int64{}, wrote: map[string]bool{}}
	for _, p := range m.GetAfter() {
		r.after[p.GetTaskId()+" "+p.GetLog()] = max(0, p.GetOffset())
	}
	d := deadlinesOf(ctx)
	r.send = func(p *pb.ReadLogResponse) error {
		d.write(time.Now().Add(streamLimit))
		return stream.Send(p)
	}
	return r.run(ctx)
}

// logReader is one call of ReadLog.
type logReader struct {
	s    *services
	key  job.Key
	some job.Ranges // nil: what req says
	req  *pb.ReadLogRequest
	send func(*pb.ReadLogResponse) error
	at   map[task.ID]map[string]*logCursor
	// after is where its caller is in logs that it has read before, by task and log.
	after map[string]int64
	wrote map[string]bool // the processes that have logs
}

// logCursor is how far a log was sent.
type logCursor struct {
	offset  int64
	waiting int // looks since half a line was seen first
}

func (r *logReader) run(ctx context.Context) error {
	beat := time.Now()
	for {
		if v := r.s.b.View(); v.Following != nil {
			return v.Elsewhere() // the agents are with the leader
		}
		targets, more, err := r.targets(ctx)
		if err != nil {
			return err
		}
		if len(targets) == 0 && !r.req.GetFollow() {
			return r.nothing()
		}
		var failed error
		for _, t := range targets {
			if err := r.one(ctx, t); err != nil {
				if ctx.Err() != nil || !r.mayPass(err) {
					return err
				}
				failed = err
			}
		}
		if failed == nil && len(targets) > 0 {
			if err := r.unknownProcess(); err != nil {
				return err
			}
		}
		if !r.req.GetFollow() {
			return failed
		}
		if !more {
			return nil
		}
		if time.Since(beat) >= signOfLife {
			beat = time.Now()
			if err := r.send(&pb.ReadLogResponse{}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// mayPass reports whether the other logs are read although one of them cannot
// be: a machine is out of reach, or a task that is followed has written
// nothing yet.
func (r *logReader) mayPass(err error) bool {
	switch fault.Of(err) {
	case fault.Unavailable, fault.Timeout:
		return true
	case fault.NotFound:
		return r.req.GetFollow() || r.some.Len() > 1 || r.some == nil && r.req.GetInstance() < 0
	default:
		return false
	}
}

func (r *logReader) nothing() error {
	if r.req.GetPrevious() {
		return fault.NotFound.Errorf("no attempt before the present one is remembered of %s", r.req.GetKey())
	}
	return fault.NotFound.Errorf("no task of %s has been on a machine yet; covey job explain %s says why", r.req.GetKey(), r.req.GetKey())
}

// unknownProcess says that the process which is asked for neither has a log nor
// stands in the job's config.
func (r *logReader) unknownProcess() error {
	known := maps.Clone(r.wrote)
	snap := r.s.b.View().Snapshot
	if j, ok := snap.Job(r.key); ok {
		if cfg, ok := snap.Config(j.Config); ok {
			for _, p := range cfg.Task.Processes {
				known[p.Name] = true
			}
		}
	}
	if r.req.GetProcess() == "" || len(known) == 0 || known[r.req.GetProcess()] {
		return nil
	}
	return fault.NotFound.Errorf("%s has no process %.200q; it has %s", r.req.GetKey(), r.req.GetProcess(), strings.Join(slices.Sorted(maps.Keys(known)), ", "))
}

// targets finds the tasks to read, as of now, and whether there may be more to
// come.
func (r *logReader) targets(ctx context.Context) (out []target, more bool, err error) {
	snap := r.s.b.View().Snapshot
	at, err := slots(snap, r.key, r.req.GetInstance(), r.some)
	if err != nil {
		return nil, false, err
	}
	_, exists := snap.Job(r.key)
	for _, slot := range at {
		in, _ := snap.Instance(slot)
		more = more || in.Live || in.Open && exists
		t, ok, err := r.s.targetOf(ctx, snap, slot, r.req.GetPrevious())
		if err != nil {
			return nil, false, err
		}
		if ok {
			out = append(out, t)
		}
	}
	r.forget(out)
	return out, more, nil
}

// forget drops the cursors of tasks that are not read any more.
func (r *logReader) forget(keep []target) {
	for id := range r.at {
		if !slices.ContainsFunc(keep, func(t target) bool { return t.id == id }) {
			delete(r.at, id)
		}
	}
}

// one sends what is new in the logs of a task.
func (r *logReader) one(ctx context.Context, t target) error {
	a, err := r.s.looks.ask(ctx, t.machine, Question{Task: t.id, What: Logs, Max: maxLogs})
	if err != nil {
		return err
	}
	if r.at[t.id] == nil {
		r.at[t.id] = map[string]*logCursor{}
	}
	slices.SortFunc(a.Entries, func(a, b LookEntry) int {
		return cmp.Or(cmp.Compare(a.Modified, b.Modified), cmp.Compare(a.Name, b.Name))
	})
	for _, e := range a.Entries[:min(len(a.Entries), maxLogs)] {
		process, stream := logName(e.Name)
		r.wrote[process] = true
		if r.req.GetProcess() != "" && process != r.req.GetProcess() || r.req.GetStream() != "" && stream != r.req.GetStream() {
			continue
		}
		c := r.at[t.id][e.Name]
		if c == nil {
			c = &logCursor{}
			if at, known := r.after[t.id.String()+" "+e.Name]; known {
				c.offset = at
			} else if n := int(r.req.GetTail()); n > 0 {
				if c.offset, err = r.tail(ctx, t, e.Name, n); err != nil {
					return err
				}
			}
			r.at[t.id][e.Name] = c
		}
		if e.Size <= c.offset {
			continue
		}
		if err := r.drain(ctx, t, e, c); err != nil {
			return err
		}
	}
	return nil
}

// logName reads process/run/stream.
func logName(s string) (process, stream string) {
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s, stream = s[:i], s[i+1:]
	}
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[:i]
	}
	return s, stream
}

// tail finds where the last n lines begin, in the last maxPiece bytes.
func (r *logReader) tail(ctx context.Context, t target, log string, n int) (int64, error) {
	q := Question{Task: t.id, What: Log, Path: log, Offset: -maxPiece, Max: maxPiece}
	a, err := r.s.looks.ask(ctx, t.machine, q)
	if err != nil {
		return 0, err
	}
	start, rest := a.Offset, a.Data
	for len(a.Data) > 0 && !a.EOF && len(rest) < maxPiece { // an agent may answer in smaller pieces
		q.Offset, q.Max = a.Next, int64(maxPiece-len(rest))
		if a, err = r.s.looks.ask(ctx, t.machine, q); err != nil {
			return 0, err
		}
		rest = append(rest, a.Data...)
	}
	rest = bytes.TrimSuffix(rest, []byte("\n"))
	for range n {
		i := bytes.LastIndexByte(rest, '\n')
		if i < 0 {
			return start, nil
		}
		rest = rest[:i]
	}
	return start + int64(len(rest)) + 1, nil
}

// drain sends a log from where the cursor is to where it ended when it was
// last looked at: one that is written faster than it is read holds up no other.
func (r *logReader) drain(ctx context.Context, t target, e LookEntry, c *logCursor) error {
	final := !r.req.GetFollow() || !t.live
	process, stream := logName(e.Name)
	for c.offset < e.Size {
		a, err := r.s.looks.ask(ctx, t.machine, Question{Task: t.id, What: Log, Path: e.Name, Offset: c.offset, Max: maxPiece})
		if err != nil {
			return err
		}
		whole := bytes.LastIndexByte(a.Data, '\n') + 1
		switch {
		case a.Offset < c.offset:
			return fault.Internal.Errorf("machine %s answered from byte %d of %s, not from %d", t.machine, a.Offset, e.Name, c.offset)
		case len(a.Data) == 0:
			c.offset = max(c.offset, a.Next)
			return nil
		case whole == 0 && !final && len(a.Data) < maxPiece && c.waiting < patience:
			c.waiting++ // the rest of the line comes soon, or never
			return nil
		case whole == 0:
			whole = len(a.Data)
		}
		c.waiting = 0
		err = r.send(&pb.ReadLogResponse{
			TaskId: t.id.String(), Process: text(process), Stream: text(stream), Data: a.Data[:whole],
			Log: text(e.Name), Next: a.Offset + int64(whole),
		})
		if err != nil {
			return err
		}
		c.offset = a.Offset + int64(whole)
	}
	return nil
}
