package pyx

import (
	"maps"
	"slices"
)

// checked makes a method that takes from least to most arguments.
func checked(name string, least, most int, kws string, f goMethod) goMethod {
	return func(in *Interp, self Value, a Args) (Value, error) {
		if err := checkArgs(name, a, least, most, kws); err != nil {
			return nil, err
		}
		return f(in, self, a)
	}
}

var listMethods = map[string]goMethod{
	"append": checked("append", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		l := self.(*List)
		l.Items = append(l.Items, a.Pos[0])
		return nil, in.Alloc(16)
	}),
	"extend": checked("extend", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		items, err := in.Iterate(a.Pos[0])
		l := self.(*List)
		l.Items = append(l.Items, items...)
		return nil, err
	}),
	"insert": checked("insert", 2, 2, "", func(in *Interp, self Value, a Args) (Value, error) {
		l := self.(*List)
		k, ok := intOf(a.Pos[0])
		if !ok {
			return nil, Errorf("TypeError", "insert() wants a position")
		}
		n := int64(len(l.Items))
		if k < 0 {
			k += n
		}
		l.Items = slices.Insert(l.Items, int(max(0, min(k, n))), a.Pos[1])
		return nil, in.Alloc(16 + int(n)/8)
	}),
	"pop": checked("pop", 0, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		l := self.(*List)
		k, err := position(arg(a, 0, int64(-1)), len(l.Items), "list")
		if err != nil {
			return nil, err
		}
		v := l.Items[k]
		l.Items = slices.Delete(l.Items, k, k+1)
		return v, in.Step((len(l.Items) - k) >> 6)
	}),
	"remove": checked("remove", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		l := self.(*List)
		k, err := indexOf(in, l.Items, a.Pos[0])
		if err == nil {
			l.Items = slices.Delete(l.Items, k, k+1)
		}
		return nil, err
	}),
	"index": checked("index", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		return wrapInt(indexOf(in, self.(*List).Items, a.Pos[0]))
	}),
	"count": checked("count", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		return countOf(in, self.(*List).Items, a.Pos[0])
	}),
	"sort": checked("sort", 0, 0, "key reverse", func(in *Interp, self Value, a Args) (Value, error) {
		return nil, sortArgs(in, self.(*List).Items, a)
	}),
	"reverse": checked("reverse", 0, 0, "", func(_ *Interp, self Value, _ Args) (Value, error) {
		slices.Reverse(self.(*List).Items)
		return nil, nil
	}),
	"copy": checked("copy", 0, 0, "", func(in *Interp, self Value, _ Args) (Value, error) {
		items, err := in.Iterate(self)
		return &List{items}, err
	}),
}

var tupleMethods = map[string]goMethod{
	"index": checked("index", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		return wrapInt(indexOf(in, self.(Tuple), a.Pos[0]))
	}),
	"count": checked("count", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		return countOf(in, self.(Tuple), a.Pos[0])
	}),
}

func indexOf(in *Interp, items []Value, x Value) (int, error) {
	for i, y := range items {
		eq, err := in.Equal(x, y)
		if err != nil {
			return 0, err
		}
		if eq {
			return i, nil
		}
	}
	return 0, Errorf("ValueError", "the list does not hold that value")
}

func countOf(in *Interp, items []Value, x Value) (Value, error) {
	n := int64(0)
	for _, y := range items {
		eq, err := in.Equal(x, y)
		if err != nil {
			return nil, err
		}
		if eq {
			n++
		}
	}
	return n, nil
}

func dictList(f func(*Dict) []Value) goMethod {
	return checked("this method", 0, 0, "", func(in *Interp, self Value, _ Args) (Value, error) {
		items := f(self.(*Dict))
		return &List{items}, in.Alloc(48 * len(items))
	})
}

var dictMethods = map[string]goMethod{
	"keys": dictList((*Dict).Keys), "values": dictList((*Dict).values), "items": dictList((*Dict).items),
	"iterkeys": dictList((*Dict).Keys), "itervalues": dictList((*Dict).values), "iteritems": dictList((*Dict).items),
	"get": checked("get", 1, 2, "", func(in *Interp, self Value, a Args) (Value, error) {
		v, ok, err := self.(*Dict).Get(in, a.Pos[0])
		if err != nil || ok {
			return v, err
		}
		return arg(a, 1, nil), nil
	}),
	"has_key": checked("has_key", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		_, ok, err := self.(*Dict).Get(in, a.Pos[0])
		return ok, err
	}),
	"setdefault": checked("setdefault", 1, 2, "", func(in *Interp, self Value, a Args) (Value, error) {
		d := self.(*Dict)
		v, ok, err := d.Get(in, a.Pos[0])
		if err != nil || ok {
			return v, err
		}
		v = arg(a, 1, nil)
		return v, d.Set(in, a.Pos[0], v)
	}),
	"pop": checked("pop", 1, 2, "", func(in *Interp, self Value, a Args) (Value, error) {
		v, ok, err := self.(*Dict).Delete(in, a.Pos[0])
		if err != nil || ok {
			return v, err
		}
		if len(a.Pos) == 2 {
			return a.Pos[1], nil
		}
		return in.index(self, a.Pos[0]) // the error with its hint
	}),
	"update": checked("update", 0, 1, "*", func(in *Interp, self Value, a Args) (Value, error) {
		d := self.(*Dict)
		if len(a.Pos) == 1 {
			if err := d.update(in, a.Pos[0]); err != nil {
				return nil, err
			}
		}
		for _, kw := range a.Kw {
			if err := d.setAt(in, kw.Name, kw.Val, kw.At); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}),
	"copy": checked("copy", 0, 0, "", func(in *Interp, self Value, _ Args) (Value, error) {
		d := NewDict()
		return d, d.update(in, self)
	}),
	"clear": checked("clear", 0, 0, "", func(_ *Interp, self Value, _ Args) (Value, error) {
		*self.(*Dict) = *NewDict()
		return nil, nil
	}),
	"fromkeys": checked("fromkeys", 1, 2, "", func(in *Interp, _ Value, a Args) (Value, error) {
		items, err := in.Iterate(a.Pos[0])
		d := NewDict()
		for i := 0; err == nil && i < len(items); i++ {
			err = d.Set(in, items[i], arg(a, 1, nil))
		}
		return d, err
	}),
}

// setMethod makes a method that combines a set with something walked.
func setMethod(op string) goMethod {
	return checked("this method", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		other, err := asSet(in, a.Pos[0])
		if err != nil {
			return nil, err
		}
		return in.setOp(op, self.(*Set), other)
	})
}

func asSet(in *Interp, v Value) (*Set, error) {
	if s, ok := v.(*Set); ok {
		return s, nil
	}
	items, err := in.Iterate(v)
	if err != nil {
		return nil, err
	}
	return NewSet(in, items)
}

// within makes issubset (flip false) and issuperset.
func within(flip bool) goMethod {
	return checked("this method", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		x := self.(*Set)
		y, err := asSet(in, a.Pos[0])
		if err != nil {
			return nil, err
		}
		if flip {
			x, y = y, x
		}
		for _, k := range x.d.Keys() {
			if _, ok, err := y.d.Get(in, k); err != nil || !ok {
				return false, err
			}
		}
		return true, nil
	})
}

var frozenMethods = map[string]goMethod{
	"union": setMethod("|"), "intersection": setMethod("&"), "difference": setMethod("-"),
	"symmetric_difference": setMethod("^"), "issubset": within(false), "issuperset": within(true),
	"copy": checked("copy", 0, 0, "", func(in *Interp, self Value, _ Args) (Value, error) {
		return NewSet(in, self.(*Set).d.Keys())
	}),
}

var setMethods = withMethods(frozenMethods, map[string]goMethod{
	"add": checked("add", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		return nil, self.(*Set).d.Set(in, a.Pos[0], nil)
	}),
	"update": checked("update", 0, -1, "", func(in *Interp, self Value, a Args) (Value, error) {
		for _, v := range a.Pos {
			items, err := in.Iterate(v)
			if err != nil {
				return nil, err
			}
			for _, x := range items {
				if err := self.(*Set).d.Set(in, x, nil); err != nil {
					return nil, err
				}
			}
		}
		return nil, nil
	}),
	"discard": checked("discard", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		_, _, err := self.(*Set).d.Delete(in, a.Pos[0])
		return nil, err
	}),
	"remove": checked("remove", 1, 1, "", func(in *Interp, self Value, a Args) (Value, error) {
		_, ok, err := self.(*Set).d.Delete(in, a.Pos[0])
		if err == nil && !ok {
			err = Errorf("KeyError", "the set does not hold that value")
		}
		return nil, err
	}),
	"clear": checked("clear", 0, 0, "", func(_ *Interp, self Value, _ Args) (Value, error) {
		*self.(*Set).d = *NewDict()
		return nil, nil
	}),
})

func withMethods(base, more map[string]goMethod) map[string]goMethod {
	out := map[string]goMethod{}
	for _, m := range []map[string]goMethod{base, more} {
		maps.Copy(out, m)
	}
	return out
}
