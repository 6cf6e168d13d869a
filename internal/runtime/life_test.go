package runtime

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

func TestExitStatus(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for _, c := range []struct {
		cmdline string
		want    Status
	}{
		{"exit 0", Status{Name: "FINISHED", Known: true}},
		{"exit 7", Status{Name: "FAILED", Known: true, ExitCode: 7}},
		{"kill -SEGV $$", Status{Name: "FAILED", Known: true, Signal: 11}},
		{"kill -9 $$", Status{Name: "FAILED", Known: true, Signal: 9}},
		{"exec /no/such/binary", Status{Name: "FAILED", Known: true, ExitCode: 127}},
		{"/etc/passwd", Status{Name: "FAILED", Known: true, ExitCode: 126}},
		{"#!/bin/sh\ntest \"$0\" != sh && exit 5", Status{Name: "FAILED", Known: true, ExitCode: 5}},
		{": " + strings.Repeat("x", 200_000) + "\nexit 3", Status{Name: "FAILED", Known: true, ExitCode: 3}},
	} {
		got := w.end(w.start(w.spec(c.cmdline)))
		if d := cmp.Diff(c.want, Status{Name: got.Name, Known: got.Known, ExitCode: got.ExitCode, Signal: got.Signal}, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%.40q: -want +got\n%s", c.cmdline, d)
		}
	}
}

// The order of a graph, retries and final processes are the life's; that they
// are carried out is ours.
func TestGraph(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("echo a >> order", "echo b >> order; exit 1", "echo c >> order")
	s.Config.Task.Order = [][]string{{"p0", "p1"}}
	s.Config.Task.Processes[1].MaxFailures = 2
	s.Config.Task.Processes[2].Final = true
	id := w.start(s)
	got := w.end(id)
	if got.State != task.Failed || got.Processes[1].Run != 2 || got.Processes[2].Run != 1 {
		t.Errorf("got %+v; want FAILED after two runs of p1 and one of p2", got)
	}
	b, err := w.r.ReadFile(id, "order", 0, 100)
	if err != nil || string(b) != "a\nb\nb\nc\n" {
		t.Errorf("got %q, %v; want a b b c", b, err)
	}
	if c, err := w.r.LogChunk(id, "p1", 1, Stdout, 0, 10); err != nil || !c.EOF {
		t.Errorf("got %+v, %v; want an empty log of the first run", c, err)
	}
}

func TestProcessKilledByHandComesBack(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("exec sleep 1000")
	s.Config.Task.Processes[0].MaxFailures = 2
	id := w.start(s)
	first := w.running(id).Processes[0]
	if !inside.Same(first.Pid, first.Start) {
		t.Fatalf("pid %d started at %d is not a process of this machine", first.Pid, first.Start)
	}
	inside.Kill(first.Pid)
	again := w.wait(id, "back", func(s Status) bool { return s.Processes[0].Run == 2 && s.Processes[0].Pid > 0 })
	if again.Processes[0].Pid == first.Pid || again.State != task.Running {
		t.Errorf("got %+v; want another pid", again)
	}
}

func TestStop(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	polite := w.start(w.spec("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"))
	deaf := w.start(w.spec("trap '' TERM; echo up; while :; do sleep 0.05; done"))
	for _, id := range []task.ID{polite, deaf} {
		w.running(id)
		w.wait(id, "up", func(Status) bool {
			c, err := w.r.LogChunk(id, "p0", 0, Stdout, 0, 100)
			return err == nil && string(c.Data) == "up\n"
		})
	}
	for range 2 {
		if err := w.r.Stop(t.Context(), polite, "by test"); err != nil {
			t.Fatal(err)
		}
		if err := w.r.Stop(t.Context(), deaf, "by test"); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.end(polite); got.State != task.Killed || got.Reason != "by test" || w.output(polite, "p0") != "up\nbye\n" {
		t.Errorf("got %+v, %q; want KILLED after bye", got, w.output(polite, "p0"))
	}
	got := w.end(deaf)
	if got.State != task.Killed || got.Processes[0].Signal != int(unix.SIGKILL) {
		t.Errorf("got %+v; want KILLED by SIGKILL", got)
	}
	if took := got.EndedAt.Sub(got.StartedAt); took < 2*time.Second {
		t.Errorf("took %v; want SIGKILL only after finalization_wait, 2 s", took)
	}
	if err := w.r.Stop(t.Context(), deaf, "again"); err != nil {
		t.Errorf("stop of an ended task: %v", err)
	}
	if err := w.r.Stop(t.Context(), w.id(), "x"); fault.Of(err) != fault.NotFound {
		t.Errorf("stop of an unknown task: %v; want not found", err)
	}
}

// A supervisor that does not answer is killed with its task.
func TestKillDeafSupervisor(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("exec sleep 1000"))
	st := w.running(id)
	if err := unix.Kill(st.Supervisor, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.r.Kill(ctx, id, "now"); err != nil {
		t.Fatal(err)
	}
	if got := w.status(id); got.State != task.Killed || got.Reason != "now" || got.Known {
		t.Errorf("got %+v; want KILLED because now", got)
	}
	if inside.Same(st.Processes[0].Pid, st.Processes[0].Start) {
		t.Error("its process lives")
	}
}

// When a stop was not obeyed, the end says that it was none in order.
func TestStopOverdue(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("exec sleep 1000"))
	st := w.running(id)
	if err := unix.Kill(st.Supervisor, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := w.r.Stop(t.Context(), id, "enough"); err != nil {
		t.Fatal(err)
	}
	w.r.overdue(w.r.tasks[id])
	if got, want := w.end(id), "enough; it did not end in order, and was killed with its supervisor"; got.State != task.Killed || got.Reason != want {
		t.Errorf("got %v %q; want KILLED, %q", got.State, got.Reason, want)
	}
}

func TestStopWhileStarting(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer slow.Close()
	s := w.spec("true")
	s.Config.Task.Artifacts = []job.Artifact{{URI: slow.URL + "/x", Digest: "sha256:" + strings.Repeat("0", 64)}}
	id := w.start(s)
	if got := w.status(id); got.State != task.Starting {
		t.Errorf("got %v; want STARTING", got.State)
	}
	if err := w.r.Stop(t.Context(), id, "changed my mind"); err != nil {
		t.Fatal(err)
	}
	if got := w.end(id); got.State != task.Killed || len(got.Processes) != 0 {
		t.Errorf("got %+v; want KILLED without a process", got)
	}
}

func TestWatch(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	ch := w.r.Watch(t.Context())
	id := w.start(w.spec("while [ ! -e go ]; do sleep 0.01; done"))
	var got []string
	for s := range ch {
		if len(got) == 0 || got[len(got)-1] != s.Name {
			got = append(got, s.Name)
		}
		if s.State == task.Running {
			if err := os.WriteFile(filepath.Join(w.r.liveDir(id), sandboxDir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if s.Ended {
			break
		}
	}
	if d := cmp.Diff([]string{"STARTING", "RUNNING", "FINISHED"}, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// python serves /health and notes what it is asked to do.
const python = `exec python3 -c '
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"OK" if os.path.exists("well") else b"sick")
    def do_POST(self):
        print("asked", self.path, flush=True); self.send_response(200); self.end_headers()
        if self.path == "/abortabortabort": os._exit(0)
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", {{thermos.ports[health]}}), H).serve_forever()'`

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestHTTPHealthAndLifecycle(t *testing.T) {
	port := freePort(t)
	static := strconv.Itoa(int(port))
	t.Run("named", func(t *testing.T) { healthAndLifecycle(t, "health", python, map[string]uint16{"health": port}) })
	t.Run("static", func(t *testing.T) {
		healthAndLifecycle(t, static, strings.ReplaceAll(python, "{{thermos.ports[health]}}", static), nil)
	})
}

func healthAndLifecycle(t *testing.T, asked, cmdline string, ports map[string]uint16) {
	t.Helper()
	needRoot(t)
	needPython(t)
	w := newWorld(t)
	s := w.spec(cmdline)
	s.Ports, s.Config.Task.Ports = ports, slices.Collect(maps.Keys(ports))
	s.Config.Health = &job.Health{
		HTTP:         &job.HTTPCheck{Port: asked, Endpoint: "/health", Response: "ok"},
		InitialMilli: 15_000, EveryMilli: 50, TimeoutMilli: 1000, MinSuccesses: 1, MaxFailures: 2,
	}
	s.Config.Lifecycle = &job.HTTPLifecycle{Port: asked, Graceful: "/quitquitquit", GracefulWaitS: 0, Shutdown: "/abortabortabort", ShutdownWaitS: 5}
	id := w.start(s)
	sick := w.wait(id, "started", func(s Status) bool { return len(s.Processes) > 0 && s.Processes[0].Live })
	if sick.State != task.Starting {
		t.Errorf("got %v before it was healthy; want STARTING", sick.State)
	}
	well := filepath.Join(w.r.liveDir(id), sandboxDir, "well")
	if err := os.WriteFile(well, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.running(id)
	if err := w.r.Stop(t.Context(), id, "done"); err != nil {
		t.Fatal(err)
	}
	if got := w.end(id); got.State != task.Killed {
		t.Errorf("got %+v; want KILLED", got)
	}
	if got, want := w.output(id, "p0"), "asked /quitquitquit\nasked /abortabortabort\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShellHealth(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("touch here; exec sleep 1000")
	s.Config.Health = &job.Health{
		Shell:        &job.ShellCheck{Command: "id -un; ls here /proc/1/comm >&2 && test ! -e sick"},
		InitialMilli: 500, EveryMilli: 50, TimeoutMilli: 5000, MinSuccesses: 1,
	}
	id := w.start(s)
	w.running(id)
	sandbox := filepath.Join(w.r.liveDir(id), sandboxDir)
	for _, f := range []string{snoozeFile, "sick"} {
		if err := os.WriteFile(filepath.Join(sandbox, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(sandbox, snoozeFile)); err != nil {
		t.Fatal(err)
	}
	got := w.end(id)
	if got.State != task.Failed || !strings.HasPrefix(got.Reason, `Health check failed: command exited with 1: "covey-role`) {
		t.Errorf("got %v %q; want FAILED by the check, run as the task's user", got.State, got.Reason)
	}
}

func TestHealthNeverAnswers(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("exec sleep 1000")
	s.Config.Health = &job.Health{
		Shell: &job.ShellCheck{Command: "sleep 1000"}, InitialMilli: 0, EveryMilli: 50, TimeoutMilli: 100, MinSuccesses: 1,
	}
	id := w.start(s)
	if got := w.end(id); got.State != task.Failed || got.Reason != "Health check failed: no answer within 100ms" {
		t.Errorf("got %v %q; want FAILED for want of an answer", got.State, got.Reason)
	}
}

func TestUsage(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("i=0; while [ ! -e go ]; do i=$((i+1)); done; times"))
	w.running(id)
	var last Counters
	for i := 0; i < 20 || last.CPUNanos < 300e6; i++ {
		c, err := w.r.Usage(id)
		if err != nil {
			t.Fatal(err)
		}
		if c.CPUNanos < last.CPUNanos || c.MaxRAM < last.MaxRAM {
			t.Fatalf("counters went back: %+v, then %+v", last, c)
		}
		last = c
		time.Sleep(5 * time.Millisecond)
	}
	if err := os.WriteFile(filepath.Join(w.r.liveDir(id), sandboxDir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	end := w.end(id)
	got, err := w.r.Usage(id)
	if err != nil || got.CPUNanos != end.CPUNanos || got.CPUNanos < last.CPUNanos {
		t.Errorf("got %+v, %v; want the final %d ns, at least %d", got, err, end.CPUNanos, last.CPUNanos)
	}
	// bash says what it saw of itself: minutes and seconds, user and system, own then children's.
	said := 0.0
	for f := range strings.FieldsSeq(w.output(id, "p0")) {
		m, s, _ := strings.Cut(strings.TrimSuffix(f, "s"), "m")
		mins, _ := strconv.ParseFloat(m, 64)
		secs, _ := strconv.ParseFloat(s, 64)
		said += mins*60 + secs
	}
	if counted := float64(got.CPUNanos) / 1e9; counted < said*0.98 || counted > said*1.02+0.05 {
		t.Errorf("counted %.3f s; the process itself says %.3f s", counted, said)
	}
}

func TestStartRefuses(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for name, change := range map[string]func(*Spec){
		"a path for a role":   func(s *Spec) { s.ID.Job = "../prod/x" },
		"attempt 0":           func(s *Spec) { s.ID.Attempt = 0 },
		"unknown port":        func(s *Spec) { s.Config.Task.Processes[0].Cmdline = "{{thermos.ports[nope]}}" },
		"no process":          func(s *Spec) { s.Config.Task.Processes = nil },
		"cycle":               func(s *Spec) { s.Config.Task.Order = [][]string{{"p0", "p0"}} },
		"artifact by ftp":     func(s *Spec) { s.Config.Task.Artifacts = []job.Artifact{{URI: "ftp://x/y"}} },
		"artifact undigested": func(s *Spec) { s.Config.Task.Artifacts = []job.Artifact{{URI: "http://x/y"}} },
		"artifact outside":    func(s *Spec) { s.Config.Task.Artifacts = []job.Artifact{{URI: "file:///x", Path: "../x"}} },
	} {
		s := w.spec("true")
		change(&s)
		if err := w.r.Start(t.Context(), s); fault.Of(err) != fault.Invalid {
			t.Errorf("%s: got %v; want invalid", name, err)
		}
	}
	if _, err := New(Config{Dir: "relative", Self: "/x", CgroupRoot: "/covey/x"}); fault.Of(err) != fault.Invalid {
		t.Errorf("a relative directory: %v; want invalid", err)
	}
	if all, err := w.r.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v; want nothing left", all, err)
	}
}

func TestSpawnFailureIsSaid(t *testing.T) {
	needRoot(t)
	w := newWorld(t, func(c *Config) { c.Self = "/no/such/binary" })
	if err := w.r.Start(t.Context(), w.spec("true")); fault.Of(err) != fault.Unavailable {
		t.Errorf("got %v; want unavailable", err)
	}
	if got, err := os.ReadDir(filepath.Join(w.cfg.Dir, liveDir)); err != nil || len(got) != 0 {
		t.Errorf("left %v, %v", got, err)
	}
}

func ExampleRuntime_Abilities() {
	r := &Runtime{able: ability{missing: []string{"memory limits: no cgroup hierarchy has the memory controller"}}}
	fmt.Println(r.Abilities())
	// Output: [memory limits: no cgroup hierarchy has the memory controller]
}
