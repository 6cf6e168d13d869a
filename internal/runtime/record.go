package runtime

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
)

// The files of a task's directory. The directory is a format with a version
// (docs/design/runtime.md): what an agent of the version before or after has
// written is read, and fields that are not known are left alone.
const (
	taskFile    = "task.json"      // what to run; written by the agent before the supervisor starts
	stateFile   = "state.json"     // a [Status]; written by the supervisor at each change
	exitFile    = "exit.json"      // a [Status] that is Ended, durable
	lockFile    = "lock"           // locked while a supervisor lives
	socketFile  = "socket"         // where the supervisor listens
	stderrFile  = "supervisor.log" // what the supervisor has to say
	sandboxDir  = "sandbox"        // the task's own
	rootDir     = "root"           // where its root file system is put together
	version     = 1
	maxVersion  = version + 1
	maxRecord   = 16 << 20 // bytes of one record
	durableFile = 0o600
)

// A Spec is one task to run. Its templates may still be in place.
type Spec struct {
	ID         task.ID
	ClusterUID string
	Config     job.Config
	Ports      map[string]uint16 // the config's ports, by name
	Hostname   string            // for {{mesos.hostname}}
}

// taskRecord is [taskFile].
type taskRecord struct {
	Version    int               `json:"version"`
	ID         string            `json:"id"`
	ClusterUID string            `json:"cluster_uid"`
	Config     job.Config        `json:"config"`
	Ports      map[string]uint16 `json:"ports,omitzero"`
	Hostname   string            `json:"hostname,omitzero"`
	CgroupRoot string            `json:"cgroup_root"`
	Hide       []string          `json:"hide,omitzero"`
	Reduced    bool              `json:"reduced,omitzero"`  // no cgroups and no other user
	Isolated   bool              `json:"isolated,omitzero"` // in namespaces of its own
	User       string            `json:"user"`              // whose account it runs under, if there is one
	Zone       string            `json:"zone,omitzero"`     // TZ
}

// A Status is what is known of a task.
type Status struct {
	Version int        `json:"version"`
	ID      task.ID    `json:"-"`
	Task    string     `json:"id"`
	State   task.State `json:"-"`
	Name    string     `json:"state"` // of State, in words
	Reason  string     `json:"reason,omitzero"`
	Boot    string     `json:"boot"` // the machine's boot id

	Supervisor      int    `json:"supervisor"`       // its pid
	SupervisorStart uint64 `json:"supervisor_start"` // clock ticks after boot
	Pid             int    `json:"pid,omitzero"`     // of the task's init, as the machine sees it
	Start           uint64 `json:"start,omitzero"`   // clock ticks after boot

	Processes []Process `json:"processes,omitzero"` // in the config's order; those that ever ran

	Ended    bool  `json:"ended,omitzero"`
	Known    bool  `json:"known,omitzero"` // Ended, and ExitCode and Signal are what the kernel said
	ExitCode int   `json:"exit_code,omitzero"`
	Signal   int   `json:"signal,omitzero"` // that killed the process which decided the end
	OOM      bool  `json:"oom,omitzero"`    // a process was killed for want of memory
	CPUNanos int64 `json:"cpu_nanos,omitzero"`
	MaxRAM   int64 `json:"max_ram_bytes,omitzero"`
	Disk     int64 `json:"disk_bytes,omitzero"` // the sandbox with its logs, when last measured

	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// A Process is the latest run of one process of a task.
type Process struct {
	Name      string    `json:"name"`
	Run       int       `json:"run"` // from 1
	Live      bool      `json:"live,omitzero"`
	Pid       int       `json:"pid,omitzero"`   // as the machine sees it
	Start     uint64    `json:"start,omitzero"` // clock ticks after boot
	ExitCode  int       `json:"exit_code,omitzero"`
	Signal    int       `json:"signal,omitzero"`
	Reason    string    `json:"reason,omitzero"` // why it never ran
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// restore sets what is not in the file from what is.
func (s *Status) restore() error {
	if s.Version > maxVersion {
		return newer(s.Version)
	}
	id, err := task.ParseID(s.Task)
	if err != nil {
		return err
	}
	state, ok := task.ParseState(s.Name)
	if !ok {
		return fault.Internal.Errorf("task %s: unknown state %.40q", s.Task, s.Name)
	}
	s.ID, s.State = id, state
	return nil
}

func newer(v int) error {
	return fault.Conflict.Errorf("task directory has format %d and this agent reads up to %d; start a newer agent", v, maxVersion)
}

func (s *Status) set(state task.State, reason string) {
	s.State, s.Name, s.Reason = state, state.String(), cutReason(reason)
}

// cutReason holds a reason to what a task's row keeps.
func cutReason(s string) string {
	if len(s) <= task.MaxReason {
		return s
	}
	s = s[:task.MaxReason-3]
	for len(s) > 0 && s[len(s)-1]&0xc0 == 0x80 {
		s = s[:len(s)-1]
	}
	if len(s) > 0 && s[len(s)-1] >= 0xc0 {
		s = s[:len(s)-1]
	}
	return s + "..."
}

func readStatus(dir, file string) (Status, error) {
	var s Status
	if err := readJSON(filepath.Join(dir, file), &s); err != nil {
		return Status{}, err
	}
	return s, s.restore()
}

func readTask(dir string) (taskRecord, error) {
	var t taskRecord
	if err := readJSON(filepath.Join(dir, taskFile), &t); err != nil {
		return taskRecord{}, err
	}
	if t.Version > maxVersion {
		return taskRecord{}, newer(t.Version)
	}
	return t, nil
}

// readJSON reads a record. Kind NotFound: there is none.
func readJSON(path string, v any) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.NotFound.Errorf("%w", err)
	}
	if err != nil {
		return fault.Unavailable.Errorf("%w", err)
	}
	if st.Size() > maxRecord || !st.Mode().IsRegular() {
		return fault.Internal.Errorf("%s is no record: %d bytes, mode %v", path, st.Size(), st.Mode())
	}
	b, err := os.ReadFile(path) //nolint:gosec // a path of our own making
	if err != nil {
		return fault.Unavailable.Errorf("%w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fault.Internal.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// writeJSON replaces a record in one step. A durable one survives a power cut
// once writeJSON has returned.
func writeJSON(path string, v any, durable bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Internal.Errorf("encode %s: %w", path, err)
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, durableFile) //nolint:gosec // a path of our own making
	if err != nil {
		return fault.Unavailable.Errorf("%w", err)
	}
	_, err = f.Write(b)
	if err == nil && durable {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil && durable {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fault.Unavailable.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // a path of our own making
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // only read
	return d.Sync()
}
