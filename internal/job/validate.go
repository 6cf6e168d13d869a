package job

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/unit"
)

// Bounds of one task that others keep to as well.
const (
	MaxPorts     = 64 // that it names
	MaxArtifacts = 32
)

// Bounds of one job. They keep a row of it, and a look at it, small.
const (
	maxProcesses  = 100
	maxCmdline    = 64 << 10 // bytes
	maxMetadata   = 100
	maxConstraint = 32
	maxText       = 4 << 10 // bytes of any other text
	maxSeconds    = 366 * 24 * 3600
	maxTotal      = 1 << 58 // of any measure, of all instances together, so that sums over jobs stay sums
)

// A FieldError says what is wrong with one field of a job, without the job's
// name: who reports it knows the cluster too, or the place in a file.
type FieldError struct {
	Field string // as configuration files spell it, such as task.processes[0].cmdline; of a map, constraints[rack]
	err   error
}

// Error says what is wrong and what was wanted.
func (e *FieldError) Error() string { return e.err.Error() }

// Unwrap returns what is wrong.
func (e *FieldError) Unwrap() error { return e.err }

// Validate reports the first reason for which j cannot be accepted: a
// [FieldError], unless it is the key.
func (j Job) Validate() error {
	if err := j.Key.Validate(); err != nil {
		return err
	}
	n := j.Instances.Len()
	if n < 1 || n > MaxInstances || j.Instances[0].From < 0 || j.Instances[len(j.Instances)-1].To >= MaxInstances {
		return bad("instances", "it has %d instances; want 1 to %d", n, MaxInstances)
	}
	if !slices.Equal(j.Instances, normal(slices.Clone(j.Instances))) {
		return bad("instances", "its instances %v are not in order, or some of them twice", j.Instances)
	}
	c := j.Config
	if c.Tier != Preferred && c.Tier != Preemptible && c.Tier != Revocable {
		return bad("tier", "tier %.40q is not known; want preferred, preemptible or revocable", c.Tier)
	}
	if c.Placement != "" && c.Placement != Spread {
		return bad("placement", "placement %.40q is not known; want spread, or nothing for best fit", c.Placement)
	}
	if c.MaxTaskFailures < -1 || c.MaxTaskFailures == 0 {
		return bad("max_task_failures", "max_task_failures is %d; want 1 or more, or -1 for ever", c.MaxTaskFailures)
	}
	if len(c.Metadata) > maxMetadata {
		return bad("metadata", "it has %d metadata; want at most %d", len(c.Metadata), maxMetadata)
	}
	for _, check := range []func() error{j.checkConstraints, j.checkTask, j.checkProcesses, j.checkArtifacts, j.checkHealth, j.checkWaits} {
		if err := check(); err != nil {
			return err
		}
	}
	return c.Task.ValidatePlan()
}

func bad(field, format string, args ...any) error {
	return fault.Invalid.Errorf("%w", &FieldError{field, fmt.Errorf(format, args...)})
}

// An amount is a whole number of a field, and its bounds.
type amount struct {
	name           string
	n, least, most int64
}

func (a amount) out() bool { return a.n < a.least || a.n > a.most }

func (j Job) checkConstraints() error {
	if n := len(j.Config.Constraints); n > maxConstraint {
		return bad("constraints", "it has %d constraints; want at most %d", n, maxConstraint)
	}
	for _, c := range j.Config.Constraints {
		at := "constraints[" + c.Attribute + "]"
		if err := name.ValidLabel("the attribute of a constraint", c.Attribute); err != nil {
			return bad(at, "%w", err)
		}
		switch {
		case slices.ContainsFunc(c.Values, func(v string) bool { return strings.ContainsFunc(v, unicode.IsControl) }):
			return bad(at, "the constraint on %s holds a control character; leave it out", c.Attribute)
		case c.Spread < 0 || forms(c) > 1:
			return bad(at, "the constraint on %s says several things, or spreads over less than 1; want values, or a limit, or a spread, or a job", c.Attribute)
		case c.With != "":
			if err := c.With.Validate(); err != nil {
				return bad(at, "the constraint on %s: %w", c.Attribute, err)
			}
		case c.Spread > 0:
		case c.Limit < 0 || c.Limit == 0 && len(c.Values) == 0:
			return bad(at, "the constraint on %s has neither values nor a limit of 1 or more", c.Attribute)
		case c.Limit > 0 && len(c.Values) > 0:
			return bad(at, "the constraint on %s has both values and a limit; want one of them", c.Attribute)
		}
	}
	return nil
}

// forms counts what a constraint says beyond values and a limit, and those once.
func forms(c Constraint) int {
	n := 0
	for _, has := range []bool{c.Limit > 0 || len(c.Values) > 0, c.Spread > 0, c.With != ""} {
		if has {
			n++
		}
	}
	return n
}

// checkTotal bounds what all instances ask for together.
func (j Job) checkTotal() error {
	for _, m := range unit.Measures() {
		if j.Config.Task.Resources.Of(m) > maxTotal/int64(j.Instances.Len()) {
			return bad("task.resources."+m.String(), "its instances ask for more %v together than can be counted", m)
		}
	}
	return nil
}

func (j Job) checkTask() error {
	t := j.Config.Task
	r := t.Resources
	for _, m := range unit.Measures() {
		low := int64(0)
		if m == unit.CPU || m == unit.RAM || m == unit.Disk {
			low = 1
		}
		if r.Of(m) < low || r.Of(m) > 1<<55 {
			return bad("task.resources."+m.String(), "%v is %d; want %d to 2^55", m, r.Of(m), low)
		}
	}
	if r != r.Whole() || r.RAM == 0 || r.Disk == 0 {
		return bad("task.resources", "ram and disk are %d and %d bytes; want 1 MiB or more, in whole MiB", r.RAM, r.Disk)
	}
	if r.GPU > 1000 && r.GPU%1000 != 0 {
		return bad("task.resources.gpu", "gpu is %s; want a share below 1 or whole GPUs", unit.GPU.Format(r.GPU))
	}
	if err := j.checkTotal(); err != nil {
		return err
	}
	if len(t.Ports) > MaxPorts {
		return bad("task.processes", "it names %d ports; want at most %d", len(t.Ports), MaxPorts)
	}
	for i, p := range t.Ports {
		if err := name.Valid("port", p); err != nil {
			return bad("task.processes", "it names a port that is wrong: %w", err)
		}
		if slices.Contains(t.Ports[:i], p) {
			return bad("task.processes", "it names port %s twice", p)
		}
	}
	if role := j.Key.Role(); t.User != "" && t.User != role {
		return bad("task.user", "its task has user %.40q; want the role, %q, as which its tasks run; leave user out, or give the job the role %.40q", t.User, role, t.User)
	}
	for _, f := range []amount{
		{"finalization_wait", int64(t.FinalizationWait), 0, maxSeconds},
		{"max_failures", int64(t.MaxFailures), 0, math.MaxInt32},
		{"max_concurrency", int64(t.MaxConcurrency), 0, math.MaxInt32},
		{"pids_limit", int64(t.PidsLimit), 0, math.MaxInt32},
	} {
		if f.out() {
			return bad("task."+f.name, "%s of its task is %d; want %d to %d", f.name, f.n, f.least, f.most)
		}
	}
	return nil
}

func (j Job) checkProcesses() error {
	ps := j.Config.Task.Processes
	if len(ps) == 0 || len(ps) > maxProcesses {
		return bad("task.processes", "its task has %d processes; want 1 to %d", len(ps), maxProcesses)
	}
	for i, p := range ps {
		at := "task.processes[" + strconv.Itoa(i) + "]"
		switch {
		case strings.TrimSpace(p.Cmdline) == "":
			return bad(at+".cmdline", "process %s has no cmdline", p.Name)
		case len(p.Cmdline) > maxCmdline:
			return bad(at+".cmdline", "process %s has a cmdline of %d bytes; want at most %d", p.Name, len(p.Cmdline), maxCmdline)
		case strings.IndexByte(p.Cmdline, 0) >= 0:
			return bad(at+".cmdline", "process %s has a NUL byte in its cmdline", p.Name)
		}
		for _, f := range []amount{{"max_failures", int64(p.MaxFailures), 0, math.MaxInt32}, {"min_duration", int64(p.MinDuration), 0, maxSeconds}} {
			if f.out() {
				return bad(at+"."+f.name, "%s of process %s is %d; want %d to %d", f.name, p.Name, f.n, f.least, f.most)
			}
		}
	}
	return nil
}

// Names at the top of a sandbox that are the platform's.
const (
	LogsDir     = ".logs"           // of the task's processes, which may read it
	TmpDir      = ".tmp"            // the task's /tmp
	PartialFile = ".covey-artifact" // an artifact that is being fetched
)

// Reserved reports whether a path in a sandbox is the platform's. No process
// can be called so: names of processes do not begin with a period.
func Reserved(p string) bool {
	first, _, _ := strings.Cut(path.Clean(p), "/")
	return first == LogsDir || first == TmpDir || first == PartialFile
}

func (j Job) checkArtifacts() error {
	as := j.Config.Task.Artifacts
	if len(as) > MaxArtifacts {
		return bad("task.artifacts", "its task has %d artifacts; want at most %d", len(as), MaxArtifacts)
	}
	for i, a := range as {
		at := "task.artifacts[" + strconv.Itoa(i) + "]"
		if a.URI == "" || len(a.URI) > maxText {
			return bad(at+".uri", "an artifact has a URI of %d bytes; want 1 to %d", len(a.URI), maxText)
		}
		if len(a.Path) > maxText {
			return bad(at+".path", "artifact %.100q has a path of %d bytes; want at most %d", a.URI, len(a.Path), maxText)
		}
		if a.Path == "" || strings.Contains(a.Path, "{{") {
			continue // named by its URI, or on the machine
		}
		to := path.Clean(a.Path)
		if first, _, _ := strings.Cut(to, "/"); path.IsAbs(to) || first == ".." || Reserved(to) {
			return bad(at+".path", "artifact %.100q goes to %.100q; want a path below the sandbox, not in %s or %s, and not %s", a.URI, a.Path, LogsDir, TmpDir, PartialFile)
		}
	}
	return nil
}

// checkWaits bounds times, so that no sum of them leaves the calendar.
func (j Job) checkWaits() error {
	if d := j.Config.Partition.DelayS; d < 0 || d > maxSeconds {
		return bad("partition_policy.delay_secs", "its partition policy waits %d s; want 0 to %d, a year", d, maxSeconds)
	}
	l := j.Config.Lifecycle
	if l == nil {
		return nil
	}
	for _, f := range []amount{
		{"graceful_shutdown_wait_secs", int64(l.GracefulWaitS), 0, maxSeconds}, {"shutdown_wait_secs", int64(l.ShutdownWaitS), 0, maxSeconds},
	} {
		if f.out() {
			return bad("lifecycle.http."+f.name, "%s of its lifecycle is %d s; want %d to %d, a year", f.name, f.n, f.least, f.most)
		}
	}
	return nil
}

func (j Job) checkHealth() error {
	h := j.Config.Health
	if h == nil {
		return nil
	}
	switch {
	case (h.HTTP == nil) == (h.Shell == nil):
		return bad("health_check_config", "its health check has both or neither of http and shell; want one")
	case h.HTTP != nil && !slices.Contains(j.Config.Task.Ports, h.HTTP.Port) && PortOf(nil, h.HTTP.Port) == 0:
		return bad("health_check_config", "its health check asks port %q, which the task does not name", h.HTTP.Port)
	}
	for _, f := range []amount{
		{"interval_secs", h.EveryMilli, 1, maxSeconds * 1000},
		{"timeout_secs", h.TimeoutMilli, 1, maxSeconds * 1000},
		{"initial_interval_secs", h.InitialMilli, 0, maxSeconds * 1000},
	} {
		if f.out() {
			return bad("health_check_config."+f.name, "%s of its health check is %d ms; want a time of %d to %d ms, a year", f.name, f.n, f.least, f.most)
		}
	}
	for _, f := range []amount{
		{"max_consecutive_failures", int64(h.MaxFailures), 0, math.MaxInt32}, {"min_consecutive_successes", int64(h.MinSuccesses), 0, math.MaxInt32},
	} {
		if f.out() {
			return bad("health_check_config."+f.name, "%s of its health check is %d; want %d or more", f.name, f.n, f.least)
		}
	}
	return nil
}
