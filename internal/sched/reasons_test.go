package sched

import (
	"strconv"
	"testing"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// TestAllowance: in any second no more is given out than a second's most twice,
// however often it is asked for, and after a second of rest there is all of it.
func TestAllowance(t *testing.T) {
	const most = 50_000
	for _, step := range []unit.Tick{1, 1000, second / 1000, second / 20, second / 3} {
		var a allowance
		given, start := 0, unit.Tick(7)
		for now := start; now <= start+second && now < start+5_000*step; now += step {
			given += a.at(now, most)
			a.left = 0
		}
		if limit := most + most*int(min(second, 5_000*step))/int(second); given > limit || given < most {
			t.Errorf("asked every %d ticks for a second, or 5,000 times, it gave %d; want %d to %d", step, given, most, limit)
		}
		if step == second/20 && given < most*3/2 {
			t.Errorf("asked every twentieth of a second it gave %d in a second; want nearly %d", given, 2*most)
		}
		if got := a.at(start+10*second, most); got != most {
			t.Errorf("after seconds of rest it gives %d; want %d", got, most)
		}
	}
	a := allowance{when: 5 * second}
	if got := a.at(second, most); got != most {
		t.Errorf("when the clock was set back it gives %d; want %d", got, most)
	}
}

// TestLooksPaced: however many plans there are in a second, together they look
// at no more machines for reasons than one may, and who was left out has its turn
// in time.
func TestLooksPaced(t *testing.T) {
	w := newWorld(t)
	const machines, groups, surveys = 50, 1100, defaultLooks / 50
	for i := range machines {
		w.add(machine.ID("m"+strconv.Itoa(i)), cpu(1000))
	}
	for i := range groups {
		w.submit(job.NewKey("r", "prod", "j"+strconv.Itoa(i)), 1, asks(cpu(int64(2000+i)), 0))
	}
	for _, c := range []struct {
		after unit.Tick
		lost  machine.ID // before, so that what is known is of the past
		told  int
		again bool // it asks for its turn
	}{
		{told: surveys, again: true},
		{told: surveys, again: true},
		{after: second / 2, told: groups},
		{after: second/2 + 1, lost: "m3", told: groups, again: true}, // 400 of them what is true now
		{after: 2 * second, told: groups},
	} {
		if c.lost != "" {
			w.edit(c.lost, func(m *machine.Machine) { m.Up = false })
		}
		_, waits := Plan(w.s, w.x, w.now+c.after, Limits{})
		told := 0
		for _, g := range waits.Groups {
			if g.Text != tooMany {
				told++
			}
		}
		if again := waits.Next == w.now+c.after+second; told != c.told || again != c.again {
			t.Errorf("after %v of a second: %d of %d groups are told why they wait, planned again soon: %t; want %d, %t", float64(c.after)/float64(second), told, groups, again, c.told, c.again)
		}
	}
}
