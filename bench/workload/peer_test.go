package workload_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/bench/workload"
)

// first is a scheduler that puts everything on one machine, which has room for
// so many tasks. It cannot tell how long one takes.
type first struct {
	machine string
	room    int
	job     workload.Job
	fails   error
}

func (f *first) Offer(j workload.Job) error { f.job = j; return nil }

func (f *first) Place(ctx context.Context) ([]time.Duration, error) {
	if _, ok := ctx.Deadline(); !ok {
		return nil, errors.New("no deadline")
	}
	return nil, f.fails
}

func (f *first) Where() ([]string, error) {
	where := make([]string, f.job.Count)
	for i := range where {
		if f.room > 0 {
			where[i], f.room = f.machine, f.room-1
		}
	}
	return where, nil
}

func TestDrive(t *testing.T) {
	jobs := []workload.Job{{ID: "a", Count: 2}, {ID: "b", Count: 2}}
	var out strings.Builder
	r, err := workload.Drive(&first{machine: "n0", room: 3}, jobs, time.Hour, &out)
	if err != nil {
		t.Fatal(err)
	}
	if want := "task,machine\na/0,n0\na/1,n0\nb/0,n0\n"; out.String() != want {
		t.Errorf("got placements\n%swant\n%s", out.String(), want)
	}
	if r.Tasks != 4 || r.Tried != 4 || r.Placed != 3 || r.HeapBytes == 0 || r.Task != (workload.Latency{}) {
		t.Errorf("got %+v; want 3 of 4 tried tasks placed, some heap and no latency of a task", r)
	}
}

func TestDriveStopsWhenTheTimeIsUp(t *testing.T) {
	var out strings.Builder
	r, err := workload.Drive(&first{machine: "n0", room: 3}, []workload.Job{{ID: "a", Count: 2}}, 0, &out)
	if err != nil || r.Tasks != 2 || r.Tried != 0 || out.String() != "task,machine\n" {
		t.Errorf("got %+v, %v, %q; want nothing tried", r, err, out.String())
	}
}

func TestDriveNamesTheJobThatFailed(t *testing.T) {
	broken := errors.New("broken")
	_, err := workload.Drive(&first{fails: broken}, []workload.Job{{ID: "a", Count: 1}}, time.Hour, &strings.Builder{})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "job a") {
		t.Errorf("got %v; want the failure of job a", err)
	}
}

func TestSummarise(t *testing.T) {
	var d []time.Duration
	for i := 100; i >= 0; i-- {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	want := workload.Latency{P50ms: 50, P99ms: 99, MaxMs: 100}
	if got := workload.Summarise(d); got != want {
		t.Errorf("got %+v; want %+v", got, want)
	}
}

func TestRun(t *testing.T) {
	f := workload.Flags{
		Machines:   file(t, "nodes.csv", machineHeader+"n0,1,1,0,1,r,z,g\n"),
		Jobs:       file(t, "jobs.csv", jobHeader+"a,1,1,2,1,1,0,0,-,0\n"),
		Placements: file(t, "out.csv", "what stood there before\n"),
		Limit:      time.Hour,
	}
	var out strings.Builder
	err := f.Run(&out, "First", "all on one", func(m []workload.Machine) (workload.Peer, error) {
		return &first{machine: m[0].ID, room: 9}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got workload.Report
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.System != "First" || got.Machines != 1 || got.Placed != 2 {
		t.Errorf("got %+v; want First with two tasks placed on one machine", got)
	}
	placements, err := os.ReadFile(f.Placements)
	if want := "task,machine\na/0,n0\na/1,n0\n"; err != nil || string(placements) != want {
		t.Errorf("got placements %q, %v; want %q", placements, err, want)
	}
	f.Jobs = ""
	if err := f.Run(&out, "First", "", nil); err == nil || !strings.Contains(err.Error(), "-jobs") {
		t.Errorf("got %v without a file of jobs; want a word on -jobs", err)
	}
}
