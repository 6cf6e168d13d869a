package spec

import (
	"strings"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

// helpers defines the functions that make tasks and options.
func (s *schema) helpers() {
	fn := func(f func(*pyx.Interp, pyx.Args) (pyx.Value, error), names ...string) *pyx.Builtin {
		b := &pyx.Builtin{Name: names[0], Fn: f}
		for _, n := range names {
			s.names[n] = b
		}
		return b
	}
	simpleT := fn(s.simpleTask, "SimpleTask")
	fn(s.sequentialTask, "SequentialTask")
	combine := fn(s.combine, "combine_tasks")
	concat := fn(s.concat, "concat_tasks")
	order := fn(s.order, "order")
	java := fn(options("-", "-"), "java_options")
	python := fn(options("-", "--"), "python_options")
	sum := &pyx.Builtin{Name: "Units.resources_sum", Fn: func(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		return s.addResources(in, a.At, a.Pos)
	}}
	most := &pyx.Builtin{Name: "Units.resources_max", Fn: func(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		list := a.Pos
		if len(list) == 1 {
			if l, ok := items(list[0]); ok {
				list = l
			}
		}
		return s.maxResources(in, a.At, list)
	}}
	sequential := &pyx.Builtin{Name: "Tasks.sequential", Fn: func(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		if len(a.Pos) != 1 || !s.types["Task"].IsInstance(a.Pos[0]) {
			return nil, pyx.Errorf("TypeError", "Tasks.sequential wants a Task")
		}
		return s.sequential(in, a.Pos[0].(*object), a.At)
	}}
	s.names["Tasks"] = &pyx.Module{Name: "Tasks", Names: map[string]pyx.Value{
		"simple": simpleT, "sequential": sequential, "combine": combine, "concat": concat,
		"SIMPLE_CPU": 1.0, "SIMPLE_RAM": int64(1 << 30), "SIMPLE_DISK": int64(1 << 30),
	}}
	s.names["Processes"] = &pyx.Module{Name: "Processes", Names: map[string]pyx.Value{"order": order}}
	s.names["Options"] = &pyx.Module{Name: "Options", Names: map[string]pyx.Value{"java": java, "python": python}}
	s.names["Units"] = &pyx.Module{Name: "Units", Names: map[string]pyx.Value{"resources_sum": sum, "resources_max": most}}
}

// params matches the arguments of a helper written in Go to its parameters.
func params(name string, a pyx.Args, names ...string) ([]pyx.Value, error) {
	out := make([]pyx.Value, len(names))
	given := make([]bool, len(names))
	if len(a.Pos) > len(names) {
		return nil, pyx.Errorf("TypeError", "%s takes %s; %d values are given", name, strings.Join(names, " and "), len(a.Pos))
	}
	for i, v := range a.Pos {
		out[i], given[i] = v, true
	}
next:
	for _, kw := range a.Kw {
		for i, n := range names {
			if n == kw.Name && !given[i] {
				out[i], given[i] = kw.Val, true
				continue next
			}
		}
		return nil, pyx.ErrorAt(kw.At, "TypeError", "%s has no parameter %s%s", name, kw.Name, pyx.Suggest(kw.Name, names))
	}
	for i, ok := range given {
		if !ok {
			return nil, pyx.Errorf("TypeError", "%s wants %s; %s is missing", name, strings.Join(names, " and "), names[i])
		}
	}
	return out, nil
}

// call makes an object of a type from named values.
func (s *schema) call(in *pyx.Interp, typ string, at pyx.Pos, kws ...pyx.Kw) (*object, error) {
	for i := range kws {
		kws[i].At = at
	}
	v, err := s.types[typ].Call(in, pyx.Args{At: at, Kw: kws})
	if err != nil {
		return nil, err
	}
	return v.(*object), nil
}

// simpleTask is SimpleTask(name, command): one process, one core, 1 GiB of
// memory and of disk.
func (s *schema) simpleTask(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	v, err := params("SimpleTask", a, "name", "command")
	if err != nil {
		return nil, err
	}
	p, err := s.call(in, "Process", a.At, pyx.Kw{Name: "name", Val: v[0]}, pyx.Kw{Name: "cmdline", Val: v[1]})
	if err != nil {
		return nil, err
	}
	r, err := s.call(in, "Resources", a.At, pyx.Kw{Name: "cpu", Val: 1.0}, pyx.Kw{Name: "ram", Val: int64(1 << 30)}, pyx.Kw{Name: "disk", Val: int64(1 << 30)})
	if err != nil {
		return nil, err
	}
	return s.call(in, "Task", a.At, pyx.Kw{Name: "name", Val: v[0]}, pyx.Kw{Name: "processes", Val: &pyx.List{Items: []pyx.Value{p}}}, pyx.Kw{Name: "resources", Val: r})
}

func (s *schema) sequentialTask(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	v, err := s.types["Task"].Call(in, a)
	if err != nil {
		return nil, err
	}
	return s.sequential(in, v.(*object), a.At)
}

// sequential orders the processes of a task as they are listed.
func (s *schema) sequential(in *pyx.Interp, task *object, at pyx.Pos) (pyx.Value, error) {
	if c := task.get("constraints"); c != nil && len(c.items) > 0 {
		return nil, pyx.ErrorAt(task.where("constraints"), "ValueError", "a SequentialTask orders its processes itself; use Task(...) with constraints")
	}
	if task.get("processes") == nil {
		return task, nil
	}
	procs, err := task.field(in, "processes")
	if err != nil {
		return nil, err
	}
	args := pyx.Args{At: at}
	for _, p := range procs.(*object).items {
		args.Pos = append(args.Pos, p)
	}
	order, err := s.order(in, args)
	if err != nil {
		return nil, err
	}
	return task.with(in, at, pyx.Kw{Name: "constraints", Val: order})
}

// with returns a copy of a struct with fields changed.
func (o *object) with(in *pyx.Interp, at pyx.Pos, kws ...pyx.Kw) (*object, error) {
	for i := range kws {
		if !kws[i].At.IsValid() {
			kws[i].At = at
		}
	}
	v, err := o.Call(in, pyx.Args{At: at, Kw: kws})
	if err != nil {
		return nil, err
	}
	return v.(*object), nil
}

// order is order(a, b, c): a list of one constraint of the processes' names.
func (s *schema) order(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	names := &pyx.List{}
	for _, v := range a.Pos {
		name := v
		if o, ok := v.(*object); ok && o.typ.is(s.types["Process"]) {
			n, err := o.field(in, "name")
			if err != nil {
				return nil, err
			}
			if n == empty {
				return nil, pyx.Errorf("ValueError", "order() wants processes with names; this one has none")
			}
			name = n
		} else if _, ok := v.(string); !ok && (!isObject(v) || !o.isSimple()) {
			return nil, pyx.Errorf("ValueError", "order() wants processes or their names; this is %s", typeOf(v))
		}
		names.Items = append(names.Items, name)
	}
	c, err := s.call(in, "Constraint", a.At, pyx.Kw{Name: "order", Val: names})
	if err != nil {
		return nil, err
	}
	return &pyx.List{Items: []pyx.Value{c}}, nil
}

func isObject(v pyx.Value) bool {
	_, ok := v.(*object)
	return ok
}

// options is java_options and python_options: '-name value' for each.
func options(short, long string) func(*pyx.Interp, pyx.Args) (pyx.Value, error) {
	render := func(in *pyx.Interp, name string, v pyx.Value) (string, error) {
		prefix := long
		if len(name) == 1 {
			prefix = short
		}
		ok, err := in.Truth(v)
		if !ok || err != nil {
			return prefix + name, err
		}
		t, err := in.Str(v)
		return prefix + name + " " + t, err
	}
	return func(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		var out []string
		add := func(name string, v pyx.Value) error {
			t, err := render(in, name, v)
			out = append(out, t)
			if err == nil {
				err = in.Alloc(len(t))
			}
			return err
		}
		for _, v := range a.Pos {
			switch v := v.(type) {
			case string:
				if err := add(v, nil); err != nil {
					return nil, err
				}
			case *pyx.Dict:
				err := v.Each(func(k, x pyx.Value, _ pyx.Pos) error {
					n, err := in.Str(k)
					if err != nil {
						return err
					}
					return add(n, x)
				})
				if err != nil {
					return nil, err
				}
			default:
				return nil, pyx.Errorf("ValueError", "options are strings, dicts and names; this is %s", typeOf(v))
			}
		}
		for _, kw := range a.Kw {
			if err := add(kw.Name, kw.Val); err != nil {
				return nil, err
			}
		}
		return strings.Join(out, " "), nil
	}
}
