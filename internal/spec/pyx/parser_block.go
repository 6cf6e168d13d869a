package pyx

// compound reads the statement with a block that the word begins, if it
// begins one.
func (p *parser) compound(word string) (s stmt, ok bool, err error) {
	switch word {
	case "if":
		s, err = p.ifStmt()
	case "for":
		s, err = p.forStmt()
	case "while":
		s, err = p.whileStmt()
	case "def", "class", "@":
		s, err = p.decorated()
	case "with":
		s, err = p.withStmt()
	case "try":
		s, err = p.tryStmt()
	case "elif", "else", "except", "finally":
		return nil, false, p.errf("'%s' continues nothing; is the line indented like the block that it belongs to?", word)
	default:
		return nil, false, nil
	}
	return s, true, err
}

// block reads ':' and the statements below it.
func (p *parser) block(of string) ([]stmt, error) {
	if err := p.expect(":", "after "+of); err != nil {
		return nil, err
	}
	if p.peek().kind != tNewline {
		return p.statement(nil)
	}
	p.i++
	if p.peek().kind != tIndent {
		return nil, p.errf("want an indented block after %s", of)
	}
	p.i++
	var body []stmt
	var err error
	for p.peek().kind != tDedent {
		if p.peek().kind == tEOF {
			return body, nil
		}
		if p.peek().kind == tIndent {
			return nil, p.errf("this line is indented but no block begins above it")
		}
		if body, err = p.statement(body); err != nil {
			return nil, err
		}
	}
	p.i++
	return body, nil
}

func (p *parser) ifStmt() (stmt, error) {
	s := &ifStmt{at: at{p.here()}}
	word := "if"
	for {
		p.i++
		cond, err := p.expr()
		if err != nil {
			return nil, err
		}
		if p.is("=") {
			return nil, p.errf("'=' assigns; use '==' to compare")
		}
		body, err := p.block(word + " and its condition")
		if err != nil {
			return nil, err
		}
		s.conds, s.bodies = append(s.conds, cond), append(s.bodies, body)
		if !p.is("elif") {
			break
		}
		word = "elif"
	}
	var err error
	s.els, err = p.elseBlock()
	return s, err
}

func (p *parser) elseBlock() ([]stmt, error) {
	if !p.accept("else") {
		return nil, nil
	}
	return p.block("else")
}

func (p *parser) forStmt() (stmt, error) {
	s := &forStmt{at: at{p.here()}}
	p.i++
	var err error
	if s.target, err = p.targets(); err != nil {
		return nil, err
	}
	if err = p.expect("in", "after the names of a for loop"); err != nil {
		return nil, err
	}
	if s.iter, err = p.exprs(); err != nil {
		return nil, err
	}
	if s.body, err = p.block("for and what it walks"); err != nil {
		return nil, err
	}
	s.els, err = p.elseBlock()
	return s, err
}

func (p *parser) whileStmt() (stmt, error) {
	s := &whileStmt{at: at{p.here()}}
	p.i++
	var err error
	if s.cond, err = p.expr(); err != nil {
		return nil, err
	}
	if s.body, err = p.block("while and its condition"); err != nil {
		return nil, err
	}
	s.els, err = p.elseBlock()
	return s, err
}

func (p *parser) withStmt() (stmt, error) {
	s := &withStmt{at: at{p.here()}}
	p.i++
	var err error
	if s.x, err = p.expr(); err != nil {
		return nil, err
	}
	if p.accept("as") {
		if s.target, err = p.postfix(); err != nil {
			return nil, err
		}
		if err = assignable(s.target, true); err != nil {
			return nil, err
		}
	}
	s.body, err = p.block("with and what it opens")
	return s, err
}

func (p *parser) tryStmt() (stmt, error) {
	s := &tryStmt{at: at{p.here()}}
	p.i++
	var err error
	if s.body, err = p.block("try"); err != nil {
		return nil, err
	}
	for p.accept("except") {
		h := handler{}
		if !p.is(":") {
			if h.class, err = p.expr(); err != nil {
				return nil, err
			}
			if p.accept("as") || p.accept(",") {
				if h.as, err = p.ident("a name for the error"); err != nil {
					return nil, err
				}
			}
		}
		if h.body, err = p.block("except"); err != nil {
			return nil, err
		}
		s.handlers = append(s.handlers, h)
	}
	if s.els, err = p.elseBlock(); err != nil {
		return nil, err
	}
	if p.accept("finally") {
		if s.finally, err = p.block("finally"); err != nil {
			return nil, err
		}
	} else if len(s.handlers) == 0 {
		return nil, p.errf("found %s; want 'except' or 'finally' after a try block", describe(p.peek()))
	}
	return s, nil
}

func (p *parser) decorated() (stmt, error) {
	var decs []expr
	for p.accept("@") {
		d, err := p.postfix()
		if err != nil {
			return nil, err
		}
		decs = append(decs, d)
		if p.peek().kind != tNewline {
			return nil, p.stray()
		}
		p.i++
	}
	a := at{p.here()}
	switch {
	case p.accept("def"):
		name, err := p.ident("the function's name")
		if err != nil {
			return nil, err
		}
		fn := &funcDef{name: name, p: a.p}
		if err = p.expect("(", "after the function's name"); err != nil {
			return nil, err
		}
		if err = p.params(fn, ")"); err != nil {
			return nil, err
		}
		if err = p.expect(")", "after the parameters"); err != nil {
			return nil, err
		}
		if p.accept("->") {
			if _, err = p.expr(); err != nil {
				return nil, err
			}
		}
		fn.body, err = p.block("the function's head")
		return &defStmt{a, fn, decs}, err
	case p.accept("class"):
		return p.classStmt(a, decs)
	}
	return nil, p.errf("found %s; want 'def' or 'class' after a decorator", describe(p.peek()))
}

func (p *parser) classStmt(a at, decs []expr) (stmt, error) {
	s := &classStmt{at: a, decorators: decs}
	var err error
	if s.name, err = p.ident("the class's name"); err != nil {
		return nil, err
	}
	if p.accept("(") {
		for !p.is(")") {
			b, baseErr := p.expr()
			if baseErr != nil {
				return nil, baseErr
			}
			s.bases = append(s.bases, b)
			if !p.accept(",") {
				break
			}
		}
		if err = p.expect(")", "after the class's bases"); err != nil {
			return nil, err
		}
	}
	s.body, err = p.block("the class's head")
	return s, err
}

// params reads parameters up to the closing word, which stays.
func (p *parser) params(fn *funcDef, end string) error {
	seen := map[string]bool{}
	add := func(n string) error {
		if seen[n] {
			return p.errf("the parameter %s stands twice", n)
		}
		seen[n] = true
		return nil
	}
	kwOnly := false
	for !p.is(end) {
		stars := ""
		if p.is("*") || p.is("**") {
			stars = p.next().text
		}
		if stars == "*" && p.is(",") {
			kwOnly = true
			p.i++
			continue
		}
		n, err := p.ident("a parameter's name")
		if err != nil {
			return err
		}
		if err = add(n); err != nil {
			return err
		}
		switch stars {
		case "*":
			fn.star, kwOnly = n, true
		case "**":
			fn.kw = n
		default:
			if err := p.param(fn, n, end, kwOnly); err != nil {
				return err
			}
		}
		if !p.accept(",") {
			return nil
		}
	}
	return nil
}

func (p *parser) param(fn *funcDef, name, end string, kwOnly bool) error {
	var err error
	prm := param{name: name, kwOnly: kwOnly}
	if end == ")" && p.accept(":") {
		if _, err = p.expr(); err != nil {
			return err
		}
	}
	if p.accept("=") {
		if prm.def, err = p.expr(); err != nil {
			return err
		}
	} else if n := len(fn.params); n > 0 && fn.params[n-1].def != nil && !kwOnly {
		return p.errf("the parameter %s needs a default, since one before it has one", name)
	}
	fn.params = append(fn.params, prm)
	return nil
}
