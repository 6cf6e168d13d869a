package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const (
	roomWithin = 3 * time.Second       // a start waits at most so long for room
	roomEvery  = 50 * time.Millisecond // and looks so often whether there is some
	goingMark  = ".going"              // ends the name of a directory whose removal has begun: no task's id ends so
)

// Forget says that a task's end was taken note of. Its files stay until they
// are collected; it is not listed any more, and its id still never runs again
// while they exist. Kind Conflict: it has not ended.
func (r *Runtime) Forget(ctx context.Context, id task.ID) error {
	if err := ctx.Err(); err != nil {
		return fault.Timeout.Errorf("forget %v: %w", id, err)
	}
	if err := r.putAway(id); err != nil {
		return err
	}
	if r.missing() > 0 { // what is promised to others waits for this
		r.relieve()
	}
	return nil
}

// putAway moves the files of an ended task to those that may be collected.
func (r *Runtime) putAway(id task.ID) error {
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
	r.left += e.status.Disk
	delete(r.tasks, id)
	return nil
}

// Collected says what [Runtime.GC] did.
type Collected struct {
	Removed int   // directories
	Freed   int64 // bytes
	Kept    int64 // bytes
}

// GC removes the files of forgotten tasks that [Config.Keep] does not keep. It
// also removes what ended tasks have left in the kernel.
func (r *Runtime) GC(ctx context.Context, now time.Time) (Collected, error) {
	r.sweepEnded()
	return r.collect(ctx.Done(), now)
}

// MakeRoom is [Runtime.GC] when live tasks may still write more than the disk
// has room for, and else does nothing, at the price of one system call.
func (r *Runtime) MakeRoom(ctx context.Context, now time.Time) (Collected, error) {
	if r.missing() == 0 {
		return Collected{}, nil
	}
	return r.collect(ctx.Done(), now)
}

// awaitRoom returns when what the live tasks may still write has room, a task
// that is about to start among them, or when waiting longer would not help.
// The task is started all the same: what fills the disk then is not Covey's,
// or goes soon. Kind Timeout: ctx or the runtime has ended.
func (r *Runtime) awaitRoom(ctx context.Context, id string) error {
	late, hope := time.Now().Add(roomWithin), true
	for {
		short := r.missing()
		_, unreported := r.holding()
		switch {
		case short == 0:
			return nil
		case !time.Now().Before(late) || !hope && unreported < short:
			r.log.WarnContext(ctx, "a task starts although the disk has less room than the live tasks were promised", "task", id, "missing", unit.Disk.Format(short))
			return nil
		case !hope: // until the ends of others are taken note of
			r.pause(roomEvery)
		}
		select {
		case removed := <-r.relieve():
			hope = removed > 0
		case <-time.After(time.Until(late)): // a large one takes its time
		case <-ctx.Done():
		}
		if ctx.Err() != nil || r.isClosed() {
			return fault.Timeout.Errorf("start %s: the agent ends", id)
		}
	}
}

// relieve collects in the background and tells how many directories went.
func (r *Runtime) relieve() <-chan int {
	removed := make(chan int, 1)
	r.background(func() {
		c, err := r.collect(r.closed, time.Now())
		if err != nil && !r.isClosed() {
			r.log.Warn("no room was made", "error", err)
		}
		removed <- c.Removed
	})
	return removed
}

// collect removes what is not to be kept, unless done is closed first. Only
// one collects at a time.
func (r *Runtime) collect(done <-chan struct{}, now time.Time) (Collected, error) {
	select {
	case r.collecting <- struct{}{}:
		defer func() { <-r.collecting }()
	case <-done:
		return Collected{}, fault.Timeout.Errorf("collect: another collection goes on")
	}
	all, err := r.leftovers()
	if err != nil {
		return Collected{}, err
	}
	c := Collected{Kept: total(all)}
	r.mu.Lock()
	r.left = c.Kept
	r.mu.Unlock()
	short := r.missing()
	for _, l := range r.cfg.Keep.choose(all, now, short) {
		select {
		case <-done:
			return c, fault.Timeout.Errorf("collect: ended after %d directories", c.Removed)
		default:
		}
		if err := r.discard(l); err != nil {
			return c, fault.Unavailable.Errorf("collect: %w", err)
		}
		c.Removed++
		c.Freed += l.bytes
		c.Kept -= l.bytes
	}
	if c.Removed > 0 {
		r.log.Info("sandboxes of ended tasks were removed", "count", c.Removed, "freed", unit.Disk.Format(c.Freed), "kept", unit.Disk.Format(c.Kept), "missing", unit.Disk.Format(short))
	}
	return c, nil
}

// leftovers reads what forgotten tasks have left.
func (r *Runtime) leftovers() ([]leftover, error) {
	names, err := os.ReadDir(filepath.Join(r.cfg.Dir, endedDir))
	if err != nil {
		return nil, fault.Unavailable.Errorf("collect: %w", err)
	}
	all := make([]leftover, 0, len(names))
	for _, n := range names {
		l := leftover{name: n.Name(), going: strings.HasSuffix(n.Name(), goingMark)}
		if id, err := task.ParseID(strings.ReplaceAll(n.Name(), "+", "/")); err == nil {
			l.id = id
		}
		if st, err := readStatus(filepath.Join(r.cfg.Dir, endedDir, n.Name()), exitFile); err == nil {
			l.at, l.bytes = st.EndedAt, st.Disk
		} else if info, err := n.Info(); err == nil {
			l.at = info.ModTime() // damage: by age all the same
		}
		all = append(all, l)
	}
	return all, nil
}

// discard removes a directory. Its mark has a removal that was cut off go on.
func (r *Runtime) discard(l leftover) error {
	dir := filepath.Join(r.cfg.Dir, endedDir, l.name)
	if !l.going {
		if err := os.Rename(dir, dir+goingMark); err != nil && !missing(dir) {
			return err
		}
		dir += goingMark
	}
	if err := removeTree(dir); err != nil {
		return err
	}
	r.mu.Lock()
	r.left -= l.bytes
	r.mu.Unlock()
	return nil
}

// missing returns how many bytes there should be for what the live tasks may
// still write, and are not.
func (r *Runtime) missing() int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(r.cfg.Dir, &st); err != nil {
		return 0 // the directory was lost: nothing here can be collected
	}
	d, _ := r.holding()
	d.free = int64(st.Bavail) * st.Bsize
	return r.cfg.Keep.missing(d)
}

// holding adds up what tasks have of the disk; unreported is the part of those
// that have ended and are not forgotten.
func (r *Runtime) holding() (d demand, unreported int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.held = r.left
	for _, e := range r.tasks {
		d.held += e.status.Disk
		if e.status.Ended {
			unreported += e.status.Disk
			continue
		}
		d.promised += max(e.rec.Config.Task.Resources.Disk-e.status.Disk, 0)
	}
	return d, unreported
}
