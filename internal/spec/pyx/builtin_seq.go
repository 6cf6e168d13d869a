package pyx

import (
	"slices"
	"unicode/utf8"
)

// Len returns the number of elements of v.
func (in *Interp) Len(v Value) (int, error) {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v), in.Step(len(v) >> 8)
	case *List:
		return len(v.Items), nil
	case Tuple:
		return len(v), nil
	case *Dict:
		return v.live, nil
	case *Set:
		return v.d.live, nil
	case Iterable:
		items, err := v.Iterate(in)
		return len(items), err
	}
	return 0, Errorf("TypeError", "%s has no length", article(TypeOf(v)))
}

var sequenceFuncs = map[string]goFunc{
	"len":   {1, 1, "", func(in *Interp, a Args) (Value, error) { return wrapInt(in.Len(a.Pos[0])) }},
	"range": {1, 3, "", rangeFunc}, "xrange": {1, 3, "", rangeFunc},
	"sorted": {1, 1, "key reverse", func(in *Interp, a Args) (Value, error) {
		items, err := in.Iterate(a.Pos[0])
		if err != nil {
			return nil, err
		}
		items = slices.Clone(items)
		return &List{items}, sortArgs(in, items, a)
	}},
	"reversed": {1, 1, "", func(in *Interp, a Args) (Value, error) {
		items, err := in.Iterate(a.Pos[0])
		items = slices.Clone(items)
		slices.Reverse(items)
		return &List{items}, err
	}},
	"zip":       {0, -1, "", zipFunc},
	"enumerate": {1, 2, "start", enumerateFunc},
	"map":       {2, -1, "", mapFunc},
	"filter":    {2, 2, "", filterFunc},
	"reduce":    {2, 3, "", reduceFunc},
	"min":       {1, -1, "key", func(in *Interp, a Args) (Value, error) { return extreme(in, a, "min", -1) }},
	"max":       {1, -1, "key", func(in *Interp, a Args) (Value, error) { return extreme(in, a, "max", 1) }},
	"sum": {1, 2, "", func(in *Interp, a Args) (Value, error) {
		items, err := in.Iterate(a.Pos[0])
		total := arg(a, 1, int64(0))
		for i := 0; err == nil && i < len(items); i++ {
			total, err = in.binary("+", total, items[i])
		}
		return total, err
	}},
	"any": {1, 1, "", func(in *Interp, a Args) (Value, error) { return quantifier(in, a, true) }},
	"all": {1, 1, "", func(in *Interp, a Args) (Value, error) { return quantifier(in, a, false) }},
}

func sortArgs(in *Interp, items []Value, a Args) error {
	key, _ := a.named("key")
	rev, _ := a.named("reverse")
	reverse, err := in.Truth(rev)
	if err != nil {
		return err
	}
	return in.Sort(items, key, reverse)
}

func rangeFunc(in *Interp, a Args) (Value, error) {
	var n [3]int64
	for i, v := range a.Pos {
		k, ok := intOf(v)
		if !ok {
			return nil, Errorf("TypeError", "range() wants whole numbers; this is %s", article(TypeOf(v)))
		}
		n[i] = k
	}
	lo, hi, step := n[0], n[1], n[2]
	switch len(a.Pos) {
	case 1:
		lo, hi, step = 0, n[0], 1
	case 2:
		step = 1
	}
	if step == 0 {
		return nil, Errorf("ValueError", "the step of range() cannot be 0")
	}
	size := rangeLen(lo, hi, step)
	if size > uint64(in.limits.Bytes) {
		return nil, in.Alloc(-1)
	}
	if err := in.AllocTimes(int64(size), 16); err != nil {
		return nil, err
	}
	items := make([]Value, size)
	for i := range items {
		items[i] = lo + int64(i)*step
	}
	return &List{items}, nil
}

// rangeLen counts the numbers from lo to below hi, without overflow.
func rangeLen(lo, hi, step int64) uint64 {
	if step < 0 {
		if hi >= lo {
			return 0
		}
		return (uint64(lo)-uint64(hi)-1)/(-uint64(step)) + 1
	}
	if lo >= hi {
		return 0
	}
	return (uint64(hi)-uint64(lo)-1)/uint64(step) + 1
}

func zipFunc(in *Interp, a Args) (Value, error) {
	var lists [][]Value
	n := -1
	for _, v := range a.Pos {
		items, err := in.Iterate(v)
		if err != nil {
			return nil, err
		}
		lists = append(lists, items)
		if n < 0 || len(items) < n {
			n = len(items)
		}
	}
	out := &List{}
	for i := range max(n, 0) {
		t := make(Tuple, len(lists))
		for j := range lists {
			t[j] = lists[j][i]
		}
		out.Items = append(out.Items, t)
	}
	return out, in.AllocTimes(int64(max(n, 0)), 16*(1+len(lists)))
}

func enumerateFunc(in *Interp, a Args) (Value, error) {
	items, err := in.Iterate(a.Pos[0])
	if err != nil {
		return nil, err
	}
	start := arg(a, 1, int64(0))
	if s, ok := a.named("start"); ok {
		start = s
	}
	k, ok := intOf(start)
	if !ok {
		return nil, Errorf("TypeError", "enumerate() starts at a whole number; this is %s", article(TypeOf(start)))
	}
	out := make([]Value, len(items))
	for i, x := range items {
		out[i] = Tuple{k + int64(i), x}
	}
	return &List{out}, in.Alloc(48 * len(out))
}

func mapFunc(in *Interp, a Args) (Value, error) {
	zipped, err := zipFunc(in, Args{Pos: a.Pos[1:]})
	if err != nil {
		return nil, err
	}
	items := zipped.(*List).Items
	for i, t := range items {
		args := t.(Tuple)
		if a.Pos[0] == nil {
			items[i] = args[0]
			continue
		}
		if items[i], err = in.Call(a.Pos[0], Args{At: a.At, Pos: args}); err != nil {
			return nil, err
		}
	}
	return zipped, nil
}

func filterFunc(in *Interp, a Args) (Value, error) {
	items, err := in.Iterate(a.Pos[1])
	if err != nil {
		return nil, err
	}
	out := &List{}
	for _, x := range items {
		v := x
		if a.Pos[0] != nil {
			if v, err = in.Call(a.Pos[0], Args{At: a.At, Pos: []Value{x}}); err != nil {
				return nil, err
			}
		}
		ok, err := in.Truth(v)
		if err != nil {
			return nil, err
		}
		if ok {
			out.Items = append(out.Items, x)
		}
	}
	return out, nil
}

func reduceFunc(in *Interp, a Args) (Value, error) {
	items, err := in.Iterate(a.Pos[1])
	if err != nil {
		return nil, err
	}
	if len(a.Pos) == 3 {
		items = append([]Value{a.Pos[2]}, items...)
	}
	if len(items) == 0 {
		return nil, Errorf("TypeError", "reduce() of nothing needs a first value")
	}
	v := items[0]
	for _, x := range items[1:] {
		if v, err = in.Call(a.Pos[0], Args{At: a.At, Pos: []Value{v, x}}); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func extreme(in *Interp, a Args, name string, sign int) (Value, error) {
	items := a.Pos
	if len(items) == 1 {
		var err error
		if items, err = in.Iterate(items[0]); err != nil {
			return nil, err
		}
	}
	if len(items) == 0 {
		return nil, Errorf("ValueError", "%s() of nothing", name)
	}
	keyFn, _ := a.named("key")
	var best, bestKey Value
	for i, x := range items {
		k := x
		if keyFn != nil {
			var err error
			if k, err = in.Call(keyFn, Args{At: a.At, Pos: []Value{x}}); err != nil {
				return nil, err
			}
		}
		if i > 0 {
			c, err := in.order(k, bestKey)
			if err != nil {
				return nil, err
			}
			if c*sign <= 0 {
				continue
			}
		}
		best, bestKey = x, k
	}
	return best, nil
}

func quantifier(in *Interp, a Args, stop bool) (Value, error) {
	items, err := in.Iterate(a.Pos[0])
	if err != nil {
		return nil, err
	}
	for _, x := range items {
		ok, err := in.Truth(x)
		if err != nil {
			return nil, err
		}
		if ok == stop {
			return stop, nil
		}
	}
	return !stop, nil
}

var objectFuncs = map[string]goFunc{
	"repr":     {1, 1, "", func(in *Interp, a Args) (Value, error) { return wrapStr(in.Repr(a.Pos[0])) }},
	"print":    {0, -1, "sep end file", func(*Interp, Args) (Value, error) { return nil, nil }},
	"callable": {1, 1, "", func(_ *Interp, a Args) (Value, error) { return isCallable(a.Pos[0]), nil }},
	"isinstance": {2, 2, "", func(_ *Interp, a Args) (Value, error) {
		return isInstance(a.Pos[0], a.Pos[1])
	}},
	"issubclass": {2, 2, "", func(_ *Interp, a Args) (Value, error) {
		c, ok1 := a.Pos[0].(*Class)
		d, ok2 := a.Pos[1].(*Class)
		return ok1 && ok2 && (d == objectClass || c.is(d)), nil
	}},
	"type": {1, 1, "", func(in *Interp, a Args) (Value, error) {
		if o, ok := a.Pos[0].(*Instance); ok {
			return o.class, nil
		}
		if t, ok := in.builtins[TypeOf(a.Pos[0])]; ok {
			return t, nil
		}
		return TypeOf(a.Pos[0]), nil
	}},
	"getattr": {2, 3, "", func(in *Interp, a Args) (Value, error) {
		name, ok := a.Pos[1].(string)
		if !ok {
			return nil, Errorf("TypeError", "getattr() wants an attribute's name")
		}
		v, err := in.attr(a.Pos[0], name)
		if e, isErr := AsError(err); isErr && len(a.Pos) == 3 && e.Class == "AttributeError" {
			return a.Pos[2], nil
		}
		return v, err
	}},
	"hasattr": {2, 2, "", func(in *Interp, a Args) (Value, error) {
		name, ok := a.Pos[1].(string)
		if !ok {
			return nil, Errorf("TypeError", "hasattr() wants an attribute's name")
		}
		_, err := in.attr(a.Pos[0], name)
		if e, isErr := AsError(err); isErr && !e.final {
			return false, nil
		}
		return err == nil, err
	}},
	"setattr": {3, 3, "", func(in *Interp, a Args) (Value, error) {
		name, ok := a.Pos[1].(string)
		if !ok {
			return nil, Errorf("TypeError", "setattr() wants an attribute's name")
		}
		return nil, in.setAttr(a.Pos[0], name, a.Pos[2])
	}},
	"format": {1, 2, "", func(in *Interp, a Args) (Value, error) {
		spec, _ := arg(a, 1, "").(string)
		return wrapStr(in.formatValue(a.Pos[0], 0, spec))
	}},
	"open":         {1, 2, "mode encoding", openFunc},
	"file":         {1, 2, "mode", openFunc},
	"include":      {1, 1, "", includeFunc},
	"staticmethod": {1, 1, "", wrapFunc("staticmethod")},
	"classmethod":  {1, 1, "", wrapFunc("classmethod")},
	"property":     {1, 1, "", wrapFunc("property")},
}

func wrapFunc(kind string) func(*Interp, Args) (Value, error) {
	return func(_ *Interp, a Args) (Value, error) { return &wrapper{kind, a.Pos[0]}, nil }
}

func isCallable(v Value) bool {
	switch v.(type) {
	case *Function, *Class, *method, Callable:
		return true
	}
	return false
}

func isInstance(v, class Value) (Value, error) {
	switch c := class.(type) {
	case Tuple:
		for _, x := range c {
			ok, err := isInstance(v, x)
			if err != nil || ok == true {
				return ok, err
			}
		}
		return false, nil
	case *Class:
		o, ok := v.(*Instance)
		return c == objectClass || ok && o.class.is(c), nil
	case TypeTest:
		return c.IsInstance(v), nil
	}
	return nil, Errorf("TypeError", "isinstance() wants a class; this is %s", article(TypeOf(class)))
}
