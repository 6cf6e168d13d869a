package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newTrioTLS makes three servers that speak TLS, by one authority: the first one
// makes it, and the others are given a copy.
func newTrioTLS(t *testing.T) *trio {
	t.Helper()
	w := stillTrio(t, "https://")
	w.flags = []string{"--tls"}
	w.serve(0) // which leads
	w.env = append(w.env, "COVEY_CA="+w.dataOf(0, "ca.pem"), "COVEY_TOKEN="+strings.TrimSpace(readString(w.dataOf(0, "token"))))
	for i := 1; i < len(w.urls); i++ {
		if err := os.MkdirAll(w.dataOf(i, ""), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"ca.pem", "ca.key"} {
			if err := os.WriteFile(w.dataOf(i, file), []byte(readString(w.dataOf(0, file))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.serve(i)
	}
	w.join("m1", "agent", w.token("--subject", "m1"))
	return w
}

// TestServersTLS has three servers speak TLS to their clients, to the agent and
// to each other: what a follower hands on to the leader arrives, whoever leads.
func TestServersTLS(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newTrioTLS(t)
	w.create("stays", service(1))
	stays := []ident{w.process("stays", 0)}

	w.throughEach("first")
	logs := w.start("logs", "task", "logs", "-f", w.cluster+"/e2e/test/stays/0")

	// The leader is lost: another one leads, knows the agent's certificate, and
	// the one that returns hands on to it.
	old := w.leader()
	from := len(w.agent.log())
	_ = w.servers[old].cmd.Process.Kill()
	<-w.servers[old].done
	w.placed("second")
	if now := w.leader(); now == old {
		t.Errorf("server %d leads still", old)
	}
	w.logs(w.agent, from, "the leader let this machine in")
	w.serve(old)
	w.throughEach("third")
	w.untouched("stays", stays)
	if !logs.running() || logs.log() != "" {
		t.Errorf("who followed a log was told: %s", logs.log())
	}
	_ = logs.cmd.Process.Kill()

	w.strangers()
	w.throughEach("last")
	w.once()
}

// throughEach creates a job through each server alone, and sees that this one
// shows it, and that its own admin is let in.
func (w *trio) throughEach(name string) {
	w.t.Helper()
	for i, u := range w.urls {
		alone, job := []string{"COVEY_SERVER=" + u}, fmt.Sprint(name, i)
		if r := w.tryAs(alone, "job", "create", w.key(job), w.file(job, service(1))); r.code != 0 {
			w.t.Fatalf("through server %d: %v\n%s", i, r, w.servers[i].log())
		}
		if r := w.tryAs(alone, "job", "list", "-o", "json"); r.code != 0 || !strings.Contains(r.out, "/"+job+`"`) {
			w.t.Errorf("server %d does not show what was created through it: %v", i, r)
		}
		if r := w.tryAs(append(alone, "COVEY_TOKEN="), "job", "kill", w.key(job), "--token-file", w.dataOf(i, "token")); r.code != 0 {
			w.t.Errorf("server %d does not hand on what its own admin asks: %v", i, r)
		}
	}
}

// strangers sees what becomes of a server by another authority, and of clients
// that do not know this one.
func (w *trio) strangers() {
	w.t.Helper()
	addr := freeAddr(w.t)
	data := filepath.Join(w.dir, "stranger")
	p := w.serveAt(data, addr, w.db)
	alone := []string{"COVEY_SERVER=https://" + addr, "COVEY_CA=" + filepath.Join(data, "ca.pem")}
	if r := w.tryAs(alone, "job", "list"); r.code != 0 {
		w.t.Errorf("what a server by another authority answers itself: %v", r)
	}
	began := time.Now()
	r := w.tryAs(alone, "job", "create", w.key("stranger"), w.file("stranger", service(1)))
	if r.code == 0 || !strings.Contains(r.err, "ca.pem and ca.key") {
		w.t.Errorf("what it hands on: %v; want to be told which files to copy", r)
	}
	if d := time.Since(began); d > time.Minute {
		w.t.Errorf("that took %v", d)
	}
	if r = w.try("job", "status", w.key("stranger")); r.code != 6 {
		w.t.Errorf("the job that was not handed on: %v; want none", r)
	}
	kill9(w.t, mustIdentify(w.t, p))
	<-p.done
	if r = w.tryAs([]string{"COVEY_CA=" + filepath.Join(data, "ca.pem")}, "job", "list"); r.code != 7 || !strings.Contains(r.err, "--ca-file") {
		w.t.Errorf("a client that knows another authority: %v; want exit 7 and --ca-file", r)
	}
	var c struct {
		Servers []struct{ URL string }
	}
	if err := json.Unmarshal([]byte(w.run("cluster", "show", "-o", "json")), &c); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range c.Servers {
		if !strings.HasPrefix(s.URL, "https://") {
			w.t.Errorf("a server is named %s; want https://", s.URL)
		}
	}
}
