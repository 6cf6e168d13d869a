package control

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

// A Clock makes the time of the records out of a wall clock that may be set
// and a steady clock that may not: it follows the wall forward, goes on
// steadily when the wall is set back, and never goes back itself. Its zero
// value is ready.
type Clock struct {
	last   unit.Tick // the time it told last
	steady unit.Tick // what the steady clock showed then
	begun  bool
}

// Read returns the time, given what both clocks show. After a restart, begin
// with the time of the last commit; see [Clock.Since].
func (c *Clock) Read(wall, steady unit.Tick) unit.Tick {
	if c.begun && !fault.Planted("time-goes-back") {
		wall = max(wall, c.last+max(0, steady-c.steady))
	}
	c.last, c.steady, c.begun = wall, steady, true
	return wall
}

// Since makes the clock go on from at, the time of the last commit.
func (c *Clock) Since(at, steady unit.Tick) { c.last, c.steady, c.begun = at, steady, true }

// Told returns the time that was read last.
func (c *Clock) Told() unit.Tick { return c.last }
