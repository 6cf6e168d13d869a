package rpc

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/unit"
)

// claims is a job of n instances, each with one core.
func claims(key job.Key, n int32, tier string) control.Command {
	return control.CreateJob{By: "ann", Job: job.Job{Key: key, Instances: job.FirstN(n), Config: job.Config{
		Service: true, Tier: tier, MaxTaskFailures: 1, Task: job.Task{
			Name: "t", Processes: []job.Process{{Name: "p", Cmdline: "true", MaxFailures: 1}}, MaxFailures: 1,
			Resources: unit.Resources{CPU: 1000, RAM: unit.MiB, Disk: unit.MiB},
		},
	}}}
}

// TestQuotas gives quotas and shows them, in pages.
func TestQuotas(t *testing.T) {
	b := newBackend(t)
	c := api.NewQuotaServiceClient(as(adminToken), serve(t, b))
	for _, x := range []control.Command{
		claims("bounded/prod/x", 3, job.Preferred), claims("bounded/test/x", 2, job.Preemptible), claims("free/prod/x", 1, job.Preferred),
	} {
		if _, _, err := b.Do(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	for role, cpu := range map[string]int64{"bounded": 3000, "idle": 1000, "*": 9000} {
		req := &pb.SetQuotaRequest{Role: role, Quota: &pb.Resources{CpuMilli: cpu, RamBytes: 1 << 30, DiskBytes: 1 << 30}}
		if _, err := c.SetQuota(t.Context(), connect.NewRequest(req)); err != nil {
			t.Fatalf("role %s: %v", role, err)
		}
	}
	r, err := c.GetQuota(t.Context(), connect.NewRequest(&pb.GetQuotaRequest{Role: "bounded"}))
	if err != nil {
		t.Fatal(err)
	}
	complete(t, r.Msg.GetQuota(), "inherited")
	if got := line(r.Msg.GetQuota()); got != "bounded: 3000 of ann, in use 3000, other tiers 2000" || r.Msg.GetQuota().GetUpdatedUnixNanos() == 0 {
		t.Errorf("got %s", got)
	}
	var got []string
	for page := ""; ; {
		list, err := c.ListQuotas(t.Context(), connect.NewRequest(&pb.ListQuotasRequest{Limit: 2, Page: page}))
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range list.Msg.GetQuotas() {
			got = append(got, line(q))
		}
		if page = list.Msg.GetNextPage(); page == "" {
			break
		}
		got = append(got, "page "+page)
	}
	want := []string{
		"*: 9000 of ann, in use 0, other tiers 0", "bounded: 3000 of ann, in use 3000, other tiers 2000", "page free",
		"free: 9000 as every role, in use 1000, other tiers 0", "idle: 1000 of ann, in use 0, other tiers 0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("roles (-want +got):\n%s", d)
	}
	if _, _, err = b.Do(t.Context(), claims("bounded/prod/y", 1, job.Preferred)); connectCodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a job beyond the quota: %v; want exhausted", err)
	}
	if _, err = c.RemoveQuota(t.Context(), connect.NewRequest(&pb.RemoveQuotaRequest{Role: "idle"})); err != nil {
		t.Error(err)
	}
	if _, err = c.RemoveQuota(t.Context(), connect.NewRequest(&pb.RemoveQuotaRequest{Role: "idle"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("removed twice: %v; want not found", err)
	}
	if _, err = c.SetQuota(t.Context(), connect.NewRequest(&pb.SetQuotaRequest{Role: "idle"})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("no quota given: %v; want invalid", err)
	}
}

func connectCodeOf(err error) connect.Code { return connect.CodeOf(toWire(err)) }

func line(q *pb.Quota) string {
	whose := "of " + q.GetBy()
	if q.GetInherited() {
		whose = "as every role"
	}
	return fmt.Sprintf("%s: %d %s, in use %d, other tiers %d", q.GetRole(), q.GetQuota().GetCpuMilli(), whose, q.GetProdShared().GetCpuMilli(), q.GetNonProdShared().GetCpuMilli())
}
