package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/spec"
	"github.com/covey-platform/covey/internal/unit"
)

const head = `
R = Resources(cpu = 0.5, ram = 64*MB, disk = 32*MB)
J = Job(cluster = 'c', role = 'r', environment = 'test', name = 'n')
def cmd(c, **kw): return Task(name = 't', processes = [Process(name = 'p', cmdline = c)], resources = R)(**kw)
`

// lower evaluates a file whose jobs are the expression, and returns the only one.
func lower(t *testing.T, expr string) job.Config {
	t.Helper()
	e := eval(t, one(head+"jobs = ["+expr+"]\n"))[0]
	if e.Err != nil {
		t.Fatalf("%s\n%v", expr, e.Err)
	}
	return e.Job.Config
}

func TestWholeJob(t *testing.T) {
	got := lower(t, `Service(
  cluster = 'c', role = 'www-data', environment = 'staging3', name = 'web', instances = 3, priority = 7, production = True, exclusive = True, placement = 'spread',
  contact = '{{role}}@example.com', max_task_failures = -1,
  metadata = [Metadata(key = 'b', value = '2'), Metadata(key = 'a', value = '1'), Metadata(key = 'b', value = '2')],
  constraints = {'rack': 'limit:2', 'host': '!a,b,a', 'row': 'spread:1', 'zone': 'with:www-data/prod/db', 'pdu': 'without:www-data/prod/db'},
  task = Task(processes = [
      Process(name = 'fetch', cmdline = 'fetch', max_failures = 5, min_duration = 1),
      Process(name = 'serve', cmdline = 'serve {{thermos.ports[http]}} {{thermos.ports[health]}} {{mesos.instance}} {{thermos.task_id}} {{mesos.hostname}}',
        daemon = True, logger = Logger(destination = 'both', mode = 'rotate')),
      Process(name = 'tidy', cmdline = 'tidy', final = True, logger = Logger(mode = 'rotate', rotate = RotatePolicy(log_size = 1*MB, backups = 1))),
    ], constraints = order('fetch', 'serve'), max_failures = 0, max_concurrency = 2, finalization_wait = 10, user = 'www-data', pids_limit = 99,
    resources = Resources(cpu = '1.25', ram = 2*MB + 5, disk = 1*GB, gpu = 0.5, net = 1.5*Gbps),
    artifacts = [Artifact(uri = 'https://x/y.tgz', digest = 'sha256:' + '0a' * 32, path = 'app', extract = True, mode = '755')]),
  health_check_config = HealthCheckConfig(initial_interval_secs = 0.25, interval_secs = 2, timeout_secs = '1.5', max_consecutive_failures = 3, min_consecutive_successes = 2,
    health_checker = HealthCheckerConfig(http = HttpHealthChecker(endpoint = '/ping', expected_response = 'pong', expected_response_code = 200))),
  lifecycle = LifecycleConfig(http = HttpLifecycleConfig(port = 'http', graceful_shutdown_wait_secs = 9)),
  partition_policy = PartitionPolicy(reschedule = False, delay_secs = 30),
  update_config = UpdateConfig(batch_size = 2, wait_for_batch_completion = True, watch_secs = 12, max_per_shard_failures = 1, max_total_failures = 2,
    rollback_on_failure = False, pulse_interval_secs = 60, sla_aware = True))`)
	want := job.Config{
		Service: true, Tier: job.Preferred, Priority: 7, MaxTaskFailures: -1, Exclusive: true, Placement: job.Spread, Contact: "www-data@example.com",
		Metadata: []job.Metadata{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}},
		Constraints: []job.Constraint{
			{Attribute: "host", Negated: true, Values: []string{"a", "b"}},
			{Attribute: "pdu", Negated: true, With: "www-data/prod/db"},
			{Attribute: "rack", Limit: 2},
			{Attribute: "row", Spread: 1},
			{Attribute: "zone", With: "www-data/prod/db"},
		},
		Task: job.Task{
			Name: "fetch",
			Processes: []job.Process{
				{Name: "fetch", Cmdline: "fetch", MaxFailures: 5, MinDuration: 1},
				{
					Name: "serve", Cmdline: "serve {{thermos.ports[http]}} {{thermos.ports[health]}} {{mesos.instance}} {{thermos.task_id}} {{mesos.hostname}}",
					MaxFailures: 1, MinDuration: 5, Daemon: true, Logger: job.Logger{Destination: "both", Rotate: true, LogSize: 100 << 20, Backups: 5},
				},
				{Name: "tidy", Cmdline: "tidy", MaxFailures: 1, MinDuration: 5, Final: true, Logger: job.Logger{Rotate: true, LogSize: 1 << 20, Backups: 1}},
			},
			Order:     [][]string{{"fetch", "serve"}},
			Resources: unit.Resources{CPU: 1250, RAM: 2 * unit.MiB, Disk: 1 << 30, GPU: 500, Net: 1_500_000_000},
			Ports:     []string{"health", "http"}, MaxConcurrency: 2, FinalizationWait: 10, User: "www-data", PidsLimit: 99,
			Artifacts: []job.Artifact{{URI: "https://x/y.tgz", Digest: "sha256:" + strings.Repeat("0a", 32), Path: "app", Extract: true, Mode: 0o755}},
		},
		Health: &job.Health{
			HTTP:         &job.HTTPCheck{Port: "health", Endpoint: "/ping", Response: "pong", ResponseCode: 200},
			InitialMilli: 250, EveryMilli: 2000, TimeoutMilli: 1500, MaxFailures: 3, MinSuccesses: 2,
		},
		Lifecycle: &job.HTTPLifecycle{Port: "http", Graceful: "/quitquitquit", GracefulWaitS: 9, Shutdown: "/abortabortabort", ShutdownWaitS: 5},
		Partition: job.Partition{DelayS: 30},
		Update: job.Update{
			BatchSizes: []int32{2}, Strategy: "batch", WatchS: 12, MaxPerInstance: 1, MaxTotal: 2, PulseIntervalS: 60, SLAAware: true,
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestPorts(t *testing.T) {
	for _, tc := range []struct {
		name, expr string
		ports      []string
		cmd        string
		health     string // the port that is checked
		lifecycle  string
	}{
		{"none", "J(task = cmd('x'))", nil, "x", "", ""},
		{"one", "J(task = cmd('x {{thermos.ports[http]}}'))", []string{"http"}, "x {{thermos.ports[http]}}", "", ""},
		{"health", "J(task = cmd('x {{thermos.ports[health]}}'))", []string{"health"}, "x {{thermos.ports[health]}}", "health", "health"},
		{"built from a name", "J(task = cmd('x {{thermos.ports[{{p}}]}}')).bind(p = 'admin')", []string{"admin"}, "x {{thermos.ports[admin]}}", "", ""},
		{"announced", "J(task = cmd('x'), announce = Announcer())", []string{"http"}, "x", "", ""},
		{"alias", "J(task = cmd('x {{thermos.ports[aurora]}}'), announce = Announcer(primary_port = 'web'))", []string{"web"}, "x {{thermos.ports[web]}}", "", ""},
		{
			"health is another", "J(task = cmd('x {{thermos.ports[http]}}'), announce = Announcer(portmap = {'health': 'http'}))",
			[]string{"http"},
			"x {{thermos.ports[http]}}", "http", "http",
		},
		{
			"static", "J(task = cmd('x {{thermos.ports[http]}} {{thermos.ports[health]}}'), constraints = {'dedicated': 'r/x'}, announce = Announcer(portmap = {'http': '80', 'health': 'http'}))",
			nil, "x 80 80", "80", "80",
		},
		{"without a lifecycle", "J(task = cmd('x {{thermos.ports[health]}}'), lifecycle = DisableLifecycle)", []string{"health"}, "x {{thermos.ports[health]}}", "health", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := lower(t, tc.expr)
			if d := cmp.Diff(tc.ports, c.Task.Ports); d != "" {
				t.Errorf("ports (-want +got):\n%s", d)
			}
			if got := c.Task.Processes[0].Cmdline; got != tc.cmd {
				t.Errorf("got command %q, want %q", got, tc.cmd)
			}
			health, lifecycle := "", ""
			if c.Health != nil {
				health = c.Health.HTTP.Port
			}
			if c.Lifecycle != nil {
				lifecycle = c.Lifecycle.Port
			}
			if health != tc.health || lifecycle != tc.lifecycle {
				t.Errorf("got health %q and lifecycle %q, want %q and %q", health, lifecycle, tc.health, tc.lifecycle)
			}
		})
	}
}

func TestShellHealth(t *testing.T) {
	c := lower(t, `J(task = cmd('x {{thermos.ports[web]}}'), health_check_config = HealthCheckConfig(health_checker = HealthCheckerConfig(shell = ShellHealthChecker(shell_command = 'curl :{{thermos.ports[web]}}'))))`)
	want := &job.Health{
		Shell:        &job.ShellCheck{Command: "curl :{{thermos.ports[web]}}"},
		InitialMilli: 15000, EveryMilli: 10000, TimeoutMilli: 1000, MinSuccesses: 1,
	}
	if d := cmp.Diff(want, c.Health); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"web"}, c.Task.Ports); d != "" {
		t.Errorf("ports (-want +got):\n%s", d)
	}
}

func TestUpdateStrategies(t *testing.T) {
	for _, tc := range []struct {
		expr string
		want job.Update
	}{
		{"UpdateConfig()", job.Update{BatchSizes: []int32{1}, Strategy: "queue", WatchS: 45, Rollback: true}},
		{"UpdateConfig(update_strategy = QueueUpdateStrategy(batch_size = 3))", job.Update{BatchSizes: []int32{3}, Strategy: "queue", WatchS: 45, Rollback: true}},
		{
			"UpdateConfig(update_strategy = BatchUpdateStrategy(batch_size = 3, autopause_after_batch = True))",
			job.Update{BatchSizes: []int32{3}, Strategy: "batch", AutoPause: true, WatchS: 45, Rollback: true},
		},
		{
			"UpdateConfig(update_strategy = VariableBatchUpdateStrategy(batch_sizes = [1, '2', 3]))",
			job.Update{BatchSizes: []int32{1, 2, 3}, Strategy: "variable", WatchS: 45, Rollback: true},
		},
	} {
		c := lower(t, "J(task = cmd('x'), update_config = "+tc.expr+")")
		if d := cmp.Diff(tc.want, c.Update); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.expr, d)
		}
	}
}

func TestCPU(t *testing.T) {
	for expr, want := range map[string]int64{
		"0.1": 100, "1": 1000, "0.1 + 0.2": 300, "'0.25'": 250, "0.001": 1, "64": 64000, "1.0 / 8": 125, "sum([0.1] * 10)": 1000, "1e-1": 100, "'{{n}}'": 700,
	} {
		c := lower(t, "J(task = cmd('x', resources = R(cpu = "+expr+"))).bind(n = 0.7)")
		if got := c.Task.Resources.CPU; got != want {
			t.Errorf("cpu = %s: got %d, want %d", expr, got, want)
		}
	}
	for _, expr := range []string{"0", "-1", "0.0005", "1.0001", "'x'", "1e300", "float('nan')", "float('inf')", "1.0 / 3", "None"} {
		f, err := spec.Eval(one(head+"jobs = [J(task = cmd('x', resources = R(cpu = "+expr+")))]"), spec.DefaultLimits())
		if err == nil && f.Jobs()[0].Err == nil {
			t.Errorf("cpu = %s is accepted as %v", expr, f.Jobs()[0].Job.Config.Task.Resources)
		}
	}
}

// TestTemplates holds the rules by which names are bound.
func TestTemplates(t *testing.T) {
	const classes = `
class Inner(Struct):
  a = Default(String, 'inner-{{b}}')
  b = String
class Outer(Struct):
  inner = Default(Inner, Inner(b = 'ob'))
  list = Default(List(Inner), [Inner(b = 'l0'), Inner(b = 'l1', a = '{{b}}!')])
  map = Default(Map(String, String), {'k-1': 'v', 'env': '{{environment}}'})
  n = Default(Integer, 3)
  f = Default(Float, 1)
  yes = Default(Boolean, True)
`
	for _, tc := range []struct{ text, want string }{
		{"{{o.inner.a}}", "inner-ob"},
		{"{{o.list[1].a}} {{o.list[0].a}} {{o.list[-1].b}}", "l1! inner-l0 l1"},
		{"{{o.map[k-1]}} {{o.map[env]}}", "v test"},
		{"{{o.n}} {{o.f}} {{o.yes}}", "3 1.0 True"},
		{"{{o.list[{{idx}}].b}}", "l1"},
		{"{{{{which}}}}", "prod-value"},
		{"{{self.name}} {{super.name}} {{super.super.role}}", "p n r"}, // a parent's own super is nearer than super itself, as in Pystachio
		{"{{task.name}} {{role}} {{name}}", "t r p"},
		{"{{mesos.role}} {{mesos.cluster}} {{thermos.user}}", "r c r"},
		{"{{&role}}", "r"},
		{"{ {x} } {{{role}}} {}", "{ {x} } {r} {}"},
		{"{{processes[0].name}}", "p"},
		{"{{cmdlines[0]}}", "bound by index"},
		{"{{last}}", "2"},
		{"{{deep.er.still}}", "d"},
		{"${HOME} $(( 1 + {{o.n}} ))", "${HOME} $(( 1 + 3 ))"},
	} {
		text := classes + head + `
jobs = [J(task = cmd('''` + tc.text + `''')).bind(o = Outer(), idx = 1, which = 'prodv').bind({'prodv': 'prod-value', 'cmdlines[0]': 'bound by index'})
  .bind(last = 1).bind(last = 2).bind(deep = {'er': {'still': 'd'}})]`
		e := eval(t, one(text))[0]
		if e.Err != nil {
			t.Errorf("%s: %v", tc.text, e.Err)
			continue
		}
		if got := e.Job.Config.Task.Processes[0].Cmdline; got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.text, got, tc.want)
		}
	}
}

// TestSchemaInPrograms uses objects of the schema inside the program.
func TestSchemaInPrograms(t *testing.T) {
	c := lower(t, `J(task = (lambda t: t(name = '%s/%s/%d' % (t.name(), t.processes()[0].cmdline(), len(t.processes())),
    max_failures = 5 if t.has_user() or t.resources().cpu().get() < 0.5 else 7,
    constraints = order(*t.processes())))(cmd('{{x}}').bind(x = 'run')))`)
	if got, want := c.Task.Name, "t/run/1"; got != want {
		t.Errorf("got task name %q, want %q", got, want)
	}
	if got, want := c.Task.MaxFailures, int32(7); got != want {
		t.Errorf("got %d failures, want %d", got, want)
	}
	e := eval(t, one(head+`
from pystachio import *
from apache.thermos.config.schema_helpers import Tasks, order
a, b = cmd('a')(name = 'a'), cmd('b')
assert Process(name = 'x', cmdline = '{{y}}').bind(y = 1) == Process(name = 'x', cmdline = '1')
assert a != b and a.task is not None if hasattr(a, 'task') else True
assert isinstance(a, Task) and not isinstance(a, Process)
assert [p.name().get() for p in Tasks.simple('n', 'c').processes()] == ['n']
assert len(set([a.processes()[0], a.processes()[0], b.processes()[0]])) == 2
assert (String('{{a}}-{{b}}') % {'a': 1}).get() == '1-{{b}}'
assert java_options('a', {'Xmx': '1g'}, verbose = True) == '-a -Xmx 1g -verbose True'
assert python_options('v', foo = 1) == '-v --foo 1'
assert J.contact() is Empty and not J.has_contact()
assert Map(String, Integer)({'a': '1'})['a'].get() == 1 and 'a' in Map(String, Integer)({'a': 1})
jobs = [J(task = a)]
`))[0]
	if e.Err != nil {
		t.Error(e.Err)
	}
}
