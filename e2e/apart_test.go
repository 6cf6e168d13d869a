package e2e

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newApart makes a world of a server and an agent that were started apart.
func newApart(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.startServer()
	w.join("m1", "agent", w.token("--subject", "m1"))
	return w
}

// startServer starts covey server, and makes the commands of this world find
// it.
func (w *world) startServer() *proc {
	w.t.Helper()
	if w.url == "" {
		w.url = "http://" + freeAddr(w.t)
		w.env = append(w.env, "COVEY_SERVER="+w.url)
	}
	p := w.start("server", "server", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "http://"))
	eventually(w.t, 20*time.Second, "the server answers", func() string {
		if !p.running() {
			w.t.Fatalf("the server ended: %v\n%s", p.cmd.ProcessState, p.log())
		}
		if r := w.try("cluster", "show", "--token-file", filepath.Join(w.data, "token")); r.code != 0 {
			return r.String()
		}
		return ""
	})
	if token := "COVEY_TOKEN=" + strings.TrimSpace(readString(filepath.Join(w.data, "token"))); w.env[len(w.env)-1] != token {
		w.env = append(w.env, token)
	}
	w.server = p
	return p
}

// token makes a join token and returns its file.
func (w *world) token(args ...string) string {
	w.t.Helper()
	return w.secret(strings.TrimSpace(w.run(append([]string{"token", "create", "--kind", "join"}, args...)...)))
}

// join starts an agent for the first time and waits until it is let in.
func (w *world) join(machine, dir, tokenFile string) {
	w.t.Helper()
	w.agent = w.start("agent", w.agentArgs(machine, dir, "--join-token-file", tokenFile)...)
	w.up(machine)
}

func (w *world) agentArgs(machine, dir string, more ...string) []string {
	return append([]string{
		"agent", "--server", w.url, "--data-dir", filepath.Join(w.dir, dir), "--machine", machine, "--hide", w.dir,
		"--cpu", "1.5", "--ram", "2GiB", "--disk", "2GiB", "--ports", "26000-26999",
	}, more...)
}

// startAgent starts the agent of machine m1 again.
func (w *world) startAgent() {
	w.t.Helper()
	w.agent = w.start("agent", w.agentArgs("m1", "agent")...)
	w.up("m1")
}

func (w *world) agentIdent() ident {
	w.t.Helper()
	p, ok := identify(w.agent.cmd.Process.Pid)
	if !ok {
		w.t.Fatal("the agent does not live")
	}
	return p
}

// up waits until a machine is up, by a session of its newest agent.
func (w *world) up(machine string) {
	w.t.Helper()
	p := w.agent
	eventually(w.t, 30*time.Second, "machine "+machine+" is let in", func() string {
		if !p.running() {
			w.t.Fatalf("the agent ended: %v\n%s", p.cmd.ProcessState, p.log())
		}
		if !strings.Contains(p.log(), "the leader let this machine in") {
			return "log " + p.log()
		}
		return ""
	})
	w.note()
}

// Who comes with a bad token is told so, and does not get in.
func TestJoin(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	w.startServer()
	short := w.token("--ttl", "1s")
	expired := time.Now().Add(1100 * time.Millisecond)

	good := w.token("--subject", "m1")
	w.join("m1", "agent", good)
	refuse := func(why string, tokenArgs ...string) {
		t.Helper()
		r := w.want(30, w.agentArgs("m2", "agent2", tokenArgs...)...)
		if !strings.Contains(r.err, why) {
			t.Errorf("got %v; want the reason, %q", r, why)
		}
	}
	refuse("covey token create --kind join")
	refuse("token", "--join-token-file", w.secret("covey-join-0000000000000000000000000000"))
	refuse("token", "--join-token-file", w.secret("nonsense"))
	refuse("used", "--join-token-file", good)
	refuse("m9", "--join-token-file", w.token("--subject", "m9"))
	admin := filepath.Join(w.data, "token")
	refuse("join", "--join-token-file", admin)
	eventually(t, 5*time.Second, "the token expires", func() string {
		if time.Now().Before(expired) {
			return "not yet"
		}
		return ""
	})
	refuse("expired", "--join-token-file", short)
	if out := w.run("machine", "list", "-o", "json"); strings.Contains(out, `"m2"`) {
		t.Errorf("machine m2 got in: %s", out)
	}
	// One token, one machine, once: of ten that come at the same time too.
	one := w.token()
	var racers []*proc
	for i := range 4 {
		racers = append(racers, w.start("racer", w.agentArgs("r"+itoa(i), "agent-r"+itoa(i), "--join-token-file", one)...))
	}
	eventually(t, 20*time.Second, "all but one are refused", func() string {
		n := 0
		for _, p := range racers {
			if !p.running() {
				n++
			}
		}
		if n != len(racers)-1 {
			return itoa(n)
		}
		return ""
	})
	for _, p := range racers {
		if !p.running() && p.wait(t, time.Second) != 30 {
			t.Errorf("exit %d: %s", p.wait(t, time.Second), p.log())
		}
	}
}

// A server and an agent that were started apart: each may be away, and the
// tasks do not notice.
func TestApart(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newApart(t)
	key := w.create("stays", service(1))
	stays := []ident{w.process("stays", 0)}
	second := w.start("second", w.agentArgs("m1", "agent")...)
	if code := second.wait(t, 10*time.Second); code != 10 || !strings.Contains(second.log(), "another agent uses") {
		t.Errorf("a second agent on one directory: exit %d, %s; want 10 and the reason", code, second.log())
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		if err := w.agent.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		w.agent.wait(t, 10*time.Second)
		w.startAgent()
		w.untouched("stays", stays)
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		if err := w.server.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		w.server.wait(t, 15*time.Second)
		if !stays[0].lives() {
			t.Fatal("the task ended with the server")
		}
		// A task that dies now is told of later.
		w.startServer()
		w.untouched("stays", stays)
	}
	w.answers("apart")
	// SIGUSR2 stops the tasks and the agent.
	if err := w.agent.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if code := w.agent.wait(t, 20*time.Second); code != 0 || stays[0].lives() {
		t.Errorf("after SIGUSR2: exit %d, task lives: %v; want 0 and no task", code, stays[0].lives())
	}
	w.startAgent()
	w.process("stays", 0, stays[0])
	w.task(key, "RUNNING", 20*time.Second)
}

// While the server is down everything runs on, and what died meanwhile is
// told of when it is back.
func TestServerAway(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newApart(t)
	w.create("stays", service(2))
	stays := []ident{w.process("stays", 0), w.process("stays", 1)}
	key := w.create("dies", service(1))
	dies := w.process("dies", 0)
	if err := w.server.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.server.wait(t, 10*time.Second)
	w.want(7, "job", "list")
	kill9(t, dies)
	if err := w.agent.cmd.Process.Kill(); err != nil { // and the agent dies, and comes back before the server
		t.Fatal(err)
	}
	w.agent.wait(t, 10*time.Second)
	w.agent = w.start("agent", w.agentArgs("m1", "agent")...)
	eventually(t, 10*time.Second, "the agent looks for the server", func() string {
		if s := w.agent.log(); !strings.Contains(s, "the tasks run on") {
			return s
		}
		return ""
	})
	w.startServer()
	w.up("m1")
	if s := w.ended(key, "e2e/test/dies/0.1"); s.To != "FAILED" || !strings.Contains(s.Reason, "signal 9") {
		t.Errorf("got %+v; want FAILED by signal 9", s)
	}
	w.process("dies", 0, dies)
	w.untouched("stays", stays)
}
