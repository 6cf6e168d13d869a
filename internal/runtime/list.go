package runtime

import (
	"context"
	"slices"
	"sync"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/task"
)

// List returns every task that is not forgotten, live or ended, by id.
func (r *Runtime) List(ctx context.Context) ([]Status, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Timeout.Errorf("list tasks: %w", err)
	}
	r.mu.Lock()
	out := make([]Status, 0, len(r.tasks))
	for _, e := range r.tasks {
		out = append(out, e.status)
	}
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b Status) int { return a.ID.Compare(b.ID) })
	return out, nil
}

// Watch returns statuses as they change, from now on, until ctx or the runtime
// ends; then the channel is closed. A slow reader holds nobody up: of several
// statuses of one task in one state it may see only the last.
func (r *Runtime) Watch(ctx context.Context) <-chan Status {
	w := &watcher{wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.watchers[w] = struct{}{}
	r.mu.Unlock()
	out := make(chan Status)
	r.background(func() {
		defer close(out)
		w.run(ctx, r.closed, out)
		r.mu.Lock()
		delete(r.watchers, w)
		r.mu.Unlock()
	})
	return out
}

// A watcher holds what its reader has not taken yet.
type watcher struct {
	mu   sync.Mutex
	todo []Status
	wake chan struct{}
}

func (w *watcher) put(s Status) {
	w.mu.Lock()
	i := slices.IndexFunc(w.todo, func(o Status) bool { return o.ID == s.ID && o.State == s.State })
	if i >= 0 {
		w.todo[i] = s
	} else {
		w.todo = append(w.todo, s)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) run(ctx context.Context, closed <-chan struct{}, out chan<- Status) {
	for {
		w.mu.Lock()
		todo := w.todo
		w.todo = nil
		w.mu.Unlock()
		for _, s := range todo {
			select {
			case out <- s:
			case <-ctx.Done():
				return
			case <-closed:
				return
			}
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		case <-closed:
			return
		}
	}
}

// Usage returns what a task has used. Of an ended one it is final. Kind
// NotFound: the id is not known.
func (r *Runtime) Usage(id task.ID) (Counters, error) {
	r.mu.Lock()
	e := r.tasks[id]
	var st Status
	if e != nil {
		st = e.status
		st.MaxRAM = max(st.MaxRAM, e.maxRAM)
	}
	r.mu.Unlock()
	if e == nil {
		return Counters{}, fault.NotFound.Errorf("no task %v on this machine", id)
	}
	c := Counters{CPUNanos: st.CPUNanos, MaxRAM: st.MaxRAM, Disk: st.Disk}
	if st.Ended {
		return c, nil
	}
	live, err := r.group(e).counters()
	if err != nil {
		return c, nil // no group yet, or none any more: the supervisor's figures
	}
	live.Disk = st.Disk
	r.mu.Lock()
	defer r.mu.Unlock()
	e.maxRAM = max(e.maxRAM, live.MaxRAM, st.MaxRAM)
	live.MaxRAM = e.maxRAM
	return live, nil
}
