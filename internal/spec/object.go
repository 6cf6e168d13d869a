package spec

import (
	"slices"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

// An object is a value of a schema's type. Objects never change: binding
// names or fields makes a copy. The strings in one may be templates that are
// bound only when the object is interpolated.
type object struct {
	typ    *schemaType
	at     pyx.Pos
	scopes *scopes
	val    pyx.Value // of a simple object or a choice
	said   pyx.Value // what the file says, where val is the nearest that an Integer can hold; else nil
	items  []*object // of a list
	pairs  []pair    // of a map
	data   []slot    // of a struct, in the order of its type's fields
}

type pair struct{ key, val *object }

// A slot holds one field's value, nil when it is empty, and where it was set.
type slot struct {
	o  *object
	at pyx.Pos
}

// emptyValue is what a field without a value gives.
type emptyValue struct{}

// TypeName returns "Empty".
func (*emptyValue) TypeName() string { return "Empty" }

// Str returns "Empty".
func (*emptyValue) Str(*pyx.Interp) (string, error) { return "Empty", nil }

// Repr returns "Empty".
func (*emptyValue) Repr(*pyx.Interp) (string, error) { return "Empty", nil }

var empty = &emptyValue{}

func (o *object) isSimple() bool { return o.typ.kind <= kEnum }

// get returns a field of a struct by name; nil when it is empty.
func (o *object) get(name string) *object {
	if i, ok := o.typ.index[name]; ok {
		return o.data[i].o
	}
	return nil
}

// inside returns the item of a list by its number, or the value of a map by
// its key; nil when there is none.
func (o *object) inside(key string) *object {
	if n, err := strconv.Atoi(key); err == nil && n >= 0 && n < len(o.items) {
		return o.items[n]
	}
	for _, p := range o.pairs {
		if p.key.val == key {
			return p.val
		}
	}
	return nil
}

// shown prints a field's simple value as the file says it.
func (o *object) shown(name string) string {
	if x := o.get(name); x != nil {
		return x.shownValue()
	}
	return "0"
}

func (o *object) shownValue() string {
	if o.said != nil {
		return show(o.said)
	}
	return show(o.val)
}

// where returns the place where a field was set.
func (o *object) where(name string) pyx.Pos {
	if i, ok := o.typ.index[name]; ok && o.data[i].at.IsValid() {
		return o.data[i].at
	}
	return o.at
}

// TypeName returns the name of the object's type.
func (o *object) TypeName() string { return o.typ.name }

// fill takes over the fields that a dict names.
func (o *object) fill(in *pyx.Interp, v pyx.Value) error {
	d, ok := v.(*pyx.Dict)
	if !ok {
		return o.typ.mismatch(v, o.at)
	}
	return d.Each(func(k, x pyx.Value, at pyx.Pos) error {
		name, ok := k.(string)
		if !ok {
			return pyx.ErrorAt(at, "TypeError", "a field's name is a string; this is %s", typeOf(k))
		}
		if !at.IsValid() {
			at = o.at
		}
		return o.set(in, name, x, at)
	})
}

func (o *object) setAll(in *pyx.Interp, kws []pyx.Kw) error {
	for _, kw := range kws {
		if err := o.set(in, kw.Name, kw.Val, kw.At); err != nil {
			return err
		}
	}
	return nil
}

// set sets a field of an object that nobody else has seen.
func (o *object) set(in *pyx.Interp, name string, v pyx.Value, at pyx.Pos) error {
	i, ok := o.typ.index[name]
	if !ok {
		hint := pyx.Suggest(name, o.typ.fieldNames())
		if hint == "" {
			hint = "; it has " + strings.Join(o.typ.fieldNames(), ", ")
		}
		return pyx.ErrorAt(at, "AttributeError", "%s has no field %s%s", o.typ.name, name, hint)
	}
	if v == empty {
		o.data[i] = slot{nil, at}
		return nil
	}
	x, err := o.typ.fields[i].typ.make(in, v, at)
	if err != nil {
		if e, ok := pyx.AsError(err); ok && !strings.HasPrefix(e.Msg, o.typ.name+".") && e.At == at {
			e.Msg = o.typ.name + "." + name + ": " + e.Msg
		}
		return err
	}
	o.data[i] = slot{x, at}
	return nil
}

func (t *schemaType) fieldNames() []string {
	out := make([]string, len(t.fields))
	for i, f := range t.fields {
		out[i] = f.name
	}
	return out
}

// Call makes a copy of a struct with fields changed.
func (o *object) Call(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	if o.typ.kind != kStruct {
		return nil, pyx.Errorf("TypeError", "%s cannot be called", typeOf(o))
	}
	if len(a.Pos) > 0 {
		return nil, pyx.Errorf("TypeError", "a copy of %s takes fields by name: x(name = value)", typeOf(o))
	}
	c := *o
	c.data = slices.Clone(o.data)
	c.at = a.At
	if err := in.Alloc(64 + 48*len(c.data)); err != nil {
		return nil, err
	}
	return &c, c.setAll(in, a.Kw)
}

// Attr gives the methods of an object and, of a struct, its fields: x.name()
// is the field's value, x.has_name() says whether it has one.
func (o *object) Attr(_ *pyx.Interp, name string) (pyx.Value, bool, error) {
	fn := func(f func(in *pyx.Interp, a pyx.Args) (pyx.Value, error)) (pyx.Value, bool, error) {
		return &pyx.Builtin{Name: o.typ.name + "." + name, Fn: f}, true, nil
	}
	if o.typ.kind == kStruct {
		if _, ok := o.typ.index[name]; ok {
			return fn(func(in *pyx.Interp, _ pyx.Args) (pyx.Value, error) { return o.field(in, name) })
		}
		if f, ok := strings.CutPrefix(name, "has_"); ok {
			if _, ok := o.typ.index[f]; ok {
				return fn(func(*pyx.Interp, pyx.Args) (pyx.Value, error) { return o.get(f) != nil, nil })
			}
		}
	}
	switch name {
	case "bind":
		return fn(o.bind)
	case "get":
		return fn(func(in *pyx.Interp, _ pyx.Args) (pyx.Value, error) { return o.plain(in) })
	case "copy":
		return fn(func(*pyx.Interp, pyx.Args) (pyx.Value, error) { return o, nil })
	case "interpolate":
		return fn(func(in *pyx.Interp, _ pyx.Args) (pyx.Value, error) {
			x, err := interpolated(in, o)
			return pyx.Tuple{x, &pyx.List{}}, err
		})
	case "check":
		return fn(func(*pyx.Interp, pyx.Args) (pyx.Value, error) {
			return nil, pyx.Errorf("NotImplementedError", "check() is not available: every job is checked when the file has run")
		})
	case "__class__":
		return o.typ, true, nil
	}
	return nil, false, nil
}

// AttrNames lists what can follow the dot.
func (o *object) AttrNames() []string {
	return append(o.typ.fieldNames(), "bind", "get", "copy", "interpolate")
}

// field returns the interpolated value of a struct's field.
func (o *object) field(in *pyx.Interp, name string) (pyx.Value, error) {
	v := o.get(name)
	if v == nil {
		return empty, nil
	}
	return interpolated(in, v.inScope(o.inner()))
}

// bind returns a copy with names bound in it: the last bound wins.
func (o *object) bind(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	c := *o
	if o.scopes.len() >= bindsMax {
		return nil, pyx.Errorf("ValueError", "more than %d calls of bind on one object; bind a dict instead", bindsMax)
	}
	for _, v := range a.Pos {
		s, err := asScope(in, v)
		if err != nil {
			return nil, err
		}
		c.scopes = &scopes{s, c.scopes}
	}
	if len(a.Kw) > 0 {
		e := newEnv()
		for _, kw := range a.Kw {
			if err := e.put(in, nil, kw.Name, kw.Val); err != nil {
				return nil, pyx.ErrorAt(kw.At, "ValueError", "%s", err)
			}
		}
		c.scopes = &scopes{e, c.scopes}
	}
	return &c, in.Alloc(128)
}

// Index gives an element of a list or a map.
func (o *object) Index(in *pyx.Interp, key pyx.Value) (pyx.Value, error) {
	x, err := interpolated(in, o)
	if err != nil {
		return nil, err
	}
	switch o.typ.kind {
	case kList:
		n, ok := key.(int64)
		if ok && n < 0 {
			n += int64(len(x.items))
		}
		if !ok || n < 0 || n >= int64(len(x.items)) {
			return nil, pyx.Errorf("IndexError", "the list has %d elements; this index is not one of them", len(x.items))
		}
		return x.items[n], nil
	case kMap:
		want, _ := coerceString(key)
		for _, p := range x.pairs {
			if s, _ := coerceString(p.key.val); s == want {
				return p.val, nil
			}
		}
		return nil, pyx.Errorf("KeyError", "the map has no key %s", show(key))
	default:
	}
	return nil, pyx.Errorf("TypeError", "%s cannot be indexed; its fields are called: x.name()", typeOf(o))
}

// Iterate gives the elements of a list or the keys of a map.
func (o *object) Iterate(in *pyx.Interp) ([]pyx.Value, error) {
	x, err := interpolated(in, o)
	if err != nil {
		return nil, err
	}
	var out []pyx.Value
	switch o.typ.kind {
	case kList:
		for _, e := range x.items {
			out = append(out, e)
		}
	case kMap:
		for _, p := range x.pairs {
			out = append(out, p.key)
		}
	default:
		return nil, pyx.Errorf("TypeError", "%s cannot be walked", typeOf(o))
	}
	return out, in.Alloc(16 * len(out))
}

// Str prints the object with its names bound as far as they are.
func (o *object) Str(in *pyx.Interp) (string, error) {
	x, err := interpolated(in, o)
	if err != nil {
		return "", err
	}
	if x.isSimple() {
		return in.Str(x.val)
	}
	return x.Repr(in)
}

// Repr prints the object as a call that makes it.
func (o *object) Repr(in *pyx.Interp) (string, error) {
	x, err := interpolated(in, o)
	if err != nil {
		return "", err
	}
	v, err := x.plain(in)
	if err != nil {
		return "", err
	}
	s, err := in.Repr(v)
	return o.typ.name + "(" + s + ")", err
}

// plain returns the object as a value of the language: dicts, tuples and
// simple values; templates stay as they are.
func (o *object) plain(in *pyx.Interp) (pyx.Value, error) {
	if err := in.Enter(); err != nil {
		return nil, err
	}
	defer in.Leave()
	if err := in.Alloc(16); err != nil {
		return nil, err
	}
	switch o.typ.kind {
	case kStruct:
		d := pyx.NewDict()
		for i, f := range o.typ.fields {
			if o.data[i].o == nil {
				continue
			}
			v, err := o.data[i].o.plain(in)
			if err != nil {
				return nil, err
			}
			if err := d.Set(in, f.name, v); err != nil {
				return nil, err
			}
		}
		return d, nil
	case kList:
		t := make(pyx.Tuple, len(o.items))
		for i, x := range o.items {
			v, err := x.plain(in)
			if err != nil {
				return nil, err
			}
			t[i] = v
		}
		return t, nil
	case kMap:
		d := pyx.NewDict()
		for _, p := range o.pairs {
			v, err := p.val.plain(in)
			if err != nil {
				return nil, err
			}
			if err := d.Set(in, p.key.val, v); err != nil {
				return nil, err
			}
		}
		return d, nil
	case kChoice:
		x, err := interpolated(in, o)
		if err != nil {
			return nil, err
		}
		return x.plain(in)
	default:
		return o.val, nil
	}
}

// Key makes equal objects equal keys.
func (o *object) Key(in *pyx.Interp) (string, error) {
	x, err := interpolated(in, o)
	if err != nil {
		return "", err
	}
	b, err := encode(in, x)
	return x.typ.name + string(b), err
}

// Hash is the hash of the object's plain value, as Pystachio's is: it decides
// the order in which combined tasks list their processes.
func (o *object) Hash(in *pyx.Interp) (int64, error) {
	if err := in.Enter(); err != nil {
		return 0, err
	}
	defer in.Leave()
	if err := in.Step(1); err != nil {
		return 0, err
	}
	switch o.typ.kind {
	case kStruct:
		names := o.typ.fieldNames()
		slices.Sort(names)
		var hs []int64
		for _, n := range names {
			if v := o.get(n); v != nil {
				h, err := v.Hash(in)
				if err != nil {
					return 0, err
				}
				hs = append(hs, pyx.HashTuple([]int64{pyx.HashString(n), h}))
			}
		}
		return pyx.HashTuple(hs), nil
	case kList:
		var hs []int64
		for _, x := range o.items {
			h, err := x.Hash(in)
			if err != nil {
				return 0, err
			}
			hs = append(hs, h)
		}
		return pyx.HashTuple(hs), nil
	case kMap, kChoice:
		return 0, nil
	default:
		return in.Hash(o.val)
	}
}

// Binary gives ==, an order for simple objects, in for lists and maps, and %,
// which binds names and interpolates.
func (o *object) Binary(in *pyx.Interp, op string, other pyx.Value, right bool) (pyx.Value, bool, error) {
	switch op {
	case "==":
		x, ok := other.(*object)
		if !ok {
			return false, true, nil
		}
		a, err := o.Key(in)
		if err != nil {
			return nil, false, err
		}
		b, err := x.Key(in)
		return a == b, true, err
	case "cmp":
		x, ok := other.(*object)
		if !ok || !o.isSimple() || !x.isSimple() {
			return nil, false, nil
		}
		a, err := o.Str(in)
		if err != nil {
			return nil, false, err
		}
		b, err := x.Str(in)
		return int64(strings.Compare(a, b)), true, err
	case "in":
		items, err := o.Iterate(in)
		for i := 0; err == nil && i < len(items); i++ {
			e := items[i].(*object)
			eq := e == other
			if x, ok := other.(*object); ok {
				eq, err = in.Equal(e, x)
			} else if e.isSimple() {
				eq, err = in.Equal(e.val, other)
			}
			if eq {
				return true, true, err
			}
		}
		return false, true, err
	case "%":
		if right {
			return nil, false, nil
		}
		b, err := o.bind(in, pyx.Args{Pos: []pyx.Value{other}})
		if err != nil {
			return nil, false, err
		}
		x, err := interpolated(in, b.(*object))
		return x, true, err
	}
	return nil, false, nil
}
