package simulate

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/covey-platform/covey/internal/cli"
)

// TestPublished replays seed 42 of each list of the trace. The paper's own
// policy and best fit come out where their published medians are, so that the
// replay is the published one; Covey's policy allocates no less than the
// paper's.
func TestPublished(t *testing.T) {
	dir := os.Getenv("COVEY_SHARED_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, "openb")
	medians := published(t, filepath.Join(dir, "published_medians.csv"))
	const noise, oneSeed = 0.2, 0.6
	for _, list := range []string{"default", "cpu050", "gpushare40", "gpuspec10", "multigpu20"} {
		fill := func(policy string) (at100, at130 float64) {
			t.Helper()
			r, err := openb(cli.SimulateFlags{
				OpenbMachines: filepath.Join(dir, "openb_node_list_gpu_node.csv"), OpenbTasks: filepath.Join(dir, "openb_pod_list_"+list+".csv"),
				Seed: 42, Policy: policy,
			})
			if err != nil {
				t.Fatal(err)
			}
			all := r.JSON.(openbJSON).Allocated
			return all["100"], all["130"]
		}
		want100, want130 := medians[list]["06-FGD@100"], medians[list]["06-FGD@130"]
		got100, got130 := fill("covey")
		t.Logf("%s: %.2f and %.2f %%", list, got100, got130)
		if got100 < want100-noise || got130 < want130-noise {
			t.Errorf("%s: covey allocates %.2f and %.2f %%; want the published %.2f and %.2f or more", list, got100, got130, want100, want130)
		}
		if list != "default" {
			continue
		}
		if _, got := fill("fgd"); math.Abs(got-want130) > oneSeed {
			t.Errorf("%s: fgd allocates %.2f %% at 130; published is %.2f", list, got, want130)
		}
		if _, got := fill("best-fit"); math.Abs(got-medians[list]["05-BestFit@130"]) > 2*oneSeed {
			t.Errorf("%s: best-fit allocates %.2f %% at 130; published is %.2f", list, got, medians[list]["05-BestFit@130"])
		}
	}
}

func published(t *testing.T, name string) map[string]map[string]float64 {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Skipf("the trace is not here: %v; set COVEY_SHARED_DATA", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]float64{}
	for _, r := range rows[1:] {
		out[r[0]] = map[string]float64{}
		for i, c := range r[1:] {
			if out[r[0]][rows[0][i+1]], err = strconv.ParseFloat(c, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}
