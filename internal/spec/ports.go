package spec

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/spec/pyx"
)

// portSet holds the named ports of a job: what each name stands for after the
// announcer's aliases, and which ports must be found on the machine.
type portSet struct {
	alias   map[string]string // name -> the name or the number that it stands for
	dynamic []string          // sorted
	served  []string          // of them, those that a process is told of
}

// meaning returns the port that a name stands for, and whether it is a number.
func (p portSet) meaning(n string) (string, bool) {
	if to, ok := p.alias[n]; ok {
		n = to
	}
	_, err := strconv.Atoi(n)
	return n, err == nil
}

// checkPorts finds the job's ports: those that templates name and those that
// the announcer publishes, less those that the port map makes static.
func (l *lowering) checkPorts() error {
	l.ports.alias = map[string]string{}
	if a := l.j.get("announce"); a != nil {
		if err := l.portmap(a); err != nil {
			return err
		}
	}
	found := map[string]portUse{}
	for _, n := range slices.Sorted(maps.Keys(l.ports.alias)) {
		l.note(found, l.ports.alias[n], "announce.portmap", l.j.get("announce").where("portmap"))
	}
	if err := l.referenced(l.j, "", found); err != nil {
		return err
	}
	byUse := slices.SortedFunc(maps.Keys(found), func(a, b string) int { return found[a].n - found[b].n })
	for i, n := range byUse {
		if i >= job.MaxPorts {
			u := found[n]
			return fail(u.path, u.at, "names the port %s, and others name %d ports before it; a task has at most %d", n, i, job.MaxPorts)
		}
		l.ports.dynamic = append(l.ports.dynamic, n)
	}
	slices.Sort(l.ports.dynamic)
	for _, n := range l.ports.dynamic {
		if err := name.Valid("port", n); err != nil {
			return fail("announce.portmap", l.j.where("announce"), "names a port that is wrong: %s", err)
		}
	}
	return l.checkAsked()
}

// checkAsked refuses a health check of a port that no process is told of:
// nobody would answer there.
func (l *lowering) checkAsked() error {
	told, asked := map[string]portUse{}, map[string]portUse{}
	for f, into := range map[string]map[string]portUse{"task": told, "health_check_config": asked} {
		if o := l.j.get(f); o != nil {
			if err := l.referenced(o, f, into); err != nil {
				return err
			}
		}
	}
	l.ports.served = slices.Sorted(maps.Keys(told))
	for _, n := range slices.Sorted(maps.Keys(asked)) {
		if err := l.serves(n); err != nil {
			return err
		}
	}
	return nil
}

// serves reports that a health check asks a port which no process is told of.
func (l *lowering) serves(n string) error {
	to, static := l.ports.meaning(n)
	if static || slices.Contains(l.ports.served, to) {
		return nil
	}
	hint := "; name it in a process as {{thermos.ports[" + to + "]}}"
	if near := name.Nearest(to, l.ports.served); near != "" {
		hint = "; did you mean " + near + "?"
	}
	return fail("health_check_config", l.j.where("health_check_config"), "asks the port %s, of which no process is told%s", to, hint)
}

// portmap follows the announcer's aliases to their ends.
func (l *lowering) portmap(a *object) error {
	raw := map[string]string{}
	var order []string
	if m := a.get("portmap"); m != nil {
		for _, p := range m.pairs {
			k, _ := p.key.val.(string)
			v, _ := p.val.val.(string)
			raw[k] = v
			order = append(order, k)
		}
	}
	for _, k := range order {
		to, seen := raw[k], map[string]bool{k: true}
		for {
			next, ok := raw[to]
			if !ok || next == to {
				break
			}
			if seen[to] {
				return fail("announce.portmap", a.where("portmap"), "goes in a circle at %s", show(to))
			}
			seen[to] = true
			to = next
		}
		if n, err := strconv.Atoi(strings.TrimSpace(to)); err == nil {
			if n < 1 || n > 65535 {
				return fail("announce.portmap", a.where("portmap"), "maps %s to %d; a port is 1 to 65535", show(k), n)
			}
			to = strconv.Itoa(n)
			if !l.dedicated() {
				return fail("announce.portmap", a.where("portmap"), "maps %s to the static port %d; only jobs with a dedicated constraint may: constraints = {'dedicated': 'ROLE/NAME'}", show(k), n)
			}
		}
		l.ports.alias[k] = to
	}
	return nil
}

func (l *lowering) dedicated() bool {
	if c := l.j.get("constraints"); c != nil {
		for _, p := range c.pairs {
			if p.key.val == "dedicated" {
				return true
			}
		}
	}
	return false
}

// A portUse is where a port is named first, and as the how manieth.
type portUse struct {
	path string
	at   pyx.Pos
	n    int
}

// note adds what a name stands for to the ports that must be found, unless it
// is there, or is a number.
func (l *lowering) note(found map[string]portUse, n, path string, at pyx.Pos) {
	to, static := l.ports.meaning(n)
	if _, again := found[to]; !again && !static {
		found[to] = portUse{path, at, len(found)}
	}
}

// referenced collects the ports that the templates of an object name.
func (l *lowering) referenced(o *object, path string, found map[string]portUse) error {
	switch o.typ.kind {
	case kStruct:
		for i, s := range o.data {
			if s.o != nil {
				if err := l.referenced(s.o, strings.TrimPrefix(path+"."+o.typ.fields[i].name, "."), found); err != nil {
					return err
				}
			}
		}
	case kList:
		for i, x := range o.items {
			if err := l.referenced(x, path+"["+itoa(i)+"]", found); err != nil {
				return err
			}
		}
	case kMap:
		for _, p := range o.pairs {
			if err := l.referenced(p.val, path, found); err != nil {
				return err
			}
		}
	default:
		s, ok := o.val.(string)
		if !ok || !strings.Contains(s, "{{thermos.ports") {
			return nil
		}
		chunks, err := split(s)
		if err != nil {
			return err
		}
		for _, c := range chunks {
			if len(c.ref) == 3 && c.ref[1] == ".ports" {
				n := strings.Trim(c.ref[2], "[]")
				if err := name.Valid("port", n); err != nil {
					return fail(path, o.at, "names a port that is wrong: %s", err)
				}
				l.note(found, n, path, o.at)
			}
		}
	}
	return nil
}

// portText replaces the names of ports that stand for others or for numbers.
func (l *lowering) portText(s string) string {
	if len(l.ports.alias) == 0 || !strings.Contains(s, "{{thermos.ports") {
		return s
	}
	chunks, err := split(s)
	if err != nil {
		return s
	}
	var b strings.Builder
	for _, c := range chunks {
		if len(c.ref) == 3 && c.ref[1] == ".ports" {
			to, static := l.ports.meaning(strings.Trim(c.ref[2], "[]"))
			c.text = "{{thermos.ports[" + to + "]}}"
			if static {
				c.text = to
			}
		}
		b.WriteString(c.text)
	}
	return b.String()
}
