package spec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

// A ref is the address of a name: a.b[c]. Each part is written as it stands
// in the canonical form, ".a" or "[c]".
type ref []string

// parseRef reads an address. Parts after a dot are identifiers, parts in
// brackets are letters, digits and any of _-./ .
func parseRef(s string) (ref, bool) {
	if s == "" {
		return nil, false
	}
	if s[0] != '.' && s[0] != '[' {
		s = "." + s
	}
	var r ref
	for s != "" {
		n := 1
		if s[0] == '[' {
			end := strings.IndexByte(s, ']')
			if end < 2 || strings.IndexFunc(s[1:end], func(c rune) bool { return !isIndexRune(c) }) >= 0 {
				return nil, false
			}
			n = end + 1
		} else {
			for n < len(s) && isWordByte(s[n]) {
				n++
			}
			if s[0] != '.' || n == 1 || s[1] >= '0' && s[1] <= '9' {
				return nil, false
			}
		}
		if r = append(r, s[:n]); len(r) > partsMax {
			return nil, false
		}
		s = s[n:]
	}
	return r, true
}

func isWordByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isIndexRune(c rune) bool {
	return c < 128 && isWordByte(byte(c)) || c == '-' || c == '.' || c == '/'
}

func (r ref) String() string { return strings.TrimPrefix(strings.Join(r, ""), ".") }

// scopes is a list of what names are looked up in, nearest first. The scope
// of a struct stands for its fields (plain and below "self"), then the rest
// of the list, then the rest of the list below "super".
type scopes struct {
	head scope
	next *scopes
}

// A scope is an *env, an *object that was bound, or a selfScope.
type scope any

type selfScope struct{ o *object }

const (
	bindsMax = 200 // calls of bind on one object
	partsMax = 32  // of an address
)

func (s *scopes) len() int {
	n := 0
	for ; s != nil; s = s.next {
		n++
	}
	return n
}

// inner returns the scopes that a struct's fields see.
func (o *object) inner() *scopes {
	if o.typ.kind == kStruct {
		return &scopes{selfScope{o}, o.scopes}
	}
	return o.scopes
}

// inScope returns o with more scopes behind its own.
func (o *object) inScope(more *scopes) *object {
	if more == nil {
		return o
	}
	c := *o
	c.scopes = join(o.scopes, more)
	return &c
}

func join(a, b *scopes) *scopes {
	if a == nil {
		return b
	}
	return &scopes{a.head, join(a.next, b)}
}

// An env maps addresses to strings and objects.
type env struct {
	table map[string]any // by the canonical form
	most  int            // parts of the longest address
	took  *takings       // nil: nobody asks
}

// takings is what was made of an env.
type takings struct {
	reached map[string]bool // addresses that were looked up in it
	used    map[string]bool // those of them that it binds
}

func newEnv() *env { return &env{table: map[string]any{}} }

// put binds an address below a prefix; a dict binds every address in it.
func (e *env) put(in *pyx.Interp, prefix ref, addr string, v pyx.Value) error {
	r, ok := parseRef(addr)
	if !ok {
		return fmt.Errorf("%q is no name that can be bound; want a name such as a, a.b or a[b]", addr)
	}
	r = append(append(ref{}, prefix...), r...)
	if d, ok := v.(*pyx.Dict); ok {
		if err := in.Enter(); err != nil {
			return err
		}
		defer in.Leave()
		return d.Each(func(k, x pyx.Value, _ pyx.Pos) error {
			name, ok := k.(string)
			if !ok {
				return fmt.Errorf("names to bind are strings; this is %s", typeOf(k))
			}
			return e.put(in, r, name, x)
		})
	}
	if _, ok := v.(*object); !ok {
		s, isText := coerceString(v)
		if !isText {
			return fmt.Errorf("a name is bound to a string, a number, a dict or an object of the schema; this is %s", typeOf(v))
		}
		v = s
	}
	e.table[strings.Join(r, "")] = v
	e.most = max(e.most, len(r))
	return in.Alloc(64)
}

// asScope turns what bind was given into a scope.
func asScope(in *pyx.Interp, v pyx.Value) (scope, error) {
	switch v := v.(type) {
	case *object:
		return v, nil
	case *pyx.Dict:
		e := newEnv()
		return e, v.Each(func(k, x pyx.Value, at pyx.Pos) error {
			name, ok := k.(string)
			if !ok {
				return pyx.ErrorAt(at, "TypeError", "names to bind are strings; this is %s", typeOf(k))
			}
			if err := e.put(in, nil, name, x); err != nil {
				return pyx.ErrorAt(at, "ValueError", "%s", err)
			}
			return nil
		})
	}
	return nil, pyx.Errorf("TypeError", "bind() takes names (bind(a = 'x')), dicts and objects of the schema; this is %s", typeOf(v))
}

// find looks an address up in an env: itself, or inside the object that the
// longest beginning of it names.
func (e *env) find(b *binder, r ref) (any, error) {
	if e.took != nil {
		e.took.reached[strings.Join(r, "")] = true
	}
	for n := min(len(r), e.most); n > 0; n-- {
		v, ok := e.table[strings.Join(r[:n], "")]
		if !ok {
			continue
		}
		if n == len(r) {
			if e.took != nil {
				e.took.used[strings.Join(r, "")] = true
			}
			return v, nil
		}
		if o, ok := v.(*object); ok {
			if x, err := o.find(b, r[n:]); x != nil || err != nil {
				return x, err
			}
		}
	}
	return nil, nil
}

// find follows an address into an object. It returns nil when it leads nowhere.
func (o *object) find(b *binder, r ref) (any, error) {
	var next *object
	part := strings.Trim(r[0], ".[]")
	indexed := r[0][0] == '['
	switch {
	case o.typ.kind == kStruct && !indexed:
		next = o.get(part)
	case o.typ.kind == kList && indexed:
		if n, err := strconv.Atoi(part); err == nil {
			if n < 0 {
				n += len(o.items)
			}
			if n >= 0 && n < len(o.items) {
				next = o.items[n]
			}
		}
	case o.typ.kind == kMap && indexed:
		for _, p := range o.pairs {
			k, err := b.interpolate(p.key.inScope(o.inner()))
			if err != nil {
				return nil, err
			}
			if s, _ := coerceString(k.val); s == r[0][1:len(r[0])-1] {
				next = p.val
				break
			}
		}
	}
	if next == nil {
		return nil, nil
	}
	next = next.inScope(o.inner())
	if len(r) == 1 {
		return next, nil
	}
	return next.find(b, r[1:])
}

// lookup finds what an address means, nearest scope first: a string, an
// *object, or nil.
func (b *binder) lookup(l *scopes, r ref) (any, error) {
	for n := l; n != nil; n = n.next {
		if err := b.in.Step(1); err != nil {
			return nil, err
		}
		var v any
		var err error
		switch s := n.head.(type) {
		case *env:
			v, err = s.find(b, r)
		case *object:
			v, err = s.find(b, r)
		case selfScope:
			return b.lookupStruct(s.o, n.next, r)
		}
		if v != nil || err != nil {
			return v, err
		}
	}
	return nil, nil
}

func (b *binder) lookupStruct(o *object, rest *scopes, r ref) (any, error) {
	if r[0] == ".self" && len(r) > 1 {
		if v, err := ownField(b, o, r[1:]); v != nil || err != nil {
			return v, err
		}
	}
	if v, err := ownField(b, o, r); v != nil || err != nil {
		return v, err
	}
	if v, err := b.lookup(rest, r); v != nil || err != nil {
		return v, err
	}
	if r[0] == ".super" && len(r) > 1 {
		return b.lookup(rest, r[1:])
	}
	return nil, nil
}

// ownField looks an address up in a struct's fields, without the struct's own
// scopes around them: names that stay unbound in there are bound by who asks.
func ownField(b *binder, o *object, r ref) (any, error) {
	if r[0][0] != '.' {
		return nil, nil
	}
	v := o.get(r[0][1:])
	switch {
	case v == nil:
		return nil, nil
	case len(r) == 1:
		return v, nil
	}
	return v.find(b, r[1:])
}
