package sched

import (
	"compress/gzip"
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const gib = 1 << 30

// A fatal is what a world needs of a test: *testing.T, *testing.B, *rapid.T.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A world is a cluster and its index, folded after every change.
type world struct {
	t   fatal
	s   *state.Snapshot
	x   *Index
	now unit.Tick
}

func newWorld(t fatal) *world {
	s := state.New()
	return &world{t: t, s: s, x: NewIndex(s), now: unit.Hour}
}

// do applies changes in one commit and folds them.
func (w *world) do(changes ...state.Change) {
	w.t.Helper()
	w.now += unit.Hour / 3600
	d := state.NewDraft(w.s, w.now)
	for _, c := range changes {
		if err := d.Apply(c); err != nil {
			w.t.Fatalf("apply %+v: %v", c, err)
		}
	}
	w.s = d.Snapshot()
	w.x.Fold(w.s, d.Changed())
}

// add registers a machine, or writes it anew. It is up and has a host attribute.
func (w *world) add(id machine.ID, r unit.Resources, attributes ...string) {
	w.t.Helper()
	m := machine.Machine{ID: id, Host: string(id), Capacity: r, Up: true, Ports: machine.PortRange{From: 31000, To: 31009}}
	m.Attributes = []machine.Attribute{{Name: "host", Value: string(id)}}
	for i := 0; i+1 < len(attributes); i += 2 {
		m.Attributes = append(m.Attributes, machine.Attribute{Name: attributes[i], Value: attributes[i+1]})
	}
	w.put(m)
}

func (w *world) put(m machine.Machine) {
	w.t.Helper()
	old, _ := w.s.Machine(m.ID)
	w.do(state.PutMachine{Machine: m, Base: old.Rev})
}

// edit changes a machine that there is.
func (w *world) edit(id machine.ID, how func(m *machine.Machine)) {
	w.t.Helper()
	row, ok := w.s.Machine(id)
	if !ok {
		w.t.Fatalf("there is no machine %s", id)
	}
	how(&row.Machine)
	w.put(row.Machine)
}

// submit writes a job and makes the first n tasks of it that are not there yet.
func (w *world) submit(k job.Key, n int32, c job.Config) {
	w.t.Helper()
	if c.Tier == "" {
		c.Tier = job.Preemptible
	}
	old, _ := w.s.Job(k)
	w.do(state.PutJob{Job: job.Job{Key: k, Instances: job.FirstN(n), Config: c}, Base: old.Rev})
	w.open(k, n)
}

// open makes a task in each of the first n slots of a job that has none.
func (w *world) open(k job.Key, n int32) {
	w.t.Helper()
	for i := range n {
		at := state.Slot{Job: k, N: i}
		in, _ := w.s.Instance(at)
		if in.Live {
			continue
		}
		w.do(state.OpenSlot{Slot: at, Base: in.Rev})
		in, _ = w.s.Instance(at)
		w.do(state.NewTask{Slot: at, Base: in.Rev})
	}
}

// step moves a task.
func (w *world) step(id task.ID, to task.State) {
	w.t.Helper()
	t, _ := w.s.Task(id)
	w.do(state.StepTask{ID: id, Base: t.Rev, Event: task.Event{To: to}})
}

// plan plans and applies all of it.
func (w *world) plan() Waits {
	w.t.Helper()
	changes, waits := Plan(w.s, w.x, w.now, Limits{})
	w.do(changes...)
	return waits
}

// where returns the machine of a job's instance, or nothing.
func (w *world) where(k job.Key, n int32) machine.ID {
	for t := range w.s.TasksIn(state.Slot{Job: k, N: n}) {
		return t.Machine
	}
	return ""
}

func (w *world) id(k job.Key, n int32) task.ID {
	in, _ := w.s.Instance(state.Slot{Job: k, N: n})
	return task.ID{Job: k, Instance: n, Attempt: in.Attempt}
}

// asks returns a config that needs r, n ports and the constraints.
func asks(r unit.Resources, ports int, cons ...job.Constraint) job.Config {
	c := job.Config{Tier: job.Preemptible, MaxTaskFailures: -1, Constraints: cons, Task: job.Task{Name: "t", Resources: r}}
	for i := range ports {
		c.Task.Ports = append(c.Task.Ports, "p"+strconv.Itoa(i))
	}
	return c
}

func cpu(milli int64) unit.Resources { return unit.Resources{CPU: milli} }

func is(attribute string, values ...string) job.Constraint {
	return job.Constraint{Attribute: attribute, Values: values}
}

func not(attribute string, values ...string) job.Constraint {
	return job.Constraint{Attribute: attribute, Values: values, Negated: true}
}

func most(attribute string, n int32) job.Constraint {
	return job.Constraint{Attribute: attribute, Limit: n}
}

// workload reads one of the shared sets of machines and jobs. copies
// multiplies both.
func workload(t testing.TB, name string, copies int) (machines []machine.Machine, jobs []job.Job) {
	t.Helper()
	dir := os.Getenv("COVEY_SHARED_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, "workload", name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the workload %s is not here: %v; set COVEY_SHARED_DATA", name, err)
	}
	nodes, tasks := table(t, filepath.Join(dir, "nodes.csv.gz")), table(t, filepath.Join(dir, "jobs.csv.gz"))
	for c := range copies {
		at := strconv.Itoa(c)
		for _, r := range nodes {
			machines = append(machines, machine.Machine{
				ID: machine.ID(r["id"] + "-" + at), Up: true, Ports: machine.PortRange{From: 31000, To: 31999},
				Capacity: unit.Resources{CPU: num(t, r["cpu_milli"]), RAM: num(t, r["mem_mib"]) * unit.MiB, GPU: num(t, r["gpu"]) * 1000, Net: num(t, r["net_mbps"]) * 1e6},
				Attributes: []machine.Attribute{
					{Name: "gen", Value: r["gen"]},
					{Name: "host", Value: r["id"] + "-" + at},
					{Name: "rack", Value: r["rack"] + "-" + at},
					{Name: "zone", Value: r["zone"]},
				},
			})
		}
		for _, r := range tasks {
			cfg := asks(unit.Resources{CPU: num(t, r["cpu_milli"]), RAM: num(t, r["mem_mib"]) * unit.MiB, GPU: num(t, r["gpu"]) * 1000, Net: num(t, r["net_mbps"]) * 1e6}, 0)
			cfg.Priority = int32(num(t, r["prio"]))
			if r["prod"] == "1" {
				cfg.Tier = job.Preferred
			}
			if r["gen"] != "-" {
				cfg.Constraints = append(cfg.Constraints, is("gen", r["gen"]))
			}
			if n := num(t, r["max_per_host"]); n > 0 {
				cfg.Constraints = append(cfg.Constraints, most("host", int32(n)))
			}
			jobs = append(jobs, job.Job{Key: job.NewKey("load", "prod", r["id"]+"-"+at), Instances: job.FirstN(int32(num(t, r["count"]))), Config: cfg})
		}
	}
	return machines, jobs
}

func table(t testing.TB, name string) []map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(z).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, r := range rows[1:] {
		m := map[string]string{}
		for i, name := range rows[0] {
			m[name] = r[i]
		}
		out = append(out, m)
	}
	return out
}

func num(t testing.TB, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// load builds a snapshot of machines and the pending tasks of jobs.
func load(t testing.TB, machines []machine.Machine, jobs []job.Job) *state.Snapshot {
	t.Helper()
	d := state.NewDraft(state.New(), unit.Hour)
	apply := func(c state.Change) {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range machines {
		apply(state.PutMachine{Machine: m})
	}
	s := d.Snapshot()
	for _, j := range jobs {
		apply(state.PutJob{Job: j})
		for i := range j.Instances.All() {
			at := state.Slot{Job: j.Key, N: i}
			apply(state.OpenSlot{Slot: at})
			apply(state.NewTask{Slot: at, Base: s.Rev})
		}
	}
	return s
}
