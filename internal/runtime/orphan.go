package runtime

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// An orphan is a task that lives in its cgroup while there is no directory of
// it: the directory was lost, or replaced by an older copy. Absence is no
// order, so it runs on until somebody stops it by name. Its cgroup is all that
// is known of it: the name is the task's id, the limits are what it holds, the
// counters what it uses. Its supervisor lives as well, but listens on a socket
// that nobody finds any more.

const (
	orphanEvery  = time.Second           // how often it is looked whether one has ended
	orphanSoon   = 50 * time.Millisecond // the same, of one that was told to
	orphanWithin = 45 * time.Second      // for an orphan to end in order: how long it may take is not known any more
)

// sweepGroups removes cgroups that nobody is in. One with living processes
// that is in no directory is an orphan.
func (r *Runtime) sweepGroups() {
	known := map[string]bool{}
	for _, e := range r.tasks {
		known[filepath.Base(e.dir)] = true
	}
	for _, n := range r.groups.names() {
		if known[n] {
			continue
		}
		g := r.groups.of(n)
		if pids := g.procs(); len(pids) > 0 {
			r.takeOrphan(n, g, pids)
			continue
		}
		if err := g.remove(0); err != nil {
			r.log.Warn("empty cgroup is left", "error", err)
		}
	}
}

// sweepEnded removes the empty cgroups of tasks that have ended: the kernel may
// have let go of one later than its supervisor waited. A task that is being
// started is known before its cgroup is made, so that it is never taken for
// one.
func (r *Runtime) sweepEnded() {
	for _, n := range r.groups.names() {
		r.mu.Lock()
		live := false
		for _, e := range r.tasks {
			live = live || filepath.Base(e.dir) == n && !e.status.Ended
		}
		if g := r.groups.of(n); !live && len(g.procs()) == 0 {
			if err := g.remove(0); err != nil {
				r.log.Warn("empty cgroup is left", "error", err)
			}
		}
		r.mu.Unlock()
	}
}

// takeOrphan lists an orphan among the tasks.
func (r *Runtime) takeOrphan(n string, g group, pids []int) {
	id, err := task.ParseID(strings.ReplaceAll(n, "+", "/"))
	if err != nil || name.Escape(id.String()) != n {
		r.log.Warn("processes in a cgroup that is no task's; left alone", "cgroup", g.path, "pids", pids)
		return
	}
	st := Status{Version: version, ID: id, Task: id.String(), Boot: r.boot, Orphan: true, Holds: g.holds()}
	st.set(task.Running, "it lives in its cgroup, and its directory was lost")
	first, supervisor := r.lineage(pids)
	st.Pid, st.Start = first.Pid, first.Start
	st.Supervisor, st.SupervisorStart = supervisor.Pid, supervisor.Start
	if c, err := g.counters(); err == nil {
		st.CPUNanos, st.MaxRAM = c.CPUNanos, c.MaxRAM
	}
	st.StartedAt = time.Now().Add(time.Duration(first.Start)*clockTick - inside.BootTime())
	e := &entry{dir: r.liveDir(id), rec: taskRecord{ID: id.String(), CgroupRoot: r.cfg.CgroupRoot}, status: st, over: make(chan struct{})}
	r.tasks[id] = e
	r.log.Warn("a task runs whose directory was lost; it is left alone until it is stopped by name", "task", id.String(), "cgroup", g.path, "pids", pids, "supervisor", supervisor.Pid)
	r.background(func() { r.attendOrphan(e) })
}

// lineage returns the oldest of a group's processes, which is the task's init,
// and its supervisor: a parent that is among the supervisors. Without one that
// lives, the latter is zero.
func (r *Runtime) lineage(pids []int) (first, supervisor inside.Process) {
	over := r.groups.of(overheadName).procs()
	var all []inside.Process
	for _, pid := range pids {
		if p, ok := inside.ReadProcess(pid); ok {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b inside.Process) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Pid, b.Pid))
	})
	for _, p := range all {
		if !slices.Contains(over, p.Parent) {
			continue
		}
		if s, ok := inside.ReadProcess(p.Parent); ok && !s.Zombie {
			return p, s
		}
	}
	if len(all) > 0 {
		first = all[0]
	}
	return first, supervisor
}

// attendOrphan follows an orphan until its cgroup is empty or the runtime is
// closed.
func (r *Runtime) attendOrphan(e *entry) {
	g := r.group(e)
	for !r.isClosed() {
		r.countOrphan(e, g)
		if len(g.procs()) == 0 {
			r.concludeOrphan(e, g)
			return
		}
		r.mu.Lock()
		killed, stopping := e.killed, e.stop != ""
		r.mu.Unlock()
		if killed && !g.killAll(sweepWithin) {
			r.log.Error("processes are left that do not die", "task", e.rec.ID, "pids", g.procs())
		}
		switch {
		case killed:
		case stopping:
			r.pause(orphanSoon)
		default:
			r.pause(orphanEvery)
		}
	}
}

// countOrphan keeps what an orphan has used: when it ends, its cgroup is gone.
func (r *Runtime) countOrphan(e *entry, g group) {
	if c, err := g.counters(); err == nil {
		r.mu.Lock()
		e.status.CPUNanos, e.status.MaxRAM = max(c.CPUNanos, e.status.CPUNanos), max(c.MaxRAM, e.status.MaxRAM)
		r.mu.Unlock()
	}
}

// concludeOrphan tells the end of an orphan. How it ended nobody knows: its
// supervisor has nowhere to write it, and is ended too.
func (r *Runtime) concludeOrphan(e *entry, g group) {
	r.mu.Lock()
	st, stop := e.status, e.stop
	r.mu.Unlock()
	for deadline := time.Now().Add(groupWithin); inside.Same(st.Supervisor, st.SupervisorStart) && time.Now().Before(deadline); r.pause(time.Millisecond) {
		inside.Kill(st.Supervisor)
	}
	if err := g.remove(groupWithin); err != nil {
		r.log.Warn("cgroup is left", "error", err)
	}
	st.set(task.Lost, "it has ended, and its directory was lost: nobody knows how")
	if stop != "" {
		st.set(task.Killed, stop)
	}
	st.Ended, st.EndedAt = true, time.Now()
	r.update(e, st)
}

// askOrphan asks an orphan's supervisor to end its task in order, by a signal
// since its socket is out of reach. Without a supervisor the task is killed.
func (r *Runtime) askOrphan(e *entry, st Status) {
	r.countOrphan(e, r.group(e))
	if inside.Same(st.Supervisor, st.SupervisorStart) && unix.Kill(st.Supervisor, stopSignal) == nil {
		return
	}
	r.background(func() { r.shoot(e) })
}

// stopSignal tells a supervisor to end its task in order.
const stopSignal = unix.SIGUSR1

// holds returns what the group's limits let it use, as far as they are set.
func (g group) holds() unit.Resources {
	var r unit.Resources
	if g.m.has("cpu") {
		r.CPU = g.cpuMilli()
	}
	if g.m.has("memory") {
		d, v2 := g.dir("memory")
		file := "memory.limit_in_bytes"
		if v2 {
			file = "memory.max"
		}
		if n, err := number(filepath.Join(d, file)); err == nil && n < unlimited {
			r.RAM = n
		}
	}
	return r
}

// unlimited is below what version 1 shows where no limit is set; version 2
// shows no number there.
const unlimited = 1 << 60

// cpuMilli returns the ration of cpu in thousandths of a core, 0 if there is
// none.
func (g group) cpuMilli() int64 {
	d, v2 := g.dir("cpu")
	var quota, period int64
	if v2 {
		b, err := os.ReadFile(filepath.Join(d, "cpu.max")) //nolint:gosec // the kernel's own file
		if err != nil {
			return 0
		}
		if _, err := fmt.Sscanf(string(b), "%d %d", &quota, &period); err != nil {
			return 0 // "max"
		}
	} else {
		var bad, worse error
		quota, bad = number(filepath.Join(d, "cpu.cfs_quota_us"))
		period, worse = number(filepath.Join(d, "cpu.cfs_period_us"))
		if bad != nil || worse != nil {
			return 0
		}
	}
	if quota <= 0 || period <= 0 {
		return 0
	}
	return quota * 1000 / period
}
