package unit

import "time"

// A Tick is a moment in billing time: nano-hours (3.6 microseconds) since the
// Unix epoch. Boundaries are snapped down to a tick once, when they are
// recorded, so that intervals made of them tile without gap or overlap.
type Tick int64

// Lengths of time in ticks.
const (
	TickNanos      = 3600 // nanoseconds in a tick
	Hour      Tick = 1_000_000_000
)

// TickAt returns the tick that holds t. It is exact for the years 1678 to 2262.
func TickAt(t time.Time) Tick { return Tick(floorDiv(t.UnixNano(), TickNanos)) }

// FromDuration returns d in ticks, cut down.
func FromDuration(d time.Duration) Tick { return Tick(floorDiv(int64(d), TickNanos)) }

// Time returns the start of the tick, in UTC.
func (t Tick) Time() time.Time { return time.Unix(0, int64(t)*TickNanos).UTC() }

// Duration returns a length in ticks as a duration.
func (t Tick) Duration() time.Duration { return time.Duration(t) * TickNanos }

// FloorHour returns the start of the hour that holds t.
func (t Tick) FloorHour() Tick { return Tick(floorDiv(int64(t), int64(Hour))) * Hour }

// Add returns t moved by d, cut down to a tick.
func (t Tick) Add(d time.Duration) Tick { return t + FromDuration(d) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
