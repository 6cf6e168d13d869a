package spec

import (
	"github.com/covey-platform/covey/internal/spec/pyx"
)

// tasksOf checks that the arguments are tasks.
func (s *schema) tasksOf(name string, a pyx.Args) ([]*object, error) {
	out := make([]*object, len(a.Pos))
	for i, v := range a.Pos {
		o, ok := v.(*object)
		if !ok || !o.typ.is(s.types["Task"]) {
			return nil, pyx.Errorf("TypeError", "%s wants tasks; this is %s", name, typeOf(v))
		}
		out[i] = o
	}
	return out, nil
}

// merge returns the elements of a list field of all tasks, each once. They
// come in the order of Aurora's set of them.
func merge(in *pyx.Interp, tasks []*object, name string) ([]pyx.Value, error) {
	var all []pyx.Value
	for _, t := range tasks {
		v, err := t.field(in, name)
		if err != nil {
			return nil, err
		}
		if l, ok := v.(*object); ok {
			for _, x := range l.items {
				all = append(all, x)
			}
		}
	}
	set, err := pyx.NewSet(in, all)
	if err != nil {
		return nil, err
	}
	return set.Items(in)
}

// combine is combine_tasks: one task that runs all processes side by side.
// Resources add up, the longest finalization wait holds, and name and other
// fields are those of the last task.
func (s *schema) combine(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	tasks, err := s.tasksOf("combine_tasks", a)
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		return s.types["Task"].Call(in, pyx.Args{At: a.At})
	}
	cs, err := merge(in, tasks, "constraints")
	if err != nil {
		return nil, err
	}
	res, err := s.addResources(in, a.At, fieldsOf(in, tasks))
	if err != nil {
		return nil, err
	}
	wait := int64(0)
	for _, t := range tasks {
		n, err := intField(in, t, "finalization_wait")
		if err != nil {
			return nil, err
		}
		wait = max(wait, n)
	}
	return s.merged(in, a, tasks, cs, res, wait)
}

// concat is concat_tasks: one task that runs all processes of a task before
// any of the next. The largest resources hold, finalization waits add up.
func (s *schema) concat(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	tasks, err := s.tasksOf("concat_tasks", a)
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		return s.types["Task"].Call(in, pyx.Args{At: a.At})
	}
	cs, err := merge(in, tasks, "constraints")
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(tasks); i++ {
		more, betweenErr := s.between(in, tasks[i-1], tasks[i], a.At)
		if betweenErr != nil {
			return nil, betweenErr
		}
		cs = append(cs, more...)
	}
	res, err := s.maxResources(in, a.At, fieldsOf(in, tasks))
	if err != nil {
		return nil, err
	}
	wait := int64(0)
	for _, t := range tasks {
		n, err := intField(in, t, "finalization_wait")
		if err != nil {
			return nil, err
		}
		wait += n
	}
	return s.merged(in, a, tasks, cs, res, wait)
}

func (s *schema) merged(in *pyx.Interp, a pyx.Args, tasks []*object, cs []pyx.Value, res *object, wait int64) (pyx.Value, error) {
	procs, err := merge(in, tasks, "processes")
	if err != nil {
		return nil, err
	}
	t, err := tasks[len(tasks)-1].with(in, a.At,
		pyx.Kw{Name: "processes", Val: &pyx.List{Items: procs}}, pyx.Kw{Name: "constraints", Val: &pyx.List{Items: cs}},
		pyx.Kw{Name: "resources", Val: res}, pyx.Kw{Name: "finalization_wait", Val: wait})
	if err != nil {
		return nil, err
	}
	return t.with(in, a.At, a.Kw...)
}

// between orders every process of one task before every process of another.
func (s *schema) between(in *pyx.Interp, first, second *object, at pyx.Pos) ([]pyx.Value, error) {
	var out []pyx.Value
	ps, err := processes(in, first)
	if err != nil {
		return nil, err
	}
	qs, err := processes(in, second)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		for _, q := range qs {
			same, err := in.Equal(p, q)
			if err != nil {
				return nil, err
			}
			if same {
				continue
			}
			c, err := s.order(in, pyx.Args{At: at, Pos: []pyx.Value{p, q}})
			if err != nil {
				return nil, err
			}
			out = append(out, c.(*pyx.List).Items...)
		}
	}
	return out, nil
}

func processes(in *pyx.Interp, task *object) ([]*object, error) {
	v, err := task.field(in, "processes")
	if l, ok := v.(*object); ok && err == nil {
		return l.items, nil
	}
	return nil, err
}

func intField(in *pyx.Interp, o *object, name string) (int64, error) {
	v, err := o.field(in, name)
	if err != nil {
		return 0, err
	}
	if x, ok := v.(*object); ok {
		if n, ok := x.val.(int64); ok {
			return n, nil
		}
	}
	return 0, pyx.ErrorAt(o.where(name), "ValueError", "%s must be known where tasks are combined", name)
}

// fieldsOf returns the resources of the tasks that have some.
func fieldsOf(in *pyx.Interp, tasks []*object) []pyx.Value {
	var out []pyx.Value
	for _, t := range tasks {
		if v, err := t.field(in, "resources"); err == nil && v != empty {
			out = append(out, v)
		}
	}
	return out
}

func (s *schema) addResources(in *pyx.Interp, at pyx.Pos, rs []pyx.Value) (*object, error) {
	return s.foldResources(in, at, rs, func(a, b float64) float64 { return a + b })
}

func (s *schema) maxResources(in *pyx.Interp, at pyx.Pos, rs []pyx.Value) (*object, error) {
	return s.foldResources(in, at, rs, func(a, b float64) float64 { return max(a, b) })
}

// foldResources joins resources measure by measure. The amounts are exact:
// whole numbers stay far below 2^53, and sums of decimals are read back to
// twelve digits.
func (s *schema) foldResources(in *pyx.Interp, at pyx.Pos, rs []pyx.Value, f func(a, b float64) float64) (*object, error) {
	res := s.types["Resources"]
	kws := []pyx.Kw{}
	for _, fd := range res.fields {
		total, some := 0.0, fd.name != "net"
		for _, r := range rs {
			o, ok := r.(*object)
			if !ok || !o.typ.is(res) {
				return nil, pyx.Errorf("TypeError", "want Resources; this is %s", typeOf(r))
			}
			v, err := o.field(in, fd.name)
			if err != nil {
				return nil, err
			}
			x, ok := v.(*object)
			if !ok {
				continue
			}
			n, ok := coerceFloat(x.val)
			if _, isStr := x.val.(string); !ok || isStr {
				return nil, pyx.ErrorAt(o.where(fd.name), "ValueError", "%s must be known where tasks are combined", fd.name)
			}
			total, some = f(total, n.(float64)), true
		}
		if !some {
			continue
		}
		var v pyx.Value = total
		if n := int64(total); fd.typ.kind != kFloat && float64(n) == total {
			v = n
		}
		kws = append(kws, pyx.Kw{Name: fd.name, Val: v})
	}
	return s.call(in, "Resources", at, kws...)
}
