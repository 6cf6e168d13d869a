package spec

import (
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

// kind is what a schema's type is made of.
type kind uint8

const (
	kString kind = iota
	kInteger
	kFloat
	kBoolean
	kNumber // whole or not; stays what it was written as
	kEnum
	kList
	kMap
	kStruct
	kChoice
)

// A schemaType is a type of the configuration schema: a value of the language that
// makes objects when it is called.
type schemaType struct {
	name    string
	kind    kind
	elem    *schemaType // of a list, or a map's values
	key     *schemaType // of a map
	values  []string    // of an enumeration
	choices []*schemaType
	fields  []field // of a struct
	index   map[string]int
	base    *schemaType
}

// A field is one field of a struct.
type field struct {
	name     string
	typ      *schemaType
	required bool
	def      *object // nil: empty
}

func simple(name string, k kind) *schemaType { return &schemaType{name: name, kind: k} }

func listOf(t *schemaType) *schemaType {
	return &schemaType{name: t.name + "List", kind: kList, elem: t}
}

func mapOf(k, v *schemaType) *schemaType {
	return &schemaType{name: k.name + v.name + "Map", kind: kMap, key: k, elem: v}
}

func enumOf(name string, values ...string) *schemaType {
	return &schemaType{name: name, kind: kEnum, values: values}
}

func choiceOf(name string, ts ...*schemaType) *schemaType {
	return &schemaType{name: name, kind: kChoice, choices: ts}
}

func structOf(name string, fields ...field) *schemaType {
	t := &schemaType{name: name, kind: kStruct, fields: fields, index: map[string]int{}}
	for i, f := range fields {
		t.index[f.name] = i
	}
	return t
}

// is reports whether a value of type t may stand where u is wanted.
func (t *schemaType) is(u *schemaType) bool {
	for b := t; b != nil; b = b.base {
		if b == u {
			return true
		}
	}
	if t.kind != u.kind {
		return false
	}
	switch t.kind {
	case kList:
		return t.elem.is(u.elem)
	case kMap:
		return t.key.is(u.key) && t.elem.is(u.elem)
	case kString, kInteger, kFloat, kBoolean, kNumber:
		return true
	default:
		return false
	}
}

// want says what a value of the type looks like.
func (t *schemaType) want() string {
	switch t.kind {
	case kString:
		return "a string"
	case kInteger:
		return "a whole number"
	case kFloat, kNumber:
		return "a number"
	case kBoolean:
		return "True or False"
	case kEnum:
		return "one of " + strings.Join(t.values, ", ")
	case kList:
		return "a list (of " + t.elem.name + ")"
	case kMap:
		return "a dict (of " + t.key.name + " to " + t.elem.name + ")"
	case kStruct:
		return t.name + "(...)"
	case kChoice:
		names := make([]string, len(t.choices))
		for i, c := range t.choices {
			names[i] = c.name
		}
		return "one of " + strings.Join(names, ", ")
	}
	return t.name
}

// TypeName returns "type".
func (t *schemaType) TypeName() string { return "type" }

// IsInstance reports whether v is an object of the type.
func (t *schemaType) IsInstance(v pyx.Value) bool {
	o, ok := v.(*object)
	return ok && o.typ.is(t)
}

// Attr returns the type's name.
func (t *schemaType) Attr(_ *pyx.Interp, name string) (pyx.Value, bool, error) {
	return t.name, name == "__name__", nil
}

// AttrNames lists nothing worth suggesting.
func (t *schemaType) AttrNames() []string { return nil }

// Str names the type.
func (t *schemaType) Str(*pyx.Interp) (string, error) { return "<class '" + t.name + "'>", nil }

// Repr names the type.
func (t *schemaType) Repr(in *pyx.Interp) (string, error) { return t.Str(in) }

// Call makes an object of the type.
func (t *schemaType) Call(in *pyx.Interp, a pyx.Args) (pyx.Value, error) {
	if t.kind != kStruct {
		if len(a.Pos) != 1 || len(a.Kw) > 0 {
			return nil, pyx.Errorf("TypeError", "%s wants one value: %s", t.name, t.want())
		}
		return t.make(in, a.Pos[0], a.At)
	}
	o, err := t.blank(in, a.At)
	if err != nil {
		return nil, err
	}
	for _, v := range a.Pos {
		if err := o.fill(in, v); err != nil {
			return nil, err
		}
	}
	return o, o.setAll(in, a.Kw)
}

// blank returns a struct with its defaults.
func (t *schemaType) blank(in *pyx.Interp, at pyx.Pos) (*object, error) {
	o := &object{typ: t, at: at, data: make([]slot, len(t.fields))}
	for i, f := range t.fields {
		o.data[i] = slot{f.def, at}
	}
	return o, in.Alloc(64 + 48*len(t.fields))
}

// make turns a value into an object of the type, as far as that can be told
// before names are bound: what is inside a string may still be a template.
func (t *schemaType) make(in *pyx.Interp, v pyx.Value, at pyx.Pos) (*object, error) {
	if o, ok := v.(*object); ok && o.typ.is(t) {
		return o, nil
	}
	if err := in.Enter(); err != nil {
		return nil, err
	}
	defer in.Leave()
	if err := in.Alloc(96); err != nil {
		return nil, err
	}
	switch t.kind {
	case kStruct:
		o, err := t.blank(in, at)
		if err != nil {
			return nil, err
		}
		return o, o.fill(in, v)
	case kList:
		return t.makeList(in, v, at)
	case kMap:
		return t.makeMap(in, v, at)
	case kEnum:
		o := t.makeSimple(v, at)
		if s, ok := o.val.(string); !ok || !strings.Contains(s, "{{") {
			if _, err := t.coerce(o.val); err != nil {
				return nil, pyx.ErrorAt(at, "ValueError", "%s %s", t.name, err)
			}
		}
		return o, nil
	case kChoice:
		return &object{typ: t, at: at, val: v}, nil
	default:
		return t.makeSimple(v, at), nil
	}
}

func (t *schemaType) makeSimple(v pyx.Value, at pyx.Pos) *object {
	o := &object{typ: t, at: at, val: v}
	if src, ok := v.(*object); ok && src.isSimple() {
		o.val, o.scopes = src.val, src.scopes
	}
	return o
}

func (t *schemaType) makeList(in *pyx.Interp, v pyx.Value, at pyx.Pos) (*object, error) {
	var items []pyx.Value
	switch x := v.(type) {
	case *pyx.List:
		items = x.Items
	case pyx.Tuple:
		items = x
	case *object:
		if x.typ.kind != kList {
			return nil, t.mismatch(v, at)
		}
		for _, y := range x.items {
			items = append(items, y)
		}
	default:
		return nil, t.mismatch(v, at)
	}
	o := &object{typ: t, at: at, items: make([]*object, len(items))}
	for i, x := range items {
		e, err := t.elem.make(in, x, at)
		if err != nil {
			return nil, err
		}
		o.items[i] = e
	}
	return o, nil
}

func (t *schemaType) makeMap(in *pyx.Interp, v pyx.Value, at pyx.Pos) (*object, error) {
	d, ok := v.(*pyx.Dict)
	if !ok {
		return nil, t.mismatch(v, at)
	}
	o := &object{typ: t, at: at}
	err := d.Each(func(k, v pyx.Value, kat pyx.Pos) error {
		if !kat.IsValid() {
			kat = at
		}
		ko, err := t.key.make(in, k, kat)
		if err != nil {
			return err
		}
		vo, err := t.elem.make(in, v, kat)
		o.pairs = append(o.pairs, pair{ko, vo})
		return err
	})
	return o, err
}

// mismatch says that v is not what the type wants.
func (t *schemaType) mismatch(v pyx.Value, at pyx.Pos) *pyx.Error {
	hint := ""
	if t.kind == kList {
		switch v.(type) {
		case *object:
			hint = "; put it in brackets: [...]"
		case *pyx.Set:
			hint = "; use sorted(...) to make a list of a set"
		}
	}
	return pyx.ErrorAt(at, "ValueError", "this is %s; want %s%s", typeOf(v), t.want(), hint)
}

// typeOf names the type of a value, with its article.
func typeOf(v pyx.Value) string {
	n := pyx.TypeOf(v)
	if n == "None" {
		return n
	}
	if strings.ContainsRune("aeiouAEIOU", rune(n[0])) {
		return "an " + n
	}
	return "a " + n
}

// A wrongValueError is an error of [schemaType.coerce].
type wrongValueError struct {
	is   string
	want string
}

func (e *wrongValueError) Error() string { return "is " + e.is + "; want " + e.want }

// coerce turns a plain value without templates into what the type holds.
func (t *schemaType) coerce(v pyx.Value) (pyx.Value, error) {
	ok := false
	switch t.kind {
	case kString:
		v, ok = coerceString(v)
	case kInteger:
		v, ok = coerceInt(v)
	case kFloat:
		v, ok = coerceFloat(v)
	case kNumber:
		n, isInt := coerceInt(v)
		if _, isFloat := v.(float64); isInt && !isFloat {
			return n, nil
		}
		v, ok = coerceFloat(v)
	case kBoolean:
		v, ok = coerceBool(v)
	case kEnum:
		s, isStr := v.(string)
		for _, x := range t.values {
			ok = ok || isStr && x == s
		}
	default:
	}
	if ok {
		return v, nil
	}
	hint := ""
	if s, isStr := v.(string); isStr && t.kind == kEnum {
		hint = pyx.Suggest(s, t.values)
	}
	return nil, &wrongValueError{show(v), t.want() + hint}
}

// show prints a value in an error.
func show(v pyx.Value) string {
	switch v := v.(type) {
	case string:
		if len(v) > 60 {
			v = v[:57] + "..."
		}
		return "'" + v + "'"
	case int64, float64, bool:
		s, _ := coerceString(v)
		return s.(string)
	case *big.Int:
		s := v.String()
		if len(s) <= 60 {
			return s
		}
		return "a number of " + itoa(len(strings.TrimPrefix(s, "-"))) + " digits"
	}
	return typeOf(v)
}

func coerceString(v pyx.Value) (pyx.Value, bool) {
	switch x := v.(type) {
	case string:
		return x, true
	case int64:
		return strconv.FormatInt(x, 10), true
	case float64:
		return pyx.FormatFloat(x, 12), true
	case bool:
		if x {
			return "True", true
		}
		return "False", true
	}
	return v, false
}

// coerceInt gives the nearest number of 64 bits: every field wants less than
// that, and says how much when it is looked at; see [extreme].
func coerceInt(v pyx.Value) (pyx.Value, bool) {
	switch x := v.(type) {
	case int64:
		return x, true
	case *big.Int:
		return outermost(x.Sign() < 0), true
	case float64:
		switch {
		case math.IsNaN(x) || math.IsInf(x, 0):
		case x > -1e18 && x < 1e18:
			return int64(x), true
		default:
			return outermost(x < 0), true
		}
	case bool:
		if x {
			return int64(1), true
		}
		return int64(0), true
	case string:
		n, err := strconv.ParseInt(strings.TrimPrefix(strings.TrimSpace(x), "+"), 10, 64)
		ok := err == nil || errors.Is(err, strconv.ErrRange) // then n is the nearest
		return orElse(ok, n, v), ok
	}
	return v, false
}

func outermost(negative bool) int64 {
	if negative {
		return math.MinInt64
	}
	return math.MaxInt64
}

// extreme reports whether v may stand for a number beyond 64 bits.
func extreme(v pyx.Value) bool { return v == int64(math.MinInt64) || v == int64(math.MaxInt64) }

func orElse(ok bool, a, b pyx.Value) pyx.Value {
	if ok {
		return a
	}
	return b
}

func coerceFloat(v pyx.Value) (pyx.Value, bool) {
	switch x := v.(type) {
	case float64:
		return x, !math.IsInf(x, 0) && !math.IsNaN(x)
	case int64:
		return float64(x), true
	case *big.Int:
		f, _ := new(big.Float).SetInt(x).Float64()
		return f, !math.IsInf(f, 0)
	case bool:
		n, _ := coerceInt(x)
		return float64(n.(int64)), true
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(x), 64)
		ok := err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
		return orElse(ok, f, v), ok
	}
	return v, false
}

func coerceBool(v pyx.Value) (pyx.Value, bool) {
	switch x := v.(type) {
	case bool:
		return x, true
	case int64:
		return x != 0, true
	case float64:
		return x != 0, true
	case string:
		switch strings.ToLower(x) {
		case "true", "1":
			return true, true
		case "false", "0":
			return false, true
		}
	}
	return v, false
}
