package pyx

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	tEOF kind = iota
	tNewline
	tIndent
	tDedent
	tName
	tNumber
	tString
	tOp
)

// A token is one word of the text. For a string, text is its decoded value.
type token struct {
	kind    kind
	text    string
	off     int32
	fstring bool
}

var keywords = map[string]bool{
	"and": true, "as": true, "assert": true, "break": true, "class": true, "continue": true, "def": true,
	"del": true, "elif": true, "else": true, "except": true, "finally": true, "for": true, "from": true,
	"global": true, "if": true, "import": true, "in": true, "is": true, "lambda": true, "not": true,
	"or": true, "pass": true, "raise": true, "return": true, "try": true, "while": true, "with": true,
	"yield": true, "nonlocal": true, "exec": true,
}

// operators, longest first.
var operators = []string{
	"**=", "//=", "<<=", ">>=", "...",
	"**", "//", "==", "!=", "<>", "<=", ">=", "+=", "-=", "*=", "/=", "%=", "|=", "&=", "^=", "<<", ">>", "->",
	"+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ",", ":", ".", "=", "<", ">", "@", "|", "&", "^", "~", ";",
}

type lexer struct {
	src     *Source
	s       string
	i       int
	limits  Limits
	toks    []token
	indents []int
	open    []token // brackets not yet closed
}

// lex cuts a text into tokens, with blocks marked by indents and dedents.
func lex(src *Source, limits Limits) ([]token, error) {
	if len(src.Text) > limits.FileBytes {
		return nil, ErrorAt(Pos{Src: src}, "SyntaxError", "the file has %d bytes; a configuration file may have at most %d", len(src.Text), limits.FileBytes)
	}
	if i := strings.IndexByte(src.Text, 0); i >= 0 {
		return nil, ErrorAt(Pos{src, int32(i)}, "SyntaxError", "the file holds a zero byte; want text in UTF-8")
	}
	l := &lexer{src: src, s: src.Text, limits: limits, indents: []int{0}, toks: make([]token, 0, len(src.Text)/4+8)}
	if strings.HasPrefix(l.s, "\ufeff") {
		l.i = len("\ufeff")
	}
	for {
		done, err := l.line()
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
	}
	for range len(l.indents) - 1 {
		l.emit(tDedent, "", l.i)
	}
	l.emit(tEOF, "", l.i)
	return l.toks, nil
}

func (l *lexer) emit(k kind, text string, off int) {
	l.toks = append(l.toks, token{kind: k, text: text, off: int32(off)})
}

func (l *lexer) errf(off int, format string, args ...any) *Error {
	return ErrorAt(Pos{l.src, int32(off)}, "SyntaxError", format, args...)
}

// line reads one logical line; it reports whether the text has ended.
func (l *lexer) line() (bool, error) {
	col, start := 0, l.i
loop:
	for ; l.i < len(l.s); l.i++ {
		switch l.s[l.i] {
		case ' ':
			col++
		case '\t':
			col += 8 - col%8
		case '\f', '\r':
		default:
			break loop
		}
	}
	if l.i >= len(l.s) {
		return true, nil
	}
	if c := l.s[l.i]; c == '\n' || c == '#' {
		l.comment()
		l.i++ // the newline, or past the end
		return l.i >= len(l.s), nil
	}
	if err := l.indent(col, start); err != nil {
		return false, err
	}
	for l.i < len(l.s) {
		ended, err := l.token()
		if err != nil {
			return false, err
		}
		if ended {
			return l.i >= len(l.s), nil
		}
	}
	if len(l.open) > 0 {
		b := l.open[len(l.open)-1]
		return false, l.errf(int(b.off), "'%s' is never closed", b.text)
	}
	l.emit(tNewline, "", l.i)
	return true, nil
}

func (l *lexer) indent(col, off int) error {
	top := l.indents[len(l.indents)-1]
	if col > top {
		if len(l.indents) > l.limits.Nesting {
			return l.errf(off, "blocks nest deeper than %d", l.limits.Nesting)
		}
		l.indents = append(l.indents, col)
		l.emit(tIndent, "", l.i)
		return nil
	}
	for col < l.indents[len(l.indents)-1] {
		l.indents = l.indents[:len(l.indents)-1]
		l.emit(tDedent, "", l.i)
	}
	if col != l.indents[len(l.indents)-1] {
		return l.errf(l.i, "this line is indented by %d columns, which matches no block above it", col)
	}
	return nil
}

func (l *lexer) comment() {
	for l.i < len(l.s) && l.s[l.i] != '\n' {
		l.i++
	}
}

// token reads one token; it reports whether the logical line has ended.
func (l *lexer) token() (bool, error) {
	c := l.s[l.i]
	switch {
	case c == ' ' || c == '\t' || c == '\r' || c == '\f':
		l.i++
		return false, nil
	case c == '#':
		l.comment()
		return false, nil
	case c == '\n':
		l.i++
		if len(l.open) > 0 {
			return false, nil
		}
		l.emit(tNewline, "", l.i-1)
		return true, nil
	case c == '\\':
		return false, l.continuation()
	case c >= '0' && c <= '9', c == '.' && l.i+1 < len(l.s) && isDigit(l.s[l.i+1]):
		l.number()
		return false, nil
	case c == '"' || c == '\'':
		return false, l.str(l.i, "")
	}
	if r, _ := utf8.DecodeRuneInString(l.s[l.i:]); r == '_' || unicode.IsLetter(r) {
		return false, l.word()
	}
	return false, l.operator()
}

func (l *lexer) continuation() error {
	j := l.i + 1
	if j < len(l.s) && l.s[j] == '\r' {
		j++
	}
	if j < len(l.s) && l.s[j] == '\n' {
		l.i = j + 1
		return nil
	}
	return l.errf(l.i, "a '\\' outside a string must be the last character of its line")
}

func (l *lexer) word() error {
	start := l.i
	for l.i < len(l.s) {
		r, n := utf8.DecodeRuneInString(l.s[l.i:])
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			break
		}
		l.i += n
	}
	w := l.s[start:l.i]
	if l.i < len(l.s) && (l.s[l.i] == '"' || l.s[l.i] == '\'') && len(w) <= 2 {
		p := strings.ToLower(w)
		switch p {
		case "r", "u", "b", "f", "ur", "br", "fr", "rf", "rb":
			return l.str(start, p)
		}
	}
	l.emit(tName, w, start)
	return nil
}

func (l *lexer) operator() error {
	for _, op := range operators {
		if !strings.HasPrefix(l.s[l.i:], op) {
			continue
		}
		switch op {
		case "(", "[", "{":
			if len(l.open) >= l.limits.Nesting {
				return l.errf(l.i, "brackets nest deeper than %d", l.limits.Nesting)
			}
			l.open = append(l.open, token{kind: tOp, text: op, off: int32(l.i)})
		case ")", "]", "}":
			if err := l.closeBracket(op); err != nil {
				return err
			}
		}
		l.emit(tOp, op, l.i)
		l.i += len(op)
		return nil
	}
	r, _ := utf8.DecodeRuneInString(l.s[l.i:])
	return l.errf(l.i, "the character %q has no meaning here", r)
}

func (l *lexer) closeBracket(op string) error {
	if len(l.open) == 0 {
		return l.errf(l.i, "'%s' closes nothing", op)
	}
	b := l.open[len(l.open)-1]
	want := map[string]string{"(": ")", "[": "]", "{": "}"}[b.text]
	if op != want {
		line, _ := Pos{l.src, b.off}.LineCol()
		return l.errf(l.i, "'%s' cannot close the '%s' of line %d; want '%s'", op, b.text, line, want)
	}
	l.open = l.open[:len(l.open)-1]
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isWord(c byte) bool {
	return isDigit(c) || c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (l *lexer) number() {
	start := l.i
	hex := strings.HasPrefix(l.s[l.i:], "0x") || strings.HasPrefix(l.s[l.i:], "0X")
	for l.i < len(l.s) {
		c := l.s[l.i]
		exp := !hex && (c == '+' || c == '-') && (l.s[l.i-1] == 'e' || l.s[l.i-1] == 'E') && l.i > start
		if !isWord(c) && c != '.' && !exp {
			break
		}
		l.i++
	}
	l.emit(tNumber, l.s[start:l.i], start)
}
