package runtime

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

const (
	dialTimeout = time.Second
	dialFirst   = 5 * time.Millisecond // between two attempts to reach a supervisor
	dialLast    = 500 * time.Millisecond
)

// recover reads the directory: what an agent before this one has left.
func (r *Runtime) recover() error {
	found, err := os.ReadDir(filepath.Join(r.cfg.Dir, liveDir))
	if err != nil {
		return fault.Unavailable.Errorf("task directory: %w", err)
	}
	for _, f := range found {
		id, err := task.ParseID(strings.ReplaceAll(f.Name(), "+", "/"))
		if err != nil {
			r.log.Warn("not a task's directory; left alone", "name", f.Name())
			continue
		}
		if err := r.adopt(id); err != nil {
			return err
		}
	}
	r.sweepGroups()
	return nil
}

// adopt takes a task over from its directory.
func (r *Runtime) adopt(id task.ID) error {
	dir := r.liveDir(id)
	if os.Remove(dir) == nil { // it was empty: the record, which is also the lock, was not written yet
		r.log.Info("a start that was cut off at once is forgotten; nothing ran", "task", id)
		return nil
	}
	rec, err := readTask(dir)
	if fault.Of(err) == fault.Conflict {
		return err
	}
	if gone(dir, Status{}, r.boot) && cutOff(dir) && len(r.groups.of(filepath.Base(dir)).procs()) == 0 {
		r.log.Info("a start that was cut off is forgotten; nothing ran", "task", id)
		return os.RemoveAll(dir)
	}
	if err != nil {
		r.log.Error("task record", "task", id, "error", err)
		rec.ID, rec.CgroupRoot = id.String(), r.cfg.CgroupRoot
	}
	e := &entry{dir: dir, rec: rec, over: make(chan struct{})}
	e.status, err = readStatus(dir, stateFile)
	if err != nil {
		e.status = Status{Version: version, Fields: format.Added(), ID: id, Task: id.String(), Boot: r.boot, StartedAt: time.Now()}
		e.status.set(task.Starting, "")
	}
	if e.status.Supervisor == 0 { // a copy of the directory may be older than what the supervisor says of itself
		_, supervisor := r.lineage(r.group(e).procs())
		e.status.Supervisor, e.status.SupervisorStart = supervisor.Pid, supervisor.Start
	}
	r.tasks[id] = e
	dead := gone(dir, e.status, r.boot) // before the file is looked for, which it wrote first
	if st, err := readStatus(dir, exitFile); err == nil {
		e.status = st
		close(e.over)
		return nil
	}
	if dead {
		r.conclude(e)
		return nil
	}
	r.background(func() { r.attend(e) })
	return nil
}

// cutOff reports whether a directory is that of a start that never came to its
// supervisor, or to one that did nothing: the first thing that it does is to
// make the file for the end.
func cutOff(dir string) bool {
	for _, f := range []string{stateFile, exitFile} {
		if _, err := os.Lstat(filepath.Join(dir, f)); !errors.Is(err, os.ErrNotExist) {
			return false
		}
	}
	return true
}

// gone reports whether no supervisor lives. The lock says so, but not of a
// directory that is a copy: there pid and start time do.
func gone(dir string, st Status, boot string) bool {
	lock, err := takeLock(dir)
	switch {
	case err == nil:
		_ = lock.Close()
	case fault.Of(err) == fault.Conflict || st.Supervisor == 0:
		return false
	}
	return st.Supervisor == 0 || st.Boot != boot || !inside.Same(st.Supervisor, st.SupervisorStart)
}

// attend follows a task until it has ended or the runtime is closed.
func (r *Runtime) attend(e *entry) {
	wait := dialFirst
	for !r.isClosed() {
		if c, err := r.reach(e); err == nil {
			if r.follow(e, c) {
				wait = dialFirst
			}
		}
		if r.ended(e) || r.isClosed() {
			return
		}
		if r.settle(e) {
			return
		}
		r.pause(wait)
		wait = min(wait*2, dialLast)
	}
}

func (r *Runtime) ended(e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return e.status.Ended
}

// follow reads a supervisor's statuses until it hangs up; it reports whether
// any came.
func (r *Runtime) follow(e *entry, c net.Conn) (heard bool) {
	r.mu.Lock()
	e.conn = c
	reason := e.stop
	lease := r.lease
	r.mu.Unlock()
	sendHome(c, e.dir)
	if e.rec.Until != 0 && lease != 0 {
		sendLease(c, lease)
	}
	defer func() {
		r.mu.Lock()
		e.conn = nil
		r.mu.Unlock()
		_ = c.Close()
	}()
	if r.isClosed() {
		return false
	}
	if reason != "" {
		sendStop(c, reason)
	}
	for sc := frames(c); sc.Scan(); {
		f, err := decodeFrame(sc.Bytes())
		if err != nil {
			r.log.Error("supervisor", "task", e.rec.ID, "error", err)
			return heard
		}
		if f.Op == opStatus && f.Status != nil {
			heard = true
			r.keepEnd(e, *f.Status)
			r.update(e, *f.Status)
		}
	}
	return heard
}

// keepEnd writes an end that is told and stands nowhere, as that of a task
// whose supervisor has another directory than the agent.
func (r *Runtime) keepEnd(e *entry, st Status) {
	if !st.Ended || missing(e.dir) {
		return
	}
	if _, err := readStatus(e.dir, exitFile); err == nil {
		return
	}
	if err := writeExit(e.dir, st); err != nil {
		r.log.Error("the end of a task cannot be written", "task", e.rec.ID, "error", err)
	}
}

// update takes a newer status and tells the watchers.
func (r *Runtime) update(e *entry, st Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.status.Ended {
		return
	}
	e.status = st
	if st.Ended {
		close(e.over)
	}
	for w := range r.watchers {
		w.put(st)
	}
}

// settle looks whether a task has ended while nobody was told; it reports
// whether it has.
func (r *Runtime) settle(e *entry) bool {
	r.mu.Lock()
	st := e.status
	r.mu.Unlock()
	if saved, err := readStatus(e.dir, stateFile); err == nil && saved.Supervisor != 0 {
		st = saved
	}
	dead := gone(e.dir, st, r.boot) // before the file is looked for, which it wrote first
	if exit, err := readStatus(e.dir, exitFile); err == nil {
		r.update(e, exit)
		return true
	}
	if !dead {
		return false
	}
	r.conclude(e)
	return true
}

// conclude writes the end of a task whose supervisor could not: it kills what
// is left, and says what is known. An exit status is not.
func (r *Runtime) conclude(e *entry) {
	st, err := readStatus(e.dir, stateFile)
	r.mu.Lock()
	if err != nil {
		st = e.status
	}
	stop, killed := e.stop, e.killed
	r.mu.Unlock()
	rebooted, never := st.Boot != r.boot, cutOff(e.dir)
	g := r.group(e)
	if !rebooted {
		for !g.killAll(sweepWithin) { // while one lives the task has not ended
			r.log.Error("processes are left that do not die", "task", e.rec.ID, "pids", g.procs())
			if r.isClosed() {
				return // whoever comes next goes on
			}
		}
		r.killRecorded(st)
		if c, err := g.counters(); err == nil {
			st.CPUNanos, st.MaxRAM = c.CPUNanos, max(c.MaxRAM, st.MaxRAM)
		}
		st.OOM = st.OOM || g.oomKills() > 0
	}
	if err := g.remove(groupWithin); err != nil {
		r.log.Warn("cgroup is left", "error", err)
	}
	switch {
	case rebooted:
		st.set(task.Lost, "the machine restarted")
	case e.rec.Until != 0 && BootTime() >= max(st.Until, e.rec.Until):
		st.set(task.Lost, agent.Lapsed)
	case stop != "" || killed:
		st.set(task.Killed, stop)
	case never:
		st.set(task.Lost, "the supervisor died before it began")
	default:
		st.set(task.Failed, "supervisor died")
	}
	st.Processes = slices.Clone(st.Processes) // the old ones may have been given away
	for i := range st.Processes {
		if p := &st.Processes[i]; p.Live {
			p.Live, p.Reason, p.EndedAt = false, st.Reason, time.Now()
		}
	}
	st.Ended, st.Known, st.EndedAt = true, false, time.Now()
	for {
		err := writeExit(e.dir, st)
		if err == nil || r.isClosed() {
			break
		}
		if missing(e.dir) {
			r.log.Warn("the directory of a task was lost, and with it where its end is written", "task", e.rec.ID)
			break
		}
		r.log.Error("the end of a task cannot be written; it is not told until it is", "task", e.rec.ID, "error", err)
		r.pause(time.Second)
	}
	if !r.isClosed() {
		r.update(e, st)
	}
}

// group returns a task's cgroup, where the agent that started it made it.
func (r *Runtime) group(e *entry) group {
	return newGroups(r.able.mounts, e.rec.CgroupRoot).of(filepath.Base(e.dir))
}

// killRecorded kills what a task without cgroup or namespaces has left: the
// sessions of its processes, and its init.
func (r *Runtime) killRecorded(st Status) {
	if st.Pid > 0 && inside.Same(st.Pid, st.Start) {
		inside.Kill(st.Pid)
	}
	if !r.groups.off() {
		return
	}
	for _, p := range st.Processes {
		if p.Pid > 0 {
			inside.KillSession(p.Pid, p.Start)
		}
	}
}

func sendStop(c net.Conn, reason string) {
	sendFrame(c, frame{Op: opStop, Version: version, Reason: reason})
}

func sendFrame(c net.Conn, f frame) {
	b, err := encodeFrame(f)
	if err != nil {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(dialTimeout))
	_, _ = c.Write(b) // what is not heard is said again on the next connection
}

// Stop asks a task to end in order: HTTP quit and abort, SIGTERM, SIGKILL, as
// its configuration says. It returns at once and may be repeated. A supervisor
// that has not ended the task when all waits are over is killed with it. Kind
// NotFound: the id is not known.
func (r *Runtime) Stop(ctx context.Context, id task.ID, reason string) error {
	if reason == "" {
		reason = "stopped"
	}
	r.mu.Lock()
	e := r.tasks[id]
	if e == nil {
		r.mu.Unlock()
		return fault.NotFound.Errorf("no task %v on this machine", id)
	}
	if e.status.Ended || e.stop != "" {
		r.mu.Unlock()
		return ctx.Err()
	}
	e.stop = reason
	c, st := e.conn, e.status
	r.mu.Unlock()
	within := stopWithin(e.rec)
	switch {
	case c != nil:
		sendStop(c, reason)
	case st.Orphan:
		within = orphanWithin
		r.askOrphan(e, st)
	}
	r.background(func() {
		t := time.NewTimer(within)
		defer t.Stop()
		select {
		case <-e.over:
		case <-r.closed:
		case <-t.C:
			r.log.ErrorContext(context.WithoutCancel(ctx), "supervisor did not stop its task in time; killed", "task", e.rec.ID)
			r.overdue(e)
		}
	})
	return nil
}

// overdue ends a stop that was not obeyed, and has the end say so.
func (r *Runtime) overdue(e *entry) {
	r.mu.Lock()
	e.stop += "; it did not end in order, and was killed with its supervisor"
	r.mu.Unlock()
	r.shoot(e)
}

// stopWithin is how long a stop may take.
func stopWithin(rec taskRecord) time.Duration {
	const margin = 15 // seconds: two requests, and for the dead to go
	s := max(rec.Config.Task.FinalizationWait, 0)
	if l := rec.Config.Lifecycle; l != nil {
		s += max(l.GracefulWaitS, 0) + max(l.ShutdownWaitS, 0)
	}
	return time.Duration(s+margin) * time.Second
}

// Kill ends a task at once, with its supervisor, and waits until it is gone.
// Kinds NotFound: the id is not known; Timeout: it may live on.
func (r *Runtime) Kill(ctx context.Context, id task.ID, reason string) error {
	if reason == "" {
		reason = "killed"
	}
	r.mu.Lock()
	e := r.tasks[id]
	if e == nil {
		r.mu.Unlock()
		return fault.NotFound.Errorf("no task %v on this machine", id)
	}
	if e.stop == "" {
		e.stop = reason
	}
	ended := e.status.Ended
	r.mu.Unlock()
	if !ended {
		r.shoot(e)
	}
	select {
	case <-e.over:
		return nil
	case <-ctx.Done():
		return fault.Timeout.Errorf("kill %v: %w", id, ctx.Err())
	}
}

// shoot kills a supervisor; [Runtime.attend] sees it and concludes.
func (r *Runtime) shoot(e *entry) {
	r.mu.Lock()
	st := e.status
	e.killed = true
	r.mu.Unlock()
	if saved, err := readStatus(e.dir, stateFile); err == nil {
		st = saved
	}
	if st.Supervisor > 0 && st.Boot == r.boot && inside.Same(st.Supervisor, st.SupervisorStart) {
		inside.Kill(st.Supervisor)
	}
	if st.Orphan {
		r.countOrphan(e, r.group(e))
	}
	r.group(e).killAll(sweepWithin)
}
