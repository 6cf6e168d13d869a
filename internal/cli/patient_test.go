package cli

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/rpc"
)

// crowded answers the first calls as a server does that has too much to do.
type crowded struct {
	api.UnimplementedJobServiceHandler
	busy  int
	after string // seconds
	other error
	calls int
	keys  map[string]int
}

func (c *crowded) KillJob(_ context.Context, r *connect.Request[pb.KillJobRequest]) (*connect.Response[pb.KillJobResponse], error) {
	c.calls++
	c.keys[r.Msg.GetKey()]++
	switch {
	case c.calls > c.busy && c.other != nil:
		return nil, c.other
	case c.calls > c.busy:
		return connect.NewResponse(&pb.KillJobResponse{}), nil
	}
	err := connect.NewError(connect.CodeResourceExhausted, errors.New("too much to do"))
	err.Meta().Set("Retry-After", c.after)
	return nil, err
}

// TestPatient: a command comes again when the server says so, with the whole of
// its call, and not for longer than is of use; what is exhausted for another
// reason is told at once.
func TestPatient(t *testing.T) {
	full := connect.NewError(connect.CodeResourceExhausted, errors.New("the role would be over its quota"))
	for _, tt := range []struct {
		name  string
		busy  int
		other error
		most  time.Duration
		calls int
		want  connect.Code // 0: it went through
	}{
		{"at once", 0, nil, time.Minute, 1, 0},
		{"the third time", 2, nil, time.Minute, 3, 0},
		{"over its quota", 0, full, time.Minute, 1, connect.CodeResourceExhausted},
		{"over its quota, when it is heard", 2, full, time.Minute, 3, connect.CodeResourceExhausted},
		{"busy for ever", 1000, nil, 10 * time.Second, 6, connect.CodeResourceExhausted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &crowded{busy: tt.busy, after: "2", other: tt.other, keys: map[string]int{}}
			_, h := api.NewJobServiceHandler(c)
			ts := httptest.NewServer(h)
			defer ts.Close()
			p := patient{http.DefaultTransport, tt.most, func(_ context.Context, d time.Duration) error {
				if d < time.Second || d > 3*time.Second {
					t.Errorf("it waits for %v; want about 2 s", d)
				}
				return nil
			}}
			_, err := api.NewJobServiceClient(&http.Client{Transport: p}, ts.URL).KillJob(t.Context(), connect.NewRequest(&pb.KillJobRequest{Key: "dev/a/prod/b"}))
			if err == nil && tt.want != 0 || err != nil && connect.CodeOf(err) != tt.want {
				t.Errorf("%v; want %v", err, tt.want)
			}
			if c.calls != tt.calls || c.keys["dev/a/prod/b"] != tt.calls {
				t.Errorf("%d calls, %v; want %d, each with the job", c.calls, c.keys, tt.calls)
			}
			if rpc.RetryAfter(rpc.FromWire(err)) > 0 != (tt.want != 0 && tt.other == nil) {
				t.Errorf("%v says when to come again, or does not", err)
			}
		})
	}
}

// TestPatientEnds: who is interrupted does not wait.
func TestPatientEnds(t *testing.T) {
	c := &crowded{busy: 1000, after: "9", keys: map[string]int{}}
	_, h := api.NewJobServiceHandler(c)
	ts := httptest.NewServer(h)
	defer ts.Close()
	ctx, cancel := context.WithCancel(t.Context())
	p := patient{http.DefaultTransport, time.Hour, func(ctx context.Context, _ time.Duration) error {
		cancel()
		return pause(ctx, time.Hour)
	}}
	_, err := api.NewJobServiceClient(&http.Client{Transport: p}, ts.URL).KillJob(ctx, connect.NewRequest(&pb.KillJobRequest{}))
	if connect.CodeOf(err) != connect.CodeCanceled || c.calls != 1 {
		t.Errorf("%v after %d calls; want canceled after one", err, c.calls)
	}
}
