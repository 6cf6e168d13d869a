package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// A Job is the desired state of one named workload in one cluster.
type Job struct {
	Key       Key    `json:"key"`
	Instances Ranges `json:"instances"` // which slots should be filled
	Config    Config `json:"config"`    // what each of them runs
}

// Tiers, weakest claim last. See [Config.Tier].
const (
	Preferred   = "preferred"   // production: pre-empts, counts against quota
	Preemptible = "preemptible" // runs on spare capacity; the default
	Revocable   = "revocable"   // runs on oversubscribed capacity
)

// Placements: which of the machines that fit a job's tasks go to.
const (
	BestFit = "best-fit" // the one with the least left over; a config says so by leaving it out
	Spread  = "spread"   // the one with the fewest tasks of the job, then the one with the most left over
)

// A Config is what one task of a job runs. It is immutable and stored once
// under its [Config.Hash]; two jobs of equal configs share it.
//
// Strings may hold run-time templates: {{thermos.ports[NAME]}},
// {{thermos.task_id}}, {{thermos.user}}, {{mesos.instance}},
// {{mesos.hostname}}. Every other template was bound when the file was read.
type Config struct {
	Service         bool           `json:"service,omitzero"` // restarted for ever; otherwise run to completion
	Tier            string         `json:"tier"`
	Priority        int32          `json:"priority,omitzero"`
	MaxTaskFailures int32          `json:"max_task_failures"` // ad hoc jobs: give up after so many; -1 is never
	Exclusive       bool           `json:"exclusive,omitzero"`
	Placement       string         `json:"placement,omitzero"` // [Spread]; empty: best fit
	Contact         string         `json:"contact,omitzero"`
	Metadata        []Metadata     `json:"metadata,omitzero"`
	Constraints     []Constraint   `json:"constraints,omitzero"`
	Task            Task           `json:"task"`
	Health          *Health        `json:"health,omitzero"` // nil when nothing is checked
	Lifecycle       *HTTPLifecycle `json:"lifecycle,omitzero"`
	Partition       Partition      `json:"partition"`
	Update          Update         `json:"update"`
}

// A Metadata is one label of a job.
type Metadata struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// A Constraint narrows the machines that a task may run on: a limit of
// instances of this job per distinct value of the attribute (Limit > 0), a set
// of values, possibly negated, an even spread over the values (Spread > 0), or
// nearness to another job or distance from it (With).
type Constraint struct {
	Attribute string   `json:"attribute"`
	Negated   bool     `json:"negated,omitzero"`
	Values    []string `json:"values,omitzero"`
	Limit     int32    `json:"limit,omitzero"`
	Spread    int32    `json:"spread,omitzero"` // at most so many tasks of this job more on one value than on the value with the fewest
	With      Key      `json:"with,omitzero"`   // only where the value has a task of this job; negated: only where it has none
}

// A Task is the graph of processes that one instance runs (Thermos).
type Task struct {
	Name             string         `json:"name"`
	Processes        []Process      `json:"processes"`
	Order            [][]string     `json:"order,omitzero"` // chains of names: each starts after the one before it succeeded
	Resources        unit.Resources `json:"resources"`
	Ports            []string       `json:"ports,omitzero"` // names of dynamic ports, sorted; found from the templates
	MaxFailures      int32          `json:"max_failures"`   // the task fails when so many processes failed; 0 is never
	MaxConcurrency   int32          `json:"max_concurrency,omitzero"`
	FinalizationWait int32          `json:"finalization_wait_secs"`
	User             string         `json:"user,omitzero"` // empty: the role
	Artifacts        []Artifact     `json:"artifacts,omitzero"`
	PidsLimit        int32          `json:"pids_limit,omitzero"` // 0: the agent's default, 256
}

// An Artifact is a file fetched into the sandbox before the first process starts.
type Artifact struct {
	URI     string `json:"uri"`    // http, https or file
	Digest  string `json:"digest"` // sha256:HEX; empty is allowed for file only
	Path    string `json:"path"`   // below the sandbox
	Extract bool   `json:"extract,omitzero"`
	Mode    uint32 `json:"mode,omitzero"`
}

// A Process is one command line of a task.
type Process struct {
	Name        string `json:"name"`
	Cmdline     string `json:"cmdline"`
	MaxFailures int32  `json:"max_failures"` // perma-fails after so many; 0 is never
	MinDuration int32  `json:"min_duration_secs"`
	Daemon      bool   `json:"daemon,omitzero"`    // runs again after success; never completes the task
	Ephemeral   bool   `json:"ephemeral,omitzero"` // the task may end without it; its failures do not count
	Final       bool   `json:"final,omitzero"`     // runs when the task is being finished
	Logger      Logger `json:"logger,omitzero"`
}

// A Logger says where a process's output goes.
type Logger struct {
	Destination string `json:"destination,omitzero"` // file (default), console, both, none
	Rotate      bool   `json:"rotate,omitzero"`
	LogSize     int64  `json:"log_size,omitzero"` // bytes of one file before it rotates
	Backups     int32  `json:"backups,omitzero"`  // rotated files kept
}

// A Health says how to find out whether a task works. Exactly one of HTTP and
// Shell is set. Times follow Aurora (health_checker.py): the task has
// ceil(initial/interval) + MaxFailures + MinSuccesses attempts to become
// healthy, may succeed early, and fails after MaxFailures+1 in a row.
type Health struct {
	HTTP         *HTTPCheck  `json:"http,omitzero"`
	Shell        *ShellCheck `json:"shell,omitzero"`
	InitialMilli int64       `json:"initial_interval_ms"`
	EveryMilli   int64       `json:"interval_ms"`
	TimeoutMilli int64       `json:"timeout_ms"`
	MaxFailures  int32       `json:"max_consecutive_failures"`
	MinSuccesses int32       `json:"min_consecutive_successes"`
}

// An HTTPCheck asks the port named health.
type HTTPCheck struct {
	Port         string `json:"port"` // name of the port, or the number of a static one
	Endpoint     string `json:"endpoint"`
	Response     string `json:"expected_response"`      // compared without case; empty: not compared
	ResponseCode int32  `json:"expected_response_code"` // 0: not compared
}

// A ShellCheck runs a command as the task's user; exit 0 is healthy.
type ShellCheck struct {
	Command string `json:"command"`
}

// An HTTPLifecycle asks a task over HTTP to stop before signals are sent.
type HTTPLifecycle struct {
	Port          string `json:"port"`
	Graceful      string `json:"graceful_shutdown_endpoint"`
	GracefulWaitS int32  `json:"graceful_shutdown_wait_secs"`
	Shutdown      string `json:"shutdown_endpoint"`
	ShutdownWaitS int32  `json:"shutdown_wait_secs"`
}

// A Partition says what happens to a task whose machine is out of reach.
type Partition struct {
	Reschedule bool  `json:"reschedule"`
	DelayS     int64 `json:"delay_secs,omitzero"`
}

// An Update says how a rolling change proceeds.
type Update struct {
	BatchSizes     []int32 `json:"batch_sizes"`
	Strategy       string  `json:"strategy"` // queue, batch, variable
	AutoPause      bool    `json:"autopause_after_batch,omitzero"`
	WatchS         int32   `json:"watch_secs"`
	MaxPerInstance int32   `json:"max_per_instance_failures"`
	MaxTotal       int32   `json:"max_total_failures"`
	Rollback       bool    `json:"rollback_on_failure"`
	PulseIntervalS int32   `json:"pulse_interval_secs,omitzero"`
	SLAAware       bool    `json:"sla_aware,omitzero"`
}

// PortOf returns the port of its machine that a task is asked at by a health
// check or a lifecycle: one of its own by name, or the one that a static port
// map fixed, such as "80". 0: nobody is asked.
func PortOf(own map[string]uint16, name string) uint16 {
	if p := own[name]; p != 0 {
		return p
	}
	p, err := strconv.ParseUint(name, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(p)
}

// A Hash is the SHA-256 of a config's canonical form.
type Hash [sha256.Size]byte

// String returns the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Dedicated reports whether only machines that are kept for some may run it
// (Aurora S-12).
func (c *Config) Dedicated() bool {
	for _, x := range c.Constraints {
		if x.Attribute == "dedicated" && !x.Negated && len(x.Values) > 0 {
			return true
		}
	}
	return false
}

// Encode returns the canonical form of c: equal configs give equal bytes.
func (c Config) Encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fault.Internal.Errorf("job: encode config: %w", err)
	}
	return b, nil
}

// Decode reads what [Config.Encode] wrote, by this version or a later one.
func Decode(b []byte) (Config, error) {
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fault.Invalid.Errorf("job: decode config: %w", err)
	}
	return c, nil
}

// HashOf returns the name under which an encoded config is stored.
func HashOf(encoded []byte) Hash { return sha256.Sum256(encoded) }

// ParseHash reads what [Hash.String] wrote.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != hex.EncodedLen(len(h)) {
		return Hash{}, fault.Invalid.Errorf("config hash %.80q; want 64 hex digits", s)
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, fault.Invalid.Errorf("config hash %.80q; want 64 hex digits", s)
	}
	return h, nil
}
