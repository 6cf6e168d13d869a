package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/store/storetest"
)

// A trio is a world of three servers on one PostgreSQL database, each reaching
// it through a proxy of its own, and one agent.
type trio struct {
	*world
	db      string
	urls    [3]string
	proxies [3]*storetest.Proxy
	servers []*proc
	flags   []string // of every server
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	w := stillTrio(t, "http://")
	w.serve(0) // which leads
	w.env = append(w.env, "COVEY_TOKEN="+strings.TrimSpace(readString(w.dataOf(0, "token"))))
	w.serve(1)
	w.serve(2)
	w.join("m1", "agent", w.token("--subject", "m1"))
	return w
}

// stillTrio makes a trio of which no server runs yet.
func stillTrio(t *testing.T, scheme string) *trio {
	t.Helper()
	pg := storetest.StartPostgres(t, "fsync=off")
	w := &trio{world: newWorld(t), db: pg.Database(t), servers: make([]*proc, 3)}
	for i := range w.urls {
		w.urls[i] = scheme + freeAddr(t)
		w.proxies[i] = storetest.StartProxy(t, pg.Port)
	}
	w.url = strings.Join(w.urls[:], ",")
	w.env = append(w.env, "COVEY_SERVER="+w.url)
	return w
}

// dataOf returns a file of a server's data directory.
func (w *trio) dataOf(i int, file string) string {
	return filepath.Join(w.dir, fmt.Sprint("data", i), file)
}

// serve starts a server and waits until it serves.
func (w *trio) serve(i int) {
	w.t.Helper()
	_, addr, _ := strings.Cut(w.urls[i], "://")
	w.servers[i] = w.serveAt(w.dataOf(i, ""), addr, w.proxies[i].URL(w.db))
}

// serveAt starts a server of the cluster and waits until it serves.
func (w *trio) serveAt(data, addr, db string) *proc {
	w.t.Helper()
	p := w.start("server", append([]string{"server", "--cluster", w.cluster, "--data-dir", data, "--listen", addr, "--cluster-store", db}, w.flags...)...)
	eventually(w.t, 20*time.Second, "the server serves", func() string {
		if !p.running() {
			w.t.Fatalf("the server ended: %v\n%s", p.cmd.ProcessState, p.log())
		}
		if !strings.Contains(p.log(), "msg=serving") {
			return "log " + p.log()
		}
		return ""
	})
	return p
}

// leader returns the number of the server that leads, by what the servers say.
func (w *trio) leader() int {
	w.t.Helper()
	found := -1
	eventually(w.t, 20*time.Second, "a leader", func() string {
		var c struct {
			Servers []struct {
				URL   string `json:"url"`
				Leads bool   `json:"leads"`
			} `json:"servers"`
		}
		w.json(&c, "cluster", "show")
		for _, s := range c.Servers {
			if s.Leads {
				found = slices.Index(w.urls[:], s.URL)
			}
		}
		if found < 0 {
			return fmt.Sprint(c)
		}
		return ""
	})
	return found
}

// placed creates a job and returns how long it took until it had a machine.
func (w *trio) placed(name string) time.Duration {
	w.t.Helper()
	began := time.Now()
	w.run("job", "create", w.key(name), w.file(name, service(1)))
	var took time.Duration
	eventually(w.t, 30*time.Second, "a machine for "+name, func() string {
		out := w.run("job", "status", w.key(name), "-o", "json")
		if took = time.Since(began); !strings.Contains(out, `"m1"`) {
			return out
		}
		return ""
	})
	w.process(name, 0)
	return took
}

// TestServers loses the leader in every way, one after the other: the next one
// places within five seconds, tasks keep their processes, and no act is lost or
// doubled.
func TestServers(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newTrio(t)
	w.create("stays", service(2))
	stays := []ident{w.process("stays", 0), w.process("stays", 1)}
	n := 0
	next := func(t *testing.T) string { n++; return fmt.Sprint("job", n) }
	takesOver := func(t *testing.T, w *trio, old int) {
		t.Helper()
		if d := w.placed(next(t)); d > 5*time.Second {
			t.Errorf("the next job was placed %v after the leader was lost; want 5 s", d)
		}
		if now := w.leader(); now == old {
			t.Errorf("server %d leads still", old)
		}
		w.untouched("stays", stays)
	}
	on := func(t *testing.T) *trio { c := *w; c.world = w.on(t); return &c }

	t.Run("everybody answers", func(t *testing.T) {
		w := on(t)
		old := w.leader()
		for i, u := range w.urls {
			job := next(t)
			r := w.tryAs([]string{"COVEY_SERVER=" + u}, "job", "create", w.cluster+"/e2e/test/"+job, w.file(job, service(1)))
			if r.code != 0 {
				t.Fatalf("through server %d: %v", i, r)
			}
			if r = w.tryAs([]string{"COVEY_SERVER=" + u}, "job", "list", "-o", "json"); r.code != 0 || !strings.Contains(r.out, "/"+job) {
				t.Errorf("server %d does not show what was created through it: %v", i, r)
			}
			if r = w.tryAs([]string{"COVEY_SERVER=" + u}, "job", "list", "--token-file", filepath.Join(w.dir, fmt.Sprint("data", i), "token")); r.code != 0 {
				t.Errorf("server %d does not let its own admin in: %v", i, r)
			}
		}
		if w.leader() != old {
			t.Errorf("another server leads, and nobody was lost")
		}
	})
	t.Run("kill -9", func(t *testing.T) {
		w := on(t)
		old := w.leader()
		logs := w.start("logs", "task", "logs", "-f", w.cluster+"/e2e/test/stays/0")
		_ = w.servers[old].cmd.Process.Kill()
		takesOver(t, w, old)
		w.serve(old)
		if !logs.running() || logs.log() != "" {
			t.Errorf("who followed a log was told: %s", logs.log())
		}
		_ = logs.cmd.Process.Kill()
	})
	t.Run("SIGTERM", func(t *testing.T) {
		w := on(t)
		old := w.leader()
		_ = w.servers[old].cmd.Process.Signal(syscall.SIGTERM)
		takesOver(t, w, old)
		w.serve(old)
	})
	t.Run("SIGSTOP", func(t *testing.T) {
		w := on(t)
		old := w.leader()
		pause(t, w.servers[old], 6*time.Second, func() { takesOver(t, w, old) })
		eventually(t, 10*time.Second, "the old leader follows", func() string {
			if log := w.servers[old].log(); !strings.Contains(log, "this server follows") {
				return "log " + log
			}
			return ""
		})
		w.placed(next(t))
		w.untouched("stays", stays)
	})
	t.Run("the database is cut off", func(t *testing.T) {
		w := on(t)
		old := w.leader()
		w.proxies[old].Cut()
		defer w.proxies[old].Heal()
		takesOver(t, w, old)
	})
	t.Run("the answer to a commit is lost", func(t *testing.T) {
		w := on(t)
		old := w.leader()
		w.proxies[old].SwallowCommit()
		defer func() {
			w.proxies[old].Cut()
			w.proxies[old].Heal()
		}()
		name := next(t)
		began := time.Now()
		// It happened, and nobody who asked the old leader can know.
		r := w.try("job", "create", w.key(name), w.file(name, service(1)))
		if r.code != 0 && (r.code != 9 || !strings.Contains(r.err, "look whether it happened")) {
			t.Errorf("create: %v; want exit 9, and to be told to look", r)
		}
		if d := time.Since(began); d > 12*time.Second {
			t.Errorf("the answer took %v; want 12 s at most", d)
		}
		w.process(name, 0)
		takesOver(t, w, old)
	})
	w.once()
}

// once sees that no instance has two tasks, and none had two attempts.
func (w *trio) once() {
	w.t.Helper()
	var jobs struct {
		Jobs []struct {
			Key string `json:"key"`
		} `json:"jobs"`
	}
	w.json(&jobs, "job", "list")
	for _, j := range jobs.Jobs {
		// A server that follows may be a moment behind the one that listed them.
		eventually(w.t, 30*time.Second, "the first attempts of "+j.Key+" run", func() string {
			r := w.try("job", "status", j.Key, "-o", "json")
			if r.code == 6 && !strings.Contains(w.run("job", "list", "-o", "json"), j.Key+`"`) {
				return "" // it was killed just before it was listed
			}
			var st view
			if r.code != 0 || json.Unmarshal([]byte(r.out), &st) != nil {
				return r.String()
			}
			for _, x := range st.Tasks {
				if !strings.HasSuffix(x.ID, ".1") || x.Status != "RUNNING" {
					return fmt.Sprintf("task %s %s", x.ID, x.Status)
				}
			}
			return ""
		})
	}
}

// pause stops a process for so long, at least as long as f takes.
func pause(t *testing.T, p *proc, d time.Duration, f func()) {
	t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		time.Sleep(time.Until(began.Add(d))) // the pause is the subject
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
	}()
	f()
}
