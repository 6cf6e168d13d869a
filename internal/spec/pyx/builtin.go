package pyx

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// missing says why some of Python's names are not there.
var missing = map[string]string{
	"eval": "a file says what it means in its own text", "exec": "a file says what it means in its own text",
	"compile": "a file says what it means in its own text", "execfile": "use include('file.aurora')",
	"__import__": "use import", "input": "a file has nobody to ask", "raw_input": "a file has nobody to ask",
	"globals": "name things by assigning them", "locals": "name things by assigning them",
	"super": "call the base class by its name",
}

// A spec of a built-in function: how many arguments it takes at least and at
// most (-1: any number), and whether it takes arguments by name.
type goFunc struct {
	min, max int
	kw       string // names it takes, separated by spaces
	fn       func(in *Interp, a Args) (Value, error)
}

func builtins() map[string]Value {
	out := map[string]Value{}
	for _, table := range []map[string]goFunc{numberFuncs, sequenceFuncs, objectFuncs} {
		for name, f := range table {
			out[name] = f.value(name)
		}
	}
	for _, t := range []string{"int", "long", "float", "bool", "str", "unicode", "list", "tuple", "dict", "set", "frozenset"} {
		out[t] = &typeFunc{typeTables[t].value(t), t}
	}
	out["basestring"] = &typeFunc{&Builtin{Name: "basestring"}, "basestring"}
	out["object"] = objectClass
	for name, c := range exceptionClasses {
		out[name] = c
	}
	return out
}

func (f goFunc) value(name string) *Builtin {
	return &Builtin{Name: name, Fn: func(in *Interp, a Args) (Value, error) {
		if err := checkArgs(name, a, f.min, f.max, f.kw); err != nil {
			return nil, err
		}
		return f.fn(in, a)
	}}
}

func checkArgs(name string, a Args, least, most int, kws string) error {
	n := len(a.Pos)
	if n < least || most >= 0 && n > most {
		want := count(least, "argument")
		if most != least {
			want = "at least " + want
			if n > most && most >= 0 {
				want = "at most " + count(most, "argument")
			}
		}
		return Errorf("TypeError", "%s takes %s; %d are given", name, want, n)
	}
	for _, kw := range a.Kw {
		if kws == "*" {
			continue
		}
		if !strings.Contains(" "+kws+" ", " "+kw.Name+" ") {
			return ErrorAt(kw.At, "TypeError", "%s has no argument %s%s", name, kw.Name, Suggest(kw.Name, strings.Fields(kws)))
		}
	}
	return nil
}

// named returns an argument given by name.
func (a Args) named(name string) (Value, bool) {
	for _, kw := range a.Kw {
		if kw.Name == name {
			return kw.Val, true
		}
	}
	return nil, false
}

// A typeFunc is a built-in type: called it converts, and isinstance knows it.
type typeFunc struct {
	*Builtin
	name string
}

// TypeName returns "type".
func (t *typeFunc) TypeName() string { return "type" }

// Attr gives the methods of the type, with the value as their first argument.
func (t *typeFunc) Attr(in *Interp, name string) (Value, bool, error) {
	if name == "__name__" {
		return t.name, true, nil
	}
	zero := map[string]Value{"str": "", "unicode": "", "list": &List{}, "dict": NewDict(), "set": &Set{}, "tuple": Tuple{}}[t.name]
	m, ok := in.methodsOf(zero)[name]
	if !ok {
		return nil, false, nil
	}
	return &Builtin{Name: name, Fn: func(in *Interp, a Args) (Value, error) {
		if name == "fromkeys" {
			return m(in, zero, a)
		}
		if len(a.Pos) == 0 || !t.IsInstance(a.Pos[0]) {
			return nil, Errorf("TypeError", "%s.%s wants %s first", t.name, name, article(t.name))
		}
		return m(in, a.Pos[0], Args{a.At, a.Pos[1:], a.Kw})
	}}, true, nil
}

// AttrNames lists nothing: the methods are found by their values.
func (t *typeFunc) AttrNames() []string { return nil }

// IsInstance reports whether v is of the type.
func (t *typeFunc) IsInstance(v Value) bool {
	switch v := v.(type) {
	case bool:
		return t.name == "bool" || t.name == "int"
	case int64, *big.Int:
		return t.name == "int" || t.name == "long"
	case float64:
		return t.name == "float"
	case string:
		return t.name == "str" || t.name == "unicode" || t.name == "basestring"
	case *List:
		return t.name == "list"
	case Tuple:
		return t.name == "tuple"
	case *Dict:
		return t.name == "dict"
	case *Set:
		return t.name == "set" && !v.frozen || t.name == "frozenset" && v.frozen
	}
	return false
}

func arg(a Args, i int, def Value) Value {
	if i < len(a.Pos) {
		return a.Pos[i]
	}
	return def
}

var typeTables = map[string]goFunc{
	"int": {0, 2, "", toInt}, "long": {0, 2, "", toInt},
	"float": {0, 1, "", toFloat},
	"bool":  {0, 1, "", func(in *Interp, a Args) (Value, error) { return wrapBool(in.Truth(arg(a, 0, nil))) }},
	"str":   {0, 2, "", func(in *Interp, a Args) (Value, error) { return wrapStr(in.Str(arg(a, 0, ""))) }},
	"unicode": {0, 3, "", func(in *Interp, a Args) (Value, error) {
		return wrapStr(in.Str(arg(a, 0, "")))
	}},
	"list": {0, 1, "", func(in *Interp, a Args) (Value, error) {
		items, err := in.Iterate(arg(a, 0, Tuple{}))
		return &List{append([]Value(nil), items...)}, err
	}},
	"tuple": {0, 1, "", func(in *Interp, a Args) (Value, error) {
		items, err := in.Iterate(arg(a, 0, Tuple{}))
		return Tuple(items), err
	}},
	"dict": {0, 1, "*", toDict},
	"set": {0, 1, "", func(in *Interp, a Args) (Value, error) {
		items, err := in.Iterate(arg(a, 0, Tuple{}))
		if err != nil {
			return nil, err
		}
		return NewSet(in, items)
	}},
	"frozenset": {0, 1, "", func(in *Interp, a Args) (Value, error) {
		items, err := in.Iterate(arg(a, 0, Tuple{}))
		if err != nil {
			return nil, err
		}
		s, err := NewSet(in, items)
		if err == nil {
			s.frozen = true
		}
		return s, err
	}},
}

func wrapBool(b bool, err error) (Value, error)  { return b, err }
func wrapStr(s string, err error) (Value, error) { return s, err }
func wrapInt(n int, err error) (Value, error)    { return int64(n), err }

func toInt(in *Interp, a Args) (Value, error) {
	v := arg(a, 0, int64(0))
	base := 10
	if b, ok := intOf(arg(a, 1, int64(10))); ok && (b == 0 || b >= 2 && b <= 36) {
		base = int(b)
	}
	switch x := v.(type) {
	case float64:
		if math.IsInf(x, 0) || math.IsNaN(x) {
			return nil, Errorf("ValueError", "%s is no whole number", FormatFloat(x, -1))
		}
		b, _ := big.NewFloat(x).Int(nil)
		return normInt(b), nil
	case string:
		s := strings.TrimSpace(x)
		if base == 16 {
			s = strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X")
		}
		if b, ok := new(big.Int).SetString(s, base); ok && len(s) < 2000 && !strings.Contains(s, "_") {
			return normInt(b), nil
		}
		return nil, Errorf("ValueError", "%s is no whole number", clip(quote(x)))
	case Stringer:
		s, err := x.Str(in)
		if err != nil {
			return nil, err
		}
		return toInt(in, Args{At: a.At, Pos: []Value{s}})
	}
	if b, ok := bigOf(v); ok {
		return normInt(b), nil
	}
	return nil, Errorf("TypeError", "int() wants a number or a string; this is %s", article(TypeOf(v)))
}

func toFloat(in *Interp, a Args) (Value, error) {
	v := arg(a, 0, 0.0)
	if s, ok := v.(Stringer); ok {
		t, err := s.Str(in)
		if err != nil {
			return nil, err
		}
		v = t
	}
	if s, ok := v.(string); ok {
		f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			return nil, Errorf("ValueError", "%s is no number", clip(quote(s)))
		}
		return f, nil
	}
	f, ok := floatOf(v)
	if !ok {
		return nil, Errorf("TypeError", "float() wants a number or a string; this is %s", article(TypeOf(v)))
	}
	return f, nil
}

func toDict(in *Interp, a Args) (Value, error) {
	d := NewDict()
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
	return d, nil
}

// update takes over the pairs of a dict or of a sequence of pairs.
func (d *Dict) update(in *Interp, v Value) error {
	if src, ok := v.(*Dict); ok {
		return src.Each(func(k, v Value, at Pos) error { return d.setAt(in, k, v, at) })
	}
	items, err := in.Iterate(v)
	if err != nil {
		return err
	}
	for _, it := range items {
		pair, err := in.Iterate(it)
		if err != nil {
			return err
		}
		if len(pair) != 2 {
			return Errorf("ValueError", "a dict is made from pairs; one element has %s", count(len(pair), "part"))
		}
		if err := d.Set(in, pair[0], pair[1]); err != nil {
			return err
		}
	}
	return nil
}

var numberFuncs = map[string]goFunc{
	"abs": {1, 1, "", func(in *Interp, a Args) (Value, error) {
		if f, ok := a.Pos[0].(float64); ok {
			return math.Abs(f), nil
		}
		if b, ok := bigOf(a.Pos[0]); ok {
			return normInt(new(big.Int).Abs(b)), nil
		}
		return nil, Errorf("TypeError", "abs() wants a number; this is %s", article(TypeOf(a.Pos[0])))
	}},
	"round": {1, 2, "", func(_ *Interp, a Args) (Value, error) {
		f, ok := floatOf(a.Pos[0])
		n, ok2 := intOf(arg(a, 1, int64(0)))
		if !ok || !ok2 || n > 300 || n < -300 {
			return nil, Errorf("TypeError", "round() wants a number, and a number of digits")
		}
		s := strconv.FormatFloat(f, 'f', int(max(n, 0)), 64)
		if n < 0 {
			p := math.Pow(10, float64(-n))
			return math.Round(f/p) * p, nil
		}
		if math.Abs(f-math.Trunc(f)) == 0.5 && n == 0 {
			return math.Round(f), nil // halves go away from zero, as in Python 2
		}
		r, _ := strconv.ParseFloat(s, 64)
		return r, nil
	}},
	"divmod": {2, 2, "", func(in *Interp, a Args) (Value, error) {
		q, err := in.binary("//", a.Pos[0], a.Pos[1])
		if err != nil {
			return nil, err
		}
		r, err := in.binary("%", a.Pos[0], a.Pos[1])
		return Tuple{q, r}, err
	}},
	"pow": {2, 2, "", func(in *Interp, a Args) (Value, error) { return in.binary("**", a.Pos[0], a.Pos[1]) }},
	"hex": {1, 1, "", func(_ *Interp, a Args) (Value, error) {
		return formatBase(a.Pos[0], formatSpec{verb: 'x', alt: true, prec: -1})
	}},
	"oct": {1, 1, "", func(_ *Interp, a Args) (Value, error) {
		return formatBase(a.Pos[0], formatSpec{verb: 'o', alt: true, prec: -1})
	}},
	"chr": {1, 1, "", func(_ *Interp, a Args) (Value, error) {
		n, ok := intOf(a.Pos[0])
		if !ok || n < 0 || n > utf8.MaxRune {
			return nil, Errorf("ValueError", "chr() wants a character's number")
		}
		return string(rune(n)), nil
	}},
	"ord": {1, 1, "", func(_ *Interp, a Args) (Value, error) {
		s, ok := a.Pos[0].(string)
		if !ok || utf8.RuneCountInString(s) != 1 {
			return nil, Errorf("TypeError", "ord() wants a string of one character")
		}
		r, _ := utf8.DecodeRuneInString(s)
		return int64(r), nil
	}},
}

func formatBase(v Value, f formatSpec) (Value, error) {
	if _, ok := bigOf(v); !ok {
		return nil, Errorf("TypeError", "want a whole number; this is %s", article(TypeOf(v)))
	}
	return wrapStr(f.number(v))
}

var objectClass = &Class{Name: "object"}

// exceptionClasses are Python's errors, by name.
var exceptionClasses = makeExceptions()

func makeExceptions() map[string]*Class {
	out := map[string]*Class{}
	for _, line := range []string{
		"BaseException", "Exception BaseException", "StandardError Exception", "ValueError StandardError",
		"TypeError StandardError", "NameError StandardError", "AttributeError StandardError",
		"LookupError StandardError", "KeyError LookupError", "IndexError LookupError",
		"ArithmeticError StandardError", "ZeroDivisionError ArithmeticError", "OverflowError ArithmeticError",
		"EnvironmentError StandardError", "IOError EnvironmentError", "OSError EnvironmentError",
		"ImportError StandardError", "AssertionError StandardError", "RuntimeError StandardError",
		"NotImplementedError RuntimeError", "SyntaxError StandardError", "StopIteration Exception",
	} {
		name, base, has := strings.Cut(line, " ")
		c := &Class{Name: name}
		if has {
			c.bases = []*Class{out[base]}
		}
		out[name] = c
	}
	return out
}
