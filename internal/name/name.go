// Package name holds the rule for the names that people give to things, the
// form in which a name may become part of a path, and which name a misspelt one
// was meant to be.
package name

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Max bounds a name, in bytes: four of them with their separators must fit
// into one file name.
const Max = 64

// Valid reports what is wrong with the name s of a thing called what, if
// anything: a name is 1 to 64 of A-Z a-z 0-9 _ - . and is neither "." nor
// "..". The characters are Aurora's (its identifiers match ^[\w\-\.]+$). The
// error has no kind: the caller knows whose fault it is.
func Valid(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is empty; want letters, digits, '_', '-' or '.'", what)
	case len(s) > Max:
		return fmt.Errorf("%s %.20q... has %d bytes; want at most %d", what, s, len(s), Max)
	case s == "." || s == "..":
		return fmt.Errorf("%s %q is a path, not a name; choose another", what, s)
	}
	for i, r := range s {
		if r >= utf8.RuneSelf || !ok(byte(r)) {
			return fmt.Errorf("%s %q holds %s at byte %d; want only letters a-z and A-Z, digits, '_', '-' or '.'", what, s, shown(s[i:]), i+1)
		}
	}
	return nil
}

// ValidLabel reports what is wrong with the label s of a thing called what, if
// anything: names that come from elsewhere, such as those of a machine's
// attributes, may hold more than a name, but nothing that cannot be seen.
func ValidLabel(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is empty; want 1 to %d bytes", what, Max)
	case len(s) > Max:
		return fmt.Errorf("%s %.20q... has %d bytes; want at most %d", what, s, len(s), Max)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s %q is no UTF-8", what, s)
	}
	for _, r := range s {
		if unicode.IsSpace(r) || !unicode.IsGraphic(r) {
			return fmt.Errorf("%s %q holds %q; want no blanks and no control characters", what, s, r)
		}
	}
	return nil
}

// shown is the first character of s, as people read it; of what is no text, the
// byte.
func shown(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && size == 1 {
		return fmt.Sprintf("the byte %#x", s[0])
	}
	return strconv.QuoteRune(r)
}

func ok(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.'
}

const hexDigits = "0123456789abcdef"

// Escape returns s in a form that is one safe path element: '/' becomes '+',
// and every other byte that a name may not hold, and a leading dot, become
// '%' and two hex digits. Different strings give different elements.
func Escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '/':
			b.WriteByte('+')
		case ok(c) && (c != '.' || i > 0):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}
