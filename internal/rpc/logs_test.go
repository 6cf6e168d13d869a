package rpc

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/task"
)

// logs is an agent whose tasks wrote something.
type logs map[string]string

func (l logs) answer(_ context.Context, q Question) (LookAnswer, error) {
	var a LookAnswer
	switch q.What {
	case Logs:
		for name, s := range l {
			if rest, ok := strings.CutPrefix(name, q.Task.String()+" "); ok {
				a.Entries = append(a.Entries, LookEntry{Name: rest, Size: int64(len(s))})
			}
		}
	case Log:
		s := l[q.Task.String()+" "+q.Path]
		from := q.Offset
		if from < 0 {
			from = max(0, int64(len(s))+from)
		}
		piece := s[min(from, int64(len(s))):]
		piece = piece[:min(int64(len(piece)), q.Max)]
		a = LookAnswer{Data: []byte(piece), Offset: from, Next: from + int64(len(piece)), EOF: from+int64(len(piece)) == int64(len(s))}
	case List, Read:
		return a, fault.NotFound.Errorf("no such file")
	}
	return a, nil
}

func TestReadLog(t *testing.T) {
	b := withMachine(t, 2)
	sv := newServices(b, Options{})
	url := serveServices(t, sv)
	long := strings.Repeat("0123456789abcdef\n", maxPiece/8)
	l := logs{
		"www-data/prod/hello/0.1 p/0/stdout": "a\nb\nc\n", "www-data/prod/hello/0.1 p/0/stderr": "e\nhalf",
		"www-data/prod/hello/1.1 q/0/stdout": long,
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := dial(t, url, agentToken)
	a.hold(true) // there is no session that calls
	go func() { _ = a.Look(ctx, "m1", l.answer) }()
	waitFor(t, func() bool {
		sv.looks.mu.Lock()
		defer sv.looks.mu.Unlock()
		return sv.looks.peers["m1"] != nil
	})
	c := api.NewTaskServiceClient(as(adminToken), url)
	read := func(m *pb.ReadLogRequest) (string, error) {
		m.Key = helloKey
		s, err := c.ReadLog(t.Context(), connect.NewRequest(m))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for s.Receive() {
			out.Write(s.Msg().GetData())
		}
		return out.String(), s.Err()
	}
	for _, tt := range []struct {
		what string
		m    *pb.ReadLogRequest
		want string
	}{
		{"one instance", &pb.ReadLogRequest{}, "e\nhalfa\nb\nc\n"},
		{"one stream", &pb.ReadLogRequest{Stream: "stdout"}, "a\nb\nc\n"},
		{"the tail", &pb.ReadLogRequest{Stream: "stdout", Tail: 2}, "b\nc\n"},
		{"a long tail", &pb.ReadLogRequest{Stream: "stdout", Tail: 9}, "a\nb\nc\n"},
		{"all merged", &pb.ReadLogRequest{Instance: -1}, "e\nhalfa\nb\nc\n" + long},
		{"the tail of much", &pb.ReadLogRequest{Instance: 1, Tail: 1}, "0123456789abcdef\n"},
	} {
		got, err := read(tt.m)
		if err != nil || got != tt.want {
			t.Errorf("%s: %.60q (%d bytes), %v; want %.60q (%d bytes)", tt.what, got, len(got), err, tt.want, len(tt.want))
		}
	}
	if got, err := read(&pb.ReadLogRequest{Process: "q"}); got != "" || connect.CodeOf(err) != connect.CodeNotFound || !strings.Contains(err.Error(), "it has hello, p") {
		t.Errorf("no such process: got %q, %v; want an error that names those there are", got, err)
	}
	if _, err := read(&pb.ReadLogRequest{Instance: 7}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("an instance that is not: %v; want not found", err)
	}
	if _, err := read(&pb.ReadLogRequest{Previous: true}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("an attempt that is not: %v; want not found", err)
	}
	if _, err := c.ListFiles(t.Context(), connect.NewRequest(&pb.ListFilesRequest{Key: helloKey, Path: "x"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("a folder that is not: %v; want the agent's word", err)
	}
	b.see(t, "www-data/prod/hello/0.1", task.Failed, "x")
	if got, err := read(&pb.ReadLogRequest{Previous: true, Stream: "stdout"}); got != "a\nb\nc\n" || err != nil {
		t.Errorf("the attempt before: %q, %v", got, err)
	}
}

// TestFollow follows a log until its job is gone.
func TestFollow(t *testing.T) {
	b := withMachine(t, 1)
	sv := newServices(b, Options{})
	url := serveServices(t, sv)
	texts := make(chan string, 1)
	texts <- "one\n"
	answer := func(ctx context.Context, q Question) (LookAnswer, error) {
		s := <-texts
		texts <- s
		return logs{q.Task.String() + " p/0/stdout": s}.answer(ctx, q)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a := dial(t, url, agentToken)
	a.hold(true) // as above
	go func() { _ = a.Look(ctx, "m1", answer) }()
	c := api.NewTaskServiceClient(as(adminToken), url)
	s, err := c.ReadLog(ctx, connect.NewRequest(&pb.ReadLogRequest{Key: helloKey, Instance: -1, Follow: true}))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	steps := []func(){
		func() { <-texts; texts <- "one\ntw" },
		func() { <-texts; texts <- "one\ntwo\n" },
		func() {
			if _, _, err := b.Do(ctx, control.KillJob{Key: "www-data/prod/hello"}); err != nil {
				t.Error(err)
			}
			b.see(t, "www-data/prod/hello/0.1", task.Killed, "")
		},
	}
	for s.Receive() {
		got.Write(s.Msg().GetData())
		if len(s.Msg().GetData()) > 0 && len(steps) > 0 {
			steps[0]()
			steps = steps[1:]
		}
	}
	if s.Err() != nil || got.String() != "one\ntwo\n" {
		t.Errorf("followed %q, %v; want both lines once", got.String(), s.Err())
	}
}
