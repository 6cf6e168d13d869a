// Package wall is the clock that people read, as servers and agents take it. A
// build with the tag aheadclock sets it ahead, so that a test with real
// processes sees an hour turn without waiting for one. Certificates and
// deadlines go by the computer's own clock.
package wall

import "time"

// Now returns the time on the wall.
func Now() time.Time { return At(time.Now()) }
