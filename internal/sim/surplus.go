package sim

import (
	"strings"

	"github.com/covey-platform/covey/internal/task"
)

// bounded holds for what a leader sends: within a minute it tells few tasks to
// stop that no act of a user explains.
func (l *leader) bounded(orders []task.Order) {
	recent := 0
	for _, o := range orders {
		_, live := l.loop.Snapshot().Task(o.ID)
		_, again := l.stops[o.ID]
		if o.Verb != task.Stop || live || again {
			continue
		}
		l.stops[o.ID] = l.w.now
		if !strings.HasPrefix(o.Reason, "it is not wanted any more: ") { // an operator had it stopped
			l.stops[o.ID] = l.w.now - Minute
		}
	}
	for _, at := range l.stops {
		if l.w.now-at < Minute {
			recent++
		}
	}
	if limit := max(5, l.w.cfg.Tasks/10); recent > limit {
		l.w.fail("%d tasks were told to stop within a minute by no act of a user; want at most %d", recent, limit)
	}
}
