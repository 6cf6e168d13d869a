package job

import (
	"slices"
	"strconv"
	"strings"
)

// MaxProcessName bounds the name of a process, in bytes: it becomes part of
// the path of its logs.
const MaxProcessName = 128

// ValidatePlan reports why the processes of t could never be run in the order
// asked for, as a [FieldError], if so: no process, a name twice, a name that is
// no file name, an order that names nobody, runs in a circle, waits for a
// daemon, lets the task's success wait for an ephemeral process, or joins final
// processes with others. The rules are the Thermos planner's.
func (t Task) ValidatePlan() error {
	if len(t.Processes) == 0 {
		return bad("task.processes", "task %.80q has no process; want at least one", t.Name)
	}
	byName := make(map[string]Process, len(t.Processes))
	for i, p := range t.Processes {
		at := "task.processes[" + strconv.Itoa(i) + "].name"
		if err := validProcessName(at, p.Name); err != nil {
			return err
		}
		if _, twice := byName[p.Name]; twice {
			return bad(at, "task has two processes named %q; give each its own name", p.Name)
		}
		byName[p.Name] = p
	}
	for _, chain := range t.Order {
		if err := validChain(chain, byName); err != nil {
			return err
		}
	}
	if c := circle(t); c != nil {
		return bad("task.constraints", "processes wait for each other in a circle: %s; remove one step of this order", strings.Join(c, " -> "))
	}
	return nil
}

// validProcessName holds names to what Aurora documents: any file name without
// slash or leading period. Control characters would break reasons and logs.
func validProcessName(at, s string) error {
	switch {
	case s == "":
		return bad(at, "a process has no name; give it one")
	case len(s) > MaxProcessName:
		return bad(at, "process name %.20q... has %d bytes; want at most %d", s, len(s), MaxProcessName)
	case s[0] == '.':
		return bad(at, "process name %q starts with a period; choose another", s)
	case strings.Contains(s, "/"):
		return bad(at, "process name %q holds a slash; its logs need a plain file name", s)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return bad(at, "process name %q holds a control character; choose another", s)
		}
	}
	return nil
}

// validChain checks each step of one order, apart from circles.
func validChain(chain []string, byName map[string]Process) error {
	for i, n := range chain {
		p, ok := byName[n]
		if !ok {
			return bad("task.constraints", "order names process %.80q, which the task does not have; its processes are %s", n, namesOf(byName))
		}
		if i == 0 {
			continue
		}
		before := byName[chain[i-1]]
		switch {
		case before.Final != p.Final:
			return bad("task.constraints", "order %s joins final processes with others; final ones run after all others by themselves", strings.Join(chain, ", "))
		case before.Daemon:
			return bad("task.constraints", "process %q may not wait for %q: a daemon never completes", p.Name, before.Name)
		case before.Ephemeral && !p.Ephemeral:
			return bad("task.constraints", "process %q may not wait for the ephemeral process %q; make it ephemeral too or drop the order", p.Name, before.Name)
		}
	}
	return nil
}

// maxNamed bounds the names that an error lists.
const maxNamed = 10

// namesOf lists the first names, sorted, for an error.
func namesOf(byName map[string]Process) string {
	names := make([]string, 0, len(byName))
	for n := range byName {
		names = append(names, n)
	}
	slices.Sort(names)
	if len(names) > maxNamed {
		names = append(names[:maxNamed], "...")
	}
	return strings.Join(names, ", ")
}

// circle returns the names along a circle of the order, the first one again at
// the end, or nil. It follows processes as they are listed, so that equal
// tasks give equal answers.
func circle(t Task) []string {
	next := map[string][]string{}
	for _, chain := range t.Order {
		for i := 1; i < len(chain); i++ {
			next[chain[i-1]] = append(next[chain[i-1]], chain[i])
		}
	}
	const open, closed = 1, 2
	mark := map[string]int{}
	var path []string
	var visit func(n string) []string
	visit = func(n string) []string {
		mark[n] = open
		path = append(path, n)
		for _, m := range next[n] {
			if mark[m] == open {
				return append(slices.Clone(path[slices.Index(path, m):]), m)
			}
			if mark[m] != closed {
				if c := visit(m); c != nil {
					return c
				}
			}
		}
		mark[n] = closed
		path = path[:len(path)-1]
		return nil
	}
	for _, p := range t.Processes {
		if mark[p.Name] == 0 {
			if c := visit(p.Name); c != nil {
				return c
			}
		}
	}
	return nil
}
