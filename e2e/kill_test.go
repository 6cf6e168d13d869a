package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each part is killed with SIGKILL, alone: what must not notice does not
// notice, and what died comes back.
func TestKill(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("stays", service(2))
	stays := []ident{w.process("stays", 0), w.process("stays", 1)}
	check := func(t *testing.T) {
		t.Helper()
		w.on(t).untouched("stays", stays)
	}

	t.Run("task", func(t *testing.T) {
		w := w.on(t)
		key := w.create("task", service(1))
		p := w.process("task", 0)
		kill9(t, p)
		w.process("task", 0, p)
		w.task(key, "RUNNING", 20*time.Second)
		if s := w.ended(key, "e2e/test/task/0.1"); s.To != "FAILED" || !strings.Contains(s.Reason, "signal 9") {
			t.Errorf("got %+v; want FAILED by signal 9", s)
		}
		check(t)
	})
	t.Run("supervisor", func(t *testing.T) {
		w := w.on(t)
		key := w.create("supervisor", service(1))
		p := w.process("supervisor", 0)
		kill9(t, w.supervisor("e2e/test/supervisor/0.1"))
		gone(t, p)
		w.process("supervisor", 0, p)
		if s := w.ended(key, "e2e/test/supervisor/0.1"); s.To != "FAILED" || !strings.Contains(s.Reason, "supervisor died") {
			t.Errorf("got %+v; want FAILED, supervisor died", s)
		}
		check(t)
	})
	t.Run("agent", func(t *testing.T) {
		w := w.on(t)
		a := w.child("agent", "m1")
		kill9(t, a)
		began := time.Now()
		w.child("agent", "m1", a)
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("the agent was started again after %v; want within a second", d)
		}
		w.answers("agent")
		check(t)
	})
	t.Run("server", func(t *testing.T) {
		w := w.on(t)
		s := w.child("server", "")
		kill9(t, s)
		w.child("server", "", s)
		w.answers("server")
		check(t)
	})
	t.Run("dev", func(t *testing.T) {
		w := w.on(t)
		s, a := w.child("server", ""), w.child("agent", "m1")
		if err := w.dev.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		gone(t, s)
		gone(t, a)
		w.startDev(1)
		w.answers("dev")
		check(t)
	})
}

// untouched checks that processes live that were there before, that nobody
// started others in their place, and that the cluster says so.
func (w *world) untouched(name string, ps []ident) {
	w.t.Helper()
	for i, p := range ps {
		if found := marked(w.mark(name, i)); len(found) != 1 || found[0] != p {
			w.t.Fatalf("instance %d of %s: got processes %v; want the same as before, %v", i, name, found, p)
		}
		id := fmt.Sprintf("e2e/test/%s/%d.1", name, i)
		if got, want := readString(filepath.Join(w.sandbox(id), "witness")), fmt.Sprintf("%d %d\n", i, p.start); got != want {
			w.t.Fatalf("%s wrote %q; want %q", id, got, want)
		}
	}
	eventually(w.t, 20*time.Second, "the cluster shows "+name+" as before", func() string {
		r := w.try("job", "status", w.key(name), "-o", "json")
		if r.code != 0 || strings.Count(r.out, `"RUNNING"`) != len(ps) || strings.Count(r.out, `.1"`) < len(ps) {
			return r.String()
		}
		return ""
	})
}

// answers creates a job and waits until it runs: every part works.
func (w *world) answers(name string) {
	w.t.Helper()
	eventually(w.t, 20*time.Second, "the server answers", func() string {
		if r := w.try("cluster", "show"); r.code != 0 {
			return r.String()
		}
		return ""
	})
	w.create("after-"+name, service(1))
}

// What ends while the agent is dead is told with its true end.
func TestEndsWhileAgentIsDead(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newApart(t)
	ends := map[string]struct{ end, state, reason string }{
		"well":   {"exit 0", "FINISHED", ""},
		"badly":  {"exit 7", "FAILED", "exit status 7"},
		"signal": {"kill -USR1 $$", "FAILED", "signal 10"},
		"killed": {"", "FAILED", "signal 9"},
		"memory": {"a=x; while true; do a=$a$a; done", "FAILED", "memory limit 48 MiB exceeded"},
	}
	for name, x := range ends {
		cmdline := fmt.Sprintf("while [ ! -e go ]; do sleep 0.05; done; echo $$ >> witness; %s", x.end)
		if name == "killed" {
			cmdline = "exec -a @-killed-0 sleep 100000"
		}
		w.create(name, script("Job", cmdline, ""))
	}
	w.create("stays", service(1))
	stays := []ident{w.process("stays", 0)}
	kill9(t, w.agentIdent())
	for name := range ends {
		id := "e2e/test/" + name + "/0.1"
		if name == "killed" {
			kill9(t, w.process("killed", 0))
		} else if err := os.WriteFile(filepath.Join(w.sandbox(id), "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name := range ends {
		file := filepath.Join(w.taskDir("e2e/test/"+name+"/0.1"), "exit.json")
		eventually(t, 20*time.Second, name+" ends without the agent", func() string {
			if s := readString(file); !strings.HasSuffix(strings.TrimRight(s, "\x00\n "), "}") {
				return fmt.Sprintf("%q", s)
			}
			return ""
		})
	}
	w.startAgent()
	for name, x := range ends {
		s := w.ended(w.key(name), "e2e/test/"+name+"/0.1")
		if s.To != x.state || !strings.Contains(s.Reason, x.reason) {
			t.Errorf("%s: got %+v; want %s, %s", name, s, x.state, x.reason)
		}
	}
	w.untouched("stays", stays)
}

// Task, supervisor, agent and server are killed in every order, at once.
func TestKillInEveryOrder(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("stays", service(2))
	stays := []ident{w.process("stays", 0), w.process("stays", 1)}
	for i, order := range orders([]string{"task", "supervisor", "agent", "server"}) {
		w.killAll(fmt.Sprintf("victim%d", i), order)
	}
	w.untouched("stays", stays)
}

// killAll starts a service, kills its parts in an order, and wants it back.
func (w *world) killAll(name string, order []string) {
	t := w.t
	t.Helper()
	key := w.create(name, service(1))
	task := w.process(name, 0)
	victims := map[string]ident{
		"task": task, "supervisor": w.supervisor("e2e/test/" + name + "/0.1"), "agent": w.child("agent", "m1"), "server": w.child("server", ""),
	}
	for _, part := range order {
		// The task dies with its supervisor, at any moment now.
		if p := victims[part]; p.lives() {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	gone(t, task)
	began := time.Now()
	w.process(name, 0, task)
	took := time.Since(began)
	eventually(t, 20*time.Second, fmt.Sprintf("%v: the cluster shows %s running again", order, name), func() string {
		r := w.try("job", "status", key, "-o", "json")
		if r.code != 0 || !strings.Contains(r.out, `"RUNNING"`) || !strings.Contains(r.out, name+`/0.2"`) {
			return r.String()
		}
		return ""
	})
	t.Logf("%v: runs again after %v", order, took.Round(time.Millisecond))
	if s := w.ended(key, "e2e/test/"+name+"/0.1"); s.To != "FAILED" {
		t.Errorf("%v: got %+v; want FAILED", order, s)
	}
	w.run("job", "killall", key, "--wait")
	if left := marked(w.mark(name, 0)); len(left) > 0 {
		t.Errorf("%v: after killall --wait %v lives", order, left)
	}
}

// orders returns every order of some words.
func orders(words []string) [][]string {
	if len(words) < 2 {
		return [][]string{words}
	}
	var out [][]string
	for i, first := range words {
		rest := append(append([]string(nil), words[:i]...), words[i+1:]...)
		for _, o := range orders(rest) {
			out = append(out, append([]string{first}, o...))
		}
	}
	return out
}
