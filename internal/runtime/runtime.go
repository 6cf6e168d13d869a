// Package runtime runs tasks as real, isolated processes that outlive the
// program that started them.
//
// Each task has a directory and a supervisor: a re-execution of the same
// binary in a session of its own, which holds the task's cgroups, starts an
// init (process 1 of the task's namespaces) and carries out what [agent.Life]
// decides. The [Runtime] is the agent's side. It may die at any moment: a new
// one on the same directory finds every task again, and what ended meanwhile
// with its true exit status.
//
// It promises: a task id runs at most once per directory; an end is on disk
// before anybody is told of it; when a task has ended, no process of it lives;
// an exit status is never invented. Everything here is for Linux.
package runtime

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

// SuperviseArg is the argument under which a binary must dispatch to
// [SuperviseMain]. Package inside dispatches its own.
const SuperviseArg = "__supervise"

// DefaultPids bounds the processes and threads of a task whose configuration
// says nothing.
const DefaultPids = 256

// A Config says where and how tasks run.
type Config struct {
	Dir        string       // where the tasks' directories are kept; made when missing
	Self       string       // path of a binary that dispatches [SuperviseArg]
	CgroupRoot string       // below every hierarchy's root, such as /covey/west/m1; one Runtime each
	Hide       []string     // further directories that no task may see, such as the server's data
	Reduced    bool         // do without cgroups, namespaces and users even when they could be had
	Zone       string       // TZ of the tasks; empty: unset
	Spare      bool         // keep a supervisor waiting, so that a task starts faster
	Keep       Keep         // of what ended tasks have left
	Log        *slog.Logger // nil: silent
}

// A Runtime starts, stops and watches the tasks of one directory. Its methods
// may be called from several goroutines.
type Runtime struct {
	cfg    Config
	log    *slog.Logger
	able   ability
	groups groups
	boot   string

	stop    context.CancelFunc // ends the goroutines, never the tasks
	closed  <-chan struct{}    // once stop was called
	working sync.WaitGroup
	spares  chan *spare // holds the one that waits

	mu       sync.Mutex
	tasks    map[task.ID]*entry
	lease    time.Duration // of exclusive tasks, as it was renewed last
	watchers map[*watcher]struct{}
	left     int64 // bytes of forgotten tasks, as far as they were counted

	collecting chan struct{} // holds one while somebody collects
}

// New opens a directory, attaches to every task that lives there, and
// concludes every one whose supervisor is gone. Kind Invalid: the
// configuration cannot work; Unavailable: the directory cannot be used.
func New(cfg Config) (*Runtime, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	for _, d := range []string{"", liveDir, endedDir, rootDir} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, d), 0o700); err != nil {
			return nil, fault.Unavailable.Errorf("task directory %s cannot be made: %w; give the agent a directory that it may write", cfg.Dir, err)
		}
	}
	dir, err := filepath.EvalSymlinks(cfg.Dir)
	if err != nil {
		return nil, fault.Unavailable.Errorf("task directory: %w", err)
	}
	cfg.Dir = dir
	boot, err := inside.BootID()
	if err != nil {
		return nil, err
	}
	able := probeAbilities(cfg.Reduced)
	r := &Runtime{
		cfg: cfg, log: cfg.Log, able: able, boot: boot,
		groups: newGroups(able.mounts, cfg.CgroupRoot),
		tasks:  map[task.ID]*entry{}, watchers: map[*watcher]struct{}{}, spares: make(chan *spare, 1),
		collecting: make(chan struct{}, 1),
	}
	ctx, stop := context.WithCancel(context.Background())
	r.closed, r.stop = ctx.Done(), stop
	err = r.groups.prepare()
	if err == nil {
		err = r.recover()
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	if cfg.Spare {
		r.background(r.keepSpare)
	}
	return r, nil
}

func (c *Config) check() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case !filepath.IsAbs(c.Dir):
		return fault.Invalid.Errorf("task directory %q is not absolute", c.Dir)
	case !filepath.IsAbs(c.Self):
		return fault.Invalid.Errorf("path of the binary %q is not absolute", c.Self)
	case !filepath.IsAbs(c.CgroupRoot) || filepath.Clean(c.CgroupRoot) != c.CgroupRoot || c.CgroupRoot == "/":
		return fault.Invalid.Errorf("cgroup root %q; want a clean absolute path such as /covey/west/m1", c.CgroupRoot)
	}
	return nil
}

// Close lets go of the tasks, which keep running. When there are none, nothing
// is left in the kernel.
func (r *Runtime) Close() {
	r.stop()
	live := false
	r.mu.Lock()
	for _, e := range r.tasks {
		e.hangUp()
		live = live || !e.status.Ended
	}
	r.mu.Unlock()
	r.working.Wait()
	r.sweepEnded()
	if !live {
		r.groups.dismantle()
	}
}

// Abilities says in sentences which guarantees this machine cannot give;
// none when all hold.
func (r *Runtime) Abilities() []string { return slices.Clone(r.able.missing) }

// The directories inside [Config.Dir].
const (
	liveDir  = "tasks"           // not yet forgotten
	endedDir = "ended"           // forgotten; kept for their logs until they are collected
	rootDir  = "root"            // empty: each task mounts its root on it, in its own namespace
	saidFile = "supervisors.log" // what supervisors have to say
)

func (r *Runtime) liveDir(id task.ID) string {
	return filepath.Join(r.cfg.Dir, liveDir, name.Escape(id.String()))
}

func (r *Runtime) endedDir(id task.ID) string {
	return filepath.Join(r.cfg.Dir, endedDir, name.Escape(id.String()))
}

// background runs f in the background until [Runtime.Close].
func (r *Runtime) background(f func()) {
	r.working.Go(f)
}

// pause waits for d or until the runtime is closed, whichever comes first.
func (r *Runtime) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.closed:
	}
}

// isClosed reports whether [Runtime.Close] was called.
func (r *Runtime) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}
