package spec

import "github.com/covey-platform/covey/internal/spec/pyx"

// structBase is the name Struct: classes made from it are struct types.
type structBase struct{}

// TypeName returns "class Struct".
func (structBase) TypeName() string { return "class Struct" }

// Subclass makes a struct type of the fields that a class's body names.
func (structBase) Subclass(in *pyx.Interp, at pyx.Pos, name string, body *pyx.Dict) (pyx.Value, error) {
	return subclass(in, at, name, nil, body)
}

// Subclass makes a struct type that has the fields of t and more.
func (t *schemaType) Subclass(in *pyx.Interp, at pyx.Pos, name string, body *pyx.Dict) (pyx.Value, error) {
	if t.kind != kStruct {
		return nil, pyx.ErrorAt(at, "TypeError", "a class cannot be made from %s; want Struct", t.name)
	}
	return subclass(in, at, name, t, body)
}

func subclass(in *pyx.Interp, at pyx.Pos, name string, base *schemaType, body *pyx.Dict) (*schemaType, error) {
	var fields []field
	if base != nil {
		fields = append(fields, base.fields...)
	}
	err := body.Each(func(k, v pyx.Value, _ pyx.Pos) error {
		n, _ := k.(string)
		f, ok, err := fieldOf(in, n, v, at)
		if err != nil || !ok {
			return err
		}
		for i := range fields {
			if fields[i].name == n {
				fields[i] = f
				return nil
			}
		}
		fields = append(fields, f)
		return in.Alloc(64)
	})
	t := structOf(name, fields...)
	t.base = base
	return t, err
}

// A signature is what Required and Default make of a type.
type signature struct{ f field }

// TypeName returns "field".
func (*signature) TypeName() string { return "field" }

// fieldOf makes a field of what a class's body binds a name to; ok is false
// for what is no field, such as a doc string or a method.
func fieldOf(in *pyx.Interp, name string, v pyx.Value, at pyx.Pos) (field, bool, error) {
	switch v := v.(type) {
	case *schemaType:
		return field{name: name, typ: v}, true, nil
	case *signature:
		f := v.f
		f.name = name
		return f, true, nil
	case *object:
		if v.typ.kind == kStruct {
			return field{}, false, pyx.ErrorAt(at, "TypeError", "the field %s is an object; want a type, or Default(%s, value)", name, v.typ.name)
		}
	}
	return field{}, false, in.Step(1)
}

// typeMakers are the functions that make types and fields.
var typeMakers = map[string]func(*pyx.Interp, pyx.Args) (pyx.Value, error){
	"Required": func(_ *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		ts, err := typeArgs("Required", a, 1)
		if err != nil {
			return nil, err
		}
		return &signature{field{typ: ts[0], required: true}}, nil
	},
	"Default": func(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		if len(a.Pos) != 2 || len(a.Kw) > 0 {
			return nil, pyx.Errorf("TypeError", "Default wants a type and a value")
		}
		t, ok := a.Pos[0].(*schemaType)
		if !ok {
			return nil, pyx.Errorf("TypeError", "Default wants a type first; this is %s", typeOf(a.Pos[0]))
		}
		if a.Pos[1] == empty {
			return &signature{field{typ: t}}, nil
		}
		o, err := t.make(in, a.Pos[1], a.At)
		return &signature{field{typ: t, def: o}}, err
	},
	"List": func(_ *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		ts, err := typeArgs("List", a, 1)
		if err != nil {
			return nil, err
		}
		return listOf(ts[0]), nil
	},
	"Map": func(_ *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		ts, err := typeArgs("Map", a, 2)
		if err != nil {
			return nil, err
		}
		return mapOf(ts[0], ts[1]), nil
	},
	"Enum":   makeEnum,
	"Choice": makeChoice,
	"Environment": func(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		d := pyx.NewDict()
		for _, v := range a.Pos {
			src, ok := v.(*pyx.Dict)
			if !ok {
				return nil, pyx.Errorf("TypeError", "Environment takes dicts and names; this is %s", typeOf(v))
			}
			if err := src.Each(func(k, x pyx.Value, _ pyx.Pos) error { return d.Set(in, k, x) }); err != nil {
				return nil, err
			}
		}
		for _, kw := range a.Kw {
			if err := d.Set(in, kw.Name, kw.Val); err != nil {
				return nil, err
			}
		}
		return d, nil
	},
}

func typeArgs(name string, a pyx.Args, n int) ([]*schemaType, error) {
	if len(a.Pos) != n || len(a.Kw) > 0 {
		return nil, pyx.Errorf("TypeError", "%s wants %d type(s), such as %s(String)", name, n, name)
	}
	out := make([]*schemaType, n)
	for i, v := range a.Pos {
		t, ok := v.(*schemaType)
		if !ok {
			return nil, pyx.Errorf("TypeError", "%s wants a type such as String or Process; this is %s", name, typeOf(v))
		}
		out[i] = t
	}
	return out, nil
}

// items returns the elements of a list or a tuple.
func items(v pyx.Value) ([]pyx.Value, bool) {
	switch v := v.(type) {
	case *pyx.List:
		return v.Items, true
	case pyx.Tuple:
		return v, true
	}
	return nil, false
}

// makeEnum is Enum('a', 'b') or Enum('Name', ('a', 'b')).
func makeEnum(_ *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	name, vals := "Enum", a.Pos
	if len(a.Pos) == 2 {
		if l, ok := items(a.Pos[1]); ok {
			name, _ = a.Pos[0].(string)
			vals = l
		}
	}
	t := &schemaType{name: name, kind: kEnum}
	for _, v := range vals {
		s, ok := v.(string)
		if !ok {
			return nil, pyx.Errorf("TypeError", "the values of an Enum are strings; this is %s", typeOf(v))
		}
		t.values = append(t.values, s)
	}
	if len(t.values) == 0 {
		return nil, pyx.Errorf("TypeError", "an Enum wants at least one value")
	}
	return t, nil
}

// makeChoice is Choice([A, B]) or Choice('Name', [A, B]).
func makeChoice(_ *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	if len(a.Pos) == 0 || len(a.Pos) > 2 {
		return nil, pyx.Errorf("TypeError", "Choice wants a list of types")
	}
	name := "Choice"
	if len(a.Pos) == 2 {
		name, _ = a.Pos[0].(string)
	}
	list, ok := items(a.Pos[len(a.Pos)-1])
	if !ok || len(list) == 0 {
		return nil, pyx.Errorf("TypeError", "Choice wants a list of types")
	}
	ts, err := typeArgs("Choice", pyx.Args{Pos: list}, len(list))
	return choiceOf(name, ts...), err
}
