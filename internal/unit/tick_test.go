package unit

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTick snaps times down: the tick holds its time, before 1970 too.
func TestTick(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(0, rapid.Int64().Draw(t, "nanos")).UTC()
		tick := TickAt(at)
		off := new(big.Int).Sub(big.NewInt(at.UnixNano()), new(big.Int).Mul(big.NewInt(int64(tick)), big.NewInt(TickNanos)))
		if off.Sign() < 0 || off.Cmp(big.NewInt(TickNanos)) >= 0 {
			t.Fatalf("%v is %v ns after tick %d; want 0 to %d", at, off, tick, TickNanos-1)
		}
		h := tick.FloorHour()
		if h%Hour != 0 || h > tick || tick-h >= Hour {
			t.Fatalf("the hour of tick %d begins at %d", tick, h)
		}
	})
}

func TestTickTime(t *testing.T) {
	at := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	tick := TickAt(at)
	if tick%Hour != 0 || !tick.Time().Equal(at) || tick.Add(time.Hour) != tick+Hour || Hour.Duration() != time.Hour {
		t.Errorf("noon is tick %d, %v; an hour later %d", tick, tick.Time(), tick.Add(time.Hour))
	}
	for d, want := range map[time.Duration]Tick{0: 0, 3599: 0, 3600: 1, -1: -1, -3600: -1, -3601: -2} {
		if got := FromDuration(d); got != want {
			t.Errorf("%d ns are %d ticks, want %d", d, got, want)
		}
	}
	if before := TickAt(time.Unix(0, -1)); before != -1 || before.FloorHour() != -Hour {
		t.Errorf("a moment before 1970: tick %d, hour %d", before, before.FloorHour())
	}
}
