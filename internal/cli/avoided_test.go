package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
)

// pool answers for a cluster of one machine that is avoided for a time, one that
// is for no given time, and one that is not.
type pool struct {
	coveyv1connect.UnimplementedMachineServiceHandler
}

const avoidedUntil = 1_893_456_000_000_000_000 // 1 January 2030

var machines = []*pb.Machine{
	{Id: "m1", Up: true, Mode: "NONE", Avoid: "3 tasks in a row did not start here", AvoidUntilUnixNanos: avoidedUntil, Avoided: 1},
	{Id: "m2", Up: true, Mode: "DRAINING", Avoid: "it is old"},
	{Id: "m3", Up: true, Mode: "NONE"},
}

func (pool) ListMachines(context.Context, *connect.Request[pb.ListMachinesRequest]) (*connect.Response[pb.ListMachinesResponse], error) {
	return connect.NewResponse(&pb.ListMachinesResponse{Machines: machines}), nil
}

func (pool) GetMachine(_ context.Context, r *connect.Request[pb.GetMachineRequest]) (*connect.Response[pb.GetMachineResponse], error) {
	for _, m := range machines {
		if m.GetId() == r.Msg.GetId() {
			return connect.NewResponse(&pb.GetMachineResponse{Machine: m}), nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, nil)
}

// TestAvoidedShown: machine list and machine show say which machines are
// avoided, until when and why, for people and for programs.
func TestAvoidedShown(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle(coveyv1connect.NewMachineServiceHandler(pool{}))
	s := httptest.NewServer(mux)
	defer s.Close()
	run := func(args ...string) string {
		t.Helper()
		code, out, errs := typed(t, s.URL, args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d, %s", args, code, errs)
		}
		return out
	}
	var got []string
	for line := range strings.Lines(run("machine", "list")) {
		got = append(got, strings.Join(strings.Fields(line)[:3], " "))
	}
	want := []string{"MACHINE STATE FOR", "m1 up avoided", "m2 up DRAINING", "m3 up -", "m1 is avoided", "m2 is avoided:"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("machine list (-want +got):\n%s", d)
	}
	for _, c := range []struct {
		args []string
		want string // empty: that word is not there
	}{
		{[]string{"machine", "list"}, "m1 is avoided until 2030-01-01T00:00:00.000Z: 3 tasks in a row did not start here\nm2 is avoided: it is old\n"},
		{[]string{"machine", "show", "m1"}, "avoided     until 2030-01-01T00:00:00.000Z: 3 tasks in a row did not start here\n"},
		{[]string{"machine", "show", "m2"}, "avoided     it is old\n"},
		{[]string{"machine", "show", "m3"}, ""},
		{[]string{"machine", "show", "m1", "-o", "json"}, `"avoid_until": "2030-01-01T00:00:00.000Z"`},
	} {
		out := run(c.args...)
		if c.want == "" && strings.Contains(out, "avoid") || !strings.Contains(out, c.want) {
			t.Errorf("%v: got\n%s\nwant %q", c.args, out, c.want)
		}
	}
	var list struct{ Machines []machineJSON }
	if err := json.Unmarshal([]byte(run("machine", "list", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, m := range list.Machines {
		said = append(said, m.ID+" "+m.AvoidUntil+" "+m.Avoid)
	}
	if d := cmp.Diff([]string{"m1 2030-01-01T00:00:00.000Z 3 tasks in a row did not start here", "m2  it is old", "m3  "}, said); d != "" {
		t.Errorf("machine list -o json (-want +got):\n%s", d)
	}
}
