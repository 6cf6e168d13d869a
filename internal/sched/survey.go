package sched

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// judge returns what rules a host out for one more task of w, as it is counted:
// a host that is down or in maintenance, or that no constraint lets w use, is
// ruled out by that alone.
func judge(h *host, w *shape, y *moving) []Lack { return ruling(lacks(nil, h, w, y, false)) }

// ruling returns what is counted of all that a host lacks: the first rule that
// no other task's end would change for it, else every shortage.
func ruling(all []Lack) []Lack {
	if len(all) == 0 {
		return nil
	}
	switch all[0].Rule {
	case CPU, RAM, Disk, GPU, Net, Ports:
		return all
	case Limit, Spreading, Affinity, Attribute, Constraint, Draining, Drained, Down, Leaving, Dedicated:
	}
	return all[:1]
}

// lacks appends all that a host lacks for one more task of w: its own state,
// whom it is dedicated to, every constraint, and every shortage. Allowed says
// that w allows the machine, as its class knows.
func lacks(all []Lack, h *host, w *shape, y *moving, allowed bool) []Lack {
	m := &h.row.Machine
	all = w.excludes(all, m, allowed)
	if y != nil {
		all = y.refusals(all, m)
	}
	return short(all, w, h.free, h.portsLeft(), h.devs)
}

// excludes appends why w may not use a machine, whatever runs there.
func (w *shape) excludes(all []Lack, m *machine.Machine, allowed bool) []Lack {
	switch {
	case !m.Up:
		all = append(all, Lack{Rule: Down})
	case m.Leaving:
		all = append(all, Lack{Rule: Leaving})
	case m.Mode == machine.Draining:
		all = append(all, Lack{Rule: Draining})
	case treeOf(m) == nowhere:
		all = append(all, Lack{Rule: Drained})
	}
	if allowed {
		return all
	}
	if !w.mayUse(m) {
		all = append(all, Lack{Rule: Dedicated, Detail: strings.Join(m.Values(dedicated), ",")})
	}
	for i := range w.values {
		if !matches(&w.values[i], m) {
			all = append(all, Lack{Rule: Constraint, Detail: w.valueTexts[i]})
		}
	}
	for _, a := range w.counted {
		if !hasAny(m, a) {
			all = append(all, Lack{Rule: Attribute, Detail: a})
		}
	}
	return all
}

// short appends the measures in which w does not fit into what a machine has.
func short(lacks []Lack, w *shape, free unit.Resources, ports int, devs []int16) []Lack {
	if !w.need.Fits(free) {
		for _, m := range w.need.Short(free) {
			lacks = append(lacks, Lack{Rule: Rule(m.String()), Need: w.need.Of(m), Have: free.Of(m)})
		}
	}
	if w.need.GPU > 0 && w.need.GPU <= free.GPU && !gpusHold(devs, w.need.GPU) {
		lacks = append(lacks, Lack{Rule: GPU, Need: w.need.GPU, Have: free.GPU})
	}
	if w.ports > ports {
		lacks = append(lacks, Lack{Rule: Ports, Need: int64(w.ports), Have: int64(ports)})
	}
	return lacks
}

// spell writes a value constraint as configuration files do.
func spell(c job.Constraint) string {
	eq := "="
	switch {
	case c.With != "" && c.Negated:
		return c.Attribute + "=without:" + string(c.With)
	case c.With != "":
		return c.Attribute + "=with:" + string(c.With)
	case c.Negated:
		eq = "=!"
	}
	return c.Attribute + eq + strings.Join(c.Values, ",")
}

// A survey asks machines, one after another, why they do not take a task.
type survey struct {
	shape   *shape
	moving  *moving
	largest unit.Resources // the largest machine of the cluster
	seen    int
	fit     int // that take it
	reasons []Reason
	nearest Verdict
	score   [2]int64 // of what rules the nearest out, then of all that it lacks
	all     giant    // every machine
	allowed giant    // those that the constraints allow
	lacks   []Lack   // of the machine asked last
}

// giant remembers how large machines are when they are empty.
type giant struct {
	machines int
	holds    bool // one of them would hold the task if it were empty
	most     unit.Resources
	ports    int
}

func (g *giant) see(h *host, w *shape) {
	g.machines++
	g.most, g.ports = largestOf(g.most, h.all), max(g.ports, h.row.Ports.Len())
	g.holds = g.holds || len(short(nil, w, h.all, h.row.Ports.Len(), devicesOf(h.all.GPU))) == 0
}

func newSurvey(w *shape, y *moving, largest unit.Resources) *survey {
	return &survey{shape: w, moving: y, largest: largest}
}

// see asks one machine, which its constraints allow or not. What it returns
// holds until the next one is asked.
func (v *survey) see(h *host, allowed bool) Verdict {
	v.seen++
	v.all.see(h, v.shape)
	if allowed {
		v.allowed.see(h, v.shape)
	}
	v.lacks = lacks(v.lacks[:0], h, v.shape, v.moving, allowed)
	d := Verdict{h.row.ID, v.lacks}
	if len(d.Lacks) == 0 {
		v.fit++
	}
	ruled := ruling(d.Lacks)
	for i := range ruled {
		v.note(&ruled[i], d.Machine)
	}
	score := [2]int64{v.distance(ruled), 0}
	if v.seen > 1 && score[0] > v.score[0] {
		return d
	}
	score[1] = v.distance(d.Lacks)
	if v.seen == 1 || cmp.Or(slices.Compare(score[:], v.score[:]), cmp.Compare(d.Machine, v.nearest.Machine)) < 0 {
		v.nearest, v.score = d.kept(), score
	}
	return d
}

// kept returns a verdict that holds for good.
func (d Verdict) kept() Verdict { return Verdict{d.Machine, slices.Clone(d.Lacks)} }

func (v *survey) note(l *Lack, m machine.ID) {
	at := slices.IndexFunc(v.reasons, func(r Reason) bool { return r.Rule == l.Rule && r.Detail == l.Detail })
	if at < 0 {
		at = len(v.reasons)
		v.reasons = append(v.reasons, Reason{Lack: *l, Machine: m})
	}
	r := &v.reasons[at]
	r.Machines++
	if l.Have > r.Have || l.Have == r.Have && m < r.Machine {
		r.Have, r.Machine = l.Have, m
	}
}

// distance says how far a machine is from taking the task: a shortage is
// nearest, then a limit, a constraint, maintenance, and what others own
// (Aurora S-14, S-15).
func (v *survey) distance(lacks []Lack) int64 {
	const step = 64 * scale
	sum := int64(0)
	for i := range lacks {
		l := &lacks[i]
		switch l.Rule {
		case Dedicated:
			sum += 5 * step
		case Down, Leaving:
			sum += 4 * step
		case Draining, Drained:
			sum += 3 * step
		case Constraint, Attribute:
			sum += 2 * step
		case Limit, Spreading, Affinity:
			sum += step
		case Ports:
			sum += scale
		case CPU, RAM, Disk, GPU, Net:
			sum += v.shortage(l)
		}
	}
	return sum
}

// shortage is how much is missing, as a part of what is needed.
func (v *survey) shortage(l *Lack) int64 {
	need := max(l.Need, 1)
	hi, lo := bits.Mul64(uint64(min(max(l.Need-max(l.Have, 0), 1), need)), scale)
	q, _ := bits.Div64(hi, lo, uint64(need))
	return 1 + int64(q)
}

// wait sums the survey up.
func (v *survey) wait() Wait {
	w := Wait{Text: v.text(), Reasons: v.sorted()}
	if v.seen > 0 {
		w.Nearest = &v.nearest
	}
	return w
}

func (v *survey) sorted() []Reason {
	out := slices.Clone(v.reasons)
	slices.SortFunc(out, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(slices.Index(rules[:], a.Rule), slices.Index(rules[:], b.Rule)),
			cmp.Compare(b.Machines, a.Machines), cmp.Compare(a.Detail, b.Detail))
	})
	return out
}

// surveyOf starts a survey for a job without an index.
func surveyOf(s *state.Snapshot, w *shape, k job.Key) *survey {
	y := movingFrom(s, w, k)
	var largest unit.Resources
	for row := range s.Machines() {
		largest = largestOf(largest, row.Allocatable())
	}
	return newSurvey(w, y, largest)
}
