package pyx

import (
	"crypto/md5"  //nolint:gosec // files name digests with it, they do not trust it
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"strings"
)

// stdModules returns the modules that need nothing of the world.
func stdModules() map[string]*Module {
	mod := func(name string, funcs map[string]goFunc) *Module {
		m := &Module{Name: name, Names: map[string]Value{}}
		for n, f := range funcs {
			m.Names[n] = f.value(name + "." + n)
		}
		return m
	}
	future := mod("__future__", nil)
	for _, n := range []string{"absolute_import", "division", "print_function", "unicode_literals", "with_statement"} {
		future.Names[n] = true
	}
	return map[string]*Module{
		"__future__": future,
		"hashlib":    mod("hashlib", hashFuncs),
		"os.path":    mod("os.path", pathFuncs),
		"copy":       mod("copy", map[string]goFunc{"copy": {1, 1, "", shallowCopy}, "deepcopy": {1, 1, "", deepCopy}}),
		"itertools":  mod("itertools", map[string]goFunc{"chain": {0, -1, "", chain}, "product": {0, -1, "", product}}),
		"functools":  mod("functools", map[string]goFunc{"partial": {1, -1, "*", partial}, "reduce": {2, 3, "", reduceFunc}}),
		"collections": mod("collections", map[string]goFunc{
			"OrderedDict": {0, 1, "*", toDict},
		}),
		"textwrap": mod("textwrap", map[string]goFunc{"dedent": {1, 1, "", dedent}}),
	}
}

var hashFuncs = map[string]goFunc{
	"md5":    {0, 1, "", digester(func(b []byte) []byte { h := md5.Sum(b); return h[:] })},  //nolint:gosec // see the import
	"sha1":   {0, 1, "", digester(func(b []byte) []byte { h := sha1.Sum(b); return h[:] })}, //nolint:gosec // see the import
	"sha256": {0, 1, "", digester(func(b []byte) []byte { h := sha256.Sum256(b); return h[:] })},
}

func digester(sum func([]byte) []byte) func(*Interp, Args) (Value, error) {
	return func(_ *Interp, a Args) (Value, error) {
		s, err := strArg(a, 0, "")
		return &digest{text: s, sum: sum}, err
	}
}

// A digest is a hash being fed.
type digest struct {
	text string
	sum  func([]byte) []byte
}

// TypeName returns "hash".
func (d *digest) TypeName() string { return "hash" }

// AttrNames lists what a digest can do.
func (d *digest) AttrNames() []string { return []string{"hexdigest", "update"} }

// Attr returns a digest's method.
func (d *digest) Attr(_ *Interp, name string) (Value, bool, error) {
	switch name {
	case "hexdigest":
		return &Builtin{Name: name, Fn: func(in *Interp, _ Args) (Value, error) {
			return hex.EncodeToString(d.sum([]byte(d.text))), in.Step(len(d.text) >> 4)
		}}, true, nil
	case "update":
		return &Builtin{Name: name, Fn: func(in *Interp, a Args) (Value, error) {
			s, err := strArg(a, 0, "")
			if err == nil {
				err = in.Alloc(len(d.text) + len(s))
			}
			d.text += s
			return nil, err
		}}, true, nil
	}
	return nil, false, nil
}

func pathFunc(f func(string) string) goFunc {
	return goFunc{1, 1, "", func(_ *Interp, a Args) (Value, error) {
		s, err := strArg(a, 0, "")
		return f(s), err
	}}
}

var pathFuncs = map[string]goFunc{
	"basename": pathFunc(func(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }),
	"dirname": pathFunc(func(s string) string {
		head := s[:strings.LastIndexByte(s, '/')+1]
		if t := strings.TrimRight(head, "/"); t != "" {
			return t
		}
		return head
	}),
	"normpath": pathFunc(path.Clean),
	"splitext": {1, 1, "", func(_ *Interp, a Args) (Value, error) {
		s, err := strArg(a, 0, "")
		ext := path.Ext(s)
		return Tuple{strings.TrimSuffix(s, ext), ext}, err
	}},
	"join": {1, -1, "", func(in *Interp, a Args) (Value, error) {
		out := ""
		for i := range a.Pos {
			s, err := strArg(a, i, "")
			if err != nil {
				return nil, err
			}
			switch {
			case strings.HasPrefix(s, "/") || out == "":
				out = s
			case strings.HasSuffix(out, "/"):
				out += s
			default:
				out += "/" + s
			}
			if err := in.Alloc(len(out)); err != nil {
				return nil, err
			}
		}
		return out, nil
	}},
}

func shallowCopy(in *Interp, a Args) (Value, error) {
	switch v := a.Pos[0].(type) {
	case *List:
		items, err := in.Iterate(v)
		return &List{items}, err
	case *Dict:
		d := NewDict()
		return d, d.update(in, v)
	case *Set:
		return NewSet(in, v.d.Keys())
	}
	return a.Pos[0], nil
}

func deepCopy(in *Interp, a Args) (Value, error) {
	if err := in.Enter(); err != nil {
		return nil, err
	}
	defer in.Leave()
	deep := func(v Value) (Value, error) { return deepCopy(in, Args{Pos: []Value{v}}) }
	switch v := a.Pos[0].(type) {
	case *List:
		items, err := in.Iterate(v)
		for i := 0; err == nil && i < len(items); i++ {
			items[i], err = deep(items[i])
		}
		return &List{items}, err
	case *Dict:
		d := NewDict()
		err := v.Each(func(k, x Value, at Pos) error {
			y, err := deep(x)
			if err != nil {
				return err
			}
			return d.setAt(in, k, y, at)
		})
		return d, err
	}
	return shallowCopy(in, a)
}

func chain(in *Interp, a Args) (Value, error) {
	out := &List{}
	for _, v := range a.Pos {
		items, err := in.Iterate(v)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, items...)
	}
	return out, nil
}

func product(in *Interp, a Args) (Value, error) {
	rows := []Value{Tuple{}}
	for _, v := range a.Pos {
		items, err := in.Iterate(v)
		if err != nil {
			return nil, err
		}
		if err := in.AllocTimes(int64(len(rows)), 32*max(1, len(items))); err != nil {
			return nil, err
		}
		var next []Value
		for _, r := range rows {
			for _, x := range items {
				next = append(next, append(slices.Clone(r.(Tuple)), x))
			}
		}
		rows = next
	}
	return &List{rows}, nil
}

func partial(_ *Interp, a Args) (Value, error) {
	fn, pos, kw := a.Pos[0], a.Pos[1:], a.Kw
	return &Builtin{Name: "partial", Fn: func(in *Interp, b Args) (Value, error) {
		all := Args{At: b.At, Pos: slices.Concat(pos, b.Pos)}
		for _, k := range kw {
			if _, ok := b.named(k.Name); !ok {
				all.Kw = append(all.Kw, k)
			}
		}
		all.Kw = append(all.Kw, b.Kw...)
		return in.Call(fn, all)
	}}, nil
}

// dedent removes the blanks that every line begins with.
func dedent(in *Interp, a Args) (Value, error) {
	s, err := strArg(a, 0, "")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(s, "\n")
	margin, found := "", false
	for i, l := range lines {
		body := strings.TrimLeft(l, " \t")
		if body == "" {
			lines[i] = ""
			continue
		}
		lead := l[:len(l)-len(body)]
		if !found {
			margin, found = lead, true
		}
		for !strings.HasPrefix(lead, margin) {
			margin = margin[:len(margin)-1]
		}
	}
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, margin)
	}
	return strings.Join(lines, "\n"), in.Alloc(len(s))
}
