package e2e

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// An auditor is told by every process of an exclusive task that it lives, on a
// connection that the kernel closes when it does not any more. It believes
// neither the agents nor the server.
type auditor struct {
	addr net.Addr

	mu      sync.Mutex
	living  []string // what the open connections said: pid, start time, seconds since boot
	all     int
	overlap []string
}

func newAuditor(t *testing.T) *auditor {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a := &auditor{addr: l.Addr()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go a.hear(c)
		}
	}()
	return a
}

func (a *auditor) hear(c net.Conn) {
	defer c.Close()
	lines := bufio.NewScanner(c)
	who := ""
	for lines.Scan() {
		a.mu.Lock()
		if text := lines.Text(); text == "LOCKED" {
			a.overlap = append(a.overlap, who+" found the lock held")
		} else if who == "" {
			who = text
			if len(a.living) > 0 {
				a.overlap = append(a.overlap, fmt.Sprintf("%s while %v lives", who, a.living))
			}
			a.living, a.all = append(a.living, who), a.all+1
		}
		a.mu.Unlock()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.living = slices.DeleteFunc(a.living, func(x string) bool { return x == who })
}

// lives waits until as many live.
func (a *auditor) lives(t *testing.T, n, all int, within time.Duration, what string) {
	t.Helper()
	eventually(t, within, what, func() string {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.overlap) > 0 {
			t.Fatalf("two at once: %v", a.overlap)
		}
		if len(a.living) != n || a.all != all {
			return fmt.Sprintf("%v live, %d ever did", a.living, a.all)
		}
		return ""
	})
}

// exclusive is a service that holds a lock of the kernel while it lives, and a
// connection to an auditor. The lock is on a file that every task sees.
func exclusive(a *auditor, lock string) string {
	_, port, _ := net.SplitHostPort(a.addr.String())
	return script("Service", "exec 3<>/dev/tcp/127.0.0.1/"+port+`
echo "$$ $(cut -d' ' -f22 /proc/$$/stat) $(cut -d' ' -f1 /proc/uptime)" >&3
exec 4< `+lock+`
flock -n 4 || echo LOCKED >&3
exec sleep 1000000`, ", exclusive = True")
}

// An exclusive task whose agent stands still, and with it its supervisor and
// its init, is dead before another starts; no failure is counted. When the
// server stands still, it ends, and comes back.
func TestExclusiveTaskIsAlone(t *testing.T) {
	needRoot(t)
	t.Parallel()
	a := newAuditor(t)
	w := newDev(t, 2)
	key := w.create("alone", exclusive(a, "/usr/bin/flock"))
	a.lives(t, 1, 1, 10*time.Second, "it lives")
	x := w.task(key, "RUNNING", 10*time.Second)

	goOn := []func(){standStill(t, w.child("agent", x.Machine))}
	for _, part := range []string{"__supervise", "__init"} {
		for _, p := range processes(func(_ int, args []string) bool { return len(args) > 1 && args[1] == part }) {
			if part == "__supervise" && strings.Contains(strings.Join(argsOf(p.pid), " "), w.dir+"/") || part == "__init" && slices.Contains(inCgroupsOf(w.uid()), p) {
				goOn = append(goOn, standStill(t, p))
			}
		}
	}
	if len(goOn) != 3 {
		t.Fatalf("%d processes stand still; want agent, supervisor and init", len(goOn))
	}
	a.lives(t, 0, 1, 15*time.Second, "it ends though nobody is awake who could end it")
	a.lives(t, 1, 2, 60*time.Second, "another takes its place")
	for _, f := range goOn {
		f()
	}
	y := w.task(key, "RUNNING", 10*time.Second)
	if y.Machine == x.Machine {
		t.Errorf("it runs on %s; want the other machine", y.Machine)
	}

	goOnServer := standStill(t, w.child("server", ""))
	a.lives(t, 0, 2, 15*time.Second, "it ends without a server")
	goOnServer()
	a.lives(t, 1, 3, 60*time.Second, "it comes back with the server")
	w.task(key, "RUNNING", 20*time.Second)
	lost := false
	for _, s := range w.steps(key) {
		if s.To == "FAILED" {
			t.Errorf("a step to FAILED: %+v", s)
		}
		lost = lost || s.To == "LOST" && strings.Contains(s.Reason, "no word from the leader")
	}
	if !lost {
		t.Errorf("no step says why it ended: %+v", w.steps(key))
	}
	money(w)
}

// An exclusive task does not notice that the server or its agent is started
// again soon.
func TestExclusiveTaskStays(t *testing.T) {
	needRoot(t)
	t.Parallel()
	a := newAuditor(t)
	w := newDev(t, 1)
	key := w.create("stays", exclusive(a, "/usr/bin/env"))
	a.lives(t, 1, 1, 10*time.Second, "it lives")
	x := w.task(key, "RUNNING", 10*time.Second)
	server := w.child("server", "")
	server.end()
	w.child("server", "", server)
	agent := w.child("agent", x.Machine)
	time.Sleep(4 * time.Second) // its lease is renewed by the new server
	agent.end()
	w.child("agent", x.Machine, agent)
	for began := time.Now(); time.Since(began) < 12*time.Second; time.Sleep(pollEvery) {
		a.lives(t, 1, 1, 0, "it runs on")
	}
	if got := w.task(key, "RUNNING", 10*time.Second); got.ID != x.ID {
		t.Errorf("got %s; want %s still", got.ID, x.ID)
	}
}
