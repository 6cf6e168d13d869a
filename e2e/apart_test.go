package e2e

import (
	"path/filepath"
	"strings"
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
