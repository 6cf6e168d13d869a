package sched

import (
	"cmp"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// A Wait says why a task is not placed. Those of a plan hold for every waiting
// task of a job that runs the config.
type Wait struct {
	Task     task.ID // the first of them
	Job      job.Key
	Config   job.Hash
	Tasks    int        // how many wait
	Room     machine.ID // where room is being made for Task, which alone this is about
	Text     string     // for people, one line
	Reasons  []Reason   // what rules machines out; one machine may lack several things
	Nearest  *Verdict   // the machine that lacks least; nil when there is none
	Machines []Verdict  // each machine in order of id; by [Explain] only
}

// A Rule is what a machine may fail.
type Rule string

// The rules, in the order in which reasons are given.
const (
	CPU        Rule = "cpu"
	RAM        Rule = "ram"
	Disk       Rule = "disk"
	GPU        Rule = "gpu"
	Net        Rule = "net"
	Ports      Rule = "ports"
	Limit      Rule = "limit"
	Spreading  Rule = "spread"
	Affinity   Rule = "affinity"
	Attribute  Rule = "attribute" // a limit counts by one that it has not
	Constraint Rule = "constraint"
	Draining   Rule = "draining"
	Drained    Rule = "drained"
	Down       Rule = "down"
	Leaving    Rule = "leaving" // its agent was told to stop its tasks
	Dedicated  Rule = "dedicated"
)

var rules = [...]Rule{CPU, RAM, Disk, GPU, Net, Ports, Limit, Spreading, Affinity, Attribute, Constraint, Draining, Drained, Down, Leaving, Dedicated}

// A Lack is one rule that a machine fails. Need and Have are amounts in the
// unit of the measure; for ports and limits, numbers. Have of a gpu may reach
// Need: then no single GPU has that much.
type Lack struct {
	Rule   Rule
	Detail string // the constraint, such as rack=a,b; the attribute; or whom it is dedicated to
	Need   int64
	Have   int64
}

// A Verdict is all that one machine lacks. It fits when it lacks nothing.
type Verdict struct {
	Machine machine.ID
	Lacks   []Lack
}

// A Reason counts the machines that fail one rule. Best is the most that any
// of them has, and Machine the first that has so much.
type Reason struct {
	Lack
	Machines int
	Machine  machine.ID
}

// judge returns what rules a host out for one more task of w, as it is counted:
// a host that is down or in maintenance, or that no constraint lets w use, is
// ruled out by that alone.
func judge(h *host, w *shape, y *moving) []Lack { return ruling(lacks(h, w, y)) }

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

// lacks returns all that a host lacks for one more task of w: its own state,
// whom it is dedicated to, every constraint, and every shortage.
func lacks(h *host, w *shape, y *moving) []Lack {
	m := &h.row.Machine
	all := w.excludes(m)
	if y != nil {
		all = slices.AppendSeq(all, y.refusals(m))
	}
	return append(all, short(w, h.free, h.portsLeft(), h.devs)...)
}

// excludes returns why w may not use a machine, whatever runs there.
func (w *shape) excludes(m *machine.Machine) []Lack {
	var all []Lack
	switch {
	case !m.Up:
		all = append(all, Lack{Rule: Down})
	case m.Leaving:
		all = append(all, Lack{Rule: Leaving})
	case m.Mode == machine.Draining:
		all = append(all, Lack{Rule: Draining})
	case treeOf(*m) == nowhere:
		all = append(all, Lack{Rule: Drained})
	}
	if !w.mayUse(m) {
		all = append(all, Lack{Rule: Dedicated, Detail: strings.Join(m.Values(dedicated), ",")})
	}
	for _, c := range w.values {
		if !matches(c, m) {
			all = append(all, Lack{Rule: Constraint, Detail: spell(c)})
		}
	}
	for _, a := range w.counted() {
		if !hasAny(m, a) {
			all = append(all, Lack{Rule: Attribute, Detail: a})
		}
	}
	return all
}

// short returns the measures in which w does not fit into what a machine has.
func short(w *shape, free unit.Resources, ports int, devs []int16) []Lack {
	var lacks []Lack
	for _, m := range w.need.Short(free) {
		lacks = append(lacks, Lack{Rule: Rule(m.String()), Need: w.need.Of(m), Have: free.Of(m)})
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
	reasons map[[2]string]*Reason
	nearest Verdict
	score   [2]int64 // of what rules the nearest out, then of all that it lacks
	all     giant    // every machine
	allowed giant    // those that the constraints allow
}

// giant remembers how large machines are when they are empty.
type giant struct {
	machines int
	holds    bool // one of them would hold the task if it were empty
	most     unit.Resources
	ports    int
}

func (g *giant) see(h *host, w *shape) {
	all := h.row.Allocatable()
	g.machines++
	g.most, g.ports = largestOf(g.most, all), max(g.ports, h.row.Ports.Len())
	g.holds = g.holds || len(short(w, all, h.row.Ports.Len(), devicesOf(all.GPU))) == 0
}

func newSurvey(w *shape, y *moving, largest unit.Resources) *survey {
	return &survey{shape: w, moving: y, largest: largest, reasons: map[[2]string]*Reason{}}
}

// see asks one machine.
func (v *survey) see(h *host) Verdict {
	v.seen++
	v.all.see(h, v.shape)
	if v.shape.allows(&h.row.Machine) {
		v.allowed.see(h, v.shape)
	}
	d := Verdict{h.row.ID, lacks(h, v.shape, v.moving)}
	if len(d.Lacks) == 0 {
		v.fit++
	}
	ruled := ruling(d.Lacks)
	for _, l := range ruled {
		v.note(l, d.Machine)
	}
	score := [2]int64{v.distance(ruled), v.distance(d.Lacks)}
	if v.seen == 1 || cmp.Or(slices.Compare(score[:], v.score[:]), cmp.Compare(d.Machine, v.nearest.Machine)) < 0 {
		v.nearest, v.score = d, score
	}
	return d
}

func (v *survey) note(l Lack, m machine.ID) {
	key := [2]string{string(l.Rule), l.Detail}
	r, ok := v.reasons[key]
	if !ok {
		r = &Reason{Lack: l, Machine: m}
		v.reasons[key] = r
	}
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
	for _, l := range lacks {
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
func (v *survey) shortage(l Lack) int64 {
	missing := max(l.Need-max(l.Have, 0), 1)
	return 1 + leftover(unit.Resources{CPU: missing}, unit.Resources{CPU: max(l.Need, 1)})
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
	out := make([]Reason, 0, len(v.reasons))
	for _, r := range v.reasons {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(slices.Index(rules[:], a.Rule), slices.Index(rules[:], b.Rule)),
			cmp.Compare(b.Machines, a.Machines), cmp.Compare(a.Detail, b.Detail))
	})
	return out
}

// explain says of every stuck group why it is stuck, as far as the limit of
// looks allows. Groups of the same needs share one survey.
func (p *planner) explain() {
	known := map[need]Wait{}
	looks := p.lim.Looks
	for _, k := range p.stuck {
		w := Wait{Text: lostConfig}
		if k.group.shape != nil {
			w = p.why(k.group, known, &looks)
		}
		w.Task, w.Job, w.Config, w.Tasks = k.first, k.group.job, k.group.config, k.tasks
		p.waits.Groups = append(p.waits.Groups, w)
	}
}

// why says why a group is stuck, from what is known of others or by a survey.
func (p *planner) why(g *group, known map[need]Wait, looks *int) Wait {
	if w, ok := known[g.need()]; ok && g.moving == nil {
		return w
	}
	if *looks < len(p.x.slots) {
		return Wait{Text: tooMany}
	}
	*looks -= len(p.x.slots)
	w := p.x.survey(g).wait()
	if g.moving == nil {
		known[g.need()] = w
	}
	return w
}

func (x *Index) survey(g *group) *survey {
	if g.moving != nil {
		x.refresh(g)
	}
	v := newSurvey(g.shape, g.moving, x.largest)
	for n := 1; n < len(x.hosts); n++ {
		if x.hosts[n].row.ID != "" {
			v.see(&x.hosts[n])
		}
	}
	return v
}

// Explain says why one task waits, looking at the whole snapshot and at no
// index, so that it may be called from anywhere. It names up to limit machines.
// An error of kind NotFound says that no such task is live.
func Explain(s *state.Snapshot, id task.ID, limit int) (Wait, error) {
	t, ok := s.Task(id)
	if !ok {
		return Wait{}, fault.NotFound.Errorf("there is no live task %s; job status lists those there are", id)
	}
	w := Wait{Task: id, Job: id.Job, Config: t.Config, Tasks: 1}
	if t.State != task.Pending {
		w.Text = "does not wait for a machine: it is " + t.State.String()
		if t.Machine != "" {
			w.Text += " on " + string(t.Machine)
		}
		return w, nil
	}
	if t.Room != "" {
		w.Text, w.Room = roomOf(s, t), t.Room
		return w, nil
	}
	cfg, ok := s.Config(t.Config)
	if !ok {
		w.Text = lostConfig
		return w, nil
	}
	v := surveyOf(s, shapeOf(id.Job, cfg), id.Job)
	for row := range s.Machines() {
		h := look(s, row, nil)
		d := v.see(&h)
		if len(w.Machines) < limit {
			w.Machines = append(w.Machines, d)
		}
	}
	found := v.wait()
	w.Text, w.Reasons, w.Nearest = found.Text, found.Reasons, found.Nearest
	return w, nil
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
