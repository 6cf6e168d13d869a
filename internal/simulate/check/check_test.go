package check_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/simulate"
	"github.com/covey-platform/covey/internal/simulate/check"
)

// TestRandom lets the scheduler place random jobs on random machines, nearly
// full, and verifies what it wrote. Then it moves one task onto a machine that
// cannot take it, and wants that found: a check that finds nothing would hold
// everything.
func TestRandom(t *testing.T) {
	found := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		f := cli.SimulateFlags{
			Machines: filepath.Join(dir, "m.csv"), Jobs: filepath.Join(dir, "j.csv"), Placements: filepath.Join(dir, "p.csv"),
			Policy: []string{"covey", "fgd", "best-fit", "spread"}[seed%4], Note: func(string) {},
		}
		nodes := randomFiles(t, r, f)
		if _, err := simulate.Run(t.Context(), f); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := check.Files(f.Placements, f.Machines, f.Jobs)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !got.OK() || got.Placed == 0 {
			t.Errorf("seed %d: %d placed, wrong: %v", seed, got.Placed, got.Findings)
		}
		found += spoil(t, r, f, nodes)
	}
	if found < 50 {
		t.Errorf("of 60 files with a task too many on one machine, %d were found; want nearly all", found)
	}
}

func randomFiles(t *testing.T, r *rand.Rand, f cli.SimulateFlags) []string {
	t.Helper()
	var m, j strings.Builder
	m.WriteString("id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen,mode,avoid\n")
	var nodes []string
	for i := range 3 + r.IntN(10) {
		nodes = append(nodes, fmt.Sprintf("m%d", i))
		fmt.Fprintf(&m, "m%d,%d,%d,%d,1000,r%d,z,g%d,%s,%d\n", i, 1000*(1+r.IntN(8)), 1024*(1+r.IntN(8)), r.IntN(3), i/3, r.IntN(2),
			[]string{"", "-", "NONE", "NONE", "SCHEDULED", "DRAINED"}[r.IntN(6)], r.IntN(4)/3)
	}
	alike := r.IntN(2) == 0 // nobody is stopped for another: the check knows more
	j.WriteString("id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host,placement\n")
	for i := range 10 + r.IntN(20) {
		gpu := []string{"0", "0", "0.25", "0.6", "1", "2"}[r.IntN(6)]
		gen := []string{"-", "-", "g0", "g1"}[r.IntN(4)]
		prio, prod := r.IntN(5), r.IntN(2)
		if alike {
			prio, prod = 0, 0
		}
		fmt.Fprintf(&j, "j%d,%d,%d,%d,%d,%d,%s,%d,%s,%d,%s\n", i, prio, prod, 1+r.IntN(6), 100*(1+r.IntN(20)), 64*(1+r.IntN(20)), gpu, r.IntN(200), gen, r.IntN(3),
			[]string{"", "best-fit", "spread"}[r.IntN(3)])
	}
	for name, text := range map[string]string{f.Machines: m.String(), f.Jobs: j.String()} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

// spoil puts every task onto one machine, and returns 1 if that is found.
func spoil(t *testing.T, r *rand.Rand, f cli.SimulateFlags, nodes []string) int {
	t.Helper()
	text, err := os.ReadFile(f.Placements)
	if err != nil {
		t.Fatal(err)
	}
	to := nodes[r.IntN(len(nodes))]
	rows := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i, row := range rows[1:] {
		id, _, _ := strings.Cut(row, ",")
		rows[i+1] = id + "," + to
	}
	if err := os.WriteFile(f.Placements, []byte(strings.Join(rows, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := check.Files(f.Placements, f.Machines, f.Jobs)
	if err != nil {
		t.Fatal(err)
	}
	if got.OK() {
		return 0
	}
	return 1
}

// TestSpread: tasks of a job that spreads are held to it, as long as nobody can
// have been stopped for another.
func TestSpread(t *testing.T) {
	const machines = "id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen\na,4000,4096,0,1000,r,z,g\nb,4000,4096,0,1000,r,z,g\nsmall,1000,4096,0,1000,r,z,g\n"
	const head = "id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host,placement\n"
	for _, tc := range []struct {
		name, jobs, placements string
		wrong                  int
	}{
		{"uneven", "j,0,0,3,1500,1,0,0,-,0,spread\n", "j/0,a\nj/1,a\n", 1},
		{"even", "j,0,0,3,1500,1,0,0,-,0,spread\n", "j/0,a\nj/1,b\nj/2,a\n", 0},
		{"best fit", "j,0,0,3,1500,1,0,0,-,0,best-fit\n", "j/0,a\nj/1,a\n", 0},
		{"the other is full", "j,0,0,3,1500,1,0,0,-,0,spread\nk,0,0,1,3000,1,0,0,-,0,-\n", "j/0,a\nj/1,a\nk/0,b\n", 0},
		{"somebody may have been stopped", "j,0,0,3,1500,1,0,0,-,0,spread\nk,1,0,1,3000,1,0,0,-,0,-\n", "j/0,a\nj/1,a\n", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			names := map[string]string{"m": machines, "j": head + tc.jobs, "p": "task,machine\n" + tc.placements}
			for name, text := range names {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := check.Files(filepath.Join(dir, "p"), filepath.Join(dir, "m"), filepath.Join(dir, "j"))
			if err != nil || got.Wrong[check.Spread] != tc.wrong {
				t.Errorf("%v, %+v; want %d findings of spread", err, got, tc.wrong)
			}
		})
	}
}
