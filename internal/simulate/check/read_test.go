package check_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/simulate/check"
)

// files writes files of machines, jobs and placements and verifies them.
func files(t *testing.T, machines, jobs, placements string) (*check.Report, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"m": machines, "j": jobs, "p": placements} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return check.Files(filepath.Join(dir, "p"), filepath.Join(dir, "m"), filepath.Join(dir, "j"))
}

const (
	machineHead   = "id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen\n"
	jobHead       = "id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host\n"
	placementHead = "task,machine\n"
)

// TestSharesOfGPUs: shares that fill GPUs to the last thousandth are found to
// fit, whatever way leads there, and one more is found not to.
func TestSharesOfGPUs(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		gpus := 1 + r.IntN(4)
		var shares []int
		for range gpus {
			for left := 20; left > 0; {
				n := 1 + r.IntN(min(left, 10))
				shares, left = append(shares, 50*n), left-n
			}
		}
		if seed == 0 { // taking the largest first, each to the fullest GPU that holds it, ends with 900, 900 and 200
			gpus, shares = 2, []int{500, 300, 200, 400, 400, 200}
		}
		for _, over := range []bool{false, true} {
			var j, p strings.Builder
			if over {
				shares = append(shares, 50)
			}
			r.Shuffle(len(shares), func(a, b int) { shares[a], shares[b] = shares[b], shares[a] })
			for i, s := range shares {
				gpu := fmt.Sprintf("0.%03d", s)
				if s == 1000 {
					gpu = "1"
				}
				fmt.Fprintf(&j, "j%d,0,0,1,1,1,%s,0,-,0\n", i, gpu)
				fmt.Fprintf(&p, "j%d/0,m\n", i)
			}
			got, err := files(t, machineHead+fmt.Sprintf("m,64000,65536,%d,1000,r,z,g\n", gpus), jobHead+j.String(), placementHead+p.String())
			if err != nil || got.OK() == over {
				t.Errorf("seed %d, %v on %d GPUs, too many %t: %v, %+v", seed, shares, gpus, over, err, got)
			}
		}
	}
}

// TestReads: what spreadsheets make of a file is read as the scheduler's own
// reader does; what is wrong is an error with file and line, and never a finding
// about placements or nothing at all.
func TestReads(t *testing.T) {
	const m, j, p = machineHead + "m,4000,4096,0,100,r,z,g\n", jobHead + "a,0,0,2,1000,10,0,0,g,0\n", placementHead + "a/0,m\na/1,m\n"
	windows := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	for _, tc := range []struct{ name, machines, jobs, placements, want string }{
		{"plain", m, j, p, ""},
		{"with a mark", "\ufeff" + m, "\ufeff" + j, "\ufeff" + p, ""},
		{"with a mark and quotes", "\ufeff\"id\"" + m[2:], j, p, ""},
		{"other ends of lines", windows(m), windows(j), windows(p), ""},
		{"blanks", strings.ReplaceAll(m, ",", " , "), strings.ReplaceAll(j, ",", ", "), strings.ReplaceAll(p, ",", " ,"), ""},
		{"no gen", strings.ReplaceAll(m, ",gen", ",generation"), j, p, "m:1: column gen is missing; want id,"},
		{"no limit", m, strings.ReplaceAll(j, "max_per_host", "most"), p, "j:1: column max_per_host is missing"},
		{"no machine", m, j, strings.ReplaceAll(p, "machine", "host"), "p:1: column machine is missing; want task,machine, and it names task,host"},
		{"empty", m, j, "", "p: it is empty; want a first line that names the columns task,machine"},
		{"a mode that is none", "mode," + strings.ReplaceAll(m, "\nm,", "\nDRAINNED,m,"), j, p, `m:2: mode is "DRAINNED"; want NONE,`},
		{"a negative count", m, strings.ReplaceAll(j, ",2,", ",-2,"), p, `j:2: count is "-2"; want a whole number from 0`},
		{"a count that is none", m, strings.ReplaceAll(j, ",2,", ",NaN,"), p, `j:2: count is "NaN"; want a whole number`},
		{"a negative amount", m, strings.ReplaceAll(j, ",1000,", ",-1000,"), p, `j:2: cpu_milli is "-1000"; want a number of 0 or more`},
		{"a part of a GPU", strings.ReplaceAll(m, "4096,0", "4096,1.5"), j, p, `m:2: gpu is "1.5"; want whole GPUs`},
		{"more than a GPU and less than two", m, strings.ReplaceAll(j, "10,0,", "10,1.5,"), p, `j:2: gpu is "1.5"; want a share below 1, or whole GPUs`},
		{"twice", m + "m,4000,4096,0,100,r,z,g\n", j, p, "m:3: machine m stands there twice"},
		{"cut short", m, j, p + "a/1", "p: record on line 4: wrong number of fields"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := files(t, tc.machines, tc.jobs, tc.placements)
			switch {
			case tc.want == "" && (err != nil || !got.OK() || got.Placed != 2):
				t.Errorf("%v, %+v; want 2 placed and nothing wrong", err, got)
			case tc.want != "" && (fault.Of(err) != fault.Invalid || err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("%v; want %q", err, tc.want)
			}
		})
	}
}
