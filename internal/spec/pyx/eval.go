package pyx

import "strings"

// eval returns the value of an expression.
func (in *Interp) eval(x expr, fr *frame) (Value, error) {
	if in.steps++; in.steps > in.limits.Steps {
		return nil, place(in.Step(0), x.pos())
	}
	switch x := x.(type) {
	case *constExpr:
		return x.val, nil
	case *nameExpr:
		if v, ok := fr.lookup(x.id); ok {
			return v, nil
		}
		return nil, in.unknownName(x, fr)
	case *callExpr:
		return in.evalCall(x, fr)
	case *attrExpr:
		v, err := in.eval(x.x, fr)
		if err != nil {
			return nil, err
		}
		v, err = in.attr(v, x.name)
		return v, place(err, x.p)
	case *binExpr:
		return in.evalBinary(x, fr)
	case *listExpr:
		items, err := in.evalAll(x.xs, fr)
		return &List{items}, err
	case *tupleExpr:
		items, err := in.evalAll(x.xs, fr)
		return Tuple(items), err
	case *dictExpr:
		return in.evalDict(x, fr)
	case *indexExpr:
		return in.evalIndex(x, fr)
	}
	return in.evalMore(x, fr)
}

// evalMore handles the rarer expressions.
func (in *Interp) evalMore(x expr, fr *frame) (Value, error) {
	switch x := x.(type) {
	case *fstrExpr:
		return in.evalFString(x, fr)
	case *setExpr:
		items, err := in.evalAll(x.xs, fr)
		if err != nil {
			return nil, err
		}
		s, err := NewSet(in, items)
		return s, place(err, x.p)
	case *compExpr:
		return in.evalComp(x, fr)
	case *unaryExpr:
		v, err := in.eval(x.x, fr)
		if err != nil {
			return nil, err
		}
		v, err = in.unary(x.op, v)
		return v, place(err, x.p)
	case *boolExpr:
		return in.evalBool(x, fr)
	case *cmpExpr:
		return in.evalCompare(x, fr)
	case *condExpr:
		ok, err := in.test(x.cond, fr)
		if err != nil {
			return nil, err
		}
		if ok {
			return in.eval(x.then, fr)
		}
		return in.eval(x.els, fr)
	case *sliceExpr:
		return in.evalSlice(x, fr)
	case *lambdaExpr:
		return in.function(x.fn, fr)
	}
	return nil, ErrorAt(x.pos(), "SyntaxError", "this expression is not available in configuration files")
}

func (in *Interp) unknownName(x *nameExpr, fr *frame) error {
	if why, ok := missing[x.id]; ok {
		return ErrorAt(x.p, "NameError", "%s is not available: %s", x.id, why)
	}
	return ErrorAt(x.p, "NameError", "the name %s is not defined%s", x.id, Suggest(x.id, fr.names()))
}

func (in *Interp) evalAll(xs []expr, fr *frame) ([]Value, error) {
	if err := in.Alloc(16 * len(xs)); err != nil {
		return nil, err
	}
	out := make([]Value, len(xs))
	for i, x := range xs {
		v, err := in.eval(x, fr)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func (in *Interp) evalDict(x *dictExpr, fr *frame) (Value, error) {
	d := NewDict()
	for i, kx := range x.keys {
		v, err := in.eval(x.vals[i], fr)
		if err != nil {
			return nil, err
		}
		if kx == nil {
			src, ok := v.(*Dict)
			if !ok {
				return nil, ErrorAt(x.vals[i].pos(), "TypeError", "'**' spreads a dict; this is %s", article(TypeOf(v)))
			}
			if err = src.Each(func(k, v Value, at Pos) error { return d.setAt(in, k, v, at) }); err != nil {
				return nil, place(err, x.p)
			}
			continue
		}
		k, err := in.eval(kx, fr)
		if err != nil {
			return nil, err
		}
		if err := d.setAt(in, k, v, kx.pos()); err != nil {
			return nil, place(err, kx.pos())
		}
	}
	return d, nil
}

// article puts "a" or "an" before a word.
func article(word string) string {
	if word == "None" {
		return word
	}
	if strings.ContainsRune("aeiouAEIOU", rune(word[0])) {
		return "an " + word
	}
	return "a " + word
}

func (in *Interp) evalBool(x *boolExpr, fr *frame) (Value, error) {
	var v Value
	for i, y := range x.xs {
		var err error
		if v, err = in.eval(y, fr); err != nil {
			return nil, err
		}
		if i == len(x.xs)-1 {
			break
		}
		ok, err := in.Truth(v)
		if err != nil {
			return nil, place(err, y.pos())
		}
		if ok != x.and {
			break
		}
	}
	return v, nil
}

// test evaluates a condition.
func (in *Interp) test(x expr, fr *frame) (bool, error) {
	v, err := in.eval(x, fr)
	if err != nil {
		return false, err
	}
	ok, err := in.Truth(v)
	return ok, place(err, x.pos())
}

func (in *Interp) evalCompare(x *cmpExpr, fr *frame) (Value, error) {
	l, err := in.eval(x.l, fr)
	if err != nil {
		return nil, err
	}
	for i, op := range x.ops {
		r, err := in.eval(x.rs[i], fr)
		if err != nil {
			return nil, err
		}
		ok, err := in.compare(op, l, r)
		if err != nil {
			return nil, place(err, x.rs[i].pos())
		}
		if !ok {
			return false, nil
		}
		l = r
	}
	return true, nil
}

func (in *Interp) evalBinary(x *binExpr, fr *frame) (Value, error) {
	l, err := in.eval(x.l, fr)
	if err != nil {
		return nil, err
	}
	r, err := in.eval(x.r, fr)
	if err != nil {
		return nil, err
	}
	in.at = x.p
	v, err := in.binary(x.op, l, r)
	return v, place(err, x.p)
}

func (in *Interp) evalIndex(x *indexExpr, fr *frame) (Value, error) {
	v, err := in.eval(x.x, fr)
	if err != nil {
		return nil, err
	}
	i, err := in.eval(x.i, fr)
	if err != nil {
		return nil, err
	}
	v, err = in.index(v, i)
	return v, place(err, x.i.pos())
}

func (in *Interp) evalSlice(x *sliceExpr, fr *frame) (Value, error) {
	v, err := in.eval(x.x, fr)
	if err != nil {
		return nil, err
	}
	var bounds [3]*int64
	for i, b := range []expr{x.lo, x.hi, x.step} {
		if b == nil {
			continue
		}
		bv, boundErr := in.eval(b, fr)
		if boundErr != nil {
			return nil, boundErr
		}
		if bv == nil {
			continue
		}
		n, ok := intOf(bv)
		if !ok {
			return nil, ErrorAt(b.pos(), "TypeError", "a slice wants whole numbers; this is %s", article(TypeOf(bv)))
		}
		bounds[i] = &n
	}
	v, err = in.slice(v, bounds[0], bounds[1], bounds[2])
	return v, place(err, x.p)
}

func (in *Interp) evalFString(x *fstrExpr, fr *frame) (Value, error) {
	var b strings.Builder
	for _, part := range x.parts {
		b.WriteString(part.lit)
		if part.x == nil {
			continue
		}
		v, err := in.eval(part.x, fr)
		if err != nil {
			return nil, err
		}
		s, err := in.formatValue(v, part.conv, part.spec)
		if err != nil {
			return nil, place(err, x.p)
		}
		b.WriteString(s)
	}
	return b.String(), place(in.Alloc(b.Len()), x.p)
}

// evalComp runs a comprehension in a frame of its own.
func (in *Interp) evalComp(x *compExpr, fr *frame) (Value, error) {
	inner := &frame{in: in, vars: map[string]Value{}, parent: fr}
	if fr.class { // the body of a comprehension in a class does see the class
		inner.parent = &frame{in: in, vars: fr.vars, parent: fr.parent}
	}
	var items []Value
	d := NewDict()
	emit := func() error {
		v, err := in.eval(x.elt, inner)
		if err != nil {
			return err
		}
		if x.kind != ':' {
			items = append(items, v)
			return in.Alloc(16)
		}
		k, err := in.eval(x.key, inner)
		if err != nil {
			return err
		}
		return d.setAt(in, k, v, x.key.pos())
	}
	if err := in.clauses(x.clauses, inner, emit); err != nil {
		return nil, place(err, x.p)
	}
	switch x.kind {
	case ':':
		return d, nil
	case '{':
		s, err := NewSet(in, items)
		return s, place(err, x.p)
	}
	return &List{items}, nil
}

func (in *Interp) clauses(cs []compClause, fr *frame, emit func() error) error {
	if len(cs) == 0 {
		return emit()
	}
	c := cs[0]
	if c.iter == nil {
		ok, err := in.test(c.target, fr)
		if err != nil || !ok {
			return err
		}
		return in.clauses(cs[1:], fr, emit)
	}
	v, err := in.eval(c.iter, fr)
	if err != nil {
		return err
	}
	items, err := in.Iterate(v)
	if err != nil {
		return place(err, c.iter.pos())
	}
	for _, item := range items {
		if err := in.assign(c.target, item, fr); err != nil {
			return err
		}
		if err := in.clauses(cs[1:], fr, emit); err != nil {
			return err
		}
	}
	return nil
}
