package cli

import (
	"testing"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/job"
)

// What became of an earlier job of the same name says nothing about this one.
func TestJudgeCreatedAnew(t *testing.T) {
	for _, status := range []string{"FINISHED", "KILLED", "KILLING", "FAILED"} {
		v := judge(&pb.GetJobResponse{
			Job:   &pb.Job{CreatedUnixNanos: 20},
			Tasks: []*pb.Task{{Status: "FINISHED", CreatedUnixNanos: 20}, {Status: status, CreatedUnixNanos: 19}},
		}, "FINISHED")
		if v.good || v.bad != nil || v.text != "1 FINISHED, 1 yet to come" {
			t.Errorf("%s: got good %v, bad %v, %q; want to wait for the new task", status, v.good, v.bad, v.text)
		}
	}
}

// A wait ends early for what will not get better by itself, and for nothing
// else.
func TestJudge(t *testing.T) {
	for _, x := range []struct {
		status, reason, until string
		good, bad             bool
	}{
		{"RUNNING", "", "RUNNING", true, false},
		{"RUNNING", "", "FINISHED", false, false},
		{"FINISHED", "", "RUNNING", true, false},
		{"STARTING", "", "RUNNING", false, false},
		{"PENDING", "no machine fits: m1 lacks cpu", "RUNNING", false, false},
		{"PENDING", "larger than any machine: cpu 4000", "RUNNING", false, true},
		{"THROTTLED", "ended early 3 times in a row; waits 2s", "RUNNING", false, false},
		{"THROTTLED", "ended early 4 times in a row; waits 4s", "RUNNING", false, true},
		{"THROTTLED", "ended early 12 times in a row; waits 5m0s", "RUNNING", false, true},
		{"THROTTLED", "its last machine did not start it; waits 1s", "RUNNING", false, false},
		{"THROTTLED", "ended early 9 times in a row; waits 4m16s", "FINISHED", false, false},
		{"FAILED", "process p failed: exit status 1", "FINISHED", false, true},
		{"KILLING", "", "RUNNING", false, true},
		{"PARTITIONED", "", "RUNNING", false, false},
	} {
		v := judge(&pb.GetJobResponse{Tasks: []*pb.Task{{Status: x.status, Reason: x.reason}}}, x.until)
		if v.good != x.good || (v.bad != nil) != x.bad {
			t.Errorf("%s (%s) until %s: got good %v, bad %v; want %v, %v", x.status, x.reason, x.until, v.good, v.bad != nil, x.good, x.bad)
		}
	}
}

// A job whose attempts are counted is waited for as long as it has some left.
func TestJudgeAttempts(t *testing.T) {
	for _, x := range []struct {
		name string
		c    job.Config
		bad  bool
	}{
		{"service", job.Config{Service: true}, true},
		{"ad hoc, tried for ever", job.Config{MaxTaskFailures: -1}, true},
		{"ad hoc, of ten attempts", job.Config{MaxTaskFailures: 10}, false},
	} {
		enc, err := x.c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		v := judge(&pb.GetJobResponse{
			Job:   &pb.Job{ConfigJson: enc},
			Tasks: []*pb.Task{{Status: "THROTTLED", Reason: "ended early 6 times in a row; waits 16s"}},
		}, "RUNNING")
		if (v.bad != nil) != x.bad {
			t.Errorf("%s: got hopeless %v, want %v", x.name, v.bad != nil, x.bad)
		}
	}
}
