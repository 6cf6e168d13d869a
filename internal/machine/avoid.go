package machine

import "github.com/covey-platform/covey/internal/unit"

// How long a machine is avoided: the first time, and at most.
const (
	firstAvoidance   = unit.Hour / 60
	longestAvoidance = 60 * firstAvoidance
)

// Shun returns m as it is avoided from now on: for a minute, and each further
// time for twice as long, up to an hour. It begins at a minute again when a task
// has started well on it since (see [Machine.Trust]), or an hour after it was
// avoided last.
func (m Machine) Shun(why string, now unit.Tick) Machine {
	if !m.Suspect(now) {
		m.Avoided = 0
	}
	m.Avoid, m.AvoidUntil = why, now+min(firstAvoidance<<min(m.Avoided, 10), longestAvoidance)
	m.Avoided = min(m.Avoided, 10) + 1
	return m
}

// Suspect reports whether m was avoided not long ago, and no task has started
// well on it since.
func (m Machine) Suspect(now unit.Tick) bool {
	return m.Avoided > 0 && now-m.AvoidUntil < longestAvoidance
}

// Parole returns m as it is when the time is over for which it was avoided. It
// is false while m is not avoided, or is so for longer, or for no given time.
func (m Machine) Parole(now unit.Tick) (Machine, bool) {
	if m.Avoid == "" || m.AvoidUntil == 0 || now < m.AvoidUntil {
		return m, false
	}
	m.Avoid = ""
	return m, true
}

// Trust returns m after a task has started well on it: it is avoided no more,
// and what was held against it is forgotten. It is false when nothing was.
func (m Machine) Trust() (Machine, bool) {
	if m.AvoidUntil == 0 {
		return m, false
	}
	m.Avoid, m.AvoidUntil, m.Avoided = "", 0, 0
	return m, true
}
