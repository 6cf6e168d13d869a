package pyx

import (
	"fmt"
	"math/big"
	"sort"
	"strconv"
	"strings"
)

// Str returns v as str() does.
func (in *Interp) Str(v Value) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case float64:
		return FormatFloat(v, 12), nil
	case Stringer:
		return v.Str(in)
	case *Instance:
		if m, ok := v.class.find("__str__"); ok {
			r, err := in.Call(m, Args{At: in.at, Pos: []Value{v}})
			s, _ := r.(string)
			return s, err
		}
		if v.class.is(exceptionClasses["BaseException"]) && len(v.args) == 1 {
			return in.Str(v.args[0])
		}
	}
	return in.Repr(v)
}

// Repr returns v as repr() does.
func (in *Interp) Repr(v Value) (string, error) {
	if err := in.Enter(); err != nil {
		return "", err
	}
	defer in.Leave()
	if err := in.Step(1); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case nil:
		return "None", nil
	case bool:
		return map[bool]string{true: "True", false: "False"}[v], nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case *big.Int:
		return v.String(), nil
	case float64:
		return FormatFloat(v, -1), nil
	case string:
		return quote(v), in.Alloc(len(v))
	case *List:
		return in.reprItems("[", v.Items, "]")
	case Tuple:
		if len(v) == 1 {
			return in.reprItems("(", v, ",)")
		}
		return in.reprItems("(", v, ")")
	case *Dict:
		return in.reprDict(v)
	case *Set:
		items, err := v.Items(in)
		if err != nil {
			return "", err
		}
		return in.reprItems("set([", items, "])")
	case Stringer:
		return v.Repr(in)
	case *Instance:
		if m, ok := v.class.find("__repr__"); ok {
			r, err := in.Call(m, Args{At: in.at, Pos: []Value{v}})
			s, _ := r.(string)
			return s, err
		}
		return "<" + v.class.Name + " object>", nil
	case *Class:
		return "<class '" + v.Name + "'>", nil
	case *Function:
		return "<function " + v.def.name + ">", nil
	case *Builtin:
		return "<built-in function " + v.Name + ">", nil
	}
	return "<" + TypeOf(v) + ">", nil
}

func (in *Interp) reprItems(open string, items []Value, end string) (string, error) {
	var b strings.Builder
	b.WriteString(open)
	for i, x := range items {
		if i > 0 {
			b.WriteString(", ")
		}
		s, err := in.Repr(x)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
		if err := in.Alloc(len(s)); err != nil {
			return "", err
		}
	}
	b.WriteString(end)
	return b.String(), nil
}

func (in *Interp) reprDict(d *Dict) (string, error) {
	var b strings.Builder
	b.WriteByte('{')
	err := d.Each(func(k, v Value, _ Pos) error {
		if b.Len() > 1 {
			b.WriteString(", ")
		}
		ks, err := in.Repr(k)
		if err != nil {
			return err
		}
		vs, err := in.Repr(v)
		if err != nil {
			return err
		}
		b.WriteString(ks + ": " + vs)
		return in.Alloc(len(ks) + len(vs))
	})
	b.WriteByte('}')
	return b.String(), err
}

// quote prints a string as Python does: single quotes, double ones when it
// holds a single one.
func quote(s string) string {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	var b strings.Builder
	b.WriteByte(q)
	for _, r := range s {
		switch {
		case r == rune(q) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte(q)
	return b.String()
}

// Sort orders items in place as sorted() does, by key when there is one.
func (in *Interp) Sort(items []Value, key Value, reverse bool) error {
	keys := make([]Value, len(items))
	for i, x := range items {
		keys[i] = x
		if key != nil {
			k, err := in.Call(key, Args{At: in.at, Pos: []Value{x}})
			if err != nil {
				return err
			}
			keys[i] = k
		}
	}
	idx := make([]int, len(items))
	for i := range idx {
		idx[i] = i
	}
	var failed error
	sort.SliceStable(idx, func(i, j int) bool {
		if failed != nil {
			return false
		}
		a, b := keys[idx[i]], keys[idx[j]]
		if reverse {
			a, b = b, a
		}
		c, err := in.order(a, b)
		if err != nil {
			failed = err
		}
		return c < 0
	})
	if failed != nil {
		return failed
	}
	copy(items, pick(items, idx))
	return nil
}
