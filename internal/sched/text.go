package sched

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/unit"
)

const (
	lostConfig = "its config is not stored; restore the database from a backup"
	tooMany    = "no machine fits; so many jobs wait that this one was not looked into: explain it alone to hear why"
)

// text says in one line why no machine takes the task.
func (v *survey) text() string {
	switch {
	case v.fit > 0:
		return "machine " + string(v.nearest.Machine) + " fits; it waits for its turn"
	case v.seen == 0:
		return "no machine fits: the cluster has no machine"
	case !v.all.holds:
		return "larger than any machine: " + v.all.text(v.shape)
	case v.allowed.machines > 0 && !v.allowed.holds:
		return "larger than any machine that its constraints allow: " + v.allowed.text(v.shape)
	}
	var parts []string
	for i, r := range v.sorted() {
		parts = append(parts, r.text(v.seen, i == 0))
	}
	const most = 6
	if more := len(parts) - most; more > 0 {
		parts = append(parts[:most], strconv.Itoa(more)+" more reasons")
	}
	return "no machine fits: " + strings.Join(parts, ", ")
}

// text names what the task needs more of than any machine has.
func (g *giant) text(w *shape) string {
	var parts []string
	for _, m := range w.need.Short(g.most) {
		parts = append(parts, fmt.Sprintf("needs %v %s, the largest has %s", m, m.Format(w.need.Of(m)), m.Format(g.most.Of(m))))
	}
	if w.ports > g.ports {
		parts = append(parts, fmt.Sprintf("needs %s, the largest has %d", count(w.ports, "port"), g.ports))
	}
	if len(parts) > 0 {
		return strings.Join(parts, ", ")
	}
	all := w.need.String()
	if w.ports > 0 {
		all += ", " + count(w.ports, "port")
	}
	return "needs " + all + " together, and no machine has all of it"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// text writes a reason as "2 of 3 lack cpu (need 4, nearest m2 has 2.5)".
func (r Reason) text(total int, first bool) string {
	who := strconv.Itoa(r.Machines)
	if first {
		who += " of " + strconv.Itoa(total)
	}
	is, lack, does, has := "are", "lack", "do", "have"
	if r.Machines == 1 {
		is, lack, does, has = "is", "lacks", "does", "has"
	}
	switch r.Rule {
	case Down, Leaving, Draining, Drained:
		return who + " " + is + " " + string(r.Rule)
	case Dedicated:
		return who + " " + is + " dedicated to " + r.Detail
	case Constraint:
		return who + " " + does + " not match " + r.Detail
	case Limit:
		return fmt.Sprintf("%s %s at the limit of %d per %s", who, is, r.Need, r.Detail)
	case Spreading:
		return fmt.Sprintf("%s %s where the job has %d more per %s than where it has the fewest", who, is, r.Need, r.Detail)
	case Affinity:
		return fmt.Sprintf("%s %s not match %s", who, does, r.Detail)
	case Attribute:
		return fmt.Sprintf("%s %s no attribute %s, by which tasks are counted", who, has, r.Detail)
	case Ports:
		return fmt.Sprintf("%s %s ports (need %d, nearest %s has %d)", who, lack, r.Need, r.Machine, r.Have)
	case CPU, RAM, Disk, GPU, Net:
	}
	m := measureOf(r.Rule)
	if r.Rule == GPU && r.Have >= r.Need {
		return fmt.Sprintf("%s %s a gpu with so much left (need %s, nearest %s has %s over all)",
			who, lack, m.Format(r.Need), r.Machine, m.Format(r.Have))
	}
	return fmt.Sprintf("%s %s %v (need %s, nearest %s has %s)", who, lack, m, m.Format(r.Need), r.Machine, m.Format(r.Have))
}

func measureOf(r Rule) unit.Measure {
	for _, m := range unit.Measures() {
		if m.String() == string(r) {
			return m
		}
	}
	return unit.CPU
}
