package pyx

import (
	"math/big"
	"strconv"
	"strings"
)

// chainMax bounds operators in a row, which make a tree as deep as they are many.
const chainMax = 1000

// exprs reads one expression, or several with commas, which make a tuple.
func (p *parser) exprs() (expr, error) {
	a := at{p.here()}
	x, err := p.expr()
	if err != nil || !p.is(",") {
		return x, err
	}
	xs := []expr{x}
	for p.accept(",") {
		t := p.peek()
		if t.kind == tNewline || t.kind == tEOF || t.kind == tOp && (t.text == ")" || t.text == "=" || t.text == ":" || t.text == "]" || t.text == ";") {
			break
		}
		if x, err = p.expr(); err != nil {
			return nil, err
		}
		xs = append(xs, x)
	}
	return &tupleExpr{a, xs}, nil
}

// targets reads what a loop assigns to, up to the word in.
func (p *parser) targets() (expr, error) {
	a := at{p.here()}
	var xs []expr
	comma := false
	for {
		x, err := p.binary(0) // stops before "in", which is a comparison
		if err != nil {
			return nil, err
		}
		if err = assignable(x, true); err != nil {
			return nil, err
		}
		xs = append(xs, x)
		if !p.accept(",") {
			break
		}
		comma = true
		if p.is("in") {
			break
		}
	}
	if len(xs) == 1 && !comma {
		return xs[0], nil
	}
	return &tupleExpr{a, xs}, nil
}

// expr reads one expression: a conditional, a lambda or what binds tighter.
func (p *parser) expr() (expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	a := at{p.here()}
	if p.accept("lambda") {
		fn := &funcDef{name: "<lambda>", p: a.p}
		if err := p.params(fn, ":"); err != nil {
			return nil, err
		}
		if err := p.expect(":", "after the lambda's parameters"); err != nil {
			return nil, err
		}
		var err error
		fn.ret, err = p.expr()
		return &lambdaExpr{a, fn}, err
	}
	x, err := p.or()
	if err != nil || !p.accept("if") {
		return x, err
	}
	cond, err := p.or()
	if err != nil {
		return nil, err
	}
	if err = p.expect("else", "in a conditional expression"); err != nil {
		return nil, err
	}
	els, err := p.expr()
	return &condExpr{a, cond, x, els}, err
}

func (p *parser) or() (expr, error)  { return p.boolean("or", p.and) }
func (p *parser) and() (expr, error) { return p.boolean("and", p.not) }

func (p *parser) boolean(word string, sub func() (expr, error)) (expr, error) {
	a := at{p.here()}
	x, err := sub()
	if err != nil || !p.is(word) {
		return x, err
	}
	xs := []expr{x}
	for p.accept(word) {
		if x, err = sub(); err != nil {
			return nil, err
		}
		xs = append(xs, x)
	}
	return &boolExpr{a, word == "and", xs}, nil
}

func (p *parser) not() (expr, error) {
	a := at{p.here()}
	n := 0
	for p.accept("not") {
		n++
	}
	x, err := p.comparison()
	if err != nil || n == 0 {
		return x, err
	}
	x = &unaryExpr{a, "not", x}
	if n%2 == 0 {
		x = &unaryExpr{a, "not", x}
	}
	return x, nil
}

func (p *parser) compareOp() string {
	t := p.peek()
	if t.kind == tOp {
		switch t.text {
		case "==", "!=", "<", "<=", ">", ">=":
			p.i++
			return t.text
		case "<>":
			p.i++
			return "!="
		}
		return ""
	}
	switch {
	case p.accept("in"):
		return "in"
	case p.is("not") && p.toks[p.i+1].text == "in" && p.toks[p.i+1].kind == tName:
		p.i += 2
		return "not in"
	case p.accept("is"):
		if p.accept("not") {
			return "is not"
		}
		return "is"
	}
	return ""
}

func (p *parser) comparison() (expr, error) {
	a := at{p.here()}
	x, err := p.binary(0)
	if err != nil {
		return nil, err
	}
	c := &cmpExpr{at: a, l: x}
	for {
		op := p.compareOp()
		if op == "" {
			break
		}
		r, err := p.binary(0)
		if err != nil {
			return nil, err
		}
		c.ops, c.rs = append(c.ops, op), append(c.rs, r)
	}
	if len(c.ops) == 0 {
		return x, nil
	}
	return c, nil
}

// levels lists the binary operators, loosest first.
var levels = [...][]string{{"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "//", "%", "@"}}

func (p *parser) binary(level int) (expr, error) {
	if level == len(levels) {
		return p.unary()
	}
	x, err := p.binary(level + 1)
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		op := ""
		for _, o := range levels[level] {
			if t := p.peek(); t.kind == tOp && t.text == o {
				op = o
			}
		}
		if op == "" {
			return x, nil
		}
		if n == chainMax {
			return nil, p.errf("more than %d operators in a row; use a list and join or sum", chainMax)
		}
		a := at{p.here()}
		p.i++
		r, err := p.binary(level + 1)
		if err != nil {
			return nil, err
		}
		if op == "/" && p.future {
			op = "true/"
		}
		x = &binExpr{a, op, x, r}
	}
}

func (p *parser) unary() (expr, error) {
	a := at{p.here()}
	t := p.peek()
	if t.kind == tOp && (t.text == "-" || t.text == "+" || t.text == "~") {
		if err := p.enter(); err != nil {
			return nil, err
		}
		defer p.leave()
		p.i++
		x, err := p.unary()
		return &unaryExpr{a, t.text, x}, err
	}
	x, err := p.postfix()
	if err != nil || !p.is("**") {
		return x, err
	}
	if err = p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	a = at{p.here()}
	p.i++
	r, err := p.unary()
	return &binExpr{a, "**", x, r}, err
}

func (p *parser) postfix() (expr, error) {
	x, err := p.atom()
	for n := 0; err == nil; n++ {
		if n == chainMax {
			return nil, p.errf("more than %d calls and attributes in a row", chainMax)
		}
		a := at{p.here()}
		switch {
		case p.accept("."):
			a = at{p.here()}
			var name string
			if name, err = p.ident("an attribute's name after '.'"); err != nil {
				return nil, err
			}
			x = &attrExpr{a, x, name}
		case p.accept("("):
			var args []callArg
			if args, err = p.args(); err != nil {
				return nil, err
			}
			x = &callExpr{at{x.pos()}, x, args}
		case p.accept("["):
			x, err = p.subscript(a, x)
		default:
			return x, nil
		}
	}
	return nil, err
}

func (p *parser) subscript(a at, x expr) (expr, error) {
	var parts [3]expr
	n := 0
	slice := false
	for !p.is("]") {
		if p.accept(":") {
			slice = true
			if n++; n > 2 {
				return nil, p.errf("a slice has at most two ':'")
			}
			continue
		}
		var err error
		if parts[n], err = p.exprs(); err != nil {
			return nil, err
		}
		if !p.is(":") {
			break
		}
	}
	if err := p.expect("]", "after an index"); err != nil {
		return nil, err
	}
	if slice {
		return &sliceExpr{a, x, parts[0], parts[1], parts[2]}, nil
	}
	if parts[0] == nil {
		return nil, ErrorAt(a.p, "SyntaxError", "this index is empty; want a position, a key or a slice")
	}
	return &indexExpr{a, x, parts[0]}, nil
}

// args reads a call's arguments and the closing bracket.
func (p *parser) args() ([]callArg, error) {
	var args []callArg
	for !p.is(")") {
		arg := callArg{p: p.here()}
		switch {
		case p.accept("*"):
			arg.star = 1
		case p.accept("**"):
			arg.star = 2
		case p.peek().kind == tName && p.toks[p.i+1].kind == tOp && p.toks[p.i+1].text == "=":
			name, err := p.ident("a keyword argument's name")
			if err != nil {
				return nil, err
			}
			for _, b := range args {
				if b.name == name {
					return nil, ErrorAt(arg.p, "SyntaxError", "the argument %s stands twice in this call", name)
				}
			}
			arg.name = name
			p.i++
		default:
			if n := len(args); n > 0 && (args[n-1].name != "" || args[n-1].star == 2) {
				return nil, p.errf("an argument without a name cannot follow one with a name; want name = value")
			}
		}
		var err error
		if arg.x, err = p.expr(); err != nil {
			return nil, err
		}
		if p.is("for") {
			if arg.x, err = p.comp(at{arg.p}, '(', nil, arg.x); err != nil {
				return nil, err
			}
		}
		args = append(args, arg)
		if !p.accept(",") {
			break
		}
	}
	if p.is(")") {
		p.i++
		return args, nil
	}
	return nil, p.stray2("')' or ','")
}

// stray2 reports a token where want stands.
func (p *parser) stray2(want string) *Error {
	t := p.peek()
	if t.kind == tString || t.kind == tNumber || t.kind == tName && !keywords[t.text] {
		return p.errf("found %s; want %s: is a ',' missing before it?", describe(t), want)
	}
	return p.errf("found %s; want %s", describe(t), want)
}

func (p *parser) atom() (expr, error) {
	t := p.peek()
	a := at{p.here()}
	switch t.kind {
	case tNumber:
		p.i++
		return number(a, t.text)
	case tString:
		return p.strings()
	case tName:
		switch t.text {
		case "None", "True", "False":
			p.i++
			return &constExpr{a, map[string]Value{"None": nil, "True": true, "False": false}[t.text]}, nil
		}
		if keywords[t.text] {
			return nil, p.errf("found the keyword '%s'; want a value", t.text)
		}
		p.i++
		return &nameExpr{a, t.text}, nil
	case tOp:
		switch t.text {
		case "(", "[", "{":
			return p.display(t.text)
		case "=":
			return nil, p.errf("found '='; want a value")
		}
	case tEOF, tNewline, tIndent, tDedent:
	}
	return nil, p.errf("found %s; want a value", describe(t))
}

func number(a at, s string) (expr, error) {
	bad := ErrorAt(a.p, "SyntaxError", "%.40q is not a number", s)
	digits := strings.ReplaceAll(strings.TrimRight(s, "lL"), "_", "")
	if len(digits) > 400 {
		return nil, ErrorAt(a.p, "SyntaxError", "this number has %d digits; want at most 400", len(digits))
	}
	low := strings.ToLower(digits)
	isHex := strings.HasPrefix(low, "0x")
	if !isHex && strings.ContainsAny(low, ".e") {
		f, err := strconv.ParseFloat(digits, 64)
		if err != nil || digits != s {
			return nil, bad
		}
		return &constExpr{a, f}, nil
	}
	if len(low) > 1 && low[0] == '0' && strings.Trim(low, "01234567") == "" {
		low = "0o" + low[1:] // Python 2's octal
	}
	n, ok := new(big.Int).SetString(low, 0)
	if !ok {
		return nil, bad
	}
	return &constExpr{a, normInt(n)}, nil
}

// strings reads one string, or several in a row, which are joined.
func (p *parser) strings() (expr, error) {
	a := at{p.here()}
	var parts []fpart
	var lit strings.Builder
	plain := true
	for p.peek().kind == tString {
		t := p.next()
		if !t.fstring {
			lit.WriteString(t.text)
			continue
		}
		plain = false
		fp, err := p.fstring(Pos{p.src, t.off}, t.text)
		if err != nil {
			return nil, err
		}
		parts = append(parts, fpart{lit: lit.String()})
		lit.Reset()
		parts = append(parts, fp...)
	}
	if plain {
		return &constExpr{a, lit.String()}, nil
	}
	return &fstrExpr{a, append(parts, fpart{lit: lit.String()})}, nil
}
