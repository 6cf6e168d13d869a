package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

// An entry is a task that is not forgotten. [Runtime.mu] guards it.
type entry struct {
	dir    string
	rec    taskRecord
	status Status
	conn   net.Conn      // to its supervisor; nil when there is none now
	stop   string        // the reason of a stop that was asked for; empty when none was
	told   bool          // the supervisor was told to stop by a signal
	killed bool          // the supervisor was killed by us
	maxRAM int64         // the most that Usage has told
	over   chan struct{} // closed when status is Ended
}

func (e *entry) hangUp() {
	if e.conn != nil {
		_ = e.conn.Close()
	}
}

// Start begins a task and returns as soon as its supervisor lives; what comes
// of it is told by [Runtime.Watch]. Where the disk has not enough room for it,
// what ended tasks have left goes first, which takes 3 s at most. It does nothing when the id is known, also
// when it has ended: an id runs once. Kind Invalid: it could never run.
func (r *Runtime) Start(ctx context.Context, spec Spec) error {
	rec, err := r.record(spec)
	if err != nil {
		return err
	}
	if err = ctx.Err(); err != nil {
		return fault.Timeout.Errorf("start %v: %w", spec.ID, err)
	}
	e := &entry{dir: r.liveDir(spec.ID), rec: rec, over: make(chan struct{})}
	e.status = Status{Version: version, Fields: format.Added(), ID: spec.ID, Task: rec.ID, Boot: r.boot, StartedAt: time.Now()}
	e.status.set(task.Starting, "")
	r.mu.Lock()
	_, known := r.tasks[spec.ID]
	if _, none := os.Lstat(r.endedDir(spec.ID)); none == nil {
		known = true
	}
	if !known {
		r.tasks[spec.ID] = e
	}
	r.mu.Unlock()
	if known {
		return nil
	}
	pid, err := r.launch(ctx, e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.tasks, spec.ID)
		return errors.Join(err, os.RemoveAll(e.dir))
	}
	if st, ok := inside.ReadProcess(pid); ok && e.status.Supervisor == 0 {
		e.status.Supervisor, e.status.SupervisorStart = pid, st.Start
	}
	r.background(func() { r.attend(e) })
	return nil
}

// record makes the task's record and refuses what could never run.
func (r *Runtime) record(spec Spec) (taskRecord, error) {
	if err := spec.ID.Job.Validate(); err != nil {
		return taskRecord{}, err
	}
	if id, err := task.ParseID(spec.ID.String()); err != nil || id != spec.ID {
		return taskRecord{}, fault.Invalid.Errorf("task id %v is none", spec.ID)
	}
	user := spec.ID.Job.Role() // whatever the config says: another's files are not the role's to read
	c, err := agent.Expand(spec.Config, agent.Runtime{
		TaskID: spec.ID.String(), Instance: spec.ID.Instance, User: user, Hostname: spec.Hostname, Ports: spec.Ports,
	})
	if err != nil {
		return taskRecord{}, err
	}
	if _, err := agent.NewLife(agent.LifeSpec{Task: c.Task, Health: c.Health, Lifecycle: c.Lifecycle, Ports: spec.Ports}); err != nil {
		return taskRecord{}, err
	}
	if err := checkArtifacts(c.Task.Artifacts); err != nil {
		return taskRecord{}, err
	}
	return taskRecord{
		Version: version, Fields: format.Added(), ID: spec.ID.String(), ClusterUID: spec.ClusterUID, Config: c, Ports: spec.Ports, GPUs: spec.GPUs, Hostname: spec.Hostname,
		CgroupRoot: r.cfg.CgroupRoot, Root: filepath.Join(r.cfg.Dir, rootDir), Hide: append(slices.Clone(r.cfg.Hide), r.cfg.Dir),
		Reduced: r.able.reduced, Isolated: r.able.namespaces, User: user, Zone: r.cfg.Zone, Until: spec.Until,
	}, nil
}

// launch makes the task's directory and starts its supervisor, which holds the
// lock from before it exists until after it is gone.
func (r *Runtime) launch(ctx context.Context, e *entry) (pid int, err error) {
	if err = r.awaitRoom(ctx, e.rec.ID); err != nil {
		return 0, err
	}
	if pids := r.group(e).procs(); len(pids) > 0 {
		return 0, fault.Unavailable.Errorf("processes %v of another start of task %s live in its cgroup, and its directory was lost; they are left alone", pids, e.rec.ID)
	}
	if err = os.Mkdir(e.dir, 0o700); err != nil {
		return 0, fault.Unavailable.Errorf("directory of task %s: %w", e.rec.ID, err)
	}
	b, err := json.Marshal(e.rec)
	if err != nil {
		return 0, fault.Internal.Errorf("encode task %s: %w", e.rec.ID, err)
	}
	if err = os.WriteFile(filepath.Join(e.dir, taskFile), b, fileMode); err != nil {
		return 0, fault.Unavailable.Errorf("record of task %s: %w", e.rec.ID, err)
	}
	lock, err := takeLock(e.dir)
	if err != nil {
		return 0, err
	}
	defer lock.Close() //nolint:errcheck // the supervisor has it too
	socket, err := listen(e.dir)
	if err != nil {
		return 0, err
	}
	defer socket.Close() //nolint:errcheck // the supervisor has it too
	said, err := r.openSaid()
	if err != nil {
		return 0, err
	}
	defer said.Close() //nolint:errcheck // the supervisor has it too
	if pid, ok := r.handOver(e.dir, socket, lock, said); ok {
		return pid, nil
	}
	cmd := r.supervisor(e.dir, said, socket, lock)
	if err = cmd.Start(); err != nil {
		return 0, fault.Unavailable.Errorf("start supervisor of task %s: %w", e.rec.ID, err)
	}
	go cmd.Wait() //nolint:errcheck // reaps it; how a task ended stands in its directory
	return cmd.Process.Pid, nil
}

// maxSaid bounds the supervisors' log, in bytes, when one more begins.
const maxSaid = 16 << 20

func (r *Runtime) openSaid() (*os.File, error) {
	path := filepath.Join(r.cfg.Dir, saidFile)
	if st, err := os.Lstat(path); err == nil && st.Size() > maxSaid {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fault.Unavailable.Errorf("%w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, fileMode) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	return f, nil
}

// takeLock locks a task's directory. Kinds Conflict: a supervisor lives;
// Unavailable: nobody can tell.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, taskFile), os.O_RDWR, 0) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fault.Conflict.Errorf("task directory %s is in use: %w", dir, err), f.Close())
	}
	return f, nil
}
