package job

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// good is a job that uses everything that is validated.
func good() Job {
	return Job{Key: "www/prod/web", Instances: Ranges{{0, 1}, {5, 5}}, Config: Config{
		Service: true, Tier: Preferred, MaxTaskFailures: 1, Metadata: []Metadata{{"k", "v"}},
		Constraints: []Constraint{{Attribute: "rack", Values: []string{"a"}}, {Attribute: "host", Limit: 1}},
		Task: Task{
			Name: "t", Processes: []Process{{Name: "p", Cmdline: "true", MaxFailures: 1}},
			Resources: unit.Resources{CPU: 100, RAM: unit.MiB, Disk: unit.MiB, GPU: 2000}, Ports: []string{"health", "http"}, User: "www",
			Artifacts: []Artifact{{URI: "file:///x", Path: "x"}},
		},
		Health:    &Health{HTTP: &HTTPCheck{Port: "health"}, EveryMilli: 1000, TimeoutMilli: 1000},
		Lifecycle: &HTTPLifecycle{Port: "health", GracefulWaitS: 5, ShutdownWaitS: 5},
		Partition: Partition{Reschedule: true, DelayS: 60},
	}}
}

func TestValidate(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	static := good()
	static.Config.Health.HTTP.Port = "8080" // of a static port map
	if err := static.Validate(); err != nil {
		t.Errorf("a health check of a static port: %v", err)
	}
	for name, c := range map[string]struct {
		spoil func(*Job)
		want  string // in the error
	}{
		"key":               {func(j *Job) { j.Key = "www/production/web" }, "production"},
		"no instances":      {func(j *Job) { j.Instances = nil }, "0 instances"},
		"too many":          {func(j *Job) { j.Instances = FirstN(4001) }, "4001 instances"},
		"instance too high": {func(j *Job) { j.Instances = Ranges{{4000, 4000}} }, "instances"},
		"negative instance": {func(j *Job) { j.Instances = Ranges{{-1, 1}} }, "instances"},
		"backwards":         {func(j *Job) { j.Instances = Ranges{{0, 9}, {5, 3}} }, "not in order"},
		"instances twice":   {func(j *Job) { j.Instances = Ranges{{0, 4}, {3, 9}} }, "twice"},
		"placement":         {func(j *Job) { j.Config.Placement = "spreed" }, "spreed"},
		"tier":              {func(j *Job) { j.Config.Tier = "gold" }, "gold"},
		"failures 0":        {func(j *Job) { j.Config.MaxTaskFailures = 0 }, "max_task_failures"},
		"failures -2":       {func(j *Job) { j.Config.MaxTaskFailures = -2 }, "max_task_failures"},
		"metadata":          {func(j *Job) { j.Config.Metadata = make([]Metadata, 101) }, "metadata"},
		"attribute":         {func(j *Job) { j.Config.Constraints[0].Attribute = "" }, "attribute"},
		"blank attribute":   {func(j *Job) { j.Config.Constraints[0].Attribute = "ra ck" }, `"ra ck" holds ' '`},
		"tab in attribute":  {func(j *Job) { j.Config.Constraints[0].Attribute = "rack\t" }, "no control characters"},
		"value with a line": {func(j *Job) { j.Config.Constraints[0].Values = []string{"a", "b\nc"} }, "control character"},
		"no values":         {func(j *Job) { j.Config.Constraints[0].Values = nil }, "rack"},
		"limit and values":  {func(j *Job) { j.Config.Constraints[0].Limit = 1 }, "both"},
		"negative limit":    {func(j *Job) { j.Config.Constraints[1].Limit = -1 }, "host"},
		"spread and values": {func(j *Job) {
			j.Config.Constraints = []Constraint{{Attribute: "rack", Spread: 1, Values: []string{"a"}}}
		}, "says several things"},
		"no spread":        {func(j *Job) { j.Config.Constraints = []Constraint{{Attribute: "rack", Spread: -1}} }, "spreads over less than 1"},
		"near no job":      {func(j *Job) { j.Config.Constraints = []Constraint{{Attribute: "rack", With: "a/b"}} }, "role/env/name"},
		"constraints":      {func(j *Job) { j.Config.Constraints = make([]Constraint, 33) }, "33 constraints"},
		"no cpu":           {func(j *Job) { j.Config.Task.Resources.CPU = 0 }, "cpu"},
		"negative ram":     {func(j *Job) { j.Config.Task.Resources.RAM = -unit.MiB }, "ram"},
		"huge disk":        {func(j *Job) { j.Config.Task.Resources.Disk = 1 << 56 }, "disk"},
		"ram not whole":    {func(j *Job) { j.Config.Task.Resources.RAM++ }, "whole MiB"},
		"half a MiB":       {func(j *Job) { j.Config.Task.Resources.RAM = unit.MiB / 2 }, "whole MiB"},
		"one GPU and half": {func(j *Job) { j.Config.Task.Resources.GPU = 1500 }, "1.5"},
		"port twice":       {func(j *Job) { j.Config.Task.Ports = []string{"health", "health"} }, "twice"},
		"port name":        {func(j *Job) { j.Config.Task.Ports[1] = "a/b" }, "a/b"},
		"ports":            {func(j *Job) { j.Config.Task.Ports = make([]string, 65) }, "65 ports"},
		"user":             {func(j *Job) { j.Config.Task.User = "nobody" }, `user "nobody"; want the role, "www"`},
		"wait":             {func(j *Job) { j.Config.Task.FinalizationWait = -1 }, "finalization_wait of its task is -1; want 0"},
		"no process":       {func(j *Job) { j.Config.Task.Processes = nil }, "0 processes"},
		"processes":        {func(j *Job) { j.Config.Task.Processes = make([]Process, 101) }, "101 processes"},
		"no cmdline":       {func(j *Job) { j.Config.Task.Processes[0].Cmdline = " " }, "no cmdline"},
		"long cmdline":     {func(j *Job) { j.Config.Task.Processes[0].Cmdline = strings.Repeat("x", 65537) }, "65537"},
		"NUL":              {func(j *Job) { j.Config.Task.Processes[0].Cmdline = "a\x00b" }, "NUL"},
		"process failures": {func(j *Job) { j.Config.Task.Processes[0].MaxFailures = -1 }, "max_failures of process p is -1; want 0"},
		"process name":     {func(j *Job) { j.Config.Task.Processes[0].Name = "../p" }, "../p"},
		"artifact in logs": {func(j *Job) { j.Config.Task.Artifacts[0].Path = "./.logs/x" }, "not in .logs or .tmp"},
		"artifact as part": {func(j *Job) { j.Config.Task.Artifacts[0].Path = "./.covey-artifact" }, "and not .covey-artifact"},
		"artifacts":        {func(j *Job) { j.Config.Task.Artifacts = make([]Artifact, MaxArtifacts+1) }, "33 artifacts; want at most 32"},
		"artifact outside": {func(j *Job) { j.Config.Task.Artifacts[0].Path = "a/../../x" }, "below the sandbox"},
		"artifact path":    {func(j *Job) { j.Config.Task.Artifacts[0].Path = strings.Repeat("x", 4097) }, "path of 4097 bytes"},
		"artifact":         {func(j *Job) { j.Config.Task.Artifacts[0].URI = "" }, "URI"},
		"two checks":       {func(j *Job) { j.Config.Health.Shell = &ShellCheck{"true"} }, "both or neither"},
		"no check":         {func(j *Job) { j.Config.Health.HTTP = nil }, "both or neither"},
		"health port":      {func(j *Job) { j.Config.Health.HTTP.Port = "no" }, "no"},
		"no such port":     {func(j *Job) { j.Config.Health.HTTP.Port = "65536" }, "65536"},
		"health interval":  {func(j *Job) { j.Config.Health.EveryMilli = 0 }, "interval_secs of its health check is 0 ms"},
		"health failures":  {func(j *Job) { j.Config.Health.MaxFailures = -1 }, "max_consecutive_failures of its health check is -1"},
		"partition":        {func(j *Job) { j.Config.Partition.DelayS = 1 << 60 }, "partition"},
		"partition back":   {func(j *Job) { j.Config.Partition.DelayS = -1 }, "partition"},
		"graceful":         {func(j *Job) { j.Config.Lifecycle.GracefulWaitS = -1 }, "graceful_shutdown_wait_secs of its lifecycle is -1 s"},
	} {
		j := good()
		c.spoil(&j)
		err := j.Validate()
		if err == nil || fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want kind invalid and %q", name, err, c.want)
		} else if _, placed := errors.AsType[*FieldError](err); !placed && name != "key" {
			t.Errorf("%s: %v names no field; whoever reports it could not say where it is", name, err)
		} else if strings.Contains(err.Error(), string(j.Key)) && name != "key" {
			t.Errorf("%s: %v names the job; whoever reports it knows its cluster too", name, err)
		}
	}
}

// TestConfigHash: equal configs have one name, and every difference another.
func TestConfigHash(t *testing.T) {
	hash := func(c Config) Hash {
		t.Helper()
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, back); d != "" {
			t.Errorf("decoded (-want +got):\n%s", d)
		}
		again, err := back.Encode()
		if err != nil || !slices.Equal(b, again) {
			t.Errorf("encoded again: %s, %v; want %s", again, err, b)
		}
		return HashOf(b)
	}
	base := hash(good().Config)
	if hash(good().Config) != base {
		t.Error("equal configs have two hashes")
	}
	for name, change := range map[string]func(*Config){
		"cmdline":  func(c *Config) { c.Task.Processes[0].Cmdline += " " },
		"cpu":      func(c *Config) { c.Task.Resources.CPU++ },
		"service":  func(c *Config) { c.Service = false },
		"health":   func(c *Config) { c.Health = nil },
		"delay":    func(c *Config) { c.Partition.DelayS++ },
		"metadata": func(c *Config) { c.Metadata[0].Value = "w" },
	} {
		c := good().Config
		change(&c)
		if hash(c) == base {
			t.Errorf("%s: another config has the same hash", name)
		}
	}
	if h, err := ParseHash(base.String()); err != nil || h != base {
		t.Errorf("ParseHash(%v) = %v, %v", base, h, err)
	}
	for _, s := range []string{"", "00", base.String()[1:], base.String() + "00", strings.Repeat("g", 64)} {
		if h, err := ParseHash(s); fault.Of(err) != fault.Invalid || err == nil {
			t.Errorf("ParseHash(%q) = %v, %v; want kind invalid", s, h, err)
		}
	}
}

// TestDecodeNewer reads a config that a later version wrote.
func TestDecodeNewer(t *testing.T) {
	b, err := good().Config.Encode()
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(b), "{", `{"of_a_later_version":{"x":[1]},`, 1)
	got, err := Decode([]byte(newer))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(good().Config, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := Decode([]byte("{")); fault.Of(err) != fault.Invalid {
		t.Errorf("a torn config: %v, want kind invalid", err)
	}
}
