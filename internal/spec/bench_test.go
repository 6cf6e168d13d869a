package spec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/spec"
)

// manyJobs is a file of n services as a team writes them: a profile, a
// template for the command, ports, health checks and an update policy.
func manyJobs(n int) spec.Bundle {
	var b strings.Builder
	fmt.Fprintf(&b, `
class Profile(Struct):
  package = Required(String)
  port    = Default(String, 'http')
  jvm     = Default(String, '-Xmx{{heap}}m')
  heap    = Default(Integer, 512)

install = Process(name = 'install', cmdline = 'curl -sSf {{profile.package}} | tar xz')
run = Process(name = 'run', cmdline = '''
cd app && exec ./server {{profile.jvm}} \
  --port={{thermos.ports[http]}} --admin={{thermos.ports[health]}} \
  --shard={{mesos.instance}} --role={{role}} --env={{environment}}
''')
task = SequentialTask(processes = [install, run], resources = Resources(cpu = 0.5, ram = 512*MB, disk = 1*GB))
template = Service(cluster = 'dev', role = 'www-data', environment = 'prod', instances = '{{n}}', task = task,
  constraints = {'rack': 'limit:2', 'gen': 'a,b'},
  health_check_config = HealthCheckConfig(interval_secs = 5, max_consecutive_failures = 2),
  update_config = UpdateConfig(batch_size = 5, watch_secs = 30, max_total_failures = 0),
  announce = Announcer(primary_port = 'http'))
jobs = []
for i in range(%d):
  p = Profile(package = 'http://repo/svc%%d.tar.gz' %% i, heap = 256 + i)
  jobs.append(template(name = 'svc%%d' %% i, contact = 'team%%d@example.com' %% (i %% 7)).bind(profile = p, n = 1 + i %% 20))
`, n)
	return spec.Bundle{Main: "many.aurora", User: "me", Files: map[string][]byte{"many.aurora": []byte(b.String())}}
}

// BenchmarkEval100Jobs holds the budget of 100 ms for a file of 100 jobs.
func BenchmarkEval100Jobs(b *testing.B) {
	in := manyJobs(100)
	b.ReportAllocs()
	for b.Loop() {
		f, err := spec.Eval(in, spec.DefaultLimits())
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range f.Jobs() {
			if e.Err != nil {
				b.Fatal(e.Err)
			}
		}
	}
}
