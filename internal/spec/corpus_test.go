package spec_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/spec"
	"github.com/covey-platform/covey/internal/unit"
)

// corpusFile is one file of Aurora's corpus and what Aurora made of it.
type corpusFile struct {
	File   string            `json:"file"`
	Bind   []string          `json:"bind"`
	Expect string            `json:"expect"`
	Jobs   []json.RawMessage `json:"jobs"`
}

type corpusJob struct {
	Error        string          `json:"error"`
	RawCluster   string          `json:"raw_cluster"`
	RawEnv       string          `json:"raw_environment"`
	RawName      string          `json:"raw_name"`
	RawRole      string          `json:"raw_role"`
	Key          string          `json:"job_key"`
	Data         json.RawMessage `json:"executor_data"`
	DataRaw      *string         `json:"executor_data_raw"`
	Instances    int             `json:"instances"`
	MaxFailures  int32           `json:"max_task_failures"`
	Priority     int32           `json:"priority"`
	Service      bool            `json:"service"`
	Contact      *string         `json:"contact"`
	Processes    []string        `json:"processes"`
	Order        [][]string      `json:"process_order"`
	CronSchedule *string         `json:"cron_schedule"`
	Metadata     []job.Metadata  `json:"metadata"`
	Constraints  []struct {
		Name       string `json:"name"`
		Constraint struct {
			Limit struct{ Limit int32 }
			Value struct {
				Negated bool
				Values  []string
			}
		} `json:"constraint"`
	} `json:"constraints"`
	Resources struct {
		Disk  int64    `json:"diskMb"`
		CPU   float64  `json:"numCpus"`
		GPU   int64    `json:"numGpus"`
		RAM   int64    `json:"ramMb"`
		Ports []string `json:"ports"`
	} `json:"resources"`
	Partition *struct {
		Delay      int64 `json:"delaySecs"`
		Reschedule bool  `json:"reschedule"`
	} `json:"partition_policy"`
}

// unsupported lists the jobs that are right by Aurora's rules and that this
// version refuses to run, with a part of the reason.
var unsupported = map[string]string{
	"c/r/prod/docker":           "a Docker container",
	"c/r/prod/legacy_container": "a Docker container",
	"c/r/prod/mesos_docker":     "a container image",
	"c/r/prod/mesos_appc":       "a container image",
	"c/r/prod/lim":              "user \"u\"; want the role",
	"c/r/prod/exec":             "the executor 'myExecutor'",
}

func corpus(t testing.TB) []corpusFile {
	t.Helper()
	data, err := os.ReadFile("testdata/aurora/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var files []corpusFile
	if err := json.Unmarshal(data, &files); err != nil {
		t.Fatal(err)
	}
	return files
}

// bundle collects the files in a folder under their names in it.
func bundle(t testing.TB, dir, main string) spec.Bundle {
	t.Helper()
	b := spec.Bundle{Main: main, User: "vagrant", Files: map[string][]byte{}}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".aurora" {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		b.Files[name] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCorpus(t *testing.T) {
	files := corpus(t)
	if got, want := len(files), 22; got != want {
		t.Fatalf("the corpus has %d files; want %d", got, want)
	}
	for _, f := range files {
		t.Run(f.File, func(t *testing.T) {
			b := bundle(t, "testdata/aurora", f.File)
			b.Binds = f.Bind
			got, err := spec.Eval(b, spec.DefaultLimits())
			if err != nil {
				t.Fatalf("Eval: %v", err)
			}
			entries := got.Jobs()
			if len(entries) != len(f.Jobs) {
				t.Fatalf("got %d jobs, want %d", len(entries), len(f.Jobs))
			}
			for i, raw := range f.Jobs {
				var want corpusJob
				if err := json.Unmarshal(raw, &want); err != nil {
					t.Fatal(err)
				}
				checkEntry(t, entries[i], want)
			}
		})
	}
}

func checkEntry(t *testing.T, got spec.Entry, want corpusJob) {
	t.Helper()
	if want.Error != "" {
		if got.Err == nil {
			t.Errorf("job %s is right; want an error like: %s", got.Key, want.Error)
		} else if fault.Of(got.Err) != fault.Invalid {
			t.Errorf("the error of %s is %v; want invalid", got.Key, fault.Of(got.Err))
		}
		if got.Raw != nil {
			t.Errorf("job %s is refused but has a raw form", got.Key)
		}
		if n := path.Base(got.Key); n != path.Base(want.RawName) {
			t.Errorf("the refused job is %s; want %s", n, want.RawName)
		}
		return
	}
	if k := got.Cluster + "/" + got.Key; k != want.Key {
		t.Errorf("got job %s, want %s", k, want.Key)
	}
	checkRaw(t, got, want)
	if reason := unsupported[want.Key]; reason != "" {
		if got.Err == nil || !strings.Contains(got.Err.Error(), reason) {
			t.Errorf("job %s: got error %v, want one about %s", want.Key, got.Err, reason)
		}
		return
	}
	if got.Err != nil {
		t.Errorf("job %s: %v", want.Key, got.Err)
		return
	}
	checkJob(t, got.Job, want)
}

func checkRaw(t *testing.T, got spec.Entry, want corpusJob) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got.Raw, &g); err != nil {
		t.Errorf("job %s: raw form %q: %v", want.Key, got.Raw, err)
		return
	}
	if want.DataRaw != nil {
		data := g.(map[string]any)["executor_config"].(map[string]any)["data"]
		if data != *want.DataRaw {
			t.Errorf("job %s: executor data %q, want %q", want.Key, data, *want.DataRaw)
		}
		return
	}
	if err := json.Unmarshal(want.Data, &w); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w, g); d != "" {
		t.Errorf("job %s: raw form (-want +got):\n%s", want.Key, d)
	}
}

func checkJob(t *testing.T, got job.Job, want corpusJob) {
	t.Helper()
	c := got.Config
	names := []string{}
	for _, p := range c.Task.Processes {
		names = append(names, p.Name)
	}
	order := [][]string{}
	for _, o := range want.Order {
		if len(o) > 1 { // a chain of one orders nothing
			order = append(order, o)
		}
	}
	type summary struct {
		Instances   int
		MaxFailures int32
		Priority    int32
		Service     bool
		Contact     string
		Processes   []string
		Order       [][]string
		Resources   unit.Resources
		Ports       []string
		Metadata    []job.Metadata
		Constraints []job.Constraint
		Partition   job.Partition
	}
	g := summary{
		got.Instances.Len(), c.MaxTaskFailures, c.Priority, c.Service, c.Contact, names, append([][]string{}, c.Task.Order...),
		c.Task.Resources, append([]string{}, c.Task.Ports...), append([]job.Metadata{}, c.Metadata...), c.Constraints, c.Partition,
	}
	if want.Processes == nil {
		want.Processes = []string{}
	}
	w := summary{
		Instances: want.Instances, MaxFailures: want.MaxFailures, Priority: want.Priority, Service: want.Service, Processes: want.Processes,
		Order: order, Ports: append([]string{}, want.Resources.Ports...), Metadata: append([]job.Metadata{}, want.Metadata...),
		Resources: unit.Resources{
			CPU: int64(want.Resources.CPU * 1000), RAM: want.Resources.RAM * unit.MiB,
			Disk: want.Resources.Disk * unit.MiB, GPU: want.Resources.GPU * 1000,
		},
		Partition: job.Partition{Reschedule: true},
	}
	if want.Contact != nil {
		w.Contact = *want.Contact
	}
	if p := want.Partition; p != nil {
		w.Partition = job.Partition{Reschedule: p.Reschedule, DelayS: p.Delay}
	}
	for _, x := range want.Constraints {
		w.Constraints = append(w.Constraints, job.Constraint{
			Attribute: x.Name, Negated: x.Constraint.Value.Negated,
			Values: x.Constraint.Value.Values, Limit: x.Constraint.Limit.Limit,
		})
	}
	slices.SortFunc(w.Constraints, func(a, b job.Constraint) int { return strings.Compare(a.Attribute, b.Attribute) })
	if d := cmp.Diff(w, g); d != "" {
		t.Errorf("job %s (-want +got):\n%s", want.Key, d)
	}
}
