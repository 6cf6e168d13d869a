package cli

import (
	"strings"
	"testing"

	pb "github.com/covey-platform/covey/api/covey/v1"
)

// TestStrays: what runs on a machine though no row says so is shown with it.
func TestStrays(t *testing.T) {
	r := &pb.GetMachineResponse{Machine: &pb.Machine{Id: "m1"}, Strays: []*pb.Stray{{
		TaskId: "r/prod/x/0.1", Resources: &pb.Resources{CpuMilli: 500}, SinceUnixNanos: 1,
	}}}
	var b strings.Builder
	machineTable(&b, r)
	if got := b.String(); !strings.Contains(got, "STRAY") || !strings.Contains(got, "r/prod/x/0.1") || !strings.Contains(got, "cpu 0.5") {
		t.Errorf("got\n%s\nwant the stray and what it holds", got)
	}
	if got := straysOf(r.GetStrays()); len(got) != 1 || got[0].ID != "r/prod/x/0.1" || got[0].Since == "" {
		t.Errorf("got %+v; want the stray", got)
	}
}
