package e2e

import (
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// aheadProgram is covey with a clock that COVEY_CLOCK_AHEAD sets ahead.
var aheadProgram = sync.OnceValues(func() (string, error) {
	program := filepath.Join(base, "covey-ahead")
	return program, build(program, "-tags", "aheadclock")
})

// TestTurnOfHour kills the server, and the agent too, around the turn of an
// hour while tasks run across it, start and end. What is used on each side of
// it is metered once, and the bill of both hours adds up.
func TestTurnOfHour(t *testing.T) {
	needRoot(t)
	t.Parallel()
	for _, c := range []struct {
		name  string
		kills []kill
	}{
		{"the server sees the turn and dies", []kill{{at: 300 * time.Millisecond}, {at: 1500 * time.Millisecond}}},
		{"the server dies at the turn", []kill{{at: 0}, {at: 700 * time.Millisecond}, {at: 3 * time.Second}}},
		{"the server is dead over the turn", []kill{{at: -time.Second, until: 2 * time.Second}}},
		{"agent and server are dead over the turn", []kill{{at: -time.Second, until: 2 * time.Second, agent: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			turnOfHour(t, c.kills)
		})
	}
}

// A kill is of the server, at a time from the turn of the hour; until is when
// it is started again, at once if it is not after at.
type kill struct {
	at, until time.Duration
	agent     bool // is killed too
}

func turnOfHour(t *testing.T, kills []kill) {
	w, turn, first := beforeTurn(t, 15*time.Second)
	second := first.Add(time.Hour) // begins at turn
	steady := w.key("steady")
	for _, k := range kills {
		time.Sleep(time.Until(turn.Add(k.at)))
		w.replace(w.server, syscall.SIGKILL)
		if k.agent {
			w.replace(w.agent, syscall.SIGKILL)
		}
		time.Sleep(time.Until(turn.Add(k.until)))
		w.startServer()
		if k.agent {
			w.startAgent()
		}
	}
	eventually(t, 30*time.Second, "what the service used before the turn is told while it runs", func() string {
		if cpu := w.used(steady, first, second); cpu.Sign() <= 0 {
			return "nothing used"
		}
		return ""
	})
	w.run("job", "create", w.key("after"), w.file("after", burner))
	for _, name := range []string{"before", "after"} {
		w.finished(name, 2)
		w.onlyOnce(name)
	}
	w.run("job", "killall", steady, "--wait")
	w.metered()
	money(w)

	var b bill
	w.json(&b, "bill")
	var hours []string
	for _, h := range b.Hours {
		hours = append(hours, h.Hour)
	}
	if want := []string{first.Format(time.RFC3339), second.Format(time.RFC3339)}; !slices.Equal(hours, want) {
		t.Errorf("hours of the bill: got %q; want %q", hours, want)
	}
	sum := new(big.Rat)
	for _, from := range []time.Time{first, second} {
		cpu := w.used(steady, from, from.Add(time.Hour))
		if cpu.Sign() <= 0 {
			t.Errorf("%s used %s core-hours in the hour of %v; want more than 0", steady, cpu.FloatString(9), from)
		}
		sum.Add(sum, cpu)
	}
	if all := w.used(steady, first, second.Add(time.Hour)); sum.Cmp(all) != 0 {
		t.Errorf("%s used %s core-hours hour by hour, and %s altogether", steady, sum.FloatString(12), all.FloatString(12))
	}
}

// beforeTurn makes a world whose hour first ends at turn by this computer's
// clock, after which a service and a job run in it. It takes its time anew
// where the hour is over before they do.
func beforeTurn(t *testing.T, after time.Duration) (w *world, turn, first time.Time) {
	t.Helper()
	program, err := aheadProgram()
	if err != nil {
		t.Fatal(err)
	}
	w = newWorld(t)
	w.program = program
	turn = time.Now().Add(after)
	first = turn.UTC().Truncate(time.Hour)
	if first.Add(time.Hour).Month() != first.Month() {
		first = first.Add(time.Hour) // a bill is of this month
	}
	w.env = append(w.env, "COVEY_CLOCK_AHEAD="+first.Add(time.Hour).Sub(turn).String())
	w.startServer()
	w.join("m1", "agent", w.token("--subject", "m1"))
	w.create("steady", script("Service", `while true; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 0.05; done`, ""))
	w.run("job", "create", w.key("before"), w.file("before", burner))
	if time.Until(turn) > 2*time.Second {
		return w, turn, first
	}
	if after > time.Minute {
		t.Fatalf("nothing runs within %v", after)
	}
	w.run("job", "killall", w.key("steady"), "--wait")
	return beforeTurn(t, 2*after)
}

// used is the cpu that a job used, in core-hours.
func (w *world) used(key string, from, to time.Time) *big.Rat {
	w.t.Helper()
	var u bill
	w.json(&u, "usage", "--from", from.Format(time.RFC3339), "--to", to.Format(time.RFC3339))
	for _, r := range u.Rows {
		if strings.TrimPrefix(r.Owner, w.cluster+"/") == strings.TrimPrefix(key, w.cluster+"/") {
			return rat(w.t, r.Used.CPU)
		}
	}
	return new(big.Rat)
}
