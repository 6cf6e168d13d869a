package spec

import (
	"errors"
	"strings"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

// A binder replaces templates by what their names mean.
type binder struct {
	in    *pyx.Interp
	final bool // {{&x}} becomes {{x}}, which is then bound as well
	depth int
}

func newBinder(in *pyx.Interp, final bool) *binder { return &binder{in: in, final: final} }

const (
	roundsMax = 100 // times that one string is gone through
	depthMax  = 100 // names whose values hold names
)

// A chunk of a template: text or a reference.
type chunk struct {
	text  string
	ref   ref
	alias bool // {{&x}}
}

// A noRefError is a template that names nothing.
type noRefError struct{ text string }

func (e noRefError) Error() string {
	hint := ""
	if r, ok := parseRef(strings.TrimSpace(e.text)); ok {
		hint = "; did you mean {{" + r.String() + "}}?"
	}
	if len(e.text) > 40 {
		e.text = e.text[:37] + "..."
	}
	return "holds {{" + e.text + "}}, which is no reference" + hint + " (want a name such as {{a}}, {{a.b}} or {{a[b]}}; keep the braces of another program apart: '{ {')"
}

// split cuts a string at its innermost templates.
func split(s string) ([]chunk, error) {
	var out []chunk
	done := 0
	for i := strings.Index(s, "{{"); i >= 0 && i < len(s); {
		body := s[i+2:]
		end := strings.IndexAny(body, "{}")
		if end < 0 {
			break
		}
		if end == 0 || !strings.HasPrefix(body[end:], "}}") || body[:end] == "&" {
			next := strings.Index(s[i+1:], "{{")
			if next < 0 {
				break
			}
			i += 1 + next
			continue
		}
		c := chunk{text: s[i : i+end+4]}
		name, alias := strings.CutPrefix(body[:end], "&")
		if alias {
			c.alias = true
		} else {
			r, ok := parseRef(name)
			if !ok {
				return nil, noRefError{name}
			}
			c.ref = r
		}
		if i > done {
			out = append(out, chunk{text: s[done:i]})
		}
		out = append(out, c)
		done = i + end + 4
		next := strings.Index(s[done:], "{{")
		if next < 0 {
			break
		}
		i = done + next
	}
	if done < len(s) {
		out = append(out, chunk{text: s[done:]})
	}
	return out, nil
}

// resolve replaces the templates of a string again and again until nothing
// more can be replaced.
func (b *binder) resolve(s string, sc *scopes) (string, error) {
	if !strings.Contains(s, "{{") {
		return s, nil
	}
	s, err := b.rounds(s, sc)
	if err != nil || !strings.Contains(s, "{{&") {
		return s, err
	}
	chunks, err := split(s)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, c := range chunks {
		if c.alias {
			c.text = "{{" + strings.TrimSuffix(c.text[3:len(c.text)-2], "&") + "}}"
		}
		out.WriteString(c.text)
	}
	if !b.final {
		return out.String(), nil
	}
	return b.rounds(out.String(), sc)
}

func (b *binder) rounds(s string, sc *scopes) (string, error) {
	for range roundsMax {
		next, changed, err := b.round(s, sc)
		if err != nil {
			return "", err
		}
		if !changed {
			return s, nil
		}
		s = next
	}
	return "", pyx.Errorf("ValueError", "the template %s refers to itself without an end", show(s))
}

// round replaces what can be replaced once.
func (b *binder) round(s string, sc *scopes) (string, bool, error) {
	if !strings.Contains(s, "{{") {
		return s, false, nil
	}
	chunks, err := split(s)
	if err != nil {
		return "", false, err
	}
	if err := b.in.Step(len(chunks) + len(s)>>8); err != nil {
		return "", false, err
	}
	var out strings.Builder
	changed := false
	for _, c := range chunks {
		if c.ref == nil {
			out.WriteString(c.text)
			continue
		}
		t, ok, err := b.text(c.ref, sc)
		if err != nil {
			return "", false, err
		}
		if !ok {
			t = c.text
		}
		changed = changed || ok
		if err := b.in.Alloc(len(t)); err != nil {
			return "", false, err
		}
		out.WriteString(t)
	}
	return out.String(), changed, nil
}

// text returns what a reference stands for, as text.
func (b *binder) text(r ref, sc *scopes) (string, bool, error) {
	if err := b.in.Step(5); err != nil {
		return "", false, err
	}
	v, err := b.lookup(sc, r)
	if v == nil || err != nil {
		return "", false, err
	}
	if s, ok := v.(string); ok {
		return s, true, nil
	}
	if b.depth++; b.depth > depthMax {
		b.depth--
		return "", false, pyx.Errorf("ValueError", "{{%s}} refers to itself without an end", r)
	}
	defer func() { b.depth-- }()
	x, err := b.interpolate(v.(*object))
	if err != nil {
		return "", false, err
	}
	if x.isSimple() {
		s, strErr := b.in.Str(x.val)
		return s, true, strErr
	}
	s, err := x.Repr(b.in)
	return s, true, err
}

// A fieldError says which field of an object is wrong.
type fieldError struct {
	path string // below the object, such as .task.processes[0].name
	at   pyx.Pos
	err  error
}

func (e *fieldError) Error() string { return e.name() + " " + e.err.Error() }

// name returns the path for people.
func (e *fieldError) name() string {
	if len(e.path) > 120 {
		return strings.TrimPrefix(e.path[:117], ".") + "..."
	}
	return strings.TrimPrefix(e.path, ".")
}
func (e *fieldError) Unwrap() error { return e.err }

// below puts a step before an error's path.
func below(err error, step string, at pyx.Pos) error {
	if fe, ok := errors.AsType[*fieldError](err); ok {
		fe.path = step + fe.path
		if !fe.at.IsValid() {
			fe.at = at
		}
		return fe
	}
	return &fieldError{step, at, err}
}

// interpolated is interpolate for a program that is running: its errors are
// the program's.
func interpolated(in *pyx.Interp, o *object) (*object, error) {
	x, err := newBinder(in, false).interpolate(o)
	fe, ok := errors.AsType[*fieldError](err)
	if !ok {
		return x, err
	}
	if pe, ok := pyx.AsError(fe.err); ok {
		pe.Msg = fe.name() + ": " + pe.Msg
		if !pe.At.IsValid() {
			pe.At = fe.at
		}
		return nil, pe
	}
	return nil, pyx.ErrorAt(fe.at, "ValueError", "%s", fe)
}

// interpolate returns o with its templates replaced as far as their names are
// bound, and its values turned into what their types hold.
func (b *binder) interpolate(o *object) (*object, error) {
	if err := b.in.Enter(); err != nil {
		return nil, err
	}
	defer b.in.Leave()
	if err := b.in.Alloc(48); err != nil {
		return nil, err
	}
	switch o.typ.kind {
	case kStruct:
		return b.structure(o)
	case kList:
		out := &object{typ: o.typ, at: o.at, items: make([]*object, len(o.items))}
		for i, x := range o.items {
			y, err := b.interpolate(x.inScope(o.scopes))
			if err != nil {
				return nil, below(err, "["+itoa(i)+"]", x.at)
			}
			out.items[i] = y
		}
		return out, nil
	case kMap:
		out := &object{typ: o.typ, at: o.at}
		for _, p := range o.pairs {
			k, err := b.interpolate(p.key.inScope(o.scopes))
			if err != nil {
				return nil, below(err, "", p.key.at)
			}
			v, err := b.interpolate(p.val.inScope(o.scopes))
			if err != nil {
				return nil, below(err, "["+show(k.val)+"]", p.val.at)
			}
			out.pairs = append(out.pairs, pair{k, v})
		}
		return out, nil
	case kChoice:
		return b.choose(o)
	default:
		return b.simple(o)
	}
}

func (b *binder) structure(o *object) (*object, error) {
	out := &object{typ: o.typ, at: o.at, data: make([]slot, len(o.data))}
	sc := o.inner()
	for i, s := range o.data {
		out.data[i].at = s.at
		if s.o == nil {
			continue
		}
		x, err := b.interpolate(s.o.inScope(sc))
		if err != nil {
			return nil, below(err, "."+o.typ.fields[i].name, s.at)
		}
		out.data[i].o = x
	}
	return out, nil
}

func (b *binder) simple(o *object) (*object, error) {
	v := o.val
	if s, ok := v.(string); ok {
		t, err := b.resolve(s, o.scopes)
		if err != nil {
			return nil, err
		}
		if strings.Contains(t, "{{") && o.typ.kind != kString {
			if chunks, err := split(t); err == nil && hasRef(chunks) {
				return &object{typ: o.typ, at: o.at, val: t}, nil // its number is not known yet
			}
		}
		v = t
	}
	c, err := o.typ.coerce(v)
	if err != nil {
		return nil, err
	}
	x := &object{typ: o.typ, at: o.at, val: c, said: o.said}
	if extreme(c) && x.said == nil {
		x.said = v
	}
	return x, nil
}

func hasRef(chunks []chunk) bool {
	for _, c := range chunks {
		if c.ref != nil {
			return true
		}
	}
	return false
}

// choose turns a value into the first of a choice's types that it suits.
func (b *binder) choose(o *object) (*object, error) {
	var last error
	for _, t := range o.typ.choices {
		x, err := t.make(b.in, o.val, o.at)
		if err == nil {
			var y *object
			if y, err = b.interpolate(x.inScope(o.scopes)); err == nil {
				return y, nil
			}
		}
		if src, ok := o.val.(*object); ok && src.typ.is(t) {
			return nil, err
		}
		last = err
	}
	if e, ok := pyx.AsError(last); ok && e.Class == "LimitError" {
		return nil, last
	}
	return nil, &wrongValueError{typeOf(o.val), o.typ.want()}
}
