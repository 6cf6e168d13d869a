package workload_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/covey-platform/covey/bench/workload"
)

const (
	machineHeader = "id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen\n"
	jobHeader     = "id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host\n"
)

// file writes a file that the test owns.
func file(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadMachines(t *testing.T) {
	rows := machineHeader + "n0,32000,131072,8,10000,r1,z2,g1\n"
	want := []workload.Machine{{ID: "n0", CPUMilli: 32000, MemMiB: 131072, GPU: 8, NetMbps: 10000, Rack: "r1", Zone: "z2", Gen: "g1"}}
	for name, text := range map[string]string{"plain": rows, "packed": packed(t, rows)} {
		got, err := workload.ReadMachines(file(t, "nodes.csv", text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
	}
}

func TestJobsSurviveWriting(t *testing.T) {
	want := []workload.Job{
		{ID: "a", Prio: 200, Prod: true, Count: 3, CPUMilli: 1, MemMiB: 2, GPU: 3, NetMbps: 4, Gen: "g1", MaxPerHost: 1},
		{ID: "b", Count: 7},
	}
	var text strings.Builder
	if err := workload.WriteJobs(&text, want); err != nil {
		t.Fatal(err)
	}
	got, err := workload.ReadJobs(file(t, "jobs.csv", text.String()))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestBadFiles(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "is empty; want the header id,prio,"},
		{"no header", "a,1,1,1,1,1,1,1,-,0\n", "jobs.csv:1: the header is a,1,1,1,1,1,1,1,-,0; want id,prio,"},
		{"a column missing", "id,prio\na,1\n", "jobs.csv:1: the header is id,prio; want id,prio,prod"},
		{"short row", jobHeader + "a,1,1\n", "line 2: wrong number of fields"},
		{"negative", jobHeader + "a,1,1,-1,1,1,1,1,-,0\n", `jobs.csv:2: count is "-1"; want a whole number from 0`},
		{"fraction", jobHeader + "a,1,1,1,0.5,1,1,1,-,0\n", `jobs.csv:2: cpu_milli is "0.5"; want a whole number`},
		{"too much", jobHeader + "a,1,1,1,1,9999999999999999,1,1,-,0\n", "jobs.csv:2: mem_mib is"},
		{"no id", jobHeader + ",1,1,1,1,1,1,1,-,0\n", "jobs.csv:2: id is empty"},
		{"twice", jobHeader + "a,1,1,1,1,1,1,1,-,0\nb,1,1,1,1,1,1,1,-,0\na,1,1,1,1,1,1,1,-,0\n", "jobs.csv:4: a stands in line 2 already"},
		{"cut short", packed(t, jobHeader+"a,1,1,1,1,1,1,1,-,0\n")[:40], "unexpected EOF"},
	} {
		_, err := workload.ReadJobs(file(t, "jobs.csv", c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v; want %s", c.name, err, c.want)
		}
	}
}

func TestCut(t *testing.T) {
	jobs := []workload.Job{{ID: "a", Count: 2}, {ID: "b", Count: 3}, {ID: "c", Count: 4}}
	for n, want := range map[int][]int{0: {0}, 1: {1}, 2: {2}, 3: {2, 1}, 5: {2, 3}, 9: {2, 3, 4}, 20: {2, 3, 4}} {
		var got []int
		for _, j := range workload.Cut(jobs, n) {
			got = append(got, j.Count)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("cut to %d: got %v; want %v", n, got, want)
		}
	}
	if jobs[0].Count != 2 {
		t.Error("Cut changed the jobs it was given")
	}
}
