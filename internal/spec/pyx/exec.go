package pyx

import "slices"

// A control says how a statement ended.
type control uint8

const (
	ctlNone control = iota
	ctlBreak
	ctlContinue
	ctlReturn
)

// block runs statements in order.
func (in *Interp) block(body []stmt, fr *frame) (control, error) {
	for _, s := range body {
		if in.steps++; in.steps > in.limits.Steps {
			return ctlNone, place(in.Step(0), s.pos())
		}
		ctl, err := in.exec(s, fr)
		if err != nil || ctl != ctlNone {
			return ctl, err
		}
	}
	return ctlNone, nil
}

func (in *Interp) exec(s stmt, fr *frame) (control, error) {
	switch s := s.(type) {
	case *exprStmt:
		_, err := in.eval(s.x, fr)
		return ctlNone, err
	case *assignStmt:
		v, err := in.eval(s.x, fr)
		if err != nil {
			return ctlNone, err
		}
		for _, t := range s.targets {
			if err := in.assign(t, v, fr); err != nil {
				return ctlNone, err
			}
		}
		return ctlNone, nil
	case *augStmt:
		return ctlNone, in.augment(s, fr)
	case *ifStmt:
		for i, c := range s.conds {
			ok, err := in.test(c, fr)
			if err != nil {
				return ctlNone, err
			}
			if ok {
				return in.block(s.bodies[i], fr)
			}
		}
		return in.block(s.els, fr)
	case *forStmt:
		return in.forLoop(s, fr)
	case *whileStmt:
		return in.whileLoop(s, fr)
	case *returnStmt:
		if s.x != nil {
			v, err := in.eval(s.x, fr)
			if err != nil {
				return ctlNone, err
			}
			fr.ret = v
		}
		in.at = s.p
		return ctlReturn, nil
	case *jumpStmt:
		in.at = s.p
		return s.ctl, nil
	}
	return in.execMore(s, fr)
}

// execMore handles the statements that define, import and catch.
func (in *Interp) execMore(s stmt, fr *frame) (control, error) {
	switch s := s.(type) {
	case *defStmt:
		f, err := in.function(s.fn, fr)
		if err != nil {
			return ctlNone, err
		}
		return ctlNone, in.define(s.fn.name, f, s.decorators, fr)
	case *classStmt:
		c, err := in.classStmt(s, fr)
		if err != nil {
			return ctlNone, err
		}
		return ctlNone, in.define(s.name, c, s.decorators, fr)
	case *importStmt:
		return ctlNone, place(in.importModule(s, fr), s.p)
	case *fromStmt:
		return ctlNone, place(in.importNames(s, fr), s.p)
	case *withStmt:
		return in.with(s, fr)
	case *tryStmt:
		return in.try(s, fr)
	case *raiseStmt:
		return ctlNone, in.raise(s, fr)
	case *assertStmt:
		return ctlNone, in.assert(s, fr)
	case *delStmt:
		for _, t := range s.targets {
			if err := in.del(t, fr); err != nil {
				return ctlNone, err
			}
		}
		return ctlNone, nil
	case *globalStmt:
		if fr.globals == nil {
			fr.globals = map[string]bool{}
		}
		for _, n := range s.names {
			fr.globals[n] = true
		}
		return ctlNone, nil
	}
	return ctlNone, ErrorAt(s.pos(), "SyntaxError", "this statement is not available in configuration files")
}

func (in *Interp) define(name string, v Value, decorators []expr, fr *frame) error {
	for _, x := range slices.Backward(decorators) {
		d, err := in.eval(x, fr)
		if err != nil {
			return err
		}
		if v, err = in.Call(d, Args{At: x.pos(), Pos: []Value{v}}); err != nil {
			return err
		}
	}
	fr.set(name, v)
	return nil
}

// assign binds what stands left of an equals sign.
func (in *Interp) assign(target expr, v Value, fr *frame) error {
	switch t := target.(type) {
	case *nameExpr:
		if fr == in.globals {
			in.places[t.id] = t.p
		}
		fr.set(t.id, v)
		return nil
	case *tupleExpr:
		return in.unpack(t.xs, v, t.p, fr)
	case *listExpr:
		return in.unpack(t.xs, v, t.p, fr)
	case *indexExpr:
		x, err := in.eval(t.x, fr)
		if err != nil {
			return err
		}
		i, err := in.eval(t.i, fr)
		if err != nil {
			return err
		}
		return place(in.setIndex(x, i, v, t.i.pos()), t.p)
	case *attrExpr:
		x, err := in.eval(t.x, fr)
		if err != nil {
			return err
		}
		return place(in.setAttr(x, t.name, v), t.p)
	}
	return ErrorAt(target.pos(), "SyntaxError", "nothing can be assigned to this")
}

func (in *Interp) unpack(targets []expr, v Value, at Pos, fr *frame) error {
	items, err := in.Iterate(v)
	if err != nil {
		return place(err, at)
	}
	if len(items) != len(targets) {
		return ErrorAt(at, "ValueError", "%d values for %d names", len(items), len(targets))
	}
	for i, t := range targets {
		if err := in.assign(t, items[i], fr); err != nil {
			return err
		}
	}
	return nil
}

func (in *Interp) augment(s *augStmt, fr *frame) error {
	old, err := in.eval(s.target, fr)
	if err != nil {
		return err
	}
	v, err := in.eval(s.x, fr)
	if err != nil {
		return err
	}
	if l, ok := old.(*List); ok && s.op == "+" { // grows the list that others see
		items, walkErr := in.Iterate(v)
		if walkErr == nil {
			walkErr = in.Alloc(16 * len(items))
		}
		if walkErr != nil {
			return place(walkErr, s.p)
		}
		l.Items = append(l.Items, items...)
		return nil
	}
	in.at = s.p
	if v, err = in.binary(s.op, old, v); err != nil {
		return place(err, s.p)
	}
	return in.assign(s.target, v, fr)
}

func (in *Interp) forLoop(s *forStmt, fr *frame) (control, error) {
	v, err := in.eval(s.iter, fr)
	if err != nil {
		return ctlNone, err
	}
	if l, ok := v.(*List); ok { // may grow while it is walked, as in Python
		i := 0
		for i < len(l.Items) {
			ctl, done, turnErr := in.turn(s, l.Items[i], fr)
			if done {
				return ctl, turnErr
			}
			i++
		}
		return in.block(s.els, fr)
	}
	items, err := in.Iterate(v)
	if err != nil {
		return ctlNone, place(err, s.iter.pos())
	}
	for _, item := range items {
		ctl, done, turnErr := in.turn(s, item, fr)
		if done {
			return ctl, turnErr
		}
	}
	return in.block(s.els, fr)
}

// turn runs a loop's body once; done says that the loop is over.
func (in *Interp) turn(s *forStmt, item Value, fr *frame) (ctl control, done bool, err error) {
	if in.steps++; in.steps > in.limits.Steps {
		return ctlNone, true, place(in.Step(0), s.p)
	}
	if err = in.assign(s.target, item, fr); err != nil {
		return ctlNone, true, err
	}
	ctl, err = in.block(s.body, fr)
	switch {
	case err != nil || ctl == ctlReturn:
		return ctl, true, err
	case ctl == ctlBreak:
		return ctlNone, true, nil
	}
	return ctlNone, false, nil
}

func (in *Interp) whileLoop(s *whileStmt, fr *frame) (control, error) {
	for {
		ok, err := in.test(s.cond, fr)
		if err != nil {
			return ctlNone, err
		}
		if !ok {
			return in.block(s.els, fr)
		}
		ctl, err := in.block(s.body, fr)
		if err != nil || ctl == ctlReturn {
			return ctl, err
		}
		if ctl == ctlBreak {
			return ctlNone, nil
		}
	}
}

func (in *Interp) with(s *withStmt, fr *frame) (control, error) {
	v, err := in.eval(s.x, fr)
	if err != nil {
		return ctlNone, err
	}
	if _, ok := v.(*file); !ok {
		return ctlNone, ErrorAt(s.x.pos(), "TypeError", "'with' opens files; this is %s", article(TypeOf(v)))
	}
	if s.target != nil {
		if err := in.assign(s.target, v, fr); err != nil {
			return ctlNone, err
		}
	}
	return in.block(s.body, fr)
}

func (in *Interp) assert(s *assertStmt, fr *frame) error {
	ok, err := in.test(s.cond, fr)
	if err != nil || ok {
		return err
	}
	msg := "this assertion does not hold"
	if s.msg != nil {
		v, err := in.eval(s.msg, fr)
		if err != nil {
			return err
		}
		if msg, err = in.Str(v); err != nil {
			return place(err, s.p)
		}
	}
	return ErrorAt(s.p, "AssertionError", "%s", msg)
}

func (in *Interp) del(target expr, fr *frame) error {
	switch t := target.(type) {
	case *tupleExpr:
		for _, x := range t.xs {
			if err := in.del(x, fr); err != nil {
				return err
			}
		}
		return nil
	case *nameExpr:
		if _, ok := fr.vars[t.id]; !ok {
			return in.unknownName(t, fr)
		}
		delete(fr.vars, t.id)
		return nil
	case *indexExpr:
		x, err := in.eval(t.x, fr)
		if err != nil {
			return err
		}
		i, err := in.eval(t.i, fr)
		if err != nil {
			return err
		}
		return place(in.delIndex(x, i), t.p)
	}
	return ErrorAt(target.pos(), "SyntaxError", "only names and elements can be deleted")
}
