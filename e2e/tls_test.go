package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTLS starts covey server with TLS and makes the commands of this world
// find and trust it.
func (w *world) startTLS() {
	w.t.Helper()
	ca := filepath.Join(w.data, "ca.pem")
	if w.url == "" {
		w.url = "https://" + freeAddr(w.t)
		w.env = append(w.env, "COVEY_SERVER="+w.url, "COVEY_CA="+ca)
	}
	p := w.start("server", "server", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "https://"), "--tls")
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
}

// logs waits until a process has written something to its log after from
// bytes of it.
func (w *world) logs(p *proc, from int, text string) {
	w.t.Helper()
	eventually(w.t, 40*time.Second, p.name+" says "+text, func() string {
		if log := p.log(); !strings.Contains(log[min(from, len(log)):], text) {
			return log
		}
		return ""
	})
}

// TestTLS runs a cluster whose parts speak TLS: from the join token, over a
// server that is killed, to a machine that is shut out while its task runs on.
func TestTLS(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	w.startTLS()
	other.startTLS()

	for file, want := range map[string]os.FileMode{"ca.key": 0o600, "ca.pem": 0o644} {
		info, err := os.Stat(filepath.Join(w.data, file))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v; want %v", file, got, want)
		}
	}
	addr := strings.TrimPrefix(w.url, "https://")
	for what, tt := range map[string]struct {
		env  []string
		says string
	}{
		"plain http":        {[]string{"COVEY_SERVER=http://" + addr}, "speaks TLS"},
		"no authority":      {[]string{"COVEY_CA="}, "--ca-file"},
		"another authority": {[]string{"COVEY_CA=" + filepath.Join(other.data, "ca.pem")}, "--ca-file"},
	} {
		if r := w.tryAs(tt.env, "machine", "list"); r.code != 7 || !strings.Contains(r.err, tt.says) {
			t.Errorf("%s: %v; want exit 7 and %q", what, r, tt.says)
		}
	}
	w.run("cluster", "add", w.cluster, w.url, "--ca-file", filepath.Join(w.data, "ca.pem"), "--token-file", filepath.Join(w.data, "token"))
	if r := w.tryAs([]string{"COVEY_SERVER=", "COVEY_CA=", "COVEY_TOKEN="}, "cluster", "show", w.cluster); r.code != 0 || !strings.Contains(r.out, w.cluster) {
		t.Errorf("by the cluster's name: %v", r)
	}

	// A token of this cluster is not shown to another one.
	token := w.token("--subject", "m1")
	stray := other.start("agent", other.agentArgs("m1", "stray", "--join-token-file", token)...)
	if code := stray.wait(t, 20*time.Second); code == 0 || !strings.Contains(stray.log(), "nothing was sent") {
		t.Fatalf("at another cluster: exit %d\n%s", code, stray.log())
	}
	w.join("m1", "agent", token)
	for _, file := range []string{"agent.json", "agent.pem", "ca.pem"} {
		info, err := os.Stat(filepath.Join(w.dir, "agent", file))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("the agent's %s has mode %v; want 0600", file, got)
		}
	}
	key := w.create("hello", service(1))
	task := w.process("hello", 0)
	if out := w.run("task", "ls", key+"/0"); !strings.Contains(out, "witness") {
		t.Errorf("the sandbox over TLS: %s; want the witness", out)
	}

	// The server dies; the next one is known by the same authority.
	from := len(w.agent.log())
	kill9(t, mustIdentify(t, w.server))
	<-w.server.done
	w.startTLS()
	w.logs(w.agent, from, "the leader let this machine in")

	// An agent without its certificate gets another by its credential.
	_ = w.agent.cmd.Process.Signal(syscall.SIGTERM)
	w.agent.wait(t, 20*time.Second)
	if err := os.Remove(filepath.Join(w.dir, "agent", "agent.pem")); err != nil {
		t.Fatal(err)
	}
	w.startAgent()
	w.logs(w.agent, 0, "certificate is renewed")

	// Revoked, the machine is shut out; its task runs on.
	var list struct {
		Tokens []struct{ ID, Kind, Subject string }
	}
	w.json(&list, "token", "list")
	for _, x := range list.Tokens {
		if x.Kind == "agent" && x.Subject == "m1" {
			w.run("token", "revoke", x.ID)
		}
	}
	w.logs(w.agent, 0, "was revoked")
	if !task.lives() {
		t.Error("the task of a machine that was shut out has ended")
	}

	// A damaged authority is not replaced.
	kill9(t, mustIdentify(t, w.server))
	<-w.server.done
	if err := os.WriteFile(filepath.Join(w.data, "ca.pem"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := w.start("server", "server", "--cluster", w.cluster, "--data-dir", w.data, "--listen", addr, "--tls")
	if code := p.wait(t, 20*time.Second); code == 0 || !strings.Contains(p.log(), "restore") {
		t.Errorf("with a damaged ca.pem: exit %d\n%s", code, p.log())
	}
}

func mustIdentify(t testing.TB, p *proc) ident {
	t.Helper()
	x, ok := identify(p.cmd.Process.Pid)
	if !ok {
		t.Fatalf("%s does not live", p.name)
	}
	return x
}
