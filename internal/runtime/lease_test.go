package runtime

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/task"
)

// An exclusive task is dead soon after its lease, whoever of those that should
// end it stands still, and nobody calls that a failure.
func TestLeaseEnds(t *testing.T) {
	needRoot(t)
	for _, reduced := range []bool{false, true} {
		for _, c := range []struct {
			name  string
			still func(Status) []int // who stands still
		}{
			{"nobody stands still", func(Status) []int { return nil }},
			{"supervisor", func(s Status) []int { return []int{s.Supervisor} }},
			{"init", func(s Status) []int { return []int{s.Pid} }},
			{"supervisor and init", func(s Status) []int { return []int{s.Supervisor, s.Pid} }},
			{"all", func(s Status) []int { return []int{s.Supervisor, s.Pid, s.Processes[0].Pid} }},
		} {
			name := c.name
			if reduced {
				name += ", without isolation"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *Config) { c.Reduced = reduced })
				s := w.spec("exec sleep 1000")
				s.Until = BootTime() + 3*time.Second
				id := w.start(s)
				st := w.running(id)
				for _, pid := range c.still(st) {
					if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
						t.Fatal(err)
					}
				}
				p := st.Processes[0]
				for inside.Same(p.Pid, p.Start) {
					if over := BootTime() - s.Until; over > 2*time.Second { // half a second is promised, the rest is for a busy machine
						t.Fatalf("its process lives %v after the lease", over)
					}
					time.Sleep(time.Millisecond)
				}
				if early := s.Until - BootTime(); early > 0 {
					t.Errorf("its process died %v before the lease ended", early)
				}
				if got := w.end(id); got.State != task.Lost || got.Reason != agent.Lapsed {
					t.Errorf("got %v because %q; want LOST because %q", got.State, got.Reason, agent.Lapsed)
				}
			})
		}
	}
}

// A lease that is renewed goes on, also under a new agent; one that has ended
// is not brought back.
func TestLeaseRenewed(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	s := w.spec("exec sleep 1000")
	first := BootTime() + 2*time.Second
	s.Until = first
	id := w.start(s)
	p := w.running(id).Processes[0]
	until := first
	renew := func(d time.Duration) {
		until = BootTime() + d
		w.r.Renew(until)
	}
	renew(3 * time.Second)
	w.r.Close()
	w.open()
	for renew(2 * time.Second); BootTime() < first+2*time.Second; time.Sleep(100 * time.Millisecond) {
		if renew(2 * time.Second); !inside.Same(p.Pid, p.Start) {
			t.Fatalf("it ended though its lease was renewed: %+v", w.status(id))
		}
	}
	if err := unix.Kill(w.status(id).Supervisor, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for inside.Same(p.Pid, p.Start) { // what a supervisor does not hear does not count
		if w.r.Renew(BootTime() + 2*time.Second); BootTime() > until+2*time.Second {
			t.Fatal("a supervisor that stands still keeps its task")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := w.end(id); got.State != task.Lost {
		t.Errorf("got %v because %q; want LOST", got.State, got.Reason)
	}
}

// A task whose lease ended before it could begin never runs.
func TestLeaseOverAtStart(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	s := w.spec("exec sleep 1000")
	s.Until = BootTime() - time.Second
	id := w.start(s)
	if got := w.end(id); got.State != task.Lost || len(got.Processes) != 0 {
		t.Errorf("got %+v; want LOST, and no process", got)
	}
}
