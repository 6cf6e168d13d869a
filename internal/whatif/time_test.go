package whatif

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestPlay follows two jobs on one machine of two cores, second by second. Job
// a has three tasks of one core that run for 100 s each; b runs for ever and
// comes when a waits still. At 250 the machine dies for 50 s.
func TestPlay(t *testing.T) {
	w := New(nil, sched.NewIndex)
	if err := w.AddMachines([]machine.Machine{{ID: "m", Up: true, Capacity: unit.Resources{CPU: 2000}}}); err != nil {
		t.Fatal(err)
	}
	asks := []Ask{ask("a", job.Preemptible, 3, 0, 100), ask("b", job.Preferred, 1, 50, 0)}
	events := []Event{{At: 250, What: MachineDown, Name: "m"}, {At: 300, What: MachineUp, Name: "m"}, {At: 380, What: JobEnd, Name: "b"}}
	h, err := w.Play(asks, events, Weather{}, 480)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	last := ""
	for _, s := range h.Samples {
		now := fmt.Sprintf("%d machines, %d run, %d wait, cpu %d", s.Machines, s.Running, s.Waiting, s.Held.CPU)
		if now != last {
			got = append(got, fmt.Sprintf("%d: %s", s.At, now))
		}
		last = now
	}
	// At 50 a task of a is stopped for b, and begins anew at 200. At 100 the other
	// one of a ends, and the last takes its place until 200. At 250 b and the one
	// that was stopped are lost, and start again at 300.
	want := []string{
		"0: 1 machines, 2 run, 1 wait, cpu 2000",
		"50: 1 machines, 2 run, 2 wait, cpu 2000",
		"100: 1 machines, 2 run, 1 wait, cpu 2000",
		"200: 1 machines, 2 run, 0 wait, cpu 2000",
		"250: 0 machines, 0 run, 2 wait, cpu 0",
		"300: 1 machines, 2 run, 0 wait, cpu 2000",
		"380: 1 machines, 1 run, 0 wait, cpu 1000",
		"400: 1 machines, 0 run, 0 wait, cpu 0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	sums := []int{h.Arrived, h.Finished, h.Lost, h.Killed, h.Preempted, h.Failures}
	if d := cmp.Diff([]int{4, 3, 2, 1, 1, 1}, sums); d != "" {
		t.Errorf("came, finished, lost, killed, pre-empted, failures (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]float64{0, 50}, round(h.Waits[job.Preferred].Values())); d != "" {
		t.Errorf("waits of b (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]float64{0, 0, 50, 100, 150}, round(h.Waits[job.Preemptible].Values())); d != "" {
		t.Errorf("waits of a (-want +got):\n%s", d)
	}
}

func round(all []float64) []float64 {
	var out []float64
	for _, x := range all {
		out = append(out, float64(int64(x+0.5)))
	}
	return out
}

func ask(id, tier string, count int32, arrive, run int64) Ask {
	c := job.Config{Service: run == 0, Tier: tier, MaxTaskFailures: 1, Task: job.Task{Name: id, Resources: unit.Resources{CPU: 1000}}}
	return Ask{Job: job.Job{Key: KeyOf(id), Instances: job.FirstN(count), Config: c}, Arrive: arrive, Run: run}
}

// TestPlayConserves plays random jobs under random failures: every task that
// came is finished, runs, waits or was killed; the same seed gives the same
// history; another gives another.
func TestPlayConserves(t *testing.T) {
	for seed := range uint64(25) {
		one, w := playRandom(t, seed, seed)
		two, _ := playRandom(t, seed, seed)
		if d := cmp.Diff(one.Samples, two.Samples); d != "" {
			t.Fatalf("seed %d: two runs differ:\n%s", seed, d)
		}
		if other, _ := playRandom(t, seed, seed+1000); cmp.Equal(one.Samples, other.Samples) {
			t.Errorf("seed %d: another seed of failures gives the same history", seed)
		}
		running, waiting := w.Count()
		if one.Arrived != one.Finished+one.Killed+running+waiting {
			t.Errorf("seed %d: %d came, %d finished, %d killed, %d run, %d wait", seed, one.Arrived, one.Finished, one.Killed, running, waiting)
		}
		for m := range w.Snapshot().Machines() {
			for x := range w.Snapshot().TasksOn(m.ID) {
				if !m.Up || x.State != task.Running {
					t.Errorf("seed %d: %v is %v on %s", seed, x.ID, x.State, m.ID)
				}
			}
		}
	}
}

func playRandom(t *testing.T, seed, failures uint64) (History, *World) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	w := New(nil, sched.NewIndex)
	var machines []machine.Machine
	for i := range 3 + r.IntN(5) {
		id := fmt.Sprint("m", i)
		machines = append(machines, machine.Machine{ID: machine.ID(id), Up: true, Capacity: unit.Resources{CPU: 4000}, Attributes: []machine.Attribute{{Name: "host", Value: id}}})
	}
	if err := w.AddMachines(machines); err != nil {
		t.Fatal(err)
	}
	var asks []Ask
	var events []Event
	for i := range 5 + r.IntN(20) {
		a := ask(fmt.Sprint("j", i), []string{job.Preferred, job.Preemptible}[r.IntN(2)], int32(1+r.IntN(6)), int64(r.IntN(3600)), int64(r.IntN(1800)))
		if asks = append(asks, a); r.IntN(4) == 0 {
			events = append(events, Event{At: int64(r.IntN(7200)), What: JobEnd, Name: a.Job.Key.Name()})
		}
	}
	h, err := w.Play(asks, events, Weather{Seed: failures, MTBF: 3600, Repair: 600}, 7200)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	return h, w
}

// FuzzReadEvents holds the reader to an answer or an error that names the file.
func FuzzReadEvents(f *testing.F) {
	f.Add("at_s,what,name\n5,machine-down,m1\n")
	f.Add("at_s,what\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, err := ReadEvents("FILE", strings.NewReader(text)); err != nil && !strings.Contains(err.Error(), "FILE") {
			t.Errorf("%v; want the file's name in it", err)
		}
	})
}
