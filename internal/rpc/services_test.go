package rpc

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const helloKey = "dev/www-data/prod/hello"

// ended says that a task of the fake machine ended.
func (b *backend) see(t *testing.T, id string, to task.State, reason string) {
	t.Helper()
	x, err := task.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	n := b.loop.Snapshot().Seq
	b.mu.Unlock()
	err = b.turn(func(t *control.Turn) error {
		return t.Hear("m1", control.Message{Session: "s", N: uint64(n) + 100, Sightings: []task.Sighting{{ID: x, State: to, Reason: reason}}})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// withMachine is a backend with m1 and the job hello of n instances.
func withMachine(t *testing.T, n int32) *backend {
	t.Helper()
	b := newBackend(t)
	err := b.turn(func(t *control.Turn) error {
		return t.Hello(control.Hello{UID: "uid-1", Session: "s", Machine: aMachine("m1")})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Do(t.Context(), control.CreateJob{Job: aJob(n), By: "ann"}); err != nil {
		t.Fatal(err)
	}
	return b
}

// statuses shows a job as "0.1 RUNNING m1: reason".
func statuses(ts []*pb.Task) []string {
	var out []string
	for _, t := range ts {
		_, slot, _ := strings.Cut(t.GetId(), "hello/")
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", slot, t.GetStatus(), t.GetMachine(), t.GetReason())))
	}
	return out
}

func TestGetJob(t *testing.T) {
	b := withMachine(t, 3)
	c := api.NewJobServiceClient(as(adminToken), serve(t, b))
	b.see(t, "www-data/prod/hello/0.1", task.Running, "healthy")
	b.see(t, "www-data/prod/hello/1.1", task.Failed, "process exited with 1")
	get := func() *pb.GetJobResponse {
		r, err := c.GetJob(t.Context(), connect.NewRequest(&pb.GetJobRequest{Key: helloKey}))
		if err != nil {
			t.Fatal(err)
		}
		return r.Msg
	}
	r := get()
	want := []string{"0.1 RUNNING m1 healthy", "1.2 ASSIGNED m1 best fit of the machines that may run it", "2.1 ASSIGNED m1 best fit of the machines that may run it"}
	if diff := cmp.Diff(want, statuses(r.GetTasks())); diff != "" {
		t.Errorf("one entry for each instance (-want +got):\n%s", diff)
	}
	if p := r.GetTasks()[0].GetPorts()["http"]; p < 31000 || p > 31999 || r.GetTasks()[0].GetHost() != "127.0.0.1" {
		t.Errorf("instance 0 is reached at %s:%d", r.GetTasks()[0].GetHost(), p)
	}
	if r.GetJob().GetInstances() != "0-2" || r.GetJob().GetBy() != "ann" || r.GetSeq() != uint64(b.View().Snapshot.Seq) {
		t.Errorf("the job is %v at %d", r.GetJob(), r.GetSeq())
	}
	if _, err := job.Decode(r.GetJob().GetConfigJson()); err != nil {
		t.Error(err)
	}

	// What was killed is shown as long as it is ending.
	k, err := c.KillJob(t.Context(), connect.NewRequest(&pb.KillJobRequest{Key: helloKey, Message: "enough"}))
	if err != nil || k.Msg.GetTasks() != 3 {
		t.Fatalf("kill: %v %v", k, err)
	}
	for _, s := range statuses(get().GetTasks()) {
		if !strings.HasSuffix(s, "KILLING m1 enough") {
			t.Errorf("after a kill: %s", s)
		}
	}
	for _, id := range []string{"0.1", "1.2", "2.1"} {
		b.see(t, "www-data/prod/hello/"+id, task.Killed, "")
	}
	if _, err = c.GetJob(t.Context(), connect.NewRequest(&pb.GetJobRequest{Key: helloKey})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("after its end: %v; want not found", err)
	}
}

// TestGetJobEnded shows the last task of an instance that wants no more.
func TestGetJobEnded(t *testing.T) {
	b := newBackend(t)
	err := b.turn(func(t *control.Turn) error {
		return t.Hello(control.Hello{UID: "uid-1", Session: "s", Machine: aMachine("m1")})
	})
	if err != nil {
		t.Fatal(err)
	}
	j := aJob(1)
	j.Config.Service = false
	if _, _, err = b.Do(t.Context(), control.CreateJob{Job: j}); err != nil {
		t.Fatal(err)
	}
	b.see(t, "www-data/prod/hello/0.1", task.Finished, "done")
	c := api.NewJobServiceClient(as(adminToken), serve(t, b))
	r, err := c.GetJob(t.Context(), connect.NewRequest(&pb.GetJobRequest{Key: helloKey}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0.1 FINISHED m1 done"}, statuses(r.Msg.GetTasks())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := r.Msg.GetTasks()[0]; got.GetCreatedUnixNanos() == 0 || got.GetResources().GetCpuMilli() != 500 || len(got.GetPorts()) != 1 {
		t.Errorf("the history lost something: %v", got)
	}
}

// TestHeldBack: while a new leader hears what machines run, whatever waits for
// that says so, and until when: a task that waits and an instance without one.
func TestHeldBack(t *testing.T) {
	b := withMachine(t, 9) // 8 fit
	b.loop = control.New(b.loop.Snapshot(), b.loop.Lease(), 0, control.Defaults())
	c := api.NewJobServiceClient(as(adminToken), serve(t, b))
	next := aJob(1)
	next.Key = "www-data/prod/next"
	if _, _, err := b.Do(t.Context(), control.CreateJob{Job: next}); err != nil {
		t.Fatal(err)
	}
	const why = "a leader has just begun, and first hears from the machines what they run, until "
	until := b.tick.Add(21*time.Second-1).Time().Format("15:04:05 UTC") + " at the latest"
	for key, want := range map[string]struct {
		n    int
		text string
	}{
		helloKey:                 {8, why + until},
		"dev/www-data/prod/next": {0, "it has had no task yet; the next task waits: " + why + until},
	} {
		r, err := c.GetJob(t.Context(), connect.NewRequest(&pb.GetJobRequest{Key: key}))
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.ExplainJob(t.Context(), connect.NewRequest(&pb.ExplainJobRequest{Key: key}))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Msg.GetTasks()[want.n].GetReason(); got != want.text {
			t.Errorf("%s: status says %q; want %q", key, got, want.text)
		}
		if got := x.Msg.GetInstances()[want.n].GetText(); got != want.text {
			t.Errorf("%s: explain says %q; want %q", key, got, want.text)
		}
	}
}

// TestWaits shows why a task waits, in its status and in full.
func TestWaits(t *testing.T) {
	b := withMachine(t, 9) // 8 fit
	c := api.NewJobServiceClient(as(adminToken), serve(t, b))
	r, err := c.GetJob(t.Context(), connect.NewRequest(&pb.GetJobRequest{Key: helloKey}))
	if err != nil {
		t.Fatal(err)
	}
	last := r.Msg.GetTasks()[8]
	if last.GetStatus() != "PENDING" || !strings.Contains(last.GetReason(), "cpu (need 0.5, nearest m1 has 0)") {
		t.Errorf("the one that waits says %s: %s", last.GetStatus(), last.GetReason())
	}
	x, err := c.ExplainJob(t.Context(), connect.NewRequest(&pb.ExplainJobRequest{Key: helloKey}))
	if err != nil {
		t.Fatal(err)
	}
	got := x.Msg.GetInstances()[8]
	if got.GetNearestMachine() != "m1" || len(got.GetMachines()) != 1 || got.GetVerdicts()[0].GetMachines() != 1 {
		t.Errorf("explained: %v", got)
	}
	if diff := cmp.Diff([]string{"insufficient cpu (needs 0.5, has 0)"}, got.GetNearestLacks()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if first := x.Msg.GetInstances()[0]; !strings.HasPrefix(first.GetText(), "ASSIGNED on m1") {
		t.Errorf("one that is placed: %v", first)
	}
}

func TestListJobs(t *testing.T) {
	b := newBackend(t)
	for _, k := range []job.Key{"ann/prod/a", "ann/test/b", "bob/prod/c", "bob/prod/d"} {
		j := aJob(1)
		j.Key = k
		if _, _, err := b.Do(t.Context(), control.CreateJob{Job: j}); err != nil {
			t.Fatal(err)
		}
	}
	c := api.NewJobServiceClient(as(adminToken), serve(t, b))
	for _, tt := range []struct {
		filter string
		want   string
	}{
		{"", "ann/prod/a ann/test/b | bob/prod/c bob/prod/d"},
		{"dev", "ann/prod/a ann/test/b | bob/prod/c bob/prod/d"},
		{"west", ""},
		{"dev/ann", "ann/prod/a ann/test/b"},
		{"*/*/prod", "ann/prod/a bob/prod/c | bob/prod/d"},
		{"dev/bob/prod/d", "bob/prod/d"},
	} {
		var pages []string
		page := ""
		for {
			r, err := c.ListJobs(t.Context(), connect.NewRequest(&pb.ListJobsRequest{Filter: tt.filter, Limit: 2, Page: page}))
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for _, j := range r.Msg.GetJobs() {
				keys = append(keys, strings.TrimPrefix(j.GetKey(), "dev/"))
			}
			pages = append(pages, strings.Join(keys, " "))
			if page = r.Msg.GetNextPage(); page == "" {
				break
			}
		}
		if got := strings.Join(pages, " | "); got != tt.want {
			t.Errorf("filter %q: %s; want %s", tt.filter, got, tt.want)
		}
	}
}

// TestWatch follows a job, resumes where it was, and is told when the past is
// gone.
func TestWatch(t *testing.T) {
	b := withMachine(t, 1)
	c := api.NewJobServiceClient(as(adminToken), serve(t, b))
	watch := func(after uint64, n int) (steps []string, seq uint64) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s, err := c.WatchJob(ctx, connect.NewRequest(&pb.WatchJobRequest{Key: helloKey, AfterSeq: after}))
		if err != nil {
			t.Fatal(err)
		}
		for len(steps) < n && s.Receive() {
			seq = s.Msg().GetSeq()
			if e := s.Msg().GetEvent(); e != nil {
				steps = append(steps, e.GetFrom()+" "+e.GetTo())
			} else {
				steps = append(steps, "now")
			}
		}
		return steps, seq
	}
	steps, seq := watch(0, 3)
	if diff := cmp.Diff([]string{"INIT PENDING", "PENDING ASSIGNED", "now"}, steps); diff != "" {
		t.Errorf("from the start (-want +got):\n%s", diff)
	}
	time.AfterFunc(20*time.Millisecond, func() { b.see(t, "www-data/prod/hello/0.1", task.Running, "") })
	steps, _ = watch(seq, 2)
	if diff := cmp.Diff([]string{"now", "ASSIGNED RUNNING"}, steps); diff != "" {
		t.Errorf("from %d (-want +got):\n%s", seq, diff)
	}
	_, err := b.store.Trim(t.Context(), state.TrimQuery{RecordsBefore: 1 << 62, UpTo: 1 << 62, Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []uint64{0, 1 << 40} {
		s, err := c.WatchJob(t.Context(), connect.NewRequest(&pb.WatchJobRequest{Key: helloKey, AfterSeq: after}))
		if err != nil {
			t.Fatal(err)
		}
		if s.Receive() || connect.CodeOf(s.Err()) != connect.CodeOutOfRange {
			t.Errorf("after %d: %v; want out of range", after, s.Err())
		}
	}
}

func TestListTaskEvents(t *testing.T) {
	b := withMachine(t, 2)
	c := api.NewTaskServiceClient(as(adminToken), serve(t, b))
	b.see(t, "www-data/prod/hello/0.1", task.Running, "")
	b.see(t, "www-data/prod/hello/1.1", task.Running, "")
	for i := range 1500 { // more than a page of what is none of its business
		m := aMachine("m2")
		m.Host = fmt.Sprint("host", i)
		if err := b.turn(func(t *control.Turn) error { return t.Hello(control.Hello{UID: "uid-1", Session: "x", Machine: m}) }); err != nil {
			t.Fatal(err)
		}
	}
	b.see(t, "www-data/prod/hello/0.1", task.Failed, "oh")
	list := func(instance, limit int32) (out []string, truncated bool) {
		r, err := c.ListTaskEvents(t.Context(), connect.NewRequest(&pb.ListTaskEventsRequest{Key: helloKey, Instance: instance, Limit: limit}))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Msg.GetEvents() {
			_, slot, _ := strings.Cut(e.GetTaskId(), "hello/")
			out = append(out, slot+" "+e.GetTo())
		}
		return out, r.Msg.GetTruncated()
	}
	want := []string{"0.1 PENDING", "0.1 ASSIGNED", "0.1 RUNNING", "0.1 FAILED", "0.2 PENDING", "0.2 ASSIGNED"}
	got, truncated := list(0, 0)
	if diff := cmp.Diff(want, got); diff != "" || truncated {
		t.Errorf("all of instance 0, truncated %v (-want +got):\n%s", truncated, diff)
	}
	got, truncated = list(0, 2)
	if diff := cmp.Diff(want[4:], got); diff != "" || !truncated {
		t.Errorf("two of instance 0, truncated %v (-want +got):\n%s", truncated, diff)
	}
	if got, _ = list(-1, 0); len(got) != 9 {
		t.Errorf("of all instances: %v; want 9", got)
	}
	if _, err := b.store.Trim(t.Context(), state.TrimQuery{RecordsBefore: 1 << 62, UpTo: b.View().Snapshot.Seq - 3, Limit: 100_000}); err != nil {
		t.Fatal(err)
	}
	got, truncated = list(0, 0)
	if diff := cmp.Diff(want[3:], got); diff != "" || !truncated {
		t.Errorf("after the start was forgotten, truncated %v (-want +got):\n%s", truncated, diff)
	}
}

func TestMoney(t *testing.T) {
	b := newBackend(t)
	m := func(s string) unit.Money {
		v, err := unit.ParseMoney(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	b.bill = ledger.Statement{
		Currency: "USD", Billed: m("0.3"),
		Hours: []ledger.HourCost{{From: start.FloorHour(), Capacity: m("1.5"), Billed: m("0.3"), Overhead: m("0.2"), Idle: m("0.9"), Down: m("0.1")}},
		Rows: []ledger.Row{
			{Role: "a", Job: "a/prod/x", Reserved: ledger.Amounts{unit.Int(1), unit.Int(1), unit.Int(2), unit.Int(3)}, Amount: m("0.1")},
			{Role: "b", Amount: m("0.2")},
		},
	}
	c := api.NewUsageServiceClient(as(adminToken), serve(t, b))
	r, err := c.GetBill(t.Context(), connect.NewRequest(&pb.GetBillRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	got := r.Msg
	if got.GetFrom() != "2031-05-01T00:00:00Z" || got.GetTo() != "2031-05-06T08:00:00Z" || got.GetTotal() != "0.3" || got.GetCurrency() != "USD" {
		t.Errorf("the bill is of %s to %s, %s %s", got.GetFrom(), got.GetTo(), got.GetTotal(), got.GetCurrency())
	}
	complete(t, got)
	complete(t, got.GetHours()[0])
	row := got.GetRows()[0]
	if row.GetOwner() != "a/prod/x" || got.GetRows()[1].GetOwner() != "b" || row.GetReserved().GetCpuCoreHours() != "0.000000000001" {
		t.Errorf("rows %v", got.GetRows())
	}
	for from, to := range map[string]string{
		"2031-05-01T00:30:00Z": "", "2031-05-02": "2031-05-01", "1999-01-01": "2031-05-01", "soon": "", "2031-05-01": "2031-05-01",
	} {
		_, err := c.GetUsage(t.Context(), connect.NewRequest(&pb.GetUsageRequest{From: from, To: to}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("from %s to %s: %v; want invalid", from, to, err)
		}
	}
}

// TestTokens makes a token, uses it, and makes it void.
func TestTokens(t *testing.T) {
	url := serve(t, newBackend(t))
	c := api.NewClusterServiceClient(as(adminToken), url)
	r, err := c.CreateToken(t.Context(), connect.NewRequest(&pb.CreateTokenRequest{Kind: "admin", Subject: "bob", TtlSeconds: 60}))
	if err != nil {
		t.Fatal(err)
	}
	bob := api.NewClusterServiceClient(as(r.Msg.GetToken()), url)
	who, err := bob.GetCluster(t.Context(), connect.NewRequest(&pb.GetClusterRequest{}))
	if err != nil || who.Msg.GetSubject() != "bob" {
		t.Fatalf("bob is %v, %v", who, err)
	}
	if _, err = bob.RevokeToken(t.Context(), connect.NewRequest(&pb.RevokeTokenRequest{Id: HashToken(r.Msg.GetToken())[:tokenID]})); err != nil {
		t.Fatal(err)
	}
	if _, err = bob.GetCluster(t.Context(), connect.NewRequest(&pb.GetClusterRequest{})); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("with a token that is void: %v; want unauthenticated", err)
	}
	all, err := c.ListTokens(t.Context(), connect.NewRequest(&pb.ListTokensRequest{}))
	if err != nil || len(all.Msg.GetTokens()) != 6 {
		t.Errorf("tokens %v, %v; want the six of the test", all, err)
	}
}

// TestPanic holds that a bug in one call is the error of that call.
func TestPanic(t *testing.T) {
	b := newBackend(t)
	b.evaluate = func(Bundle) (string, job.Job, error) { panic("secret words") }
	url := serve(t, b)
	c := api.NewJobServiceClient(as(adminToken), url)
	_, err := c.CreateJob(t.Context(), connect.NewRequest(&pb.CreateJobRequest{Key: helloKey, Main: "a", Files: map[string][]byte{"a": []byte("x")}}))
	if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "secret words") {
		t.Errorf("a panic became %v; want internal, without its words", err)
	}
	if _, err = c.ListJobs(t.Context(), connect.NewRequest(&pb.ListJobsRequest{})); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestProtect guards what is no part of the API.
func TestProtect(t *testing.T) {
	b := newBackend(t)
	h := Protect(b, Options{Now: func() time.Time { return start.Time() }}, "metrics.read", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("secret"))
	}))
	for token, want := range map[string]int{"": 401, "guess": 401, agentToken: 403, adminToken: 200} {
		w := &recorder{head: http.Header{}, status: 200}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		if h.ServeHTTP(w, req); w.status != want || (want == 200) != (w.body.String() == "secret") {
			t.Errorf("with %q: %d %s; want %d", token, w.status, w.body.String(), want)
		}
	}
}
