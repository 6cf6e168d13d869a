package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

// sees runs a command line and returns what it prints.
func (w *world) sees(cmdline string) string {
	w.t.Helper()
	s := w.spec("exec 2>&1\n" + cmdline + "\ntrue")
	id := w.start(s)
	if got := w.end(id); got.State != task.Finished {
		w.t.Fatalf("%q: got %v %q", cmdline, got.State, got.Reason)
	}
	c, err := w.r.LogChunk(id, "p0", 0, Stdout, 0, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(c.Data)
}

func TestPrivilegesGone(t *testing.T) {
	needRoot(t)
	t.Setenv("COVEY_SECRET", "canary")
	w := newWorld(t)
	got := map[string]string{}
	for line := range strings.Lines(w.sees("cat /proc/self/status")) {
		k, v, _ := strings.Cut(line, ":")
		got[k] = strings.TrimSpace(v)
	}
	l := loginFor("covey-role")
	uid := strconv.Itoa(int(l.UID))
	const none = "0000000000000000"
	want := map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2", "SigIgn": none,
		"Uid": strings.Join([]string{uid, uid, uid, uid}, "\t"), "Groups": uid,
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %q; want %q", k, got[k], v)
		}
	}
	if l.UID < madeBase || l.UID > 1<<31-1 {
		t.Errorf("uid %d is not of the range", l.UID)
	}
	env := strings.Split(strings.TrimSpace(w.sees("env -u _ -u SHLVL -u OLDPWD | sort")), "\n")
	if d := cmp.Diff(inside.Environment("covey-role", "/sandbox", "/bin/bash", ""), env); d != "" {
		t.Errorf("environment: -want +got\n%s", d)
	}
	if got := strings.Fields(w.sees("ls /proc/$$/fd")); !slices.Equal(got, []string{"0", "1", "2", "255"}) && !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("open files: %v; want 0 1 2 (and bash's own 255)", got)
	}
	if got := w.sees("ulimit -c; umask; whoami; pwd; echo $HOME; cat <&0"); got != "0\n0022\ncovey-role\n/sandbox\n/sandbox\n" {
		t.Errorf("got %q", got)
	}
}

// What a task may not do: each line must fail, or it says so.
func TestEscapes(t *testing.T) {
	needRoot(t)
	needPython(t)
	w := newWorld(t)
	secret := filepath.Join(w.cfg.Dir, "secret")
	if err := os.WriteFile(secret, []byte("canary"), 0o644); err != nil {
		t.Fatal(err)
	}
	other := w.start(w.spec("echo canary > mine; exec sleep 1000"))
	st := w.running(other)
	for _, try := range []string{
		"cat " + secret,
		"ls " + w.cfg.Dir,
		"ls " + w.r.liveDir(other),
		"cat /proc/1/root" + secret,
		"cat /proc/1/environ", "ls /proc/1/fd", "readlink /proc/1/exe", "cat /proc/1/mem",
		"kill -9 1 && sleep 0.2 && test ! -e /proc/1/comm",
		"kill -0 " + strconv.Itoa(st.Processes[0].Pid),
		"kill -0 " + strconv.Itoa(st.Supervisor),
		"touch /etc/x", "touch /usr/x", "touch /x", "touch /run/x", "touch /dev/x", "touch .logs/x", "rm -r .logs", "mv .logs x", "mkdir .logs/p0",
		"mount -t tmpfs x /tmp", "umount /proc", "unshare -U true", "unshare -m true", "nsenter -t 1 -m true", "chroot / true",
		"mknod x b 254 0", "cat /dev/vda", "test -e /dev/mem", "test -e /dev/kmsg", "test -e /sys/fs",
		"cat /proc/kcore | head -c 1 | grep -q .", "echo 1 > /proc/sys/kernel/core_pattern", "echo b > /proc/sysrq-trigger && ! test -c /proc/sysrq-trigger",
		"hostname changed", "cat /etc/shadow", "su -c true", "chown root mine", "dmesg",
		"test $(ls /proc | grep -c '^[0-9]') -gt 8",
		"ls /home/ /root/ /srv/ /var/lib",
		"python3 -c 'import ctypes; l=ctypes.CDLL(None); exit(l.ptrace(16,1,0,0))'",
		"python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
		"python3 -c 'import ctypes; l=ctypes.CDLL(None); exit(l.syscall(425,1,0))'", // io_uring_setup
		"python3 -c 'import os; os.setuid(0)'",
		"chmod u+s /usr/bin/id", "cp /usr/bin/id . && chmod 4755 id && ./id -u | grep -qx 0",
	} {
		if got := w.sees("if (" + try + ") >/dev/null 2>&1; then echo ESCAPED; fi"); got != "" {
			t.Errorf("%s: %s", try, got)
		}
	}
	if got := w.sees("ls /; ls /dev"); !strings.Contains(got, "sandbox") || !strings.Contains(got, "urandom") {
		t.Errorf("got %q; want a root with a sandbox and devices", got)
	}
	for _, at := range []string{"/", "/usr", "/etc", "/sandbox/.logs", "/proc/sys"} {
		if got := w.sees("grep ' " + at + " ' /proc/mounts"); !strings.Contains(got, " ro,nosuid") {
			t.Errorf("%s is mounted %q; want read-only", at, got)
		}
	}
	if got := w.sees("touch /tmp/a ./b /dev/shm/c /var/tmp/d && head -c1 /dev/zero | wc -c; echo x > /dev/null; python3 -c 'import pty; pty.openpty()'"); got != "1\n" {
		t.Errorf("what a task may do fails: %q", got)
	}
}

// A process that leaves its session is still gone at the end.
func TestDaemonGone(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec("(setsid nohup sh -c 'sleep 4711 & sleep 4711' >/dev/null 2>&1 &) ; sleep 0.2; exit 0"))
	w.wait(id, "forked", func(s Status) bool { return s.Ended || len(w.groupOf(id).procs()) >= 4 })
	pids := w.groupOf(id).procs()
	if got := w.end(id); got.State != task.Finished {
		t.Errorf("got %+v; want FINISHED", got)
	}
	for _, p := range pids {
		if b, _ := os.ReadFile("/proc/" + strconv.Itoa(p) + "/cmdline"); strings.Contains(string(b), "4711") {
			t.Errorf("process %d lives: %q", p, b)
		}
	}
}

func TestProfile(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("echo 'export FROM=profile' > .thermos_profile", "echo $FROM", "#!/bin/sh\necho script $FROM")
	s.Config.Task.Order = [][]string{{"p0", "p1", "p2"}}
	id := w.start(s)
	w.end(id)
	if got := w.output(id, "p1") + w.output(id, "p2"); got != "profile\nscript profile\n" {
		t.Errorf("got %q; want what .thermos_profile exports", got)
	}
}

func TestLogin(t *testing.T) {
	for _, role := range []string{"root", "daemon", "www-data", "no-such-account", "0", "nobody-knows"} {
		l := loginFor(role)
		if !l.Made || l.UID < madeBase || l.GID != l.UID || len(l.Groups) != 0 {
			t.Errorf("%s: got %+v; want a made one", role, l)
		}
	}
	if loginFor("a").UID == loginFor("b").UID {
		t.Error("two roles share a user")
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skip("SKIPPED in part: no ordinary account postgres here")
	}
	groups, _ := u.GroupIds()
	if l := loginFor("postgres"); l.Made || strconv.Itoa(int(l.UID)) != u.Uid || len(l.Groups) != len(groups) {
		t.Errorf("got %+v; want the account of uid %s", l, u.Uid)
	}
}

func TestRealAccount(t *testing.T) {
	needRoot(t)
	if _, ok := account("postgres"); !ok {
		t.Skip("SKIPPED: no ordinary account postgres here")
	}
	w := newWorld(t)
	s := w.spec("id -un; touch /sandbox/x && stat -c %U /sandbox/x")
	s.ID.Job = job.NewKey("postgres", "test", "x")
	id := w.start(s)
	w.end(id)
	if got := w.output(id, "p0"); got != "postgres\npostgres\n" {
		t.Errorf("got %q", got)
	}
}

// A directory that lies within what tasks see is covered.
func TestHidden(t *testing.T) {
	needRoot(t)
	dir := fmt.Sprintf("/opt/covey-test-%d", os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("SKIPPED: /opt cannot be written:", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) { c.Dir = dir + "/tasks"; c.Hide = []string{dir} })
	if err := os.WriteFile(dir+"/canary", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := w.sees("ls -A " + dir); got != "" {
		t.Errorf("got %q; want nothing", got)
	}
}

// reducedWorld is one without cgroups, namespaces and other users.
func TestReduced(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Reduced = true })
	if missing := w.r.Abilities(); len(missing) != 4 || !strings.Contains(missing[3], "setsid") {
		t.Errorf("got %q; want four guarantees missing, among them the end of processes in sessions of their own", missing)
	}
	id := w.start(w.spec("#!/bin/sh\npwd; echo $HOME; exit 3"))
	got := w.end(id)
	if got.ExitCode != 3 || !got.Known {
		t.Errorf("got %+v; want exit status 3", got)
	}
	sandbox := filepath.Join(w.r.liveDir(id), sandboxDir)
	if out := w.output(id, "p0"); out != sandbox+"\n"+sandbox+"\n" {
		t.Errorf("got %q; want to be in %s", out, sandbox)
	}
	// Daemons are found although no namespace holds them.
	id = w.start(w.spec("(setsid nohup sh -c 'touch up; exec sleep 4712' >/dev/null 2>&1 &); exec sleep 1000"))
	st := w.running(id)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(w.r.liveDir(id), sandboxDir, "up")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not come up")
		}
	}
	if err := w.r.Stop(t.Context(), id, "x"); err != nil {
		t.Fatal(err)
	}
	if got := w.end(id); got.State != task.Killed {
		t.Errorf("got %+v; want KILLED", got)
	}
	noProcess(t, "4712")
	if inside.Same(st.Processes[0].Pid, st.Processes[0].Start) {
		t.Error("its process lives")
	}
	// Memory is sampled, cpu counted. The shell must stay to hold what it read:
	// it would become its last command, and be rid of the memory between two samples.
	hog := w.spec("x=$(head -c 100m /dev/zero | tr '\\0' x); sleep 1000; :")
	hog.Config.Task.Resources.RAM = 50 << 20
	if got := w.end(w.start(hog)); got.State != task.Failed || !strings.HasPrefix(got.Reason, "memory limit 50 MiB exceeded (used ") || got.CPUNanos == 0 {
		t.Errorf("got %v %q cpu=%d; want FAILED over its memory", got.State, got.Reason, got.CPUNanos)
	}
	// The supervisor's death takes the process along, and the agent sweeps the rest.
	id = w.start(w.spec("sleep 4713 & exec sleep 1000"))
	st = w.running(id)
	w.wait(id, "saved", func(Status) bool {
		s, err := readStatus(w.r.liveDir(id), stateFile)
		return err == nil && len(s.Processes) > 0
	})
	inside.Kill(st.Supervisor)
	if got := w.end(id); got.Reason != "supervisor died" {
		t.Errorf("got %+v", got)
	}
	noProcess(t, "4713")
}

func noProcess(t *testing.T, arg string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		found := ""
		for _, p := range inside.Processes() {
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/cmdline")
			if !p.Zombie && strings.HasSuffix(string(b), "\x00"+arg+"\x00") {
				found = string(b)
			}
		}
		if found == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("process left: %q", found)
			return
		}
	}
}

// TestNotRoot runs the test of the reduced mode as somebody who has no choice.
func TestNotRoot(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // another user must pass
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "test")
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-test.run=^TestReduced$", "-test.v")
	cmd.Env = []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Links and pipes in a sandbox lead nobody out, also while they are swapped.
func TestFilesStayInside(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec(`ln -s /etc/passwd abs; ln -s ../../../../etc/passwd rel; ln -s / root; mkfifo fifo; mkdir d; echo hi > d/f; ln -s d/f good; ln -s loop loop
		echo ready; while :; do ln -sfn /etc swap; rm -f swap; mkdir -p swap; echo mine > swap/passwd; rm -rf swap; done`))
	w.running(id)
	w.wait(id, "ready", func(Status) bool {
		c, err := w.r.LogChunk(id, "p0", 0, Stdout, 0, 100)
		return err == nil && string(c.Data) == "ready\n"
	})
	for _, p := range []string{"abs", "rel", "root/etc/passwd", "fifo", "loop", "d", "../task.json", "/../../task.json", ".logs/../../task.json", "nope"} {
		if b, err := w.r.ReadFile(id, p, 0, 100); err == nil {
			t.Errorf("read %q through %s", b, p)
		}
		if _, err := w.r.ListFiles(id, p); err == nil && p != "d" {
			t.Errorf("listed %s", p)
		}
	}
	if b, err := w.r.ReadFile(id, "good", 0, 100); err != nil || string(b) != "hi\n" {
		t.Errorf("good link: %q, %v", b, err)
	}
	if b, err := w.r.ReadFile(id, "d/f", 1, 1); err != nil || string(b) != "i" {
		t.Errorf("part of a file: %q, %v", b, err)
	}
	fs, err := w.r.ListFiles(id, "/")
	if err != nil || !slices.ContainsFunc(fs, func(f File) bool { return f.Name == "fifo" }) {
		t.Errorf("list: %v, %v", fs, err)
	}
	for range 20_000 {
		if b, err := w.r.ReadFile(id, "swap/passwd", 0, 100); err == nil && len(b) > 0 && string(b) != "mine\n" {
			t.Fatalf("read %q through a link that was swapped in", b)
		}
	}
	if _, err := w.r.LogChunk(id, "../../x", 0, Stdout, 0, 1); err == nil {
		t.Error("a process with the name of a path has a log")
	}
}

// In reduced mode the logs' directory is the task's own: it may spoil its logs,
// nothing else.
func TestLogsThroughLinks(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Reduced = true })
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.spec("rm -rf .logs/p1; mkdir -p .logs/p1; ln -s "+filepath.Dir(victim)+" .logs/p1/1; mkdir -p .logs/p2/1; ln -s "+victim+" .logs/p2/1/stdout; mkdir -p .logs/p3/1; mkfifo .logs/p3/1/stdout",
		"echo bad", "echo bad", "echo bad")
	s.Config.Task.Order = [][]string{{"p0", "p1", "p2", "p3"}}
	id := w.start(s)
	if got := w.end(id); got.State != task.Finished {
		t.Errorf("got %+v; want FINISHED: logs hold nobody up", got)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "whole" {
		t.Errorf("victim: %q, %v", b, err)
	}
	if got, err := os.ReadDir(filepath.Dir(victim)); err != nil || len(got) != 1 {
		t.Errorf("files made outside: %v, %v", got, err)
	}
	for _, p := range []string{"p1", "p2", "p3"} {
		if c, err := w.r.LogChunk(id, p, 0, Stdout, 0, 100); len(c.Data) != 0 {
			t.Errorf("%s: read %q, %v", p, c.Data, err)
		}
	}
}

// The supervisor's and init's arguments do not tell what the task runs.
func TestArgumentsSayNothing(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	id := w.start(w.spec(": canary; exec sleep 1000"))
	st := w.running(id)
	for _, pid := range []int{st.Supervisor, st.Pid} {
		for _, f := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + f)
			if err != nil || strings.Contains(string(b), "canary") {
				t.Errorf("pid %d %s: %q, %v", pid, f, b, err)
			}
		}
	}
	if sid, err := unix.Getsid(st.Supervisor); err != nil || sid != st.Supervisor {
		t.Errorf("supervisor's session is %d, %v; want its own, %d", sid, err, st.Supervisor)
	}
}

// A task runs as its role, also when its config names another user.
func TestUserIsTheRole(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	s := w.spec("echo $USER; id -u")
	s.Config.Task.User = "nobody"
	id := w.start(s)
	w.end(id)
	if got, want := w.output(id, "p0"), fmt.Sprintf("covey-role\n%d\n", loginFor("covey-role").UID); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
