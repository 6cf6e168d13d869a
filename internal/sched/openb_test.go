package sched

import (
	"encoding/csv"
	"fmt"
	"math"
	"math/rand" //nolint:depguard // version 1: the published runs draw from it
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// openb is one task list of the trace, on its nodes.
type openb struct {
	machines []machine.Machine
	tasks    []Typical // in order of their names
	gpus     int64     // thousandths, in all
}

func readOpenb(t testing.TB, list string) openb {
	t.Helper()
	var o openb
	configs := map[string]*job.Config{}
	for _, r := range plainTable(t, "openb_node_list_gpu_node.csv") {
		gpu := num(t, r["gpu"]) * 1000
		o.gpus += gpu
		o.machines = append(o.machines, machine.Machine{
			ID:         machine.ID(r["sn"]),
			Capacity:   unit.Resources{CPU: num(t, r["cpu_milli"]), RAM: num(t, r["memory_mib"]) * unit.MiB, GPU: gpu},
			Attributes: []machine.Attribute{{Name: "gpu", Value: r["model"]}},
		})
	}
	rows := plainTable(t, "openb_pod_list_"+list+".csv")
	slices.SortFunc(rows, func(a, b map[string]string) int { return strings.Compare(a["name"], b["name"]) })
	for _, r := range rows {
		need := unit.Resources{CPU: num(t, r["cpu_milli"]), RAM: num(t, r["memory_mib"]) * unit.MiB}
		if n := num(t, r["num_gpu"]); n > 0 {
			need.GPU = n * num(t, r["gpu_milli"])
		}
		key := fmt.Sprint(need, r["gpu_spec"])
		if configs[key] == nil {
			c := asks(need, 0)
			if r["gpu_spec"] != "" {
				c.Constraints = []job.Constraint{is("gpu", strings.Split(r["gpu_spec"], "|")...)}
			}
			configs[key] = &c
		}
		o.tasks = append(o.tasks, Typical{"a/prod/b", configs[key], 1})
	}
	return o
}

// arrivals returns the list in the order of one seed, and then tasks drawn
// from it until they ask for 130 % of the GPUs.
func (o openb) arrivals(seed int64) []Typical {
	r := rand.New(rand.NewSource(seed))
	r.Int()
	out, sum := slices.Clone(o.tasks), int64(0)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	for _, t := range out {
		sum += t.Config.Task.Resources.GPU
	}
	for {
		t := o.tasks[r.Intn(len(o.tasks))]
		if sum += t.Config.Task.Resources.GPU; sum*10 > o.gpus*13 {
			return out
		}
		out = append(out, t)
	}
}

// allocated replays one seed: the percentage of the GPUs that is allocated,
// when tasks that ask for 100 % and for 130 % of them have arrived.
func (o openb) allocated(t testing.TB, seed int64, p Policy) (at100, at130 float64) {
	t.Helper()
	steps, err := Replay(o.machines, o.tasks, o.arrivals(seed), p)
	if err != nil {
		t.Fatal(err)
	}
	var sum, n [2]float64
	for f := range steps {
		i := slices.Index([]float64{100, 130}, math.Round(100*float64(f.Asked.GPU)/float64(o.gpus)))
		if i >= 0 {
			sum[i], n[i] = sum[i]+100*float64(f.Held.GPU)/float64(o.gpus), n[i]+1
		}
	}
	return sum[0] / n[0], sum[1] / n[1]
}

func median(xs []float64) float64 {
	slices.Sort(xs)
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

// medians replays seeds from 42 on.
func (o openb) medians(t testing.TB, seeds int64, p Policy) (at100, at130 float64) {
	var a, b []float64
	for seed := range seeds {
		x, y := o.allocated(t, 42+seed, p)
		a, b = append(a, x), append(b, y)
	}
	return median(a), median(b)
}

// published returns the medians of the paper's own policy.
func published(t testing.TB, list string) (at100, at130 float64) {
	for _, r := range plainTable(t, "published_medians.csv") {
		if r["workload"] == list {
			a, err1 := strconv.ParseFloat(r["06-FGD@100"], 64)
			b, err2 := strconv.ParseFloat(r["06-FGD@130"], 64)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			return a, b
		}
	}
	t.Fatalf("no published figures for %s", list)
	return 0, 0
}

var openbLists = []string{"default", "cpu050", "gpushare40", "gpuspec10", "multigpu20"}

// TestOpenb: on every list, with the first seed, Covey's own policy allocates
// as much as the published median of fragmentation gradient descent.
func TestOpenb(t *testing.T) {
	for _, list := range openbLists {
		o := readOpenb(t, list)
		want100, want130 := published(t, list)
		got100, got130 := o.allocated(t, 42, Covey)
		t.Logf("%s: %.2f %% at 100, %.2f %% at 130", list, got100, got130)
		if got100 < want100 || got130 < want130 {
			t.Errorf("%s: %.2f and %.2f %% are allocated; want %.2f and %.2f", list, got100, got130, want100, want130)
		}
	}
}

// BenchmarkOpenb prints the medians of seeds 42 to 51 of the policies:
// go test -run - -bench Openb -benchtime 1x ./internal/sched
func BenchmarkOpenb(b *testing.B) {
	for _, list := range openbLists {
		for _, p := range []Policy{Covey, FGD, BestFit} {
			b.Run(list+"/"+p.String(), func(b *testing.B) {
				o := readOpenb(b, list)
				for b.Loop() {
					at100, at130 := o.medians(b, 10, p)
					b.ReportMetric(at100, "%@100")
					b.ReportMetric(at130, "%@130")
				}
			})
		}
	}
}

func plainTable(t testing.TB, name string) []map[string]string {
	t.Helper()
	dir := os.Getenv("COVEY_SHARED_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	name = filepath.Join(dir, "openb", name)
	f, err := os.Open(name)
	if err != nil {
		t.Skipf("the trace is not here: %v; set COVEY_SHARED_DATA", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
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
