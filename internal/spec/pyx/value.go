package pyx

import (
	"math"
	"math/big"
	"strconv"
)

// A Value is a value of the language: nil (None), bool, int64, *big.Int (only
// what int64 cannot hold), float64, string, *List, Tuple, *Dict, *Set, a
// function, class, instance or module, or something of the caller's that
// implements the interfaces below as far as it can do what they say.
type Value = any

type (
	// A Typed value names its type for people.
	Typed interface{ TypeName() string }
	// A Callable value can be called.
	Callable interface {
		Call(in *Interp, args Args) (Value, error)
	}
	// An Attrer has attributes. Names lists them for suggestions.
	Attrer interface {
		Attr(in *Interp, name string) (Value, bool, error)
		AttrNames() []string
	}
	// An Indexer can be indexed.
	Indexer interface {
		Index(in *Interp, key Value) (Value, error)
	}
	// An Iterable value can be walked.
	Iterable interface {
		Iterate(in *Interp) ([]Value, error)
	}
	// A Stringer prints itself, as str and as repr.
	Stringer interface {
		Str(in *Interp) (string, error)
		Repr(in *Interp) (string, error)
	}
	// A Hasher can be a key: equal values have equal keys and equal hashes.
	Hasher interface {
		Key(in *Interp) (string, error)
		Hash(in *Interp) (int64, error)
	}
	// A Binarier takes part in binary operations; ok is false for one that it
	// does not know. Right says that it stands on the right.
	Binarier interface {
		Binary(in *Interp, op string, other Value, right bool) (v Value, ok bool, err error)
	}
	// A Base can be the base of a class; it makes what the class statement
	// defines from the names bound in its body, in order.
	Base interface {
		Subclass(in *Interp, at Pos, name string, body *Dict) (Value, error)
	}
	// A TypeTest tells isinstance.
	TypeTest interface {
		IsInstance(v Value) bool
	}
)

// A List is a mutable sequence.
type List struct{ Items []Value }

// A Tuple is an immutable sequence.
type Tuple []Value

// A Dict maps keys to values and keeps the order in which keys came.
type Dict struct {
	index   map[any]int
	entries []entry
	live    int
}

type entry struct {
	key, val Value
	at       Pos // where the key was given, if known
	dead     bool
}

// NewDict returns an empty dictionary.
func NewDict() *Dict { return &Dict{index: map[any]int{}} }

// Len returns the number of keys.
func (d *Dict) Len() int { return d.live }

// Get returns the value of a key.
func (d *Dict) Get(in *Interp, key Value) (Value, bool, error) {
	k, err := in.key(key)
	if err != nil {
		return nil, false, err
	}
	i, ok := d.index[k]
	if !ok {
		return nil, false, nil
	}
	return d.entries[i].val, true, nil
}

// Set binds a key.
func (d *Dict) Set(in *Interp, key, val Value) error { return d.setAt(in, key, val, Pos{}) }

func (d *Dict) setAt(in *Interp, key, val Value, at Pos) error {
	k, err := in.key(key)
	if err != nil {
		return err
	}
	if i, ok := d.index[k]; ok {
		d.entries[i].val, d.entries[i].at = val, at
		return nil
	}
	if err := in.Alloc(48); err != nil {
		return err
	}
	d.index[k] = len(d.entries)
	d.entries = append(d.entries, entry{key: key, val: val, at: at})
	d.live++
	return nil
}

// Delete removes a key and returns what it was bound to.
func (d *Dict) Delete(in *Interp, key Value) (Value, bool, error) {
	k, err := in.key(key)
	if err != nil {
		return nil, false, err
	}
	i, ok := d.index[k]
	if !ok {
		return nil, false, nil
	}
	v := d.entries[i].val
	d.entries[i] = entry{dead: true}
	delete(d.index, k)
	d.live--
	if len(d.entries) > 2*d.live+16 {
		return v, true, d.compact(in)
	}
	return v, true, nil
}

// compact drops the entries of keys that were deleted.
func (d *Dict) compact(in *Interp) error {
	kept := d.entries[:0]
	for _, e := range d.entries {
		if e.dead {
			continue
		}
		k, err := in.key(e.key)
		if err != nil {
			return err
		}
		d.index[k] = len(kept)
		kept = append(kept, e)
	}
	clear(d.entries[len(kept):])
	d.entries = kept
	return nil
}

// Each calls f for every key in order, until f returns an error.
func (d *Dict) Each(f func(k, v Value, at Pos) error) error {
	for _, e := range d.entries {
		if e.dead {
			continue
		}
		if err := f(e.key, e.val, e.at); err != nil {
			return err
		}
	}
	return nil
}

// Keys returns the keys in order.
func (d *Dict) Keys() []Value {
	out := make([]Value, 0, d.live)
	for _, e := range d.entries {
		if !e.dead {
			out = append(out, e.key)
		}
	}
	return out
}

func (d *Dict) values() []Value {
	out := make([]Value, 0, d.live)
	for _, e := range d.entries {
		if !e.dead {
			out = append(out, e.val)
		}
	}
	return out
}

func (d *Dict) items() []Value {
	out := make([]Value, 0, d.live)
	for _, e := range d.entries {
		if !e.dead {
			out = append(out, Tuple{e.key, e.val})
		}
	}
	return out
}

// A Set is a set, walked in the order of Python 2's hash table.
type Set struct {
	d      *Dict
	frozen bool
}

// NewSet returns the set of the items.
func NewSet(in *Interp, items []Value) (*Set, error) {
	s := &Set{d: NewDict()}
	for _, x := range items {
		if err := s.d.Set(in, x, nil); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// A Builtin is a function written in Go.
type Builtin struct {
	Name string
	Fn   func(in *Interp, args Args) (Value, error)
	self Value // of a method, for people
}

// Call calls it.
func (b *Builtin) Call(in *Interp, args Args) (Value, error) { return b.Fn(in, args) }

// A Function is a function written in the language.
type Function struct {
	def      *funcDef
	defaults []Value // one per parameter; noDefault where there is none
	scope    *frame
}

type noDefault struct{}

// TypeName returns "function".
func (f *Function) TypeName() string { return "function" }

// A method is a function bound to an instance or a class.
type method struct {
	self Value
	fn   Value
}

// A Class is a class written in the language, or an exception of Python's.
type Class struct {
	Name  string
	bases []*Class
	attrs map[string]Value
	order []string
}

// An Instance is an object of a [Class].
type Instance struct {
	class *Class
	attrs map[string]Value
	args  []Value // of an exception
}

// A Module has names for import.
type Module struct {
	Name  string
	Names map[string]Value
	Why   string // why it has no more names, and what to do instead; may be empty
}

// wrapper marks what @staticmethod, @classmethod and @property made.
type wrapper struct {
	kind string
	fn   Value
}

// TypeOf names the type of v for people.
func TypeOf(v Value) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *List:
		return "list"
	case Tuple:
		return "tuple"
	case *Dict:
		return "dict"
	case *Set:
		return "set"
	case *Builtin, *method:
		return "function"
	case *Class:
		return "class " + v.Name
	case *Instance:
		return v.class.Name
	case *Module:
		return "module"
	case Typed:
		return v.TypeName()
	}
	return "object"
}

// normInt returns n as int64 when it fits.
func normInt(n *big.Int) Value {
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

// intOf returns a whole number (or a truth value) as int64.
func intOf(v Value) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// floatOf returns a number as a float.
func floatOf(v Value) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		return f, true
	}
	n, ok := intOf(v)
	return float64(n), ok
}

// bigOf returns a whole number as a big integer.
func bigOf(v Value) (*big.Int, bool) {
	if b, ok := v.(*big.Int); ok {
		return b, true
	}
	n, ok := intOf(v)
	return big.NewInt(n), ok
}

// FormatFloat prints f as Python 2.7 does: the shortest form that reads back
// when digits is -1 (repr), else with that many digits (str has 12).
func FormatFloat(f float64, digits int) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	case f == 0:
		if math.Signbit(f) {
			return "-0.0"
		}
		return "0.0"
	}
	e := strconv.FormatFloat(f, 'e', -1, 64)
	limit := 16
	if digits > 0 {
		e = strconv.FormatFloat(f, 'e', digits-1, 64)
		f, _ = strconv.ParseFloat(e, 64)
		limit = digits - 1
	}
	exp := 0
	for i := range len(e) {
		if e[i] == 'e' {
			exp, _ = strconv.Atoi(e[i+1:])
		}
	}
	if exp < -4 || exp >= limit {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	for i := range len(s) {
		if s[i] == '.' {
			return s
		}
	}
	return s + ".0"
}
