package pyx

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// str reads a string literal whose prefix (r, u, b, f and pairs of them)
// begins at start; l.i is at the quote or at the prefix.
func (l *lexer) str(start int, prefix string) error {
	l.i = start + len(prefix)
	raw, isF := strings.Contains(prefix, "r"), strings.Contains(prefix, "f")
	quote := l.s[l.i]
	triple := strings.HasPrefix(l.s[l.i:], strings.Repeat(string(quote), 3))
	if triple {
		l.i += 3
	} else {
		l.i++
	}
	end, err := l.findQuote(start, quote, triple)
	if err != nil {
		return err
	}
	body := strings.ReplaceAll(l.s[l.i:end], "\r\n", "\n")
	if !raw {
		if body, err = l.unescape(body, prefix == "b"); err != nil {
			return err
		}
	}
	l.i = end + 1
	if triple {
		l.i = end + 3
	}
	l.toks = append(l.toks, token{kind: tString, text: body, off: int32(start), fstring: isF})
	return nil
}

func (l *lexer) findQuote(start int, quote byte, triple bool) (int, error) {
	for j := l.i; j < len(l.s); j++ {
		switch c := l.s[j]; {
		case c == '\\':
			j++
		case c == '\n' && !triple:
			return 0, l.errf(start, "this string is not closed on its line; close it with %c, or use three quotes for several lines", quote)
		case c == quote && (!triple || strings.HasPrefix(l.s[j:], strings.Repeat(string(quote), 3))):
			return j, nil
		}
	}
	return 0, l.errf(start, "this string is never closed")
}

var simpleEscapes = map[byte]string{
	'\n': "", '\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
}

// unescape replaces backslash escapes; an unknown one stays as it is, as in Python.
func (l *lexer) unescape(s string, bytes bool) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		c := s[i]
		if r, ok := simpleEscapes[c]; ok {
			b.WriteString(r)
			continue
		}
		n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
		switch {
		case n > 0 && (c == 'x' || !bytes):
			if i+n >= len(s) {
				return "", l.errf(l.i, `the escape \%c wants %d hex digits`, c, n)
			}
			v, err := strconv.ParseUint(s[i+1:i+1+n], 16, 32)
			if err != nil || v > utf8.MaxRune {
				return "", l.errf(l.i, `the escape \%s is not valid; want %d hex digits`, s[i:i+1+n], n)
			}
			b.WriteRune(rune(v))
			i += n
		case '0' <= c && c <= '7':
			j := i
			for j < len(s) && j < i+3 && '0' <= s[j] && s[j] <= '7' {
				j++
			}
			v, err := strconv.ParseUint(s[i:j], 8, 32)
			if err != nil {
				return "", l.errf(l.i, `the escape \%s is not valid`, s[i:j])
			}
			b.WriteRune(rune(v))
			i = j - 1
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}
