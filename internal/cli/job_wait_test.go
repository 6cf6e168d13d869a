package cli

import (
	"testing"

	pb "github.com/covey-platform/covey/api/covey/v1"
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
		{"THROTTLED", "ended early 2 times in a row; waits 1s", "RUNNING", false, true},
		{"THROTTLED", "its last machine did not start it; waits 1s", "RUNNING", false, false},
		{"THROTTLED", "ended early 2 times in a row; waits 1s", "FINISHED", false, false},
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
