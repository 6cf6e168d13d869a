package sched

import (
	"cmp"
	"slices"

	"github.com/covey-platform/covey/internal/unit"
)

// A reasonKey names the groups that wait for the same reason: those of one
// need, or, as limits, spread and affinity go by job, a group alone.
type reasonKey struct {
	need  need
	group groupKey
}

func (g *group) reasonKey() reasonKey {
	if g.moving == nil {
		return reasonKey{need: g.need()}
	}
	return reasonKey{g.need(), g.groupKey}
}

// A reason is what the last survey for a key found, and when that was.
type reason struct {
	wait Wait
	at   uint64 // of Index.puts
}

// explain says of every stuck group why it is stuck. Each survey asks every
// machine, so a plan makes so many only: first for groups that nobody has
// looked into yet, then for those where that is longest ago. The others
// are told what was true then, and their turn comes within a second. However
// many plans there are in a second, together they make as many as one may.
func (p *planner) explain() {
	known := map[reasonKey]reason{}
	var ask []*group
	for _, k := range p.stuck {
		if k.group.shape == nil {
			continue
		}
		key := k.group.reasonKey()
		if _, ok := known[key]; ok {
			continue
		}
		r := p.x.reasons[key]
		known[key] = r
		if r.at != p.x.puts || r.wait.Text == "" {
			ask = append(ask, k.group)
		}
	}
	slices.SortStableFunc(ask, func(a, b *group) int {
		return cmp.Compare(known[a.reasonKey()].at, known[b.reasonKey()].at)
	})
	now := p.surveys(len(ask))
	if p.paced {
		p.x.looks.left -= now * len(p.x.slots)
	}
	for _, g := range ask[:now] {
		known[g.reasonKey()] = reason{p.x.survey(g).wait(), p.x.puts}
	}
	if now < len(ask) && (now > 0 || p.paced) {
		p.waits.due(p.now + second)
	}
	for _, k := range p.stuck {
		w := Wait{Text: lostConfig}
		if k.group.shape != nil {
			w = known[k.group.reasonKey()].wait
			w.Text = cmp.Or(w.Text, tooMany)
		}
		w.Task, w.Job, w.Config, w.Tasks = k.first, k.group.job, k.group.config, k.tasks
		p.waits.Groups = append(p.waits.Groups, w)
	}
	p.x.reasons = known
}

// surveys returns how many surveys the plan may make.
func (p *planner) surveys(wanted int) int {
	if len(p.x.slots) == 0 {
		return wanted
	}
	return min(wanted, p.lim.Looks/len(p.x.slots))
}

// An allowance is how much may be done now of what may be done in a second.
type allowance struct {
	left int
	when unit.Tick // that was so
}

// at returns what is left at now, of a second's most.
func (a *allowance) at(now unit.Tick, most int) int {
	since := now - a.when
	if a.when == 0 || since < 0 || since >= second {
		a.left, a.when = most, now
		return most
	}
	if more := int(int64(most) * int64(since) / int64(second)); more > 0 {
		a.left, a.when = min(most, a.left+more), now
	}
	return a.left
}

func (x *Index) survey(g *group) *survey {
	if g.moving != nil {
		x.refresh(g)
	}
	v := newSurvey(g.shape, g.moving, x.largest)
	for n := 1; n < len(x.hosts); n++ {
		if x.hosts[n].row.ID != "" {
			v.see(&x.hosts[n], g.class.allowed[n])
		}
	}
	return v
}
