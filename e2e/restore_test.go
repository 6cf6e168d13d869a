package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A data directory that is wiped while tasks run kills none of them, and a new
// cluster works beside them.
func TestWipedDataDirectory(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("orphan", service(2))
	orphans := []ident{w.process("orphan", 0), w.process("orphan", 1)}
	old := w.uid()
	w.crashDev()
	if err := os.RemoveAll(w.data); err != nil {
		t.Fatal(err)
	}
	w.startDev(1)
	if w.uid() == old {
		t.Fatalf("the new cluster has the UID of the old one, %s", old)
	}
	w.create("fresh", service(1))
	// The same job again, under the same ids: the old tasks are not its.
	w.run("job", "create", w.key("orphan"), w.file("orphan", service(2)))
	eventually(t, 20*time.Second, "the new cluster runs its own", func() string {
		for i := range orphans {
			if got := marked(w.mark("orphan", i)); len(got) != 2 {
				return fmt.Sprint(got)
			}
		}
		return ""
	})
	w.run("job", "killall", w.key("orphan"), "--wait")
	for i, p := range orphans {
		if got := marked(w.mark("orphan", i)); len(got) != 1 || got[0] != p {
			t.Errorf("instance %d: got %v; want the old cluster's task alone, %v", i, got, p)
		}
	}
}

// crashDev kills dev and everything that it started, but no task.
func (w *world) crashDev() {
	w.t.Helper()
	parts := processes(func(pid int, args []string) bool {
		return len(args) > 1 && (args[1] == "server" || args[1] == "agent") && parentOf(pid) == w.dev.cmd.Process.Pid
	})
	if err := w.dev.cmd.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	for _, p := range parts {
		p.end()
	}
	for _, p := range parts {
		gone(w.t, p)
	}
	<-w.dev.done
	addr := strings.TrimPrefix(w.url, "http://")
	eventually(w.t, 30*time.Second, "the port is free", func() string { // a thread of a dead process may hold it for a moment
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err.Error()
		}
		l.Close()
		return ""
	})
}

// An old copy of the database: running tasks are adopted or held, never
// killed, until an operator ends the recovery.
func TestOldCopyOfDatabase(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("same", service(2))
	same := []ident{w.process("same", 0), w.process("same", 1)}
	w.create("replaced", service(1))
	copyDir := filepath.Join(w.dir, "copy")
	w.crashDev()
	w.stores(w.data, copyDir)
	w.startDev(1)

	// What the copy does not know: a task that was replaced, one that was
	// killed, and a job.
	first := w.process("replaced", 0)
	kill9(t, first)
	second := w.process("replaced", 0, first)
	w.task(w.key("replaced"), "RUNNING", 20*time.Second)
	w.create("unknown", service(1))
	unknown := w.process("unknown", 0)

	w.crashDev()
	w.stores(copyDir, w.data)
	w.startDev(1)
	w.recovers()
	w.untouched("same", same)
	eventually(t, 20*time.Second, "the replaced task is adopted", func() string {
		if v := w.status(w.key("replaced")); len(v.Tasks) != 1 || v.Tasks[0].ID != "e2e/test/replaced/0.2" || v.Tasks[0].Status != "RUNNING" {
			return fmt.Sprint(v)
		}
		return ""
	})
	if got := marked(w.mark("replaced", 0)); !slices.Equal(got, []ident{second}) {
		t.Errorf("replaced: got %v; want %v", got, second)
	}
	if got := marked(w.mark("unknown", 0)); !slices.Equal(got, []ident{unknown}) {
		t.Errorf("unknown: got %v; want %v, held", got, unknown)
	}
	w.run("cluster", "recover")
	gone(t, unknown)
	w.untouched("same", same)
	var c clusterView
	w.json(&c, "cluster", "show")
	if c.Recovery || len(c.Held) > 0 {
		t.Errorf("after cluster recover: got %+v", c)
	}
	// What comes now has a number that was never used.
	kill9(t, second)
	w.process("replaced", 0, second)
	eventually(t, 20*time.Second, "another attempt", func() string {
		if v := w.status(w.key("replaced")); len(v.Tasks) != 1 || v.Tasks[0].Status != "RUNNING" || len(v.Tasks[0].ID) < len("e2e/test/replaced/0.1000000") {
			return fmt.Sprint(v)
		}
		return ""
	})
}

type clusterView struct {
	UID      string `json:"uid"`
	Recovery bool   `json:"recovery"`
	Held     []struct {
		ID string `json:"id"`
	} `json:"held"`
}

// recovers waits until the cluster is in recovery and holds one task.
func (w *world) recovers() {
	w.t.Helper()
	eventually(w.t, 20*time.Second, "the cluster recovers", func() string {
		r := w.try("cluster", "show")
		if !strings.Contains(r.out, "recovery") || !strings.Contains(r.out, "e2e/test/unknown/0.1") {
			return r.String()
		}
		return ""
	})
	if log := w.dev.log(); !strings.Contains(log, "the cluster is in recovery") {
		w.t.Errorf("dev says %s; want it to say that the cluster is in recovery", log)
	}
}

// stores copies the databases of a server that does not run.
func (w *world) stores(from, to string) {
	w.t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		w.t.Fatal(err)
	}
	for _, db := range []string{"cluster.db", "company.db"} {
		for _, part := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(filepath.Join(to, db+part)); err != nil && !os.IsNotExist(err) {
				w.t.Fatal(err)
			}
		}
		for _, part := range []string{"", "-wal"} {
			if _, err := os.Stat(filepath.Join(from, db+part)); err == nil {
				if out, err := exec.Command("cp", "-a", filepath.Join(from, db+part), to).CombinedOutput(); err != nil {
					w.t.Fatalf("%v: %s", err, out)
				}
			}
		}
	}
}

// An agent that is pointed at another cluster is refused, and its tasks run
// on.
func TestAgentOfAnotherCluster(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newApart(t)
	w.create("stays", service(1))
	p := w.process("stays", 0)
	other := newWorld(t)
	other.startServer()

	w.agent.cmd.Process.Signal(syscall.SIGTERM)
	w.agent.wait(t, 10*time.Second)
	args := w.agentArgs("m1", "agent")
	args[2] = other.url
	lost := w.start("lost", args...)
	eventually(t, 20*time.Second, "the agent is refused, with the reason", func() string {
		if s := lost.log(); !strings.Contains(s, "no session with the server; the tasks run on") {
			return s
		}
		return ""
	})
	if got := marked(w.mark("stays", 0)); !slices.Equal(got, []ident{p}) {
		t.Fatalf("got %v; want %v as before", got, p)
	}
	if out := other.run("machine", "list", "-o", "json"); strings.Contains(out, `"m1"`) {
		t.Errorf("the other cluster has taken the machine in: %s", out)
	}
	_ = lost.cmd.Process.Kill()
	lost.wait(t, 10*time.Second)
	w.startAgent()
	w.untouched("stays", []ident{p})
}
