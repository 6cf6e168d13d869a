package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Without root covey does without isolation and says so; all else is as ever.
func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	t.Parallel()
	const nobody = 65534
	w := newWorld(t)
	for _, d := range []string{w.dir, filepath.Join(w.dir, "home")} {
		if err := os.Chown(d, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	w.url = "http://" + freeAddr(t)
	start := func() {
		t.Helper()
		cmd := exec.Command(binary, "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "http://"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		w.dev = w.launch("dev", cmd)
		w.ready(w.dev)
	}
	start()
	var show struct {
		Machine struct {
			Limits []string `json:"limits"`
		} `json:"machine"`
	}
	w.json(&show, "machine", "show", "m1")
	if len(show.Machine.Limits) == 0 || !strings.Contains(w.dev.log(), "cannot give a guarantee") {
		t.Errorf("got limits %q; want what is missing, also in the log", show.Machine.Limits)
	}
	key := w.create("stays", service(2))
	stays := []ident{w.process("stays", 0), w.process("stays", 1)}
	for _, part := range []string{"agent", "server"} {
		machine := map[string]string{"agent": "m1"}[part]
		p := w.child(part, machine)
		kill9(t, p)
		w.child(part, machine, p)
		w.answers(part)
		w.untouched("stays", stays)
	}
	kill9(t, stays[0])
	w.process("stays", 0, stays[0])
	// Its own children go with a task, also those that turn away from it.
	daemon := w.create("daemon", script("Service", `setsid bash -c "exec -a @-daemon-1 sleep 1000000" & exec -a @-daemon-0 sleep 1000000`, ""))
	child := w.process("daemon", 1)
	w.run("job", "killall", daemon, "--wait")
	if child.lives() {
		t.Errorf("process %v outlives its task", child)
	}
	w.fails("memory", script("Job", "a=x; while true; do a=$a$a; done", ""))
	w.fails("fails", script("Job", "exit 3", ""))
	money(w)
	if err := w.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := w.dev.wait(t, 30*time.Second); code != 0 {
		t.Errorf("after Ctrl-C: exit %d\n%s", code, w.dev.log())
	}
	for i := range stays {
		if left := marked(w.mark("stays", i)); len(left) > 0 {
			t.Errorf("after Ctrl-C: %v", left)
		}
	}
	start()
	w.process("stays", 0)
	w.run("job", "killall", key, "--wait")
}
