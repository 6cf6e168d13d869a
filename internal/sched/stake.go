package sched

import "github.com/covey-platform/covey/internal/unit"

// A stake is what a claimant's pending tasks need of the cpu and memory of its
// machines. While there is room for few more of them than wait, other tasks
// leave those machines alone, if any other takes them.
type stake struct {
	tasks int64 // that wait
	room  int64 // for such tasks, in parts; see planner.reckonRoom
}

const (
	stakeMargin = 11 // tenths of the tasks that room is kept for: what is left in many places is not all of use
	stakeTasks  = 20 // and for so many more
)

// stakeRoom notes how many pending tasks a claimant has.
func (p *planner) stakeRoom(g *group) {
	at := p.x.claimantOf(g)
	if at < 0 {
		return
	}
	if p.stakes == nil {
		p.stakes = make([]stake, len(p.x.claimants))
	}
	p.stakes[at].tasks += int64(g.tasks.Len())
}

// claimantOf returns which claimant a group's tasks are of, -1 for none.
func (x *Index) claimantOf(g *group) int {
	if g.wants != "" {
		for i, c := range x.claimants {
			if c.on == g.wants {
				return i
			}
		}
	}
	return -1
}

// settledRoom takes note of a task that waits no longer, on a host that may
// have less free for others.
func (p *planner) settledRoom(g *group, was, is unit.Resources, n int32) {
	if p.stakes == nil {
		return
	}
	if at := p.x.claimantOf(g); at >= 0 {
		p.stakes[at].tasks--
	}
	if !p.roomy {
		return
	}
	for i, c := range p.x.claimants {
		if c.class.allowed[n] {
			p.stakes[i].room += c.holds(is) - c.holds(was)
		}
	}
}

// kept returns the claimants whose machines a task of g should leave alone.
func (p *planner) kept(g *group) (all grove) {
	if p.stakes == nil {
		return 0
	}
	if !p.roomy {
		p.roomy = true
		for i, c := range p.x.claimants {
			p.stakes[i].room = p.x.roomFor(c, &p.waits.Looked)
		}
	}
	for i, c := range p.x.claimants {
		s := &p.stakes[i]
		if s.tasks > 0 && c.on != g.wants && 10*(s.room-stakeTasks*parts) < stakeMargin*parts*s.tasks {
			all |= 1 << i
		}
	}
	return all
}
