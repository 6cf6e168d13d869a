package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkStartJob is one user, one job: from the call of covey job create
// until the job's first process, isolated, asks for the time. Each job is ended
// before the next begins.
func BenchmarkStartJob(b *testing.B) {
	needRoot(b)
	w := newDev(b, 1)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		name := fmt.Sprintf("start-%d", len(took))
		file := w.file(name, `
p = Process(name = 'p', cmdline = 'date +%s%N > began; sleep 1000')
jobs = [Job(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME',
  task = Task(processes = [p], resources = Resources(cpu = 0.1, ram = 16*MB, disk = 16*MB)))]
`)
		time.Sleep(500 * time.Millisecond) // as between two things that a person does
		b.StartTimer()
		called := time.Now()
		w.run("job", "create", w.key(name), file)
		took = append(took, w.began(name).Sub(called))
		b.StopTimer()
		w.run("job", "killall", w.key(name))
		b.StartTimer()
	}
	slices.Sort(took)
	at := func(percent int) float64 { return float64(took[(len(took)-1)*percent/100].Microseconds()) / 1000 }
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
	b.ReportMetric(at(100), "slowest-ms")
}

// began waits until the first process of a job's only task has written when it
// began, and reads it.
func (w *world) began(name string) (at time.Time) {
	w.t.Helper()
	eventually(w.t, 20*time.Second, "the first process of "+name, func() string {
		found, _ := filepath.Glob(filepath.Join(w.data, "agents", "*", "tasks", "tasks", escape("e2e/test/"+name)+"+0.1", "sandbox", "began"))
		for _, f := range found {
			text, whole := strings.CutSuffix(readString(f), "\n")
			if nanos, err := strconv.ParseInt(text, 10, 64); whole && err == nil {
				at = time.Unix(0, nanos)
				return ""
			}
		}
		return fmt.Sprint("files ", found)
	})
	return at
}

// BenchmarkStartLives is what one machine gets through: one job of N instances
// of true, each of them placed, isolated, run, ended, and its end told.
func BenchmarkStartLives(b *testing.B) {
	needRoot(b)
	w := newDev(b, 1)
	w.want(0, "job", "create", w.key("first"), w.file("first", script("Job", "true", "")), "--wait-until", "FINISHED")
	file := w.file("lives", fmt.Sprintf(`
p = Process(name = 'p', cmdline = 'true')
jobs = [Job(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME', instances = %d,
  task = Task(processes = [p], resources = Resources(cpu = 0.1, ram = 16*MB, disk = 16*MB)))]
`, b.N))
	b.ResetTimer()
	began := time.Now()
	w.run("job", "create", w.key("lives"), file, "--wait-until", "FINISHED")
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "lives/s")
}
