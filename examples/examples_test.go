// Package examples_test holds every example to what it promises: it is
// evaluated, valid, and small enough for a laptop.
package examples_test

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/spec"
	"github.com/covey-platform/covey/internal/unit"
)

// want is every job of the examples, by file.
var want = map[string][]string{
	"hello_world.aurora":  {"dev/www-data/prod/hello"},
	"spread.aurora":       {"dev/search/devel/spread"},
	"teams/ads.aurora":    {"dev/ads/prod/bidder", "dev/ads/devel/report"},
	"teams/search.aurora": {"dev/search/prod/index"},
	"teams/web.aurora":    {"dev/www-data/prod/site", "dev/www-data/staging/site"},
}

func TestExamples(t *testing.T) {
	got := map[string][]string{}
	for _, file := range files(t) {
		for _, e := range evaluate(t, file).Jobs() {
			got[file] = append(got[file], e.Cluster+"/"+e.Key)
			if e.Err != nil {
				t.Errorf("%s: %v", file, e.Err)
				continue
			}
			if err := e.Job.Validate(); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("jobs of the examples (-want +got):\n%s", d)
	}
}

// TestTeamsFitALaptop holds the jobs that make dev starts to half of a machine
// of two cores and 2 GiB, so that there is room for the reader's own.
func TestTeamsFitALaptop(t *testing.T) {
	var sum unit.Resources
	var roles []string
	for _, file := range files(t) {
		if path.Dir(file) != "teams" {
			continue
		}
		for _, e := range evaluate(t, file).Jobs() {
			for range e.Job.Instances.Len() {
				sum = sum.Add(e.Job.Config.Task.Resources)
			}
			roles = append(roles, e.Job.Key.Role())
			if n := e.Job.Config.Task.Resources.Net; n != 0 {
				t.Errorf("%s: %s asks for %d bits per second of network, which a machine may not offer", file, e.Key, n)
			}
		}
	}
	if most := (unit.Resources{CPU: 1000, RAM: 1 << 30, Disk: 2 << 30}); !sum.Fits(most) {
		t.Errorf("the teams' jobs take %v together; want at most %v", sum, most)
	}
	slices.Sort(roles)
	if got, want := slices.Compact(roles), []string{"ads", "search", "www-data"}; !slices.Equal(got, want) {
		t.Errorf("the teams are %v; want %v", got, want)
	}
}

// TestWhatTheExamplesShow keeps each kind of thing shown somewhere.
func TestWhatTheExamplesShow(t *testing.T) {
	shown := map[string]bool{}
	for _, file := range files(t) {
		for _, e := range evaluate(t, file).Jobs() {
			look(shown, e.Job)
		}
	}
	for _, what := range []string{
		"service", "ad hoc", "http health", "shell health", "life cycle", "port", "order", "final", "ephemeral",
		"limit constraint", "value constraint", "several instances", "preferred", "rotation", "pids",
	} {
		if !shown[what] {
			t.Errorf("no example shows: %s", what)
		}
	}
}

func look(shown map[string]bool, j job.Job) {
	c := j.Config
	shown["service"] = shown["service"] || c.Service
	shown["ad hoc"] = shown["ad hoc"] || !c.Service
	shown["http health"] = shown["http health"] || c.Health != nil && c.Health.HTTP != nil
	shown["shell health"] = shown["shell health"] || c.Health != nil && c.Health.Shell != nil
	shown["life cycle"] = shown["life cycle"] || c.Lifecycle != nil
	shown["port"] = shown["port"] || len(c.Task.Ports) > 0
	shown["order"] = shown["order"] || len(c.Task.Order) > 0
	shown["several instances"] = shown["several instances"] || j.Instances.Len() > 1
	shown["preferred"] = shown["preferred"] || c.Tier == job.Preferred
	shown["pids"] = shown["pids"] || c.Task.PidsLimit > 0
	for _, p := range c.Task.Processes {
		shown["final"] = shown["final"] || p.Final
		shown["ephemeral"] = shown["ephemeral"] || p.Ephemeral
		shown["rotation"] = shown["rotation"] || p.Logger.Rotate
	}
	for _, x := range c.Constraints {
		shown["limit constraint"] = shown["limit constraint"] || x.Limit > 0
		shown["value constraint"] = shown["value constraint"] || len(x.Values) > 0
	}
}

func files(t *testing.T) []string {
	t.Helper()
	var out []string
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(name, ".aurora") {
			out = append(out, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func evaluate(t *testing.T, file string) *spec.File {
	t.Helper()
	_, f, err := spec.Collect(file, "ann", nil, os.ReadFile, spec.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return f
}
