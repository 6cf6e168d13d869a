package runtime

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/format"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// The files of a task's directory. The directory is a format with a version
// (docs/design/runtime.md): what an agent of the version before or after has
// written is read, and fields that are not known are left alone.
const (
	taskFile   = "task.json"  // what to run; written by the agent, then locked while a supervisor lives
	stateFile  = "state.json" // a [Status]; written by the supervisor soon after a change
	exitFile   = "exit.json"  // a [Status] that is Ended, durable; empty or torn: it has not ended
	socketFile = "socket"     // where the supervisor listens
	sandboxDir = "sandbox"    // the task's own
	scratchDir = "scratch"    // scripts, where /run is not the task's own
	version    = 1 + format.Ahead
	maxVersion = version + 1
	maxRecord  = 16 << 20 // bytes of one record
	fileMode   = 0o600
)

// A Spec is one task to run. Its templates may still be in place.
type Spec struct {
	ID         task.ID
	ClusterUID string
	Config     job.Config
	Ports      map[string]uint16 // the config's ports, by name
	GPUs       []uint16          // the numbers of those that the task has
	Hostname   string            // for {{mesos.hostname}}
	Until      time.Duration     // an exclusive task is dead soon after this [BootTime], unless [Runtime.Renew] prolongs it; 0: it is not exclusive
}

// taskRecord is [taskFile].
type taskRecord struct {
	format.Fields
	Version    int               `json:"version"`
	ID         string            `json:"id"`
	ClusterUID string            `json:"cluster_uid"`
	Config     job.Config        `json:"config"`
	Ports      map[string]uint16 `json:"ports,omitzero"`
	GPUs       []uint16          `json:"gpus,omitzero"`
	Hostname   string            `json:"hostname,omitzero"`
	CgroupRoot string            `json:"cgroup_root"`
	Root       string            `json:"root"` // an empty directory to mount on
	Hide       []string          `json:"hide,omitzero"`
	Reduced    bool              `json:"reduced,omitzero"`  // no cgroups and no other user
	Isolated   bool              `json:"isolated,omitzero"` // in namespaces of its own
	User       string            `json:"user"`              // whose account it runs under, if there is one
	Zone       string            `json:"zone,omitzero"`     // TZ
	Until      time.Duration     `json:"lease_until_boot_nanos,omitzero"`
}

// A Status is what is known of a task.
type Status struct {
	format.Fields

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

	// Until is the end of an exclusive task's lease, of [BootTime]; 0: it has none.
	Until time.Duration `json:"lease_until_boot_nanos,omitzero"`

	// Orphan: it lives in a cgroup of which there is no directory. Holds is what
	// its cgroup's limits say that it may use.
	Orphan bool           `json:"-"`
	Holds  unit.Resources `json:"-"`

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

// writeJSON replaces a record in one step.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Internal.Errorf("encode %s: %w", path, err)
	}
	err = os.WriteFile(path+".new", b, fileMode)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fault.Unavailable.Errorf("write %s: %w", path, err)
	}
	return nil
}

// missing reports whether a directory is not there.
func missing(dir string) bool {
	_, err := os.Lstat(dir)
	return errors.Is(err, fs.ErrNotExist)
}

// exitSpace is what the end of a task may take, in bytes.
const exitSpace = 64 << 10

// reserveExit takes the space for the end while there is some: a task that
// fills the disk must not keep its own end from being written. The file says
// that the task has begun, so without it nothing may.
func reserveExit(dir string, log *slog.Logger) error {
	f, err := os.OpenFile(filepath.Join(dir, exitFile), os.O_CREATE|os.O_WRONLY, fileMode) //nolint:gosec // a path of our own making
	if err != nil {
		return fault.Unavailable.Errorf("the file for the end of the task: %w; nothing is started", err)
	}
	if err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, exitSpace); err != nil {
		log.Warn("no space reserved", "error", err)
	}
	return f.Close()
}

// writeExit writes the end. Once it has returned, the end survives a power
// cut; if it is torn by one, it does not parse and the task has not ended.
func writeExit(dir string, st Status) error {
	b, err := json.Marshal(st)
	if err != nil {
		return fault.Internal.Errorf("encode end: %w", err)
	}
	path := filepath.Join(dir, exitFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, fileMode) //nolint:gosec // a path of our own making
	if err != nil {
		return fault.Unavailable.Errorf("%w", err)
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return fault.Unavailable.Errorf("write %s: %w", path, err)
	}
	return nil
}
