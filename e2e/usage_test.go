package e2e

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The server and the agent are killed again and again while tasks end and
// their usage is on its way. None of it is lost, none counts twice.
func TestUsageAcrossKills(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w.meterUnderFire(rand.New(rand.NewPCG(seed, 0)), 14)
}

// burner uses some cpu and ends.
const burner = `
p = Process(name = 'p', cmdline = 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo $(cut -d" " -f22 /proc/$$/stat) >> witness')
jobs = [Job(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME', instances = 2,
  task = Task(processes = [p], resources = Resources(cpu = 0.25, ram = 16*MB, disk = 16*MB)))]
`

func (w *world) meterUnderFire(chance *rand.Rand, rounds int) {
	t := w.t
	t.Helper()
	server := w.child("server", "")
	for round := range rounds {
		name := fmt.Sprintf("burn%d", round)
		file := w.file(name, burner)
		eventually(t, 30*time.Second, "job "+name+" is accepted", func() string {
			r := w.try("job", "create", w.key(name), file)
			if r.code == 0 || r.code == 10 && strings.Contains(r.err, "exists") { // the answer before was lost
				return ""
			}
			return r.String()
		})
		time.Sleep(time.Duration(chance.IntN(500)) * time.Millisecond)
		if server.lives() {
			kill9(t, server)
		}
		if round%4 == 3 {
			a := w.child("agent", "m1")
			kill9(t, a)
			w.child("agent", "m1", a)
		}
		server = w.child("server", "", server)
	}
	for round := range rounds {
		w.finished(fmt.Sprintf("burn%d", round), 2)
	}
	w.metered()
	// What is sent again changes nothing.
	a := w.child("agent", "m1")
	kill9(t, a)
	kill9(t, server)
	w.child("agent", "m1", a)
	w.answers("meter")
	w.run("job", "killall", w.key("after-meter"), "--wait")
	w.metered()
	money(w)
}

// metered waits until the cpu that was metered for each job that has ended is
// the sum of what the supervisors of its tasks wrote down at their end, to the
// last billing tick.
func (w *world) metered() {
	t := w.t
	t.Helper()
	eventually(t, 30*time.Second, "usage is what the tasks used", func() string {
		want := map[string]*big.Rat{}
		for _, dir := range []string{"tasks", "ended"} {
			files, _ := filepath.Glob(filepath.Join(w.data, "agents", "*", "tasks", dir, "e2e+*", "exit.json"))
			apart, _ := filepath.Glob(filepath.Join(w.dir, "agent", "tasks", dir, "e2e+*", "exit.json"))
			for _, f := range append(files, apart...) {
				r, err := readExit(f)
				if err != nil || !r.Ended {
					return fmt.Sprintf("%s: %v", f, err)
				}
				if len(r.Ran) == 0 && r.CPUNanos == 0 {
					continue // its start was cut off
				}
				if r.CPUNanos <= 0 {
					t.Fatalf("%s: a task used %d ns of cpu, and ended: %s", f, r.CPUNanos, r.Reason)
				}
				parts := strings.Split(filepath.Base(filepath.Dir(f)), "+")
				owner := strings.Join(parts[:3], "/")
				if want[owner] == nil {
					want[owner] = new(big.Rat)
				}
				// A thousandth of a core for 3.6 microseconds is 3600 ns; counters are floored.
				ticks := r.CPUNanos * 5 / 18
				want[owner].Add(want[owner], big.NewRat(ticks, 1e12))
			}
		}
		var u bill
		w.json(&u, "usage")
		got := map[string]*big.Rat{}
		for _, r := range u.Rows {
			got[strings.TrimPrefix(r.Owner, w.cluster+"/")] = rat(t, r.Used.CPU)
		}
		for owner, x := range want {
			if got[owner] == nil || got[owner].Cmp(x) != 0 {
				return fmt.Sprintf("%s: %v core-hours; want %s", owner, got[owner], x.FloatString(12))
			}
		}
		if len(want) < 2 || len(got) != len(want) {
			return fmt.Sprintf("%d owners; want %d", len(got), len(want))
		}
		return ""
	})
}
