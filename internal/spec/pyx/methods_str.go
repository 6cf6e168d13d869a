package pyx

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// strArg returns a string argument, or def when it is not given.
func strArg(a Args, i int, def string) (string, error) {
	v := arg(a, i, def)
	if v == nil {
		return def, nil
	}
	s, ok := v.(string)
	if !ok {
		return "", Errorf("TypeError", "want a string; this is %s", article(TypeOf(v)))
	}
	return s, nil
}

// pure makes a method of a function on strings that grows nothing.
func pureStr(f func(string) string) goMethod {
	return func(in *Interp, self Value, a Args) (Value, error) {
		if err := checkArgs("this method", a, 0, 0, ""); err != nil {
			return nil, err
		}
		s := f(self.(string))
		return s, in.Alloc(len(s))
	}
}

func is(f func(rune) bool) goMethod {
	return func(in *Interp, self Value, _ Args) (Value, error) {
		s := self.(string)
		for _, r := range s {
			if !f(r) {
				return false, nil
			}
		}
		return s != "", in.Step(len(s) >> 6)
	}
}

func strip(f func(s, cut string) string, space func(string) string) goMethod {
	return func(in *Interp, self Value, a Args) (Value, error) {
		s := self.(string)
		if len(a.Pos) == 0 || a.Pos[0] == nil {
			s = space(s)
		} else {
			cut, err := strArg(a, 0, "")
			if err != nil {
				return nil, err
			}
			s = f(s, cut)
		}
		return s, in.Alloc(len(s))
	}
}

var strMethods = map[string]goMethod{
	"lower": pureStr(strings.ToLower), "upper": pureStr(strings.ToUpper), "title": pureStr(title),
	"capitalize": pureStr(func(s string) string {
		r, n := utf8.DecodeRuneInString(s)
		if n == 0 {
			return s
		}
		return string(unicode.ToUpper(r)) + strings.ToLower(s[n:])
	}),
	"strip":   strip(strings.Trim, strings.TrimSpace),
	"lstrip":  strip(strings.TrimLeft, func(s string) string { return strings.TrimLeftFunc(s, unicode.IsSpace) }),
	"rstrip":  strip(strings.TrimRight, func(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) }),
	"isdigit": is(unicode.IsDigit), "isalpha": is(unicode.IsLetter), "isspace": is(unicode.IsSpace),
	"isalnum": is(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }),
	"isupper": is(func(r rune) bool { return !unicode.IsLower(r) }),
	"islower": is(func(r rune) bool { return !unicode.IsUpper(r) }),
	"format":  func(in *Interp, self Value, a Args) (Value, error) { return in.formatString(self.(string), a) },
	"join":    strJoin,
	"split":   func(in *Interp, self Value, a Args) (Value, error) { return strSplit(in, self.(string), a, false) },
	"rsplit":  func(in *Interp, self Value, a Args) (Value, error) { return strSplit(in, self.(string), a, true) },
	"splitlines": func(in *Interp, self Value, _ Args) (Value, error) {
		return strList(in, splitLines(self.(string)))
	},
	"replace":    strReplace,
	"startswith": affix(strings.HasPrefix), "endswith": affix(strings.HasSuffix),
	"find":   finder(strings.Index, false),
	"rfind":  finder(strings.LastIndex, false),
	"index":  finder(strings.Index, true),
	"rindex": finder(strings.LastIndex, true),
	"count": func(in *Interp, self Value, a Args) (Value, error) {
		sub, err := strArg(a, 0, "")
		if err == nil {
			err = in.Step(len(self.(string)) >> 6)
		}
		return int64(strings.Count(self.(string), sub)), err
	},
	"zfill":     func(in *Interp, self Value, a Args) (Value, error) { return just(in, self, a, 'z') },
	"ljust":     func(in *Interp, self Value, a Args) (Value, error) { return just(in, self, a, '<') },
	"rjust":     func(in *Interp, self Value, a Args) (Value, error) { return just(in, self, a, '>') },
	"center":    func(in *Interp, self Value, a Args) (Value, error) { return just(in, self, a, '^') },
	"partition": func(in *Interp, self Value, a Args) (Value, error) { return partition(self.(string), a, strings.Index) },
	"rpartition": func(in *Interp, self Value, a Args) (Value, error) {
		return partition(self.(string), a, strings.LastIndex)
	},
	"encode": func(_ *Interp, self Value, _ Args) (Value, error) { return self, nil },
	"decode": func(_ *Interp, self Value, _ Args) (Value, error) { return self, nil },
}

func title(s string) string {
	prev := ' '
	return strings.Map(func(r rune) rune {
		p := prev
		prev = r
		if unicode.IsLetter(p) {
			return unicode.ToLower(r)
		}
		return unicode.ToUpper(r)
	}, s)
}

func splitLines(s string) []string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

func strList(in *Interp, parts []string) (Value, error) {
	n := 0
	items := make([]Value, len(parts))
	for i, p := range parts {
		items[i] = p
		n += 32 + len(p)
	}
	return &List{items}, in.Alloc(n)
}

func strJoin(in *Interp, self Value, a Args) (Value, error) {
	if err := checkArgs("join", a, 1, 1, ""); err != nil {
		return nil, err
	}
	items, err := in.Iterate(a.Pos[0])
	if err != nil {
		return nil, err
	}
	sep := self.(string)
	parts := make([]string, len(items))
	total := 0
	for i, x := range items {
		s, ok := x.(string)
		if st, isHost := x.(Stringer); isHost {
			if s, err = st.Str(in); err != nil {
				return nil, err
			}
			ok = true
		}
		if !ok {
			return nil, Errorf("TypeError", "join() wants strings; element %d is %s", i, article(TypeOf(x)))
		}
		parts[i] = s
		if total += len(s) + len(sep); total > in.limits.Bytes {
			return nil, in.Alloc(-1)
		}
	}
	if err := in.Alloc(total); err != nil {
		return nil, err
	}
	return strings.Join(parts, sep), nil
}

func strSplit(in *Interp, s string, a Args, right bool) (Value, error) {
	limit, ok := intOf(arg(a, 1, int64(-1)))
	if m, given := a.named("maxsplit"); given {
		limit, ok = intOf(m)
	}
	if !ok {
		return nil, Errorf("TypeError", "split() wants a whole number of splits")
	}
	if err := in.Alloc(32 * (len(s)/2 + 1)); err != nil {
		return nil, err
	}
	if len(a.Pos) == 0 || a.Pos[0] == nil {
		return strList(in, splitSpace(s, int(limit), right))
	}
	sep, err := strArg(a, 0, "")
	if err != nil {
		return nil, err
	}
	if sep == "" {
		return nil, Errorf("ValueError", "split() wants a separator that is not empty")
	}
	parts := strings.Split(s, sep)
	if n := int(limit); n >= 0 && len(parts) > n+1 {
		if right {
			k := len(parts) - n
			parts = append([]string{strings.Join(parts[:k], sep)}, parts[k:]...)
		} else {
			parts = append(parts[:n:n], strings.Join(parts[n:], sep))
		}
	}
	return strList(in, parts)
}

func splitSpace(s string, limit int, right bool) []string {
	fields := strings.Fields(s)
	if limit < 0 || len(fields) <= limit {
		return fields
	}
	var out []string
	if right {
		s = strings.TrimRightFunc(s, unicode.IsSpace)
	} else {
		s = strings.TrimLeftFunc(s, unicode.IsSpace)
	}
	for range limit {
		if right {
			i := strings.LastIndexFunc(s, unicode.IsSpace)
			out = append([]string{s[i+1:]}, out...)
			s = strings.TrimRightFunc(s[:i], unicode.IsSpace)
		} else {
			i := strings.IndexFunc(s, unicode.IsSpace)
			out = append(out, s[:i])
			s = strings.TrimLeftFunc(s[i:], unicode.IsSpace)
		}
	}
	if right {
		return append([]string{s}, out...)
	}
	return append(out, s)
}

func strReplace(in *Interp, self Value, a Args) (Value, error) {
	if err := checkArgs("replace", a, 2, 3, ""); err != nil {
		return nil, err
	}
	old, err := strArg(a, 0, "")
	if err != nil {
		return nil, err
	}
	with, err := strArg(a, 1, "")
	if err != nil {
		return nil, err
	}
	n, ok := intOf(arg(a, 2, int64(-1)))
	if !ok {
		return nil, Errorf("TypeError", "replace() wants a whole number of times")
	}
	s := self.(string)
	if err := in.Step(len(s) >> 6); err != nil {
		return nil, err
	}
	times := strings.Count(s, old)
	if n >= 0 {
		times = min(times, int(min(n, 1<<30)))
	}
	if err := in.AllocTimes(int64(times), len(with)); err != nil {
		return nil, err
	}
	return strings.Replace(s, old, with, int(max(n, -1))), in.Alloc(len(s))
}

func affix(f func(s, x string) bool) goMethod {
	return func(in *Interp, self Value, a Args) (Value, error) {
		if t, ok := arg(a, 0, nil).(Tuple); ok {
			for _, x := range t {
				if err := in.Step(1); err != nil {
					return nil, err
				}
				if s, ok := x.(string); ok && f(self.(string), s) {
					return true, nil
				}
			}
			return false, nil
		}
		x, err := strArg(a, 0, "")
		if err == nil {
			err = in.Step(len(x) >> 6)
		}
		return f(self.(string), x), err
	}
}

func finder(f func(s, x string) int, must bool) goMethod {
	return func(in *Interp, self Value, a Args) (Value, error) {
		x, err := strArg(a, 0, "")
		if err != nil {
			return nil, err
		}
		s := self.(string)
		i := f(s, x)
		if i < 0 {
			if must {
				return nil, Errorf("ValueError", "%s does not stand in the string", clip(quote(x)))
			}
			return int64(-1), nil
		}
		return int64(utf8.RuneCountInString(s[:i])), in.Step(len(s) >> 6)
	}
}

func just(in *Interp, self Value, a Args, align byte) (Value, error) {
	s := self.(string)
	n, ok := intOf(arg(a, 0, nil))
	if !ok || n > widthMax {
		return nil, Errorf("ValueError", "want a width of at most %d", widthMax)
	}
	fill, err := strArg(a, 1, " ")
	if err != nil {
		return nil, err
	}
	f := formatSpec{fill: fill, align: align, width: int(max(n, 0)), prec: -1}
	if align == 'z' {
		f.fill, f.align = "0", '>'
		if s != "" && (s[0] == '-' || s[0] == '+') {
			f.width = max(f.width-1, 0)
			return s[:1] + f.pad(s[1:], utf8.RuneCountInString(s)-1, '>'), in.Alloc(f.width)
		}
	}
	return f.pad(s, utf8.RuneCountInString(s), align), in.Alloc(f.width + len(s))
}

func partition(s string, a Args, find func(s, x string) int) (Value, error) {
	sep, err := strArg(a, 0, "")
	if err != nil || sep == "" {
		return nil, Errorf("ValueError", "partition() wants a separator that is not empty")
	}
	if i := find(s, sep); i >= 0 {
		return Tuple{s[:i], sep, s[i+len(sep):]}, nil
	}
	return Tuple{s, "", ""}, nil
}
