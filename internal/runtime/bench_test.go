package runtime

import (
	"context"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/task"
)

// BenchmarkStart is one task from Start to the kernel's answer that its first
// process lives, with everything on: namespaces, cgroups, another user. The
// previous tasks keep running until they are stopped in the pauses.
func BenchmarkStart(b *testing.B) {
	needRoot(b)
	w := newWorld(b, func(c *Config) { c.Spare = true })
	ch := w.r.Watch(b.Context())
	var took []time.Duration
	for b.Loop() {
		s := w.spec("exec sleep 1000")
		began := time.Now()
		id := w.start(s)
		for st := range ch {
			if st.ID == id && st.State == task.Running {
				break
			}
		}
		took = append(took, time.Since(began))
		b.StopTimer()
		if err := w.r.Kill(context.Background(), id, "next"); err != nil {
			b.Fatal(err)
		}
		_ = w.r.Forget(context.Background(), id)
		b.StartTimer()
	}
	report(b, took)
}

// BenchmarkSustained starts and finishes short tasks, several at a time, and
// reports how many a second go through their whole lives.
func BenchmarkSustained(b *testing.B) {
	needRoot(b)
	w := newWorld(b)
	ch := w.r.Watch(b.Context())
	const atOnce = 4
	live, n, started := 0, 0, map[task.ID]time.Time{}
	var took []time.Duration
	begin := time.Now()
	for n < b.N || live > 0 {
		for live < atOnce && n < b.N {
			n++
			live++
			s := w.spec("true")
			started[s.ID] = time.Now()
			w.start(s)
		}
		st := <-ch
		if st.State == task.Running {
			took = append(took, time.Since(started[st.ID]))
		}
		if st.Ended {
			live--
			if st.State != task.Finished {
				b.Fatalf("got %+v", st)
			}
			_ = w.r.Forget(context.Background(), st.ID)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "tasks/s")
	report(b, took)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	if len(took) == 0 {
		return
	}
	at := func(p int) float64 { return float64(took[min(len(took)*p/100, len(took)-1)].Microseconds()) / 1000 }
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
}

// BenchmarkExec is the yardstick for the others: two bare executions of the
// same binary, one after the other, which is the least that a supervisor and an
// init cost.
func BenchmarkExec(b *testing.B) {
	for b.Loop() {
		for range 2 {
			if err := exec.CommandContext(b.Context(), "/proc/self/exe", nothingArg).Run(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
