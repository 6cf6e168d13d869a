package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// The test binary is its own supervisor and init, as covey is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		env := Env{Args: os.Args[2:], Stderr: os.Stderr}
		switch os.Args[1] {
		case SuperviseArg:
			os.Exit(SuperviseMain(env))
		case nothingArg:
			os.Exit(0)
		case agentArg:
			os.Exit(agentMain(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

const patience = 3 * time.Minute // emulated machines are slow

var serial atomic.Int64

// world is one runtime under test.
type world struct {
	t   testing.TB
	cfg Config
	r   *Runtime
	n   int32
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root for cgroups and namespaces")
	}
}

func needPython(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("SKIPPED: needs python3 for system calls that no shell makes:", err)
	}
}

func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// As under a home directory that nobody else may enter.
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Dir: filepath.Join(closed, "data"), Self: self,
		CgroupRoot: fmt.Sprintf("/covey/test-%d/m%d", os.Getpid(), serial.Add(1)),
		Log:        slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	for _, c := range change {
		c(&cfg)
	}
	w := &world{t: t, cfg: cfg}
	w.open()
	t.Cleanup(w.close)
	return w
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("%s", b)
	return len(b), nil
}

func (w *world) open() {
	w.t.Helper()
	r, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.r = r
}

// close ends every task and checks that the kernel holds nothing of them.
func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, _ := w.r.List(ctx)
	for _, s := range all {
		if !s.Ended {
			if err := w.r.Kill(ctx, s.ID, "end of test"); err != nil {
				w.t.Error(err)
			}
		}
	}
	if got := w.r.groups.names(); len(got) != 0 {
		w.t.Errorf("cgroups left: %v", got)
	}
	w.r.Close()
	for deadline := time.Now().Add(patience); w.processesLeft() != "" && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // a supervisor that has told the end is about to go
	}
	if left := w.processesLeft(); left != "" {
		w.t.Errorf("process left: %s", left)
	}
	if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), w.cfg.Dir) {
		w.t.Errorf("mounts left:\n%s", b)
	}
	for _, d := range (group{m: w.r.groups.m, path: w.r.groups.root}).dirs() {
		if _, err := os.Lstat(d); err == nil {
			w.t.Errorf("cgroup left: %s", d)
		}
	}
}

func (w *world) processesLeft() string {
	for _, p := range inside.Processes() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid))
		if strings.Contains(string(b), w.cfg.Dir) {
			return fmt.Sprintf("%d %q", p.Pid, b)
		}
	}
	return ""
}

func (w *world) id() task.ID {
	w.n++
	return task.ID{Job: job.NewKey("covey-role", "test", "job"), Instance: w.n, Attempt: 1}
}

// spec runs each command line as a process p0, p1, ... at once.
func (w *world) spec(cmdlines ...string) Spec {
	s := Spec{ID: w.id(), ClusterUID: "u1", Hostname: "here", Config: job.Config{Task: job.Task{
		Name: "t", Resources: unit.Resources{CPU: 1000, RAM: 128 << 20, Disk: 64 << 20}, MaxFailures: 1, FinalizationWait: 2,
	}}}
	for i, c := range cmdlines {
		s.Config.Task.Processes = append(s.Config.Task.Processes, job.Process{Name: "p" + strconv.Itoa(i), Cmdline: c, MaxFailures: 1, MinDuration: 1})
	}
	return s
}

func (w *world) start(s Spec) task.ID {
	w.t.Helper()
	if err := w.r.Start(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	return s.ID
}

func (w *world) status(id task.ID) Status {
	w.t.Helper()
	all, err := w.r.List(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range all {
		if s.ID == id {
			return s
		}
	}
	w.t.Fatalf("task %v is not listed", id)
	return Status{}
}

// wait polls until ok says so.
func (w *world) wait(id task.ID, what string, ok func(Status) bool) Status {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s := w.status(id)
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(filepath.Join(w.cfg.Dir, saidFile))
			w.t.Fatalf("task %v is not %s after %v: %+v\nsupervisor says: %s", id, what, patience, s, b)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (w *world) end(id task.ID) Status {
	w.t.Helper()
	return w.wait(id, "ended", func(s Status) bool { return s.Ended })
}

func (w *world) running(id task.ID) Status {
	w.t.Helper()
	return w.wait(id, "running", func(s Status) bool { return s.State == task.Running && len(s.Processes) > 0 && s.Processes[0].Pid > 0 })
}

func (w *world) output(id task.ID, process string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.r.liveDir(id), sandboxDir, job.LogsDir, process, "1", Stdout))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func TestHello(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("echo hello from $USER in $PWD"))
	got := w.end(id)
	if got.State != task.Finished || got.ExitCode != 0 || !got.Known {
		t.Errorf("got %+v; want FINISHED with status 0", got)
	}
	if got, want := w.output(id, "p0"), "hello from covey-role in /sandbox\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// onlyRecords hides sockets and sandboxes, which a copy does not have.
type onlyRecords struct{ fs.FS }

func (f onlyRecords) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == socketFile || e.Name() == sandboxDir }), err
}

const (
	agentArg   = "__test-agent"
	nothingArg = "__test-nothing"
)

// otherAgent runs an agent in a process of its own, which starts tasks and
// then waits to be killed.
func (w *world) otherAgent(specs ...Spec) *exec.Cmd {
	w.t.Helper()
	b, err := json.Marshal(struct {
		Dir, Self, Root string
		Spare           bool
		Specs           []Spec
	}{w.cfg.Dir, w.cfg.Self, w.cfg.CgroupRoot, w.cfg.Spare, specs})
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(w.cfg.Self, agentArg, string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = cmd.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "started\n" {
		w.t.Fatalf("other agent: %q, %v", line, err)
	}
	return cmd
}

func agentMain(arg string) int {
	var in struct {
		Dir, Self, Root string
		Spare           bool
		Specs           []Spec
	}
	err := json.Unmarshal([]byte(arg), &in)
	if err != nil {
		return 1
	}
	r, err := New(Config{Dir: in.Dir, Self: in.Self, CgroupRoot: in.Root, Spare: in.Spare})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, s := range in.Specs {
		if err := r.Start(context.Background(), s); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	fmt.Println("started")
	select {}
}
