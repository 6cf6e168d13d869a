package spec_test

import (
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/spec"
)

// TestBindingsThatNothingTakes: a binding with a misspelt name is refused, with
// the name that was meant; one that any job of the file takes is not, whichever
// job was asked for.
func TestBindingsThatNothingTakes(t *testing.T) {
	files := map[string][]byte{
		"main.aurora": []byte(`
include('common.aurora')
class Profile(Struct):
  instances = Default(Integer, 1)
  where = Default(String, 'here')
east = Job(cluster = 'east', role = 'r', environment = 'prod', name = 'n', instances = '{{profile.instances}}',
  task = SimpleTask('t', '{{profile.where}} {{mesos.role}} {{thermos.ports[http]}} {{near}}').bind(near = 'task')).bind(profile = Profile())
west = Job(cluster = 'west', role = 'r', environment = '{{env}}', name = 'n', task = SimpleTask('t', '{{only.west}}')).bind(env = 'prod', only = {'west': 'w'})
cron = Job(cluster = 'east', role = 'r', environment = 'prod', name = 'cron', cron_schedule = '* * * * *', task = SimpleTask('t', '{{only.cron}}')).bind(only = {'cron': 'c'})
jobs = [east, west, cron, included]
`),
		"common.aurora": []byte(`
included = Job(cluster = 'north', role = 'r', environment = 'prod', name = 'i', task = SimpleTask('t', '{{only.included}}')).bind(only = {'included': 'i'})
`),
	}
	for _, tc := range []struct {
		binds string // apart by blanks
		want  string // in the error; empty: there is none
	}{
		{"profile.instances=3 env=test only.west=x only.cron=x only.included=x", ""},
		{"profile.where={{env}}! env=test", ""},
		{"profile.where=a profile.where=b", ""},
		{"profile.instnaces=3", "nothing in main.aurora takes the binding of profile.instnaces: no template asks for it, or what is nearer binds it; did you mean profile.instances?"},
		{"profile.where=x only.wset=x", "the binding of only.wset: no template asks for it, or what is nearer binds it; did you mean only.west?"},
		{"nosuch.thing=1", "; those that can be bound are env, only.cron, only.included, only.west, profile.instances and 1 more"},
		{"profile=x", "takes the binding of profile:"}, // which would be no profile at all
		{"near=outer", "takes the binding of near: no template asks for it, or what is nearer binds it"},
		{"mesos.role=x", "mesos.role cannot be bound: it is what the job's own fields say"},
	} {
		for _, cluster := range []string{"", "east"} {
			f, err := spec.Eval(spec.Bundle{Main: "main.aurora", Files: files, User: "ann", Binds: strings.Fields(tc.binds), Cluster: cluster}, spec.DefaultLimits())
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("%q for cluster %q: %v", tc.binds, cluster, err)
			case tc.want == "":
				if _, err = f.Select("east/r/prod/n"); err != nil {
					t.Errorf("%q for cluster %q: %v", tc.binds, cluster, err)
				}
			case err == nil || fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), tc.want):
				t.Errorf("%q for cluster %q: got %v; want %q", tc.binds, cluster, err, tc.want)
			}
		}
	}
}

// TestBindingMisspeltAndMissed: the name that was misspelt is told, not only
// that the name that was meant is bound by nothing.
func TestBindingMisspeltAndMissed(t *testing.T) {
	b := one(`jobs = [Job(cluster = 'c', role = 'r', environment = 'prod', name = 'n', task = SimpleTask('t', '{{version}}'))]`)
	b.Binds = []string{"vrsion=2"}
	if _, err := spec.Eval(b, spec.DefaultLimits()); err == nil || !strings.Contains(err.Error(), "did you mean version?") {
		t.Errorf("got %v; want the name that was meant", err)
	}
	b = one(`jobs = [Job(cluster = 'c', role = 'r', environment = 'prod', name = 'n', task = SimpleTask('t', 'true'))]`)
	b.Binds = []string{"version=2"}
	if _, err := spec.Eval(b, spec.DefaultLimits()); err == nil || !strings.Contains(err.Error(), "has no name that --bind can reach") {
		t.Errorf("got %v; want that there is nothing to bind", err)
	}
}
