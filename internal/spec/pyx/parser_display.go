package pyx

import "strings"

// display reads what stands in brackets: a group, tuple, list, set,
// dictionary or comprehension.
func (p *parser) display(open string) (expr, error) {
	a := at{p.here()}
	p.i++
	if open == "{" {
		return p.braces(a)
	}
	end := map[string]string{"(": ")", "[": "]"}[open]
	var xs []expr
	comma := false
	for !p.is(end) {
		x, err := p.expr()
		if err != nil {
			return nil, err
		}
		if len(xs) == 0 && p.is("for") {
			if x, err = p.comp(a, open[0], nil, x); err != nil {
				return nil, err
			}
			return x, p.expect(end, "after a comprehension")
		}
		xs = append(xs, x)
		if !p.accept(",") {
			break
		}
		comma = true
	}
	if !p.accept(end) {
		return nil, p.stray2("'" + end + "' or ','")
	}
	if open == "[" {
		return &listExpr{a, xs}, nil
	}
	if len(xs) == 1 && !comma {
		return xs[0], nil
	}
	return &tupleExpr{a, xs}, nil
}

func (p *parser) braces(a at) (expr, error) {
	d := &dictExpr{at: a}
	var set []expr
	for !p.is("}") {
		if p.accept("**") {
			v, err := p.expr()
			if err != nil {
				return nil, err
			}
			d.keys, d.vals = append(d.keys, nil), append(d.vals, v)
		} else {
			k, err := p.expr()
			if err != nil {
				return nil, err
			}
			if p.is(":") && set == nil {
				p.i++
				v, err := p.expr()
				if err != nil {
					return nil, err
				}
				if len(d.keys) == 0 && p.is("for") {
					return p.endComp(a, ':', k, v)
				}
				d.keys, d.vals = append(d.keys, k), append(d.vals, v)
			} else {
				if len(d.keys) > 0 {
					return nil, p.stray2("':' and a value")
				}
				if len(set) == 0 && p.is("for") {
					return p.endComp(a, '{', nil, k)
				}
				set = append(set, k)
			}
		}
		if !p.accept(",") {
			break
		}
	}
	if !p.accept("}") {
		return nil, p.stray2("'}' or ','")
	}
	if set != nil {
		return &setExpr{a, set}, nil
	}
	return d, nil
}

func (p *parser) endComp(a at, kind byte, key, elt expr) (expr, error) {
	x, err := p.comp(a, kind, key, elt)
	if err != nil {
		return nil, err
	}
	return x, p.expect("}", "after a comprehension")
}

// comp reads the clauses of a comprehension whose element was read.
func (p *parser) comp(a at, kind byte, key, elt expr) (expr, error) {
	c := &compExpr{at: a, kind: kind, key: key, elt: elt}
	for {
		switch {
		case p.accept("for"):
			target, err := p.targets()
			if err != nil {
				return nil, err
			}
			if err = p.expect("in", "after the names of a comprehension"); err != nil {
				return nil, err
			}
			iter, err := p.or()
			if err != nil {
				return nil, err
			}
			c.clauses = append(c.clauses, compClause{target, iter})
		case p.accept("if"):
			cond, err := p.or()
			if err != nil {
				return nil, err
			}
			c.clauses = append(c.clauses, compClause{cond, nil})
		default:
			return c, nil
		}
		if len(c.clauses) > p.limits.Nesting {
			return nil, p.errf("a comprehension has more than %d clauses", p.limits.Nesting)
		}
	}
}

// fstring reads the inside of a formatted string that begins at a place.
func (p *parser) fstring(start Pos, s string) ([]fpart, error) {
	var parts []fpart
	var lit strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c == '{' || c == '}') && i+1 < len(s) && s[i+1] == c {
			lit.WriteByte(c)
			i++
			continue
		}
		if c == '}' {
			return nil, ErrorAt(start, "SyntaxError", "a single '}' in a formatted string; want '}}'")
		}
		if c != '{' {
			lit.WriteByte(c)
			continue
		}
		end := matchBrace(s[i:])
		if end < 0 {
			return nil, ErrorAt(start, "SyntaxError", "a '{' in a formatted string is never closed; want '{{' for a brace")
		}
		fp, err := p.field(start, s[i+1:i+end])
		if err != nil {
			return nil, err
		}
		parts = append(parts, fpart{lit: lit.String()}, fp)
		lit.Reset()
		i += end
	}
	return append(parts, fpart{lit: lit.String()}), nil
}

// matchBrace returns where the brace that opens s closes, or -1.
func matchBrace(s string) int {
	depth, quote := 0, byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '{' || c == '[' || c == '(':
			depth++
		case c == '}' || c == ']' || c == ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// field reads "expression!conversion:format".
func (p *parser) field(start Pos, s string) (fpart, error) {
	fp := fpart{}
	text, depth := s, 0
	for i := range len(s) {
		switch s[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		}
		if depth == 0 && s[i] == ':' {
			text, fp.spec = s[:i], s[i+1:]
			break
		}
	}
	if n := len(text); n > 2 && text[n-2] == '!' && (text[n-1] == 'r' || text[n-1] == 's') {
		fp.conv, text = text[n-1], text[:n-2]
	}
	// The expression is parsed by itself; its errors point at the string.
	sub := &parser{src: p.src, limits: p.limits, depth: p.depth, future: p.future}
	toks, err := lex(NewSource(p.src.Name, "("+text+")"), p.limits)
	if err == nil {
		for i := range toks {
			toks[i].off = start.Off
		}
		sub.toks = toks
		fp.x, err = sub.expr()
		if t := sub.peek(); err == nil && t.kind != tNewline && t.kind != tEOF {
			err = sub.stray()
		}
	}
	if err != nil {
		if e, ok := AsError(err); ok {
			err = ErrorAt(start, "SyntaxError", "in the formatted part {%.60s}: %s", s, e.Msg)
		}
		return fp, err
	}
	return fp, nil
}
