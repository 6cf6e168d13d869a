package pyx

import (
	"errors"
	"strings"
)

// A Program is a parsed text.
type Program struct {
	src  *Source
	body []stmt
}

type parser struct {
	src    *Source
	toks   []token
	i      int
	depth  int
	limits Limits
	future bool // from __future__ import division
}

// Parse reads a text. An error is an [*Error] of class SyntaxError.
func Parse(src *Source, limits Limits) (*Program, error) {
	toks, err := lex(src, limits)
	if err != nil {
		return nil, err
	}
	p := &parser{src: src, toks: toks, limits: limits}
	prog := &Program{src: src}
	for p.peek().kind != tEOF {
		if p.peek().kind == tNewline {
			p.i++
			continue
		}
		if p.peek().kind == tIndent {
			return nil, p.errf("this line is indented but no block begins above it")
		}
		if prog.body, err = p.statement(prog.body); err != nil {
			return nil, err
		}
	}
	return prog, nil
}

func (p *parser) peek() token { return p.toks[p.i] }

func (p *parser) next() token {
	t := p.toks[p.i]
	if t.kind != tEOF {
		p.i++
	}
	return t
}

func (p *parser) here() Pos { return Pos{p.src, p.peek().off} }

func (p *parser) errf(format string, args ...any) *Error {
	return ErrorAt(p.here(), "SyntaxError", format, args...)
}

// enter counts one level of nesting; the caller must leave.
func (p *parser) enter() error {
	p.depth++
	if p.depth > 4*p.limits.Nesting {
		return p.errf("expressions and blocks nest too deep here")
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// is reports whether the next token is the operator or keyword s.
func (p *parser) is(s string) bool {
	t := p.peek()
	return t.text == s && (t.kind == tOp || t.kind == tName)
}

func (p *parser) accept(s string) bool {
	if p.is(s) {
		p.i++
		return true
	}
	return false
}

// describe names a token for people.
func describe(t token) string {
	switch t.kind {
	case tEOF:
		return "the end of the file"
	case tNewline:
		return "the end of the line"
	case tIndent:
		return "an indented line"
	case tDedent:
		return "the end of the block"
	case tString:
		return "a string"
	case tName, tNumber, tOp:
		return "'" + t.text + "'"
	}
	return "this"
}

func (p *parser) expect(s, where string) error {
	if p.accept(s) {
		return nil
	}
	return p.errf("found %s; want '%s' %s", describe(p.peek()), s, where)
}

func (p *parser) ident(what string) (string, error) {
	t := p.peek()
	if t.kind != tName || keywords[t.text] {
		return "", p.errf("found %s; want %s", describe(t), what)
	}
	p.i++
	return t.text, nil
}

// statement reads a compound statement or a line of simple ones.
func (p *parser) statement(out []stmt) ([]stmt, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if t := p.peek(); t.kind == tOp && t.text == "@" || t.kind == tName {
		if s, ok, err := p.compound(t.text); ok || err != nil {
			return append(out, s), err
		}
	}
	for {
		s, err := p.simple()
		if err != nil {
			return nil, err
		}
		out = append(out, s)
		if p.accept(";") {
			if p.peek().kind == tNewline {
				p.i++
				return out, nil
			}
			continue
		}
		if t := p.peek(); t.kind != tNewline && t.kind != tEOF {
			return nil, p.stray()
		}
		p.next()
		return out, nil
	}
}

// stray reports a token that cannot follow what was read, and guesses why.
func (p *parser) stray() *Error {
	t := p.peek()
	hint := ""
	if p.i > 0 {
		prev := p.toks[p.i-1]
		switch {
		case t.kind == tString || t.kind == tNumber || t.kind == tName && !keywords[t.text]:
			if prev.kind == tString || prev.kind == tNumber || prev.kind == tName || prev.text == ")" || prev.text == "]" || prev.text == "}" {
				hint = "; is a ',' or an operator missing before it?"
			}
		case t.text == ":":
			hint = "; is a keyword such as if, for or def missing?"
		}
	}
	return p.errf("found %s where the statement should end%s", describe(t), hint)
}

// simple reads one statement without a block.
func (p *parser) simple() (stmt, error) {
	t := p.peek()
	a := at{p.here()}
	if t.kind == tName {
		switch t.text {
		case "pass", "break", "continue":
			p.i++
			return &jumpStmt{a, map[string]control{"pass": ctlNone, "break": ctlBreak, "continue": ctlContinue}[t.text]}, nil
		case "return":
			p.i++
			x, err := p.optionalExprs()
			return &returnStmt{a, x}, err
		case "import":
			return p.importName()
		case "from":
			return p.importFrom()
		case "raise":
			p.i++
			x, err := p.optionalExprs()
			return &raiseStmt{a, x}, err
		case "assert":
			return p.assert()
		case "del":
			p.i++
			x, err := p.exprs()
			return &delStmt{a, []expr{x}}, err
		case "global", "nonlocal":
			return p.global()
		case "yield", "exec":
			return nil, p.errf("'%s' is not available in configuration files", t.text)
		case "print":
			if n := p.toks[p.i+1]; n.kind == tString || n.kind == tNumber || n.kind == tName && !keywords[n.text] || n.kind == tNewline {
				p.i++
				x, err := p.optionalExprs()
				return &exprStmt{a, orNone(a, x)}, err
			}
		}
	}
	return p.exprOrAssign()
}

func orNone(a at, x expr) expr {
	if x == nil {
		return &constExpr{a, nil}
	}
	return x
}

func (p *parser) optionalExprs() (expr, error) {
	if t := p.peek(); t.kind == tNewline || t.kind == tEOF || t.text == ";" && t.kind == tOp {
		return nil, nil
	}
	return p.exprs()
}

var augmented = map[string]string{
	"+=": "+", "-=": "-", "*=": "*", "/=": "/", "//=": "//", "%=": "%", "**=": "**", "|=": "|", "&=": "&", "^=": "^", "<<=": "<<", ">>=": ">>",
}

func (p *parser) exprOrAssign() (stmt, error) {
	a := at{p.here()}
	x, err := p.exprs()
	if err != nil {
		return nil, err
	}
	if op, ok := augmented[p.peek().text]; ok && p.peek().kind == tOp {
		p.i++
		if err = assignable(x, false); err != nil {
			return nil, err
		}
		v, valErr := p.exprs()
		if op == "/" && p.future {
			op = "true/"
		}
		return &augStmt{a, x, op, v}, valErr
	}
	if !p.is("=") {
		return &exprStmt{a, x}, nil
	}
	targets := []expr{}
	for p.accept("=") {
		if err = assignable(x, true); err != nil {
			return nil, err
		}
		targets = append(targets, x)
		if len(targets) > p.limits.Nesting {
			return nil, p.errf("too many '=' in one statement")
		}
		if x, err = p.exprs(); err != nil {
			return nil, err
		}
	}
	return &assignStmt{a, targets, x}, nil
}

// assignable reports an error when x cannot stand left of an equals sign.
func assignable(x expr, unpack bool) error {
	switch x := x.(type) {
	case *nameExpr, *attrExpr, *indexExpr:
		return nil
	case *tupleExpr:
		return allAssignable(x.xs, unpack, x)
	case *listExpr:
		return allAssignable(x.xs, unpack, x)
	}
	return ErrorAt(x.pos(), "SyntaxError", "nothing can be assigned to this; want a name, an attribute or an element (and '==' to compare)")
}

func allAssignable(xs []expr, unpack bool, x expr) error {
	if !unpack {
		return ErrorAt(x.pos(), "SyntaxError", "several names cannot be changed at once by an operator")
	}
	for _, y := range xs {
		if err := assignable(y, true); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) dotted() (string, error) {
	n, err := p.ident("a module's name")
	if err != nil {
		return "", err
	}
	parts := []string{n}
	for p.accept(".") {
		if n, err = p.ident("a module's name"); err != nil {
			return "", err
		}
		parts = append(parts, n)
	}
	return strings.Join(parts, "."), nil
}

func (p *parser) importName() (stmt, error) {
	a := at{p.here()}
	p.i++
	var list []stmt
	for {
		m, err := p.dotted()
		if err != nil {
			return nil, err
		}
		s := &importStmt{at: a, module: m}
		if p.accept("as") {
			if s.as, err = p.ident("a name after 'as'"); err != nil {
				return nil, err
			}
		}
		list = append(list, s)
		if !p.accept(",") {
			break
		}
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return &ifStmt{at: a, conds: []expr{&constExpr{a, true}}, bodies: [][]stmt{list}}, nil
}

func (p *parser) importFrom() (stmt, error) {
	s := &fromStmt{at: at{p.here()}}
	p.i++
	var err error
	if p.is(".") {
		return nil, p.errf("a relative import is not available; use include('file.aurora')")
	}
	if s.module, err = p.dotted(); err != nil {
		return nil, err
	}
	if err = p.expect("import", "after the module's name"); err != nil {
		return nil, err
	}
	if p.accept("*") {
		return s, nil
	}
	paren := p.accept("(")
	for {
		n, err := p.ident("a name to import")
		if err != nil {
			return nil, err
		}
		as := n
		if p.accept("as") {
			if as, err = p.ident("a name after 'as'"); err != nil {
				return nil, err
			}
		}
		if s.module == "__future__" && n == "division" {
			p.future = true
		}
		s.names, s.as = append(s.names, n), append(s.as, as)
		if !p.accept(",") || paren && p.is(")") {
			break
		}
	}
	if paren {
		return s, p.expect(")", "after the imported names")
	}
	return s, nil
}

func (p *parser) assert() (stmt, error) {
	s := &assertStmt{at: at{p.here()}}
	p.i++
	var err error
	if s.cond, err = p.expr(); err != nil {
		return nil, err
	}
	if p.accept(",") {
		s.msg, err = p.expr()
	}
	return s, err
}

func (p *parser) global() (stmt, error) {
	s := &globalStmt{at: at{p.here()}}
	p.i++
	for {
		n, err := p.ident("a name")
		if err != nil {
			return nil, err
		}
		s.names = append(s.names, n)
		if !p.accept(",") {
			return s, nil
		}
	}
}

// AsError returns err as a program's error, if it is one.
func AsError(err error) (*Error, bool) {
	e, ok := errors.AsType[*Error](err)
	return e, ok
}
