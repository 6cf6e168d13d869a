package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ctrl-C stops the tasks and keeps the jobs.
func TestInterrupt(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 2)
	key := w.create("kept", service(2))
	before := []ident{w.process("kept", 0), w.process("kept", 1)}
	if err := w.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := w.dev.wait(t, 30*time.Second); code != 0 {
		t.Errorf("dev after Ctrl-C: exit %d; want 0\n%s", code, w.dev.log())
	}
	// No waiting: when dev has ended, so has everything.
	if left := processesOf(w.dir + "/"); len(left) > 0 {
		t.Errorf("after Ctrl-C there are %q", left)
	}
	for i, p := range before {
		if p.lives() {
			t.Errorf("task %d outlives Ctrl-C: %v", i, p)
		}
	}
	for _, dir := range cgroupsOf(w.uid()) {
		t.Errorf("after Ctrl-C there is %s", dir)
	}
	if r := w.try("job", "list"); r.code != 7 {
		t.Errorf("job list without dev: got %v; want exit 7", r)
	}
	w.startDev(2)
	for i, p := range before {
		w.process("kept", i, p)
	}
	eventually(t, 20*time.Second, "the job runs again", func() string {
		v := w.status(key)
		for _, x := range v.Tasks {
			if x.Status != "RUNNING" || strings.HasSuffix(x.ID, ".1") {
				return fmt.Sprint(v)
			}
		}
		return ""
	})
	for _, x := range w.status(key).Tasks {
		id := fmt.Sprintf("e2e/test/kept/%d.1", x.Instance)
		if s := w.ended(key, id); s.To != "LOST" && s.To != "KILLED" {
			t.Errorf("the attempt before Ctrl-C: got %+v; want one that counts as nobody's failure", s)
		}
	}
}

// SIGTERM, which a service manager sends, does what Ctrl-C does.
func TestTerminate(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("kept", service(1))
	p := w.process("kept", 0)
	if err := w.dev.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := w.dev.wait(t, 30*time.Second); code != 0 || p.lives() {
		t.Errorf("after SIGTERM: exit %d, task lives: %v; want 0 and no task\n%s", code, p.lives(), w.dev.log())
	}
}

// Ctrl-C while an agent is dead or has just been started again ends its tasks
// all the same.
func TestInterruptWhileAgentRestarts(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("kept", service(1))
	p := w.process("kept", 0)
	for _, ms := range []int{0, 20, 50, 60, 70, 80, 100} {
		kill9(t, w.child("agent", "m1"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		if err := w.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if code := w.dev.wait(t, 30*time.Second); code != 0 || p.lives() {
			t.Fatalf("Ctrl-C %v ms after the agent was killed: exit %d, task lives: %v; want 0 and no task\n%s", ms, code, p.lives(), w.dev.log())
		}
		w.startDev(1)
		p = w.process("kept", 0, p)
	}
}

// Ctrl-C while tasks are being started leaves none of them behind, and loses
// no job.
func TestInterruptWhileTasksStart(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 2)
	for round := range 4 {
		var names []string
		for i := range 3 {
			name := fmt.Sprintf("job%d-%d", round, i)
			names = append(names, name)
			w.run("job", "create", w.key(name), w.file(name, service(3)))
		}
		if err := w.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		code := w.dev.wait(t, 30*time.Second)
		if left := processesOf(w.dir + "/"); code != 0 || len(left) > 0 {
			t.Fatalf("after Ctrl-C: exit %d and %q; want 0 and nothing\n%s", code, left, w.dev.log())
		}
		if left := inCgroupsOf(w.uid()); len(left) > 0 {
			t.Fatalf("after Ctrl-C %v are left", left)
		}
		w.startDev(2)
		for _, name := range names {
			for i := range 3 {
				w.process(name, i)
			}
			w.run("job", "killall", w.key(name), "--wait")
		}
	}
}

// One directory is for one dev; two clusters live side by side.
func TestTwoDevs(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("one", service(1))
	p := w.process("one", 0)
	w.refused("another covey dev (pid "+itoa(w.dev.cmd.Process.Pid)+")", "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", freeAddr(t))
	w.refused("covey", "server", "--cluster", w.cluster, "--data-dir", w.data, "--listen", freeAddr(t))
	w.refused(strings.TrimPrefix(w.url, "http://"), "dev", "--cluster", w.cluster+"b", "--data-dir", w.dir+"/b", "--listen", strings.TrimPrefix(w.url, "http://"))
	w.refused("not on loopback", "dev", "--cluster", w.cluster+"b", "--data-dir", w.dir+"/b", "--listen", "0.0.0.0:0")
	w.refused("--listen", "dev", "--cluster", w.cluster+"b", "--data-dir", w.dir+"/b", "--listen", "nonsense")
	other := newDev(t, 1)
	other.create("one", service(1))
	q := other.process("one", 0)

	// They give out the same ports, and each finds those that the other left.
	ports := map[uint16]string{}
	for _, x := range []*world{w, other} {
		key := x.create("port", speaker("polite", 5, ""))
		port := x.task(key, "RUNNING", 20*time.Second).Ports["health"]
		if code, body := get(t, fmt.Sprintf("http://127.0.0.1:%d/health", port)); code != 200 || body != "ok" || ports[port] != "" {
			t.Errorf("%s has port %d, %s has it too: %d %q", x.cluster, port, ports[port], code, body)
		}
		ports[port] = x.cluster
	}

	// The first part of a key chooses the server; the same user runs both.
	both := newWorld(t)
	for _, x := range []*world{w, other} {
		both.run("cluster", "add", x.cluster, x.url, "--token-file", filepath.Join(x.data, "token"))
		if out := both.run("job", "status", x.key("one")); !strings.Contains(out, "RUNNING") {
			t.Errorf("job status %s: %s", x.key("one"), out)
		}
	}
	if r := both.tryAs([]string{"COVEY_SERVER=" + w.url, "COVEY_TOKEN=" + strings.TrimSpace(readString(w.data+"/token"))}, "job", "status", other.key("one")); r.code == 0 {
		t.Errorf("a key of %s asked of %s: got %v; want a refusal", other.cluster, w.cluster, r)
	}
	if err := other.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	other.dev.wait(t, 30*time.Second)
	gone(t, q)
	w.untouched("one", []ident{p})
}

// refused runs a part of the platform that must not start, and say why.
func (w *world) refused(why string, args ...string) {
	w.t.Helper()
	began := time.Now()
	r := w.try(args...)
	if r.code == 0 || !strings.Contains(r.err, why) {
		w.t.Errorf("covey %s: got %v; want an error with %q", strings.Join(args, " "), r, why)
	}
	if d := time.Since(began); d > 10*time.Second {
		w.t.Errorf("covey %s: refused after %v; want at once", strings.Join(args, " "), d)
	}
}

// A data directory that another user owns is refused with what to do.
func TestDataDirWithoutPermission(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	if err := os.Mkdir(w.data, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{w.data, w.data + "/below"} {
		cmd := exec.Command(binary, "dev", "--cluster", w.cluster, "--data-dir", dir, "--listen", freeAddr(t))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		p := w.launch("nobody", cmd)
		if code := p.wait(t, 20*time.Second); code == 0 || !strings.Contains(p.log(), dir) || !strings.Contains(p.log(), "permission denied") || !strings.Contains(p.log(), "--data-dir") {
			t.Errorf("as nobody, %s: exit %d, %q; want the directory, permission denied, and what to do", dir, code, p.log())
		}
	}
}

// On a full disk nothing new is accepted, nothing accepted is lost, what runs
// runs on, and with room it goes on by itself.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	if err := os.Mkdir(w.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.data, "tmpfs", 0, "size=128m"); err != nil {
		t.Skipf("needs a tmpfs of its own: %v", err)
	}
	t.Cleanup(func() { unmount(t, w) })
	w.startDev(1)
	w.create("before", service(1))
	p := w.process("before", 0)

	ballast := filepath.Join(w.data, "ballast")
	fill(t, ballast)
	refusals, accepted := 0, []string{}
	for i := range 60 {
		name := fmt.Sprintf("full%d", i)
		r := w.try("job", "create", w.key(name), w.file(name, script("Job", "sleep 1000", ", contact = '"+strings.Repeat("x", 3000)+"'")))
		if r.code == 0 {
			accepted = append(accepted, name)
			continue
		}
		refusals++
		if r.code != 10 || !strings.Contains(r.err, "full") && !strings.Contains(r.err, "space") && !strings.Contains(r.err, "room") {
			t.Errorf("job create on a full disk: got %v; want exit 10 and the reason", r)
		}
		if refusals == 3 {
			break
		}
	}
	if refusals == 0 {
		t.Fatalf("%d jobs were accepted on a full disk, and none refused", len(accepted))
	}
	t.Logf("accepted %d jobs before the first refusal", len(accepted))
	if got := marked(w.mark("before", 0)); len(got) != 1 || got[0] != p {
		t.Errorf("on a full disk: got %v; want the task as before, %v", got, p)
	}
	if out := w.run("job", "status", w.key("before")); !strings.Contains(out, "RUNNING") {
		t.Errorf("on a full disk reading goes on: got %s", out)
	}

	// A crash meanwhile makes it no worse. Starting is refused, with the reason.
	s := w.child("server", "")
	kill9(t, s)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.answers("full")
	for _, name := range accepted {
		if r := w.try("job", "status", w.key(name)); r.code != 0 {
			t.Errorf("job %s was accepted, and is lost: %v", name, r)
		}
	}
	w.untouched("before", []ident{p})
	if out := w.run("job", "list", "-o", "json"); strings.Count(out, `"key"`) != len(accepted)+2 {
		t.Errorf("got jobs %s; want %d that were accepted and 2 more", out, len(accepted))
	}
}

// fill writes a file until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
	}
	if err := f.Sync(); err != nil {
		t.Logf("sync: %v", err)
	}
}

func unmount(t *testing.T, w *world) {
	w.stopAll(syscall.SIGKILL, 10*time.Second)
	eventually(t, 20*time.Second, "the disk is let go", func() string {
		for _, p := range processes(func(_ int, args []string) bool { return strings.Contains(strings.Join(args, " "), w.dir+"/") }) {
			p.end()
		}
		for _, uid := range w.uids {
			for _, p := range inCgroupsOf(uid) {
				p.end()
			}
		}
		if err := syscall.Unmount(w.data, 0); err != nil && err != syscall.EINVAL {
			return err.Error()
		}
		return ""
	})
}

// A disk that is full from the beginning is told of at once.
func TestFullDiskAtStart(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	if err := os.Mkdir(w.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.data, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs a tmpfs of its own: %v", err)
	}
	t.Cleanup(func() { unmount(t, w) })
	fill(t, filepath.Join(w.data, "ballast"))
	p := w.start("dev", "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", freeAddr(t))
	if code := p.wait(t, 40*time.Second); code == 0 || !strings.Contains(p.log(), w.data) || !strings.Contains(p.log(), "no space left") {
		t.Errorf("exit %d, %q; want the directory and no space left", code, p.log())
	}
}

// Ctrl-C is an orderly end: how every task ended is durable before dev has
// ended, no other is started in its place, and the machines are down from then
// on: nobody pays for the time that dev is off.
func TestInterruptEndsTheBill(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 2)
	key := w.create("paid", service(2))
	w.process("paid", 0)
	if err := w.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := w.dev.wait(t, 30*time.Second); code != 0 {
		t.Fatalf("dev after Ctrl-C: exit %d; want 0\n%s", code, w.dev.log())
	}
	off := time.Now()
	if log := w.dev.log(); strings.Contains(log, "has not taken in") {
		t.Errorf("dev ended before the server knew everything:\n%s", log)
	}
	time.Sleep(3 * time.Second) // the time that nobody shall pay for
	w.env = append(w.env, "COVEY_SERVER="+w.url, "COVEY_TOKEN="+strings.TrimSpace(readString(filepath.Join(w.data, "token"))))
	w.startServer()
	if out := w.run("job", "status", key); strings.Contains(out, "RUNNING") {
		t.Errorf("before an agent has started: got %s; want nothing RUNNING", out)
	}
	if out := w.run("machine", "list"); strings.Count(out, "stopped") != 2 {
		t.Errorf("got machines %s; want two that were stopped", out)
	}
	for i := range 2 {
		s := w.ended(key, fmt.Sprintf("e2e/test/paid/%d.1", i))
		at, err := time.Parse(time.RFC3339Nano, s.At)
		if err != nil || s.To != "LOST" || at.After(off) {
			t.Errorf("instance %d: got %+v, %v; want LOST before dev had ended, at %v", i, s, err, off)
		}
	}
	if err := w.server.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := w.server.wait(t, 10*time.Second); code != 0 {
		t.Errorf("the server: exit %d", code)
	}
	w.startDev(2)
	eventually(t, 20*time.Second, "the job runs again", func() string {
		if v := w.status(key); len(v.Tasks) != 2 || v.Tasks[0].Status != "RUNNING" || v.Tasks[1].Status != "RUNNING" {
			return fmt.Sprint(v)
		}
		return ""
	})
}

// A second Ctrl-C kills tasks that take their time.
func TestInterruptTwice(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("slow", script("Service", "trap '' TERM; while :; do sleep 1; done", ""))
	w.task(w.key("slow"), "RUNNING", 20*time.Second)
	began := time.Now()
	for range 2 {
		if err := w.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "dev has heard it", func() string {
			if log := w.dev.log(); !strings.Contains(log, "Ctrl-C again") {
				return fmt.Sprintf("%q", log)
			}
			return ""
		})
	}
	if code := w.dev.wait(t, 20*time.Second); code != 0 {
		t.Errorf("exit %d after %v; want 0\n%s", code, time.Since(began), w.dev.log())
	}
	if left := inCgroupsOf(w.uid()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A terminal that is closed is a Ctrl-C, and whoever read the log may be gone
// before dev has said its last word: it ends in order all the same.
func TestHangUp(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	fifo := filepath.Join(w.dir, "log")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + freeAddr(t)
	w.dev = w.launch("dev", exec.Command("/bin/sh", "-c", `log=$1; shift; exec "$@" 2>"$log"`, "sh", fifo,
		binary, "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "http://")))
	reader, err := os.Open(fifo) // waits for dev
	if err != nil {
		t.Fatal(err)
	}
	w.ready(w.dev)
	w.create("kept", service(1))
	task := w.process("kept", 0)
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.dev.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if code := w.dev.wait(t, 60*time.Second); code != 0 || task.lives() {
		t.Errorf("got exit %d, and the task lives: %v; want 0 and that it does not", code, task.lives())
	}
	if left := processesOf(w.dir + "/"); len(left) > 0 {
		t.Errorf("there are %q", left)
	}
	for _, file := range []string{"cluster.db", "company.db"} {
		if info, err := os.Stat(filepath.Join(w.data, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want it for its owner alone", file, info.Mode(), err)
		}
	}
}
