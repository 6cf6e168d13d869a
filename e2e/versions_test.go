package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nextProgram is covey with every format one version ahead.
var nextProgram = sync.OnceValues(func() (string, error) {
	program := filepath.Join(base, "covey-next")
	return program, build(program, "-tags", "nextformat")
})

func needNext(t *testing.T) string {
	t.Helper()
	next, err := nextProgram()
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// TestVersions changes the server and the agent to the next version and back,
// in every order, while tasks start and end: every task keeps its process,
// whichever version its supervisor is of, and none of its use is lost or
// counted twice.
func TestVersions(t *testing.T) {
	needRoot(t)
	t.Parallel()
	programs := []string{binary, needNext(t)}
	w := newApart(t)
	type kept struct {
		name string
		ps   []ident
	}
	var services []kept
	var burners []string
	start := func() {
		s := kept{name: fmt.Sprint("stays", len(services))}
		w.create(s.name, service(1))
		s.ps = []ident{w.process(s.name, 0)}
		services = append(services, s)
	}
	burn := func() {
		name := fmt.Sprint("burn", len(burners))
		w.run("job", "create", w.key(name), w.file(name, burner))
		burners = append(burners, name)
	}
	start()
	server, agent := 0, 0 // versions
	for i, change := range []string{"server", "agent", "server", "agent", "agent", "server", "agent", "server"} {
		burn()
		sig := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i/2%2]
		if change == "server" {
			server = 1 - server
			w.program = programs[server]
			w.replace(w.server, sig)
			w.startServer()
		} else {
			agent = 1 - agent
			w.program = programs[agent]
			w.replace(w.agent, sig)
			w.startAgent()
		}
		t.Logf("server of version %d, agent of version %d after %v", server, agent, sig)
		start() // under a supervisor of the agent's version
		burn()
		for _, s := range services {
			w.untouched(s.name, s.ps)
		}
		w.exported(programs)
	}
	for _, name := range burners {
		w.finished(name, 2)
		w.onlyOnce(name)
	}
	for _, s := range services {
		w.untouched(s.name, s.ps)
		w.run("job", "killall", w.key(s.name), "--wait")
	}
	w.metered()
	money(w)
}

// replace ends a program that the test has started.
func (w *world) replace(p *proc, sig syscall.Signal) {
	w.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
	p.wait(w.t, 20*time.Second)
}

// onlyOnce sees that every task of a job took each of its steps once, and that
// of each instance one has run. A start that was cut off may be tried again.
func (w *world) onlyOnce(name string) {
	w.t.Helper()
	steps := w.steps(w.key(name))
	seen, ran := map[string]bool{}, map[string]int{}
	for _, s := range steps {
		instance, _, _ := strings.Cut(s.Task, ".")
		if s.To == "RUNNING" {
			ran[instance]++
		}
		if x := s.Task + " " + s.To; seen[x] || ran[instance] > 1 {
			w.t.Fatalf("job %s took step %s again: %+v", name, x, steps)
		} else {
			seen[x] = true
		}
	}
}

// exported sees that what each version exports, each other one can read.
func (w *world) exported(programs []string) {
	w.t.Helper()
	for _, from := range programs {
		file := filepath.Join(w.dir, "state")
		for _, args := range [][]string{
			{from, "state", "export", file},
			{programs[0], "simulate", "--state", file, "-o", "json"},
			{programs[1], "simulate", "--state", file, "-o", "json"},
		} {
			cmd := exec.CommandContext(w.t.Context(), args[0], args[1:]...)
			cmd.Env = slices.Clone(w.env)
			if out, err := cmd.CombinedOutput(); err != nil {
				w.t.Errorf("%s: %v: %s", strings.Join(args, " "), err, out)
			}
		}
	}
}

// TestVersionsOfServers changes three servers to the next version one after
// the other, and back: whoever leads, the others follow, and none lost an act.
func TestVersionsOfServers(t *testing.T) {
	needRoot(t)
	t.Parallel()
	programs := []string{binary, needNext(t)}
	w := newTrio(t)
	w.create("stays", service(2))
	stays := []ident{w.process("stays", 0), w.process("stays", 1)}
	n := 0
	for _, program := range []string{programs[1], programs[0]} {
		for i := range w.servers {
			w.program = program
			w.replace(w.servers[i], syscall.SIGTERM)
			w.serve(i)
			n++
			w.placed(fmt.Sprint("job", n))
			w.untouched("stays", stays)
		}
	}
	// The one that led first leads again, though others of both versions led between.
	for range w.servers {
		old := w.leader()
		w.replace(w.servers[old], syscall.SIGKILL)
		n++
		w.placed(fmt.Sprint("job", n))
		w.serve(old)
	}
	w.untouched("stays", stays)
	w.once()
}
