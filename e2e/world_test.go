package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A world is one cluster of one test: a directory, a name, a home, and the
// processes that the test starts there.
type world struct {
	t testing.TB // the test, subtest or benchmark that looks at it
	*site
}

type site struct {
	dir     string // everything of it
	data    string // data directory of dev
	cluster string
	url     string // of its server
	env     []string
	program string // what start starts
	dev     *proc
	server  *proc // if it was started apart
	agent   *proc // likewise; the newest

	mu    sync.Mutex
	procs []*proc
	uids  []string
}

var (
	worlds  atomic.Int64
	uidsMu  sync.Mutex
	uidsAll []string
)

func allUIDs() []string {
	uidsMu.Lock()
	defer uidsMu.Unlock()
	return slices.Clone(uidsAll)
}

// newWorld makes a world in which nothing runs yet.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t, &site{cluster: fmt.Sprintf("w%d", worlds.Add(1)), program: binary}}
	w.dir = filepath.Join(base, w.cluster)
	w.data = filepath.Join(w.dir, "data")
	home := filepath.Join(w.dir, "home")
	for _, d := range []string{w.dir, home} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_STATE_HOME=" + home + "/state", "XDG_DATA_HOME=" + home + "/share", "USER=root"}
	t.Cleanup(w.end)
	return w
}

// newDev makes a world in which covey dev is ready.
func newDev(t testing.TB, agents int) *world {
	t.Helper()
	w := newWorld(t)
	w.startDev(agents)
	return w
}

// startDev starts covey dev, on the port that it had before if it had one, and
// waits until it is ready.
func (w *world) startDev(agents int) {
	w.t.Helper()
	if w.url == "" {
		w.url = "http://" + freeAddr(w.t)
	}
	w.dev = w.start("dev", "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "http://"), "--agents", fmt.Sprint(agents))
	w.ready(w.dev)
}

// ready waits until dev has said so.
func (w *world) ready(p *proc) {
	w.t.Helper()
	eventually(w.t, 20*time.Second, "covey dev is ready", func() string {
		if !p.running() {
			w.t.Fatalf("covey dev ended: %v\n%s", p.cmd.ProcessState, p.log())
		}
		if out := p.out(); !strings.Contains(out, "is ready at") {
			return fmt.Sprintf("%q", out)
		}
		return ""
	})
	w.note()
}

// note remembers which clusters this world has had, for the end.
func (w *world) note() {
	w.mu.Lock()
	defer w.mu.Unlock()
	files, _ := filepath.Glob(filepath.Join(w.dir, "*", "agents", "*", "agent.json"))
	more, _ := filepath.Glob(filepath.Join(w.dir, "*", "agent.json"))
	for _, f := range append(files, more...) {
		data, _ := os.ReadFile(f)
		var id struct {
			UID string `json:"cluster_uid"`
		}
		if json.Unmarshal(data, &id) != nil || id.UID == "" || slices.Contains(w.uids, id.UID) {
			continue
		}
		w.uids = append(w.uids, id.UID)
		uidsMu.Lock()
		uidsAll = append(uidsAll, id.UID)
		uidsMu.Unlock()
	}
}

// uid is the UID of the newest cluster of this world.
func (w *world) uid() string {
	w.t.Helper()
	w.note()
	if len(w.uids) == 0 {
		w.t.Fatal("no agent has joined yet")
	}
	return w.uids[len(w.uids)-1]
}

// end ends everything of this world, and says what covey did not end itself.
func (w *world) end() {
	w.note()
	if w.t.Failed() {
		w.complain()
	}
	w.stopAll(syscall.SIGKILL, 10*time.Second)
	for range 3 { // who starts others dies first
		for _, p := range processes(func(_ int, args []string) bool {
			return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, w.dir+"/") })
		}) {
			p.end()
		}
		for _, uid := range w.uids {
			for _, p := range inCgroupsOf(uid) {
				p.end()
			}
		}
	}
	left := func() (out []string) {
		for _, uid := range w.uids {
			for _, p := range inCgroupsOf(uid) {
				p.end()
				out = append(out, p.String())
			}
			for _, dir := range cgroupsOf(uid) {
				if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
					out = append(out, err.Error())
				}
			}
		}
		return append(out, processesOf(w.dir+"/")...)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(pollEvery) {
		rest := left()
		if len(rest) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.t.Errorf("left behind:\n%s", strings.Join(rest, "\n"))
			break
		}
	}
	for _, uid := range w.uids {
		_ = os.RemoveAll("/run/covey/" + uid)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		w.t.Errorf("the world's directory: %v", err)
	}
}

// complain shows what the processes had to say.
func (w *world) complain() {
	for _, p := range w.procs {
		log := strings.Split(strings.TrimSpace(p.log()), "\n")
		w.t.Logf("%s (pid %d):\n%s", p.name, p.cmd.Process.Pid, strings.Join(log[max(0, len(log)-25):], "\n"))
	}
}

// stopAll ends the processes that the test has started itself.
func (w *world) stopAll(sig syscall.Signal, within time.Duration) {
	for _, p := range slices.Backward(w.procs) {
		if p.running() {
			_ = p.cmd.Process.Signal(sig)
		}
	}
	for _, p := range w.procs {
		select {
		case <-p.done:
		case <-time.After(within):
			w.t.Errorf("%s (pid %d) did not end", p.name, p.cmd.Process.Pid)
		}
	}
}

// A proc is a process that the test has started.
type proc struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	dir  string        // of its output
}

func (p *proc) out() string { return readString(p.dir + ".out") }
func (p *proc) log() string { return readString(p.dir + ".err") }

func readString(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}

func (p *proc) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait returns the exit code.
func (p *proc) wait(t testing.TB, within time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("%s did not end within %v:\n%s", p.name, within, p.log())
		return 0
	}
}

// start starts covey with arguments, and does not wait for it.
func (w *world) start(name string, args ...string) *proc {
	w.t.Helper()
	return w.launch(name, exec.Command(w.program, args...))
}

func (w *world) launch(name string, cmd *exec.Cmd) *proc {
	w.t.Helper()
	w.mu.Lock()
	p := &proc{name: name, cmd: cmd, done: make(chan struct{}), dir: filepath.Join(w.dir, fmt.Sprintf("%s-%d", name, len(w.procs)))}
	w.procs = append(w.procs, p)
	w.mu.Unlock()
	out, err := os.Create(p.dir + ".out")
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	log, err := os.Create(p.dir + ".err")
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = w.env, w.dir, out, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // a Ctrl-C for the tests is not one for it
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p
}

// A result is what a command said.
type result struct {
	code     int
	out, err string
}

func (r result) String() string { return fmt.Sprintf("exit %d\n%s%s", r.code, r.out, r.err) }

const commandLimit = 60 * time.Second

// try runs a command to its end, whatever that is.
func (w *world) try(args ...string) result { return w.tryAs(nil, args...) }

func (w *world) tryAs(env []string, args ...string) result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, log bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(slices.Clone(w.env), env...), w.dir, &out, &log
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		w.t.Fatalf("covey %s: %v", strings.Join(args, " "), err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), log.String()}
}

// run runs a command that must succeed.
func (w *world) run(args ...string) string {
	w.t.Helper()
	return w.want(0, args...).out
}

// want runs a command that must end with an exit code.
func (w *world) want(code int, args ...string) result {
	w.t.Helper()
	r := w.try(args...)
	if r.code != code {
		w.t.Fatalf("covey %s: got %v; want exit %d", strings.Join(args, " "), r, code)
	}
	return r
}

// json runs a command that must succeed and reads what it prints.
func (w *world) json(into any, args ...string) {
	w.t.Helper()
	out := w.run(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		w.t.Fatalf("covey %s -o json: %v: %s", strings.Join(args, " "), err, out)
	}
}

// secret writes a file that only its owner may read.
func (w *world) secret(text string) string {
	w.t.Helper()
	f, err := os.CreateTemp(w.dir, "secret-*")
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text + "\n"); err != nil {
		w.t.Fatal(err)
	}
	return f.Name()
}

// free ports below those that the kernel gives to outgoing connections.
var nextPort atomic.Int64

func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := 20000 + (int64(os.Getpid())*37+nextPort.Add(1)*7)%6000
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port between 20000 and 26000")
	return ""
}

// on returns the same world for a subtest.
func (w *world) on(t *testing.T) *world { return &world{t, w.site} }
