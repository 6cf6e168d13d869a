package agent

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
)

func runtime() Runtime {
	return Runtime{
		TaskID: "www-data/prod/hello/3.7", Instance: 3, User: "www-data", Hostname: "node1.example",
		Ports: map[string]uint16{"health": 31000, "http": 31001},
	}
}

// everywhere is a config with s in every string that is expanded.
func everywhere(s string) job.Config {
	return job.Config{
		Contact: s, // not expanded
		Task: job.Task{
			Processes: []job.Process{{Name: "a", Cmdline: s}, {Name: "b", Cmdline: "x" + s + s}},
			Artifacts: []job.Artifact{{URI: "http://" + s, Path: s}},
		},
		Health:    &job.Health{HTTP: &job.HTTPCheck{Port: "health", Endpoint: s, Response: s}, Shell: &job.ShellCheck{Command: s}},
		Lifecycle: &job.HTTPLifecycle{Port: "health", Graceful: s, Shutdown: s},
	}
}

func TestExpand(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"plain $HOME ${A} {x} { {":    "plain $HOME ${A} {x} { {",
		"-p {{thermos.ports[http]}};": "-p 31001;",
		"{{thermos.ports[health]}}{{mesos.instance}}":                        "310003",
		"{{thermos.task_id}} {{thermos.user}}@{{mesos.hostname}}":            "www-data/prod/hello/3.7 www-data@node1.example",
		"{{{mesos.instance}}} {{}} {{mesos.instance} }}":                     "{3} {{}} {{mesos.instance} }}",
		"line\n{{mesos.instance}}\n{{thermos.user}}":                         "line\n3\nwww-data",
		"unicode é {{mesos.instance}} é":                                     "unicode é 3 é",
		"{{thermos.ports[http]}}:{{thermos.ports[http]}}/{{mesos.instance}}": "31001:31001/3",
	} {
		c := everywhere(in)
		got, err := Expand(c, runtime())
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		exp := everywhere(want)
		exp.Contact = in
		if d := cmp.Diff(exp, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", in, d)
		}
		if d := cmp.Diff(everywhere(in), c); d != "" {
			t.Errorf("%q: the argument changed (-want +got):\n%s", in, d)
		}
	}
}

func TestExpandRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"{{thermos.ports[admin]}}":    `no port "admin"; its ports are [health, http]`,
		"{{thermos.ports[]}}":         `no port ""`,
		"{{thermos.ports}}":           "{{thermos.ports}}",
		"{{mesos.agent}} {{other}}":   "unknown template {{mesos.agent}}",
		"ok {{ mesos.instance }}":     "{{ mesos.instance }}",
		"{{thermos.ports[http].foo}}": "{{thermos.ports[http].foo}}",
	} {
		for where, c := range map[string]job.Config{
			"process a":        {Task: job.Task{Processes: []job.Process{{Name: "a", Cmdline: in}}}},
			"artifact's path":  {Task: job.Task{Artifacts: []job.Artifact{{Path: in}}}},
			"endpoint":         {Health: &job.Health{HTTP: &job.HTTPCheck{Endpoint: in}}},
			"check's command":  {Health: &job.Health{Shell: &job.ShellCheck{Command: in}}},
			"graceful":         {Lifecycle: &job.HTTPLifecycle{Graceful: in}},
			"shutdown endpoin": {Lifecycle: &job.HTTPLifecycle{Shutdown: in}},
		} {
			_, err := Expand(c, runtime())
			if err == nil || fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), where) {
				t.Errorf("%q: got %v; want an invalid error with %q and %q", in, err, where, want)
			}
		}
	}
}

// FuzzExpand holds that no input panics, and that what has no template stays.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "{{", "}}", "{{mesos.instance}}", "{{{{mesos.instance}}}}", "{{thermos.ports[}}", "{{thermos.ports[http]}}{{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := job.Config{Task: job.Task{Processes: []job.Process{{Name: "a", Cmdline: s}}}}
		got, err := Expand(c, runtime())
		if !strings.Contains(s, "{{") && (err != nil || got.Task.Processes[0].Cmdline != s) {
			t.Errorf("%q became %q, %v", s, got.Task.Processes[0].Cmdline, err)
		}
	})
}
