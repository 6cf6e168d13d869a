package agent

import (
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
)

// A lease counts from when the message was sent, never shrinks, and one that
// lapsed is not continued by the next.
func TestLease(t *testing.T) {
	const s = time.Second
	var l Lease
	if _, ok := l.Grant(0); ok {
		t.Error("a lease that nobody granted")
	}
	if l.Renew(9*s, 1*s) {
		t.Error("an answer after 8 s grants nothing")
	}
	if !l.Renew(12*s, 10*s) {
		t.Fatal("not granted")
	}
	g, ok := l.Grant(17 * s)
	if !ok || g.Until != 18*s {
		t.Errorf("got %v, %v; want until 18 s", g, ok)
	}
	if l.Renew(12*s, 9*s) {
		t.Error("an older answer changes nothing")
	}
	if !l.Renew(17*s, 13*s) {
		t.Error("not renewed")
	}
	if until, ok := l.Extend(20*s, g); !ok || until != 21*s {
		t.Errorf("got %v, %v; want until 21 s", until, ok)
	}
	if _, ok := l.Extend(21*s, g); ok {
		t.Error("a lease that is over")
	}
	if !l.Renew(22*s, 21*s) {
		t.Error("not granted again")
	}
	if _, ok := l.Extend(22*s, g); ok {
		t.Error("what was ordered under one lease was started under the next")
	}
}

// A life ends with its lease, in every stage, and a late renewal does not save
// it.
func TestLifeLapses(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []Input // a second after another
		end  task.State
	}{
		{"before it began", nil, task.Lost},
		{"while it runs", []Input{Begin{}}, task.Lost},
		{"while it is stopped", []Input{Begin{}, Stop{"enough"}}, task.Killed},
		{"renewed too late", []Input{Begin{}, Tick{}, Tick{}, Tick{}, Tick{}, Renewed{time.Hour}}, task.Lost},
	} {
		l, err := NewLife(LifeSpec{Until: 5 * time.Second, Task: job.Task{
			FinalizationWait: 100, Processes: []job.Process{{Name: "p", Cmdline: "p", MaxFailures: 1}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		var end *End
		killed := false
		take := func(now time.Duration, in Input) {
			todo := []Input{in}
			for len(todo) > 0 {
				for _, a := range l.Step(now, todo[0]) {
					switch a := a.(type) {
					case Spawn:
						todo = append(todo, Spawned(a))
					case Signal:
						if killed = a.Sig == Kill; killed {
							todo = append(todo, Exited{Process: "p", Run: 1, Signal: 9})
						}
					case End:
						end = &a
					case Probe, Post, Report:
					}
				}
				todo = todo[1:]
			}
		}
		for i, in := range c.in {
			if end != nil {
				t.Errorf("%s: it ended early", c.name)
			}
			take(time.Duration(i)*time.Second, in)
		}
		if at, ok := l.Next(); end == nil && (!ok || at > 5*time.Second) {
			t.Errorf("%s: due at %v, %v; want 5 s", c.name, at, ok)
		}
		take(5*time.Second, Tick{})
		if end == nil || end.State != c.end {
			t.Errorf("%s: got %v; want %v", c.name, end, c.end)
		}
		if c.in != nil && !killed {
			t.Errorf("%s: not killed", c.name)
		}
	}
}

// A lease that is renewed in time holds.
func TestLifeRenewed(t *testing.T) {
	l, err := NewLife(LifeSpec{Until: 5 * time.Second, Task: job.Task{Processes: []job.Process{{Name: "p", Cmdline: "p"}}}})
	if err != nil {
		t.Fatal(err)
	}
	l.Step(0, Begin{})
	l.Step(4*time.Second, Renewed{12 * time.Second})
	l.Step(11*time.Second, Tick{})
	if l.Stage() != StageActive {
		t.Errorf("got %v; want ACTIVE", l.Stage())
	}
	if at, _ := l.Next(); at != 12*time.Second {
		t.Errorf("due at %v; want 12 s", at)
	}
}
