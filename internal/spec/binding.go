package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

// bindings reads the bundle's name=value pairs.
func (ev *evaluation) bindings() error {
	ev.binds = newEnv()
	ev.binds.took = &takings{map[string]bool{}, map[string]bool{}}
	for _, b := range ev.bundle.Binds {
		name, value, ok := strings.Cut(b, "=")
		if !ok {
			return fmt.Errorf("the binding %.80q has no value; want name=value, such as --bind profile.instances=3", b)
		}
		if err := ev.binds.put(ev.in, nil, name, value); err != nil {
			return fmt.Errorf("the binding %.80q: %w", b, err)
		}
	}
	return nil
}

// untaken refuses the first binding that no job of the file makes use of, since
// whoever misspelt a name would get the job without it. A job that was not
// selected counts.
func (ev *evaluation) untaken(jobs []*object, entries []Entry) error {
	if len(ev.unused()) == 0 {
		return nil
	}
	for i, o := range jobs {
		if entries[i].Err != nil && !ev.asks(o) {
			return nil // what the rest of the job would take nobody knows; its own error stands
		}
	}
	left := ev.unused()
	if len(left) == 0 {
		return nil
	}
	r, _ := parseRef(left[0])
	if _, fixed := standard().table[left[0]]; fixed {
		return fmt.Errorf("%s cannot be bound: it is what the job's own fields say; leave --bind %s=... out", r, r)
	}
	return fmt.Errorf("nothing in %s takes the binding of %.80s: no template asks for it, or what is nearer binds it%s", ev.bundle.Main, r, ev.bindable(r.String()))
}

// asks looks up all names of a job that was not lowered to its end. It is false
// if they cannot all be found.
func (ev *evaluation) asks(o *object) bool {
	l := &lowering{evaluation: ev, job: o}
	_, err := newBinder(ev.in, true).interpolate(l.bound())
	return err == nil
}

// unused returns the addresses that were bound and never asked for, in the order
// in which they were given.
func (ev *evaluation) unused() []string {
	var out []string
	for _, b := range ev.bundle.Binds {
		name, _, _ := strings.Cut(b, "=")
		r, _ := parseRef(name)
		if a := strings.Join(r, ""); !ev.binds.took.used[a] {
			out = append(out, a)
		}
	}
	return out
}

// bindable says which name was meant, or else which there are.
func (ev *evaluation) bindable(wrong string) string {
	const most = 5
	var names []string
	for a := range ev.binds.took.reached {
		if r, ok := parseRef(a); ok && !runtime(r) {
			names = append(names, r.String())
		}
	}
	if meant := pyx.Suggest(wrong, names); meant != "" {
		return meant
	}
	if len(names) == 0 {
		return "; the file has no name that --bind can reach"
	}
	slices.Sort(names)
	list := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		list += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return "; those that can be bound are " + list
}
