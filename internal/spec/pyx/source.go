// Package pyx evaluates the part of Python that configuration files use:
// assignments, functions, classes, loops, comprehensions, strings and their
// formatting. It is hermetic and bounded: a program sees only the names, the
// modules and the files that its caller hands in, and ends after a fixed
// number of steps, calls and bytes, whatever it says. Every error carries the
// place in the text that caused it.
//
// Where Python 2 and 3 differ it follows Python 2.7, for which Aurora's files
// are written: whole numbers divide to whole numbers, and sets are walked in
// the order of Python 2's hash table. Dictionaries keep the order in which
// they were filled.
package pyx

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// A Source is one file's text.
type Source struct {
	Name  string
	Text  string
	lines []int // offset of the start of each line
}

// NewSource returns the text of a file called name.
func NewSource(name, text string) *Source {
	s := &Source{Name: name, Text: text, lines: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// A Pos is a place in a source; the zero Pos is no place.
type Pos struct {
	Src *Source
	Off int32 // bytes from the start
}

// IsValid reports whether p is a place.
func (p Pos) IsValid() bool { return p.Src != nil }

// LineCol returns the line and the column, both from 1, the column in characters.
func (p Pos) LineCol() (line, col int) {
	if p.Src == nil {
		return 0, 0
	}
	off := min(int(p.Off), len(p.Src.Text))
	i := sort.SearchInts(p.Src.lines, off+1) - 1
	return i + 1, utf8.RuneCountInString(p.Src.Text[p.Src.lines[i]:off]) + 1
}

// String returns "file:line:col".
func (p Pos) String() string {
	if p.Src == nil {
		return "?"
	}
	l, c := p.LineCol()
	return fmt.Sprintf("%s:%d:%d", p.Src.Name, l, c)
}

const (
	snippetMax = 120 // characters of a source line that an error shows
	windowMax  = 4 * snippetMax
)

// Snippet returns the line at p, or the part of a long one around p, and a
// caret under the place; "" when p is no place.
func (p Pos) Snippet() string {
	if p.Src == nil {
		return ""
	}
	l, _ := p.LineCol()
	start, end := p.Src.lines[l-1], len(p.Src.Text)
	if l < len(p.Src.lines) {
		end = p.Src.lines[l] - 1
	}
	off := min(int(p.Off), end)
	before := []rune(strings.ToValidUTF8(p.Src.Text[max(start, off-windowMax):off], "?"))
	after := []rune(strings.TrimRight(strings.ToValidUTF8(p.Src.Text[off:min(end, off+windowMax)], "?"), " \t\r"))
	head, tail := "", ""
	if len(before)+len(after) > snippetMax {
		if keep := 2 * snippetMax / 3; len(before) > keep {
			before, head = before[len(before)-keep:], "..."
		}
		if keep := snippetMax - len(before); len(after) > keep {
			after, tail = after[:keep], "..."
		}
	}
	pad := []rune(strings.Repeat(" ", len(head)))
	for _, r := range before {
		if r != '\t' {
			r = ' '
		}
		pad = append(pad, r)
	}
	return "    " + head + string(before) + string(after) + tail + "\n    " + string(pad) + "^"
}

// An Error is something wrong with a program.
type Error struct {
	At    Pos
	Class string // Python's name for it, such as SyntaxError
	Msg   string
	Trace []Pos     // the calls that led there, innermost first
	final bool      // a limit: the program cannot catch it
	value *Instance // what was raised, if the program raised it
}

const traceMax = 4 // calls that an error names

// Error returns "file:line:col: message", the line with a caret under the
// place, and the calls that led there.
func (e *Error) Error() string {
	var b strings.Builder
	if e.At.IsValid() {
		b.WriteString(e.At.String())
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	if s := e.At.Snippet(); s != "" {
		b.WriteByte('\n')
		b.WriteString(s)
	}
	for i, p := range e.Trace {
		if i == traceMax {
			fmt.Fprintf(&b, "\n    ... and %d calls more", len(e.Trace)-i)
			break
		}
		fmt.Fprintf(&b, "\n    called at %s", p)
	}
	return b.String()
}

// Errorf returns an error of a Python class without a place; the interpreter
// adds the place of the expression that met it.
func Errorf(class, format string, args ...any) *Error {
	return &Error{Class: class, Msg: fmt.Sprintf(format, args...)}
}

// ErrorAt returns an error of a Python class at a place.
func ErrorAt(at Pos, class, format string, args ...any) *Error {
	return &Error{At: at, Class: class, Msg: fmt.Sprintf(format, args...)}
}

// limitf returns an error that no except clause catches.
func limitf(format string, args ...any) *Error {
	return &Error{Class: "LimitError", Msg: fmt.Sprintf(format, args...), final: true}
}

// Limits bounds what a program may use. Each field is a whole number that must
// be positive.
type Limits struct {
	FileBytes int // of one source text
	Nesting   int // of brackets, blocks and operators in a source text
	Steps     int // expressions, statements and elements evaluated, in total
	Bytes     int // strings and elements made, in total
	Calls     int // depth of functions that call functions
}

// DefaultLimits returns limits that no honest file comes near and that end a
// hostile one in about a second.
func DefaultLimits() Limits {
	return Limits{FileBytes: 1 << 20, Nesting: 100, Steps: 10_000_000, Bytes: 256 << 20, Calls: 150}
}
