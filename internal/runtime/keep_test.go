package runtime

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
)

func TestKeepMissing(t *testing.T) {
	for _, c := range []struct {
		name string
		keep Keep
		d    demand
		want int64
	}{
		{"nothing is promised", Keep{Margin: 5}, demand{free: 0}, 0},
		{"enough", Keep{Margin: 5}, demand{free: 105, promised: 100}, 0},
		{"the margin counts", Keep{Margin: 5}, demand{free: 104, promised: 100}, 1},
		{"a full disk", Keep{Margin: 5}, demand{free: 0, promised: 100}, 105},
		{"a disk of its own does not count what is held", Keep{}, demand{free: 100, held: 900, promised: 100}, 0},
		{"its share is used up", Keep{Share: 500}, demand{free: 1000, held: 450, promised: 100}, 50},
		{"others use up their shares and this one", Keep{Share: 500}, demand{free: 70, held: 100, promised: 100}, 30},
		{"what it holds over its share goes first", Keep{Share: 500}, demand{free: 1000, held: 600, promised: 10}, 110},
	} {
		if got := c.keep.missing(c.d); got != c.want {
			t.Errorf("%s: %d bytes are missing; want %d", c.name, got, c.want)
		}
	}
}

// left makes what a forgotten attempt, such as 0.2, has left.
func left(attempt string, minutesAgo int, bytes int64) leftover {
	in, at, _ := strings.Cut(attempt, ".")
	instance, err1 := strconv.Atoi(in)
	number, err2 := strconv.Atoi(at)
	l := leftover{name: attempt, at: keepNow.Add(-time.Duration(minutesAgo) * time.Minute), bytes: bytes}
	if err1 == nil && err2 == nil {
		l.id = task.ID{Job: job.NewKey("r", "e", "n"), Instance: int32(instance), Attempt: uint32(number)}
	}
	return l
}

var keepNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestKeepChoose(t *testing.T) {
	cutOff := left("9.1"+goingMark, 1, 0)
	cutOff.going = true
	hour := Keep{Age: time.Hour, Bytes: 100}
	for _, c := range []struct {
		name    string
		keep    Keep
		all     []leftover
		missing int64
		want    string
	}{
		{"nothing", hour, nil, 1000, ""},
		{"all is well", hour, []leftover{left("0.1", 60, 50), left("1.1", 1, 50)}, 0, ""},
		{"too old", hour, []leftover{left("0.1", 61, 1), left("1.1", 62, 1), left("2.1", 60, 1)}, 0, "1.1 0.1"},
		{"too much: the oldest", hour, []leftover{left("0.1", 10, 50), left("1.1", 30, 50), left("2.1", 20, 50)}, 0, "1.1"},
		{"too much, and too young for that", Keep{Age: time.Hour, Bytes: 60, Least: 5 * time.Minute}, []leftover{left("0.1", 4, 50), left("1.1", 6, 50), left("2.1", 3, 50)}, 0, "1.1"},
		{"no room: nothing is too young", Keep{Age: time.Hour, Bytes: 100, Least: 5 * time.Minute}, []leftover{left("0.1", 4, 50), left("1.1", 3, 50)}, 1, "0.1"},
		{"what was too old counts", hour, []leftover{left("0.1", 90, 60), left("1.1", 30, 50), left("2.1", 20, 50)}, 0, "0.1"},
		{"no room: younger than the age, and little", hour, []leftover{left("0.1", 3, 30), left("1.1", 2, 30), left("2.1", 1, 30)}, 31, "0.1 1.1"},
		{"no room: what was too old counts", hour, []leftover{left("0.1", 90, 30), left("1.1", 2, 30)}, 30, "0.1"},
		{"no room, whatever goes", hour, []leftover{left("0.1", 3, 30), left("1.1", 2, 30)}, 1000, "0.1 1.1"},
		{"the last attempts of others stay longer than former ones", hour, []leftover{left("0.1", 9, 10), left("1.1", 3, 10), left("1.2", 2, 10), left("1.3", 1, 10)}, 15, "1.1 1.2"},
		{"but are no excuse", hour, []leftover{left("0.1", 9, 10), left("1.1", 3, 10), left("1.2", 2, 10)}, 25, "1.1 0.1 1.2"},
		{"of two ends at once the later attempt is the last", hour, []leftover{left("1.10", 3, 10), left("1.9", 3, 10)}, 10, "1.9"},
		{"a removal that was cut off goes on", hour, []leftover{left("0.1", 1, 1), cutOff}, 0, "9.1.going"},
		{"damage goes by age", hour, []leftover{left("damage", 61, 0), left("wreck", 59, 0)}, 0, "damage"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, l := range c.keep.choose(c.all, keepNow, c.missing) {
				got = append(got, l.name)
			}
			if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
				t.Errorf("goes (-want +got):\n%s", d)
			}
		})
	}
}

// Whatever there is, enough goes, and nothing that need not.
func TestKeepChooseProperty(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var all []leftover
		for i := range rnd.IntN(12) {
			all = append(all, left(strconv.Itoa(rnd.IntN(4))+"."+strconv.Itoa(i+1), rnd.IntN(80), rnd.Int64N(40)))
		}
		keep := Keep{Age: time.Hour, Bytes: rnd.Int64N(200), Least: time.Duration(rnd.IntN(20)) * time.Minute}
		missing := max(rnd.Int64N(300)-100, 0)
		gone := keep.choose(all, keepNow, missing)
		enough := func(gone []leftover) bool {
			young := !slices.ContainsFunc(all, func(l leftover) bool {
				return keepNow.Sub(l.at) > keep.Least && !slices.Contains(gone, l)
			})
			return (young || total(all)-total(gone) <= keep.Bytes) && total(gone) >= missing
		}
		if !enough(gone) && len(gone) < len(all) {
			t.Fatalf("seed %d: of %+v only %+v goes, with %d missing and %d to be kept", seed, all, gone, missing, keep.Bytes)
		}
		for _, l := range all {
			if keepNow.Sub(l.at) > keep.Age && !slices.Contains(gone, l) {
				t.Fatalf("seed %d: %+v is too old and stays", seed, l)
			}
		}
		if n := len(gone); n > 0 && keepNow.Sub(gone[n-1].at) <= keep.Age && enough(gone[:n-1]) {
			t.Fatalf("seed %d: %+v goes for nothing", seed, gone[n-1])
		}
	}
}
