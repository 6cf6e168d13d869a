package pyx

import (
	"maps"
	"slices"
	"unicode/utf8"
)

// attr returns an attribute of a value.
func (in *Interp) attr(v Value, name string) (Value, error) {
	var names []string
	switch v := v.(type) {
	case *Instance:
		if a, ok, err := in.instanceAttr(v, name); ok || err != nil {
			return a, err
		}
		names = append(keysOf(v.attrs), keysOf(v.class.attrs)...)
	case *Class:
		if name == "__name__" {
			return v.Name, nil
		}
		if a, ok := v.find(name); ok {
			return unwrapStatic(a, v), nil
		}
		names = keysOf(v.attrs)
	case *Module:
		if a, ok := v.Names[name]; ok {
			return a, nil
		}
		if m, ok := in.modules[v.Name+"."+name]; ok {
			return m, nil
		}
		if m, ok := in.host.Modules[v.Name+"."+name]; ok {
			return m, nil
		}
		return nil, Errorf("AttributeError", "%s", in.lacks(v, name))
	case *Function:
		if name == "__name__" {
			return v.def.name, nil
		}
	case Attrer:
		a, ok, err := v.Attr(in, name)
		if ok || err != nil {
			return a, err
		}
		names = v.AttrNames()
	default:
		table := in.methodsOf(v)
		if fn, ok := table[name]; ok {
			return bindBuiltin(v, name, fn), nil
		}
		names = slices.Collect(maps.Keys(table))
	}
	return nil, Errorf("AttributeError", "%s has no attribute %s%s", article(TypeOf(v)), name, Suggest(name, names))
}

// A goMethod is a method of a built-in type.
type goMethod func(in *Interp, self Value, args Args) (Value, error)

func bindBuiltin(self Value, name string, fn goMethod) Value {
	return &Builtin{Name: name, self: self, Fn: func(in *Interp, args Args) (Value, error) { return fn(in, self, args) }}
}

// methodTables holds the methods of the built-in types. The interpreter
// carries them because they call it.
type methodTables struct {
	str, list, tuple, dict, set, frozen, file map[string]goMethod
}

func (in *Interp) methodsOf(v Value) map[string]goMethod {
	switch v := v.(type) {
	case string:
		return in.methods.str
	case *List:
		return in.methods.list
	case Tuple:
		return in.methods.tuple
	case *Dict:
		return in.methods.dict
	case *Set:
		if v.frozen {
			return in.methods.frozen
		}
		return in.methods.set
	case *file:
		return in.methods.file
	}
	return nil
}

func unwrapStatic(a Value, c *Class) Value {
	w, ok := a.(*wrapper)
	if !ok {
		return a
	}
	if w.kind == "classmethod" {
		return &method{c, w.fn}
	}
	return w.fn
}

func (in *Interp) instanceAttr(o *Instance, name string) (Value, bool, error) {
	if a, ok := o.attrs[name]; ok {
		return a, true, nil
	}
	switch name {
	case "__class__":
		return o.class, true, nil
	case "args":
		return Tuple(o.args), true, nil
	case "message":
		if len(o.args) > 0 {
			return o.args[0], true, nil
		}
	}
	a, ok := o.class.find(name)
	if !ok {
		return nil, false, nil
	}
	switch a := a.(type) {
	case *Function:
		return &method{o, a}, true, nil
	case *wrapper:
		if a.kind == "property" {
			v, err := in.Call(a.fn, Args{At: in.at, Pos: []Value{o}})
			return v, true, err
		}
		return unwrapStatic(a, o.class), true, nil
	}
	return a, true, nil
}

func (in *Interp) setAttr(v Value, name string, x Value) error {
	switch v := v.(type) {
	case *Instance:
		v.attrs[name] = x
		return in.Alloc(32)
	case *Class:
		if v.attrs == nil {
			break
		}
		v.attrs[name] = x
		return in.Alloc(32)
	}
	return Errorf("AttributeError", "the attribute %s of %s cannot be set; make a copy with it changed: x(%s = ...)", name, article(TypeOf(v)), name)
}

// position turns an index into a place in a sequence of n.
func position(i Value, n int, what string) (int, error) {
	k, ok := intOf(i)
	if !ok {
		return 0, Errorf("TypeError", "%s is indexed by whole numbers; this is %s", article(what), article(TypeOf(i)))
	}
	if k < 0 {
		k += int64(n)
	}
	if k < 0 || k >= int64(n) {
		return 0, Errorf("IndexError", "the index is out of range: the %s has %s", what, count(n, "element"))
	}
	return int(k), nil
}

func (in *Interp) index(v, i Value) (Value, error) {
	switch v := v.(type) {
	case *List:
		k, err := position(i, len(v.Items), "list")
		if err != nil {
			return nil, err
		}
		return v.Items[k], nil
	case Tuple:
		k, err := position(i, len(v), "tuple")
		if err != nil {
			return nil, err
		}
		return v[k], nil
	case string:
		rs := []rune(v)
		k, err := position(i, len(rs), "string")
		if err != nil {
			return nil, err
		}
		return string(rs[k]), in.Step(len(v) >> 6)
	case *Dict:
		x, ok, err := v.Get(in, i)
		if err != nil || ok {
			return x, err
		}
		r, err := in.Repr(i)
		if err != nil {
			return nil, err
		}
		hint := ""
		if s, isStr := i.(string); isStr {
			hint = Suggest(s, stringKeys(v))
		}
		return nil, Errorf("KeyError", "the dict has no key %s%s", clip(r), hint)
	case Indexer:
		return v.Index(in, i)
	}
	return nil, Errorf("TypeError", "%s cannot be indexed", article(TypeOf(v)))
}

func clip(s string) string {
	if len(s) <= 60 {
		return s
	}
	return s[:57] + "..."
}

func stringKeys(d *Dict) []string {
	var out []string
	for _, k := range d.Keys() {
		if s, ok := k.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func (in *Interp) setIndex(x, i, v Value, at Pos) error {
	switch x := x.(type) {
	case *List:
		k, err := position(i, len(x.Items), "list")
		if err != nil {
			return err
		}
		x.Items[k] = v
		return nil
	case *Dict:
		return x.setAt(in, i, v, at)
	}
	return Errorf("TypeError", "the elements of %s cannot be set", article(TypeOf(x)))
}

func (in *Interp) delIndex(x, i Value) error {
	switch x := x.(type) {
	case *List:
		k, err := position(i, len(x.Items), "list")
		if err != nil {
			return err
		}
		x.Items = slices.Delete(x.Items, k, k+1)
		return in.Step((len(x.Items) - k) >> 6)
	case *Dict:
		_, ok, err := x.Delete(in, i)
		if err == nil && !ok {
			err = Errorf("KeyError", "the dict has no such key to delete")
		}
		return err
	}
	return Errorf("TypeError", "the elements of %s cannot be deleted", article(TypeOf(x)))
}

// slice cuts a sequence as Python does: bounds are clamped.
func (in *Interp) slice(v Value, lo, hi, step *int64) (Value, error) {
	var n int
	var rs []rune
	switch v := v.(type) {
	case *List:
		n = len(v.Items)
	case Tuple:
		n = len(v)
	case string:
		rs = []rune(v)
		n = len(rs)
	default:
		return nil, Errorf("TypeError", "%s cannot be sliced", article(TypeOf(v)))
	}
	if err := in.Alloc(16 * n); err != nil {
		return nil, err
	}
	idx, err := sliceIndexes(n, lo, hi, step)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *List:
		return &List{pick(v.Items, idx)}, nil
	case Tuple:
		return Tuple(pick(v, idx)), nil
	}
	return string(pick(rs, idx)), nil
}

func pick[T any](xs []T, idx []int) []T {
	out := make([]T, len(idx))
	for i, k := range idx {
		out[i] = xs[k]
	}
	return out
}

func sliceIndexes(n int, lo, hi, step *int64) ([]int, error) {
	st := int64(1)
	if step != nil {
		st = *step
	}
	if st == 0 {
		return nil, Errorf("ValueError", "the step of a slice cannot be 0")
	}
	size := int64(n)
	clamp := func(p *int64, def, least, most int64) int64 {
		if p == nil {
			return def
		}
		k := *p
		if k < 0 {
			k += size
		}
		return max(least, min(k, most))
	}
	var out []int
	if st > 0 {
		to := clamp(hi, size, 0, size)
		for i := clamp(lo, 0, 0, size); i < to; {
			out = append(out, int(i))
			if st > size {
				break
			}
			i += st
		}
		return out, nil
	}
	to := clamp(hi, -1, -1, size-1)
	for i := clamp(lo, size-1, -1, size-1); i > to; {
		out = append(out, int(i))
		if st < -size {
			break
		}
		i += st
	}
	return out, nil
}

// Iterate returns the elements of a value that can be walked.
func (in *Interp) Iterate(v Value) ([]Value, error) {
	var out []Value
	switch v := v.(type) {
	case *List:
		out = slices.Clone(v.Items)
	case Tuple:
		out = v
	case *Dict:
		out = v.Keys()
	case *Set:
		items, err := v.Items(in)
		if err != nil {
			return nil, err
		}
		out = items
	case string:
		if err := in.Alloc(32 * utf8.RuneCountInString(v)); err != nil {
			return nil, err
		}
		for _, r := range v {
			out = append(out, string(r))
		}
	case *file:
		for _, l := range v.lines() {
			out = append(out, l)
		}
	case Iterable:
		return v.Iterate(in)
	default:
		return nil, Errorf("TypeError", "%s cannot be walked; want a list or the like", article(TypeOf(v)))
	}
	return out, in.Alloc(16 * len(out))
}
