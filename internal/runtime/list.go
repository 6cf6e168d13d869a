package runtime

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

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

// Forget says that a task's end was taken note of. Its files stay until
// [Runtime.GC]; it is not listed any more, and its id still never runs again
// while they exist. Kind Conflict: it has not ended.
func (r *Runtime) Forget(ctx context.Context, id task.ID) error {
	if err := ctx.Err(); err != nil {
		return fault.Timeout.Errorf("forget %v: %w", id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.tasks[id]
	if e == nil {
		return nil
	}
	if !e.status.Ended {
		return fault.Conflict.Errorf("task %v has not ended; stop it first", id)
	}
	if err := os.Rename(e.dir, r.endedDir(id)); err != nil && !missing(e.dir) { // one that was lost leaves nothing to keep
		return fault.Unavailable.Errorf("forget %v: %w", id, err)
	}
	delete(r.tasks, id)
	return nil
}

// Collected says what [Runtime.GC] did.
type Collected struct {
	Removed int   // directories
	Freed   int64 // bytes
	Kept    int64 // bytes
}

// GC removes the files of forgotten tasks that ended longer than maxAge ago,
// and then the oldest until they take at most maxBytes. It also removes what
// ended tasks have left in the kernel.
func (r *Runtime) GC(ctx context.Context, now time.Time, maxAge time.Duration, maxBytes int64) (Collected, error) {
	r.sweepEnded()
	names, err := os.ReadDir(filepath.Join(r.cfg.Dir, endedDir))
	if err != nil {
		return Collected{}, fault.Unavailable.Errorf("collect: %w", err)
	}
	type old struct {
		dir  string
		at   time.Time
		size int64
	}
	var all []old
	var c Collected
	for _, n := range names {
		o := old{dir: filepath.Join(r.cfg.Dir, endedDir, n.Name())}
		if st, err := readStatus(o.dir, exitFile); err == nil {
			o.at, o.size = st.EndedAt, st.Disk
		} else if info, err := n.Info(); err == nil {
			o.at = info.ModTime() // a removal that was cut off, or damage: by age all the same
		}
		c.Kept += o.size
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b old) int { return a.at.Compare(b.at) })
	for _, o := range all {
		if now.Sub(o.at) <= maxAge && c.Kept <= maxBytes {
			break
		}
		if err := ctx.Err(); err != nil {
			return c, fault.Timeout.Errorf("collect: %w", err)
		}
		if err := removeTree(o.dir); err != nil {
			return c, fault.Unavailable.Errorf("collect: %w", err)
		}
		c.Removed++
		c.Freed += o.size
		c.Kept -= o.size
	}
	return c, nil
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
