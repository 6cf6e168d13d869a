package agentd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/runtime"
)

// link is a session, and what waits to be said in it.
type link struct {
	s    *rpc.Session
	peer rpc.Peer
	out  chan control.Message
}

const maxSay = 256 // messages that may wait for a slow server

func (l *link) put(m control.Message) bool {
	select {
	case l.out <- m:
		return true
	default:
		return false
	}
}

func (l *link) close() { l.s.Close() }

// event is what a session brings: that it is up, that it is over, or orders.
type event struct {
	up     *link
	down   *link
	from   *link
	orders rpc.Orders
}

// Time between attempts to reach the server.
const (
	firstRetry   = 50 * time.Millisecond
	lastRetry    = 2 * time.Second
	refusedRetry = 15 * time.Second // the server will not have this machine: somebody must act
	slowRetry    = 5 * time.Second  // it did not answer in time: it has too much to do, and more attempts do not help
)

// connect holds a session with the server, one after another.
func connect(ctx context.Context, client *rpc.Agent, hello func() control.Hello, events chan<- event, log *slog.Logger) error {
	wait := firstRetry
	last := ""
	moves := 0 // to another server, without a session in between
	session := func() error {
		s, err := client.Session(ctx, hello())
		if err != nil {
			switch fault.Of(err) {
			case fault.Conflict, fault.Unauthenticated, fault.Denied:
				wait = refusedRetry
			case fault.Timeout:
				wait = max(wait, slowRetry)
			default:
			}
			wait = max(wait, 2*rpc.RetryAfter(err)) // half of it is by lot, below
			return err
		}
		if last != "" {
			log.InfoContext(ctx, "the server answers again")
		}
		last, moves = "", 0
		began := time.Now()
		err = talk(ctx, &link{s: s, peer: s.Peer(), out: make(chan control.Message, maxSay)}, events)
		if time.Since(began) > rpc.Silence {
			wait = firstRetry // it was a good one
		}
		return err
	}
	for ctx.Err() == nil {
		err := session()
		if ctx.Err() != nil || errors.Is(err, rpc.ErrRenewed) {
			continue
		}
		if errors.Is(err, rpc.ErrMoved) {
			if moves++; moves <= 2*len(client.Servers()) { // somebody may know the leader
				wait = firstRetry
			}
		}
		if text := err.Error(); text != last {
			if hello().Machine.Leaving {
				log.InfoContext(ctx, "the session with the server is over", "error", text)
			} else {
				log.WarnContext(ctx, "no session with the server; the tasks run on", "error", text)
			}
			last = text
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(wait*2, lastRetry)
	}
	return nil
}

// talk runs one session until it ends and returns why.
func talk(ctx context.Context, l *link, events chan<- event) error {
	defer l.close()
	send := func(e event) bool {
		select {
		case events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if !send(event{up: l}) {
		return nil
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case m := <-l.out:
				if l.s.Send(m) != nil {
					l.close()
					return
				}
			case <-done:
				return
			}
		}
	}()
	for {
		o, err := l.s.Recv()
		if err != nil {
			send(event{down: l})
			return err
		}
		if !send(event{from: l, orders: o}) {
			return nil
		}
	}
}

// look answers the server's questions about sandboxes, for as long as ctx lives.
func look(ctx context.Context, client *rpc.Agent, m machine.ID, rt *runtime.Runtime, log *slog.Logger) error {
	for ctx.Err() == nil {
		err := client.Look(ctx, m, func(_ context.Context, q rpc.Question) (rpc.LookAnswer, error) { return answer(rt, q) })
		if ctx.Err() == nil {
			log.DebugContext(ctx, "the way for logs and files was cut", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lastRetry/2 + rand.N(lastRetry/2)):
		}
	}
	return nil
}

// maxRuns is how many runs of a process have their logs listed.
const maxRuns = 10

func answer(rt *runtime.Runtime, q rpc.Question) (rpc.LookAnswer, error) {
	switch q.What {
	case rpc.List:
		return list(rt, q)
	case rpc.Read:
		data, err := rt.ReadFile(q.Task, q.Path, q.Offset, int(q.Max))
		next := q.Offset + int64(len(data))
		return rpc.LookAnswer{Data: data, Offset: q.Offset, Next: next, EOF: int64(len(data)) < q.Max}, err
	case rpc.Logs:
		return logs(rt, q)
	case rpc.Log:
		process, run, stream, err := logPath(q.Path)
		if err != nil {
			return rpc.LookAnswer{}, err
		}
		c, err := rt.LogChunk(q.Task, process, run, stream, q.Offset, int(q.Max))
		return rpc.LookAnswer{Data: c.Data, Offset: c.Offset, Next: c.Next, EOF: c.EOF}, err
	default:
		return rpc.LookAnswer{}, fault.Invalid.Errorf("this agent cannot answer %q; upgrade it", q.What)
	}
}

func list(rt *runtime.Runtime, q rpc.Question) (rpc.LookAnswer, error) {
	files, err := rt.ListFiles(q.Task, q.Path)
	if err != nil {
		return rpc.LookAnswer{}, err
	}
	var a rpc.LookAnswer
	for _, f := range files[:min(len(files), int(q.Max))] {
		a.Entries = append(a.Entries, rpc.LookEntry{Name: f.Name, Size: f.Size, Dir: f.Mode.IsDir(), Mode: f.Mode.String(), Modified: f.ModTime.UnixNano()})
	}
	a.EOF = true
	return a, nil
}

// logs lists the logs of a task: process/run/stream, with all that was ever
// written as size.
func logs(rt *runtime.Runtime, q rpc.Question) (rpc.LookAnswer, error) {
	st, err := rt.StatusOf(q.Task)
	if err != nil {
		return rpc.LookAnswer{}, err
	}
	a := rpc.LookAnswer{EOF: st.Ended}
	for _, p := range st.Processes {
		for run := max(1, p.Run-maxRuns+1); run <= p.Run; run++ {
			for _, stream := range []string{runtime.Stdout, runtime.Stderr} {
				c, err := rt.LogChunk(q.Task, p.Name, run, stream, -1, 1)
				if err != nil {
					continue // not written yet, or collected
				}
				a.Entries = append(a.Entries, rpc.LookEntry{Name: fmt.Sprintf("%s/%d/%s", p.Name, run, stream), Size: c.Next, Modified: p.StartedAt.UnixNano()})
			}
		}
	}
	slices.SortStableFunc(a.Entries, func(x, y rpc.LookEntry) int { return int(min(1, max(-1, x.Modified-y.Modified))) })
	return a, nil
}

// logPath reads process/run/stream; a process may have slashes in no name.
func logPath(p string) (process string, run int, stream string, err error) {
	parts := strings.Split(p, "/")
	if len(parts) == 3 {
		if _, err = fmt.Sscanf(parts[1], "%d", &run); err == nil && run > 0 {
			return parts[0], run, parts[2], nil
		}
	}
	return "", 0, "", fault.Invalid.Errorf("log %.200q; want process/run/stream", p)
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fault.Internal.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
