package pyx

import (
	"fmt"
	"strings"
)

// Args are the arguments of one call.
type Args struct {
	At  Pos
	Pos []Value
	Kw  []Kw
}

// A Kw is an argument given by name.
type Kw struct {
	Name string
	Val  Value
	At   Pos
}

func (in *Interp) evalCall(x *callExpr, fr *frame) (Value, error) {
	fn, err := in.eval(x.fn, fr)
	if err != nil {
		return nil, err
	}
	args := Args{At: x.p}
	if len(x.args) > 0 {
		args.Pos = make([]Value, 0, len(x.args))
	}
	for _, a := range x.args {
		v, err := in.eval(a.x, fr)
		if err != nil {
			return nil, err
		}
		switch {
		case a.star == 1:
			items, err := in.Iterate(v)
			if err != nil {
				return nil, place(err, a.p)
			}
			args.Pos = append(args.Pos, items...)
		case a.star == 2:
			if err := in.spread(&args, v, a.p); err != nil {
				return nil, err
			}
		case a.name != "":
			args.Kw = append(args.Kw, Kw{a.name, v, a.p})
		default:
			args.Pos = append(args.Pos, v)
		}
	}
	return in.Call(fn, args)
}

func (in *Interp) spread(args *Args, v Value, at Pos) error {
	d, ok := v.(*Dict)
	if !ok {
		return ErrorAt(at, "TypeError", "'**' spreads a dict; this is %s", article(TypeOf(v)))
	}
	return d.Each(func(k, v Value, kat Pos) error {
		name, ok := k.(string)
		if !ok {
			return ErrorAt(at, "TypeError", "'**' wants a dict whose keys are strings; it has %s", article(TypeOf(k)))
		}
		for _, kw := range args.Kw {
			if kw.Name == name {
				return ErrorAt(at, "TypeError", "the argument %s is given twice", name)
			}
		}
		if !kat.IsValid() {
			kat = at
		}
		args.Kw = append(args.Kw, Kw{name, v, kat})
		return nil
	})
}

// Call calls a value. Errors carry the place of the call when they have none.
func (in *Interp) Call(fn Value, args Args) (Value, error) {
	if err := in.Step(1); err != nil {
		return nil, place(err, args.At)
	}
	if m, ok := fn.(*method); ok {
		args.Pos = append([]Value{m.self}, args.Pos...)
		return in.Call(m.fn, args)
	}
	if in.calls++; in.calls > in.limits.Calls {
		in.calls--
		return nil, place(limitf("calls nest deeper than %d; does a function call itself without an end?", in.limits.Calls), args.At)
	}
	saved := in.at
	in.at = args.At
	v, err := in.call(fn, args)
	in.at = saved
	in.calls--
	if e, ok := AsError(err); ok && e.At.IsValid() && e.At != args.At && len(e.Trace) < in.limits.Calls {
		if _, user := fn.(*Function); user {
			e.Trace = append(e.Trace, args.At)
		}
	}
	return v, place(err, args.At)
}

func (in *Interp) call(fn Value, args Args) (Value, error) {
	switch f := fn.(type) {
	case *Function:
		return in.callFunction(f, args)
	case *Class:
		return in.instantiate(f, args)
	case *Instance:
		if m, ok := f.class.find("__call__"); ok {
			args.Pos = append([]Value{f}, args.Pos...)
			return in.Call(m, args)
		}
	case Callable:
		return f.Call(in, args)
	}
	return nil, Errorf("TypeError", "%s cannot be called", article(TypeOf(fn)))
}

func (in *Interp) function(def *funcDef, fr *frame) (Value, error) {
	f := &Function{def: def, scope: fr, defaults: make([]Value, len(def.params))}
	for i, p := range def.params {
		f.defaults[i] = noDefault{}
		if p.def == nil {
			continue
		}
		v, err := in.eval(p.def, fr)
		if err != nil {
			return nil, err
		}
		f.defaults[i] = v
	}
	return f, nil
}

func (in *Interp) callFunction(f *Function, args Args) (Value, error) {
	fr := &frame{in: in, vars: make(map[string]Value, len(f.def.params)+2), parent: f.scope}
	if err := in.bindParams(f, args, fr); err != nil {
		return nil, err
	}
	if f.def.ret != nil {
		return in.eval(f.def.ret, fr)
	}
	ctl, err := in.block(f.def.body, fr)
	if err != nil {
		return nil, err
	}
	if ctl == ctlBreak || ctl == ctlContinue {
		return nil, ErrorAt(in.at, "SyntaxError", "break or continue outside of a loop")
	}
	return fr.ret, nil
}

// bindParams puts arguments under the names of a function's parameters.
func (in *Interp) bindParams(f *Function, args Args, fr *frame) error {
	def := f.def
	n := 0
	for _, p := range def.params {
		if p.kwOnly {
			break
		}
		if n < len(args.Pos) {
			fr.vars[p.name] = args.Pos[n]
			n++
		}
	}
	if n < len(args.Pos) && def.star == "" {
		return Errorf("TypeError", "%s takes %s; %d are given without a name", def.name, count(len(def.params), "argument"), len(args.Pos))
	}
	if def.star != "" {
		fr.vars[def.star] = Tuple(args.Pos[n:])
	}
	rest := NewDict()
	for _, kw := range args.Kw {
		if !hasParam(def, kw.Name) {
			if def.kw == "" {
				return ErrorAt(kw.At, "TypeError", "%s has no parameter %s%s", def.name, kw.Name, Suggest(kw.Name, paramNames(def)))
			}
			if err := rest.setAt(in, kw.Name, kw.Val, kw.At); err != nil {
				return err
			}
			continue
		}
		if _, dup := fr.vars[kw.Name]; dup {
			return ErrorAt(kw.At, "TypeError", "the argument %s of %s is given twice", kw.Name, def.name)
		}
		fr.vars[kw.Name] = kw.Val
	}
	if def.kw != "" {
		fr.vars[def.kw] = rest
	}
	for i, p := range def.params {
		if _, ok := fr.vars[p.name]; ok {
			continue
		}
		if _, none := f.defaults[i].(noDefault); none {
			return Errorf("TypeError", "the argument %s of %s is missing", p.name, def.name)
		}
		fr.vars[p.name] = f.defaults[i]
	}
	return nil
}

func hasParam(def *funcDef, name string) bool {
	for _, p := range def.params {
		if p.name == name {
			return true
		}
	}
	return false
}

func paramNames(def *funcDef) []string {
	var out []string
	for _, p := range def.params {
		out = append(out, p.name)
	}
	return out
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// classStmt runs a class's body and makes the class; a base of the caller's
// makes it as it likes.
func (in *Interp) classStmt(s *classStmt, fr *frame) (Value, error) {
	c := &Class{Name: s.name}
	var host Base
	for _, b := range s.bases {
		v, err := in.eval(b, fr)
		if err != nil {
			return nil, err
		}
		switch v := v.(type) {
		case *Class:
			c.bases = append(c.bases, v)
		case Base:
			host = v
		case *Builtin: // int, dict and the like
			return nil, ErrorAt(b.pos(), "TypeError", "a class cannot be made from %s here; want object, Struct or a class of this file", v.Name)
		default:
			return nil, ErrorAt(b.pos(), "TypeError", "%s cannot be the base of a class", article(TypeOf(v)))
		}
	}
	body := &frame{in: in, vars: map[string]Value{}, parent: fr, class: true}
	if _, err := in.block(s.body, body); err != nil {
		return nil, err
	}
	if host == nil {
		c.attrs, c.order = body.vars, body.order
		return c, nil
	}
	d := NewDict()
	for _, n := range body.order {
		if v, ok := body.vars[n]; ok {
			if err := d.Set(in, n, v); err != nil {
				return nil, place(err, s.p)
			}
		}
	}
	v, err := host.Subclass(in, s.p, s.name, d)
	return v, place(err, s.p)
}

// find looks an attribute up in a class and its bases, depth first.
func (c *Class) find(name string) (Value, bool) {
	if v, ok := c.attrs[name]; ok {
		return v, true
	}
	for _, b := range c.bases {
		if v, ok := b.find(name); ok {
			return v, true
		}
	}
	return nil, false
}

// is reports whether c is the class named, or descends from it.
func (c *Class) is(o *Class) bool {
	if c == o {
		return true
	}
	for _, b := range c.bases {
		if b.is(o) {
			return true
		}
	}
	return false
}

func (in *Interp) instantiate(c *Class, args Args) (Value, error) {
	if err := in.Alloc(64); err != nil {
		return nil, err
	}
	o := &Instance{class: c, attrs: map[string]Value{}, args: args.Pos}
	init, ok := c.find("__init__")
	if !ok {
		if len(args.Kw) > 0 || len(args.Pos) > 0 && !c.is(exceptionClasses["BaseException"]) {
			return nil, Errorf("TypeError", "%s takes no arguments: it has no __init__", c.Name)
		}
		return o, nil
	}
	args.Pos = append([]Value{o}, args.Pos...)
	_, err := in.Call(init, args)
	return o, err
}

func (in *Interp) raise(s *raiseStmt, fr *frame) error {
	if s.x == nil {
		return ErrorAt(s.p, "RuntimeError", "raise needs an error, such as ValueError('...')")
	}
	v, err := in.eval(s.x, fr)
	if err != nil {
		return err
	}
	switch v := v.(type) {
	case *Class:
		return ErrorAt(s.p, v.Name, "%s", v.Name)
	case *Instance:
		parts := make([]string, 0, len(v.args))
		for _, a := range v.args {
			t, err := in.Str(a)
			if err != nil {
				return place(err, s.p)
			}
			parts = append(parts, t)
		}
		return &Error{At: s.p, Class: v.class.Name, Msg: v.class.Name + ": " + strings.Join(parts, ", "), value: v}
	}
	return ErrorAt(s.p, "TypeError", "%s cannot be raised; want an error, such as ValueError('...')", article(TypeOf(v)))
}

// try runs a block and what catches its errors. A limit is never caught.
func (in *Interp) try(s *tryStmt, fr *frame) (control, error) {
	ctl, err := in.block(s.body, fr)
	if e, ok := AsError(err); ok && !e.final {
		ctl, err = in.handle(s, e, fr)
	} else if err == nil && ctl == ctlNone {
		ctl, err = in.block(s.els, fr)
	}
	if fctl, ferr := in.block(s.finally, fr); ferr != nil || fctl != ctlNone {
		return fctl, ferr
	}
	return ctl, err
}

func (in *Interp) handle(s *tryStmt, e *Error, fr *frame) (control, error) {
	for _, h := range s.handlers {
		ok := h.class == nil
		if !ok {
			v, err := in.eval(h.class, fr)
			if err != nil {
				return ctlNone, err
			}
			ok = catches(v, e.Class, fr)
		}
		if !ok {
			continue
		}
		if h.as != "" {
			fr.set(h.as, e.instance())
		}
		return in.block(h.body, fr)
	}
	return ctlNone, e
}

// instance returns the error as a value of the language.
func (e *Error) instance() *Instance {
	if e.value != nil {
		return e.value
	}
	c, ok := exceptionClasses[e.Class]
	if !ok {
		c = exceptionClasses["Exception"]
	}
	return &Instance{class: c, attrs: map[string]Value{}, args: []Value{e.Msg}}
}

// catches reports whether an except clause with value v catches an error of a class.
func catches(v Value, class string, fr *frame) bool {
	switch v := v.(type) {
	case Tuple:
		for _, x := range v {
			if catches(x, class, fr) {
				return true
			}
		}
	case *Class:
		if v.Name == class {
			return true
		}
		if c, ok := exceptionClasses[class]; ok {
			return c.is(v)
		}
		if u, ok := fr.lookup(class); ok {
			c, isClass := u.(*Class)
			return isClass && c.is(v)
		}
		return v.Name == "Exception" || v.Name == "BaseException"
	}
	return false
}
