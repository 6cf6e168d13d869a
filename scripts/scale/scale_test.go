package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/unit"
)

// TestMain lets the test's binary be a process of agents, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fleetArg {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestMeasure measures a small cluster, with agents on shared connections and
// with one each, also by TLS: real processes, real credentials, every task acknowledged.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // PostgreSQL runs as a user of its own
		t.Fatal(err)
	}
	covey := filepath.Join(dir, "covey")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", covey, "../../cmd/covey").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, way := range []string{"-shared=true", "-shared=false", "-tls=true", "-servers=3"} {
		t.Run(way, func(t *testing.T) {
			several := way == "-servers=3"
			if several {
				storetest.StartPostgres(t).Stop() // or says why there is none
			}
			file := filepath.Join(t.TempDir(), "figures.json")
			var out bytes.Buffer
			args := []string{way, "-postgres=" + strconv.FormatBool(several), "-covey", covey, "-dir", dir, "-agents", "30", "-tasks", "10", "-job-size", "70", "-procs", "2", "-steady", "1s", "-churn", "20", "-restart", "-json", file}
			if err := run(t.Context(), args, nil, &out, t.Output()); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got []figures
			if err := json.Unmarshal(data, &got); err != nil || len(got) != 1 {
				t.Fatalf("%d measurements, %v; want 1", len(got), err)
			}
			f := got[0]
			t.Logf("\n%s", out.String())
			if f.Agents != 30 || f.Tasks != 300 || f.RunSeconds <= 0 || f.RunCPU <= 0 {
				t.Errorf("got %+v; want 300 tasks of 30 agents, and the time they took", f)
			}
			if f.Replaced <= 0 {
				t.Error("no task was replaced; want 100 a second")
			}
			if f.PlacedSeconds <= 0 || f.IdleCommits > 0.5 {
				t.Errorf("placed again after %v s, %v commits a second at rest; want some time, and none", f.PlacedSeconds, f.IdleCommits)
			}
			if several != (f.FollowerRSS > 0) || several != (f.Servers == 3) {
				t.Errorf("%d servers, %d bytes of one that follows; want those of %s", f.Servers, f.FollowerRSS, way)
			}
		})
	}
}

// TestBadOptions refuses what makes no sense, before anything is started.
func TestBadOptions(t *testing.T) {
	for _, args := range [][]string{{"-agents", "0"}, {"-agents", "ten"}, {"-tasks", "0"}, {"-job-size", "4001"}, {"-procs", "0"}, {"-tls", "-shared"}, {"-servers", "0"}, {"-servers", "3"}, {"-servers", "3", "-postgres", "-tls"}} {
		if err := run(t.Context(), args, nil, t.Output(), t.Output()); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// However few tasks a machine has, it takes another one when they all run: the
// one whose placement -restart waits for.
func TestRoomForOneMore(t *testing.T) {
	for tasks := 1; tasks <= 100; tasks++ {
		has := capacityFor(tasks)
		var need unit.Resources
		for range tasks + 1 {
			need = need.Add(oneTask)
		}
		if !need.Fits(has) {
			t.Errorf("a machine for %d tasks has %+v; %d need %+v", tasks, has, tasks+1, need)
		}
	}
}
