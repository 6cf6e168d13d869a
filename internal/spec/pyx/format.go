package pyx

import (
	"math/big"
	"strconv"
	"strings"
)

// percent formats with %: one value, a tuple of them, or a dict by name.
func (in *Interp) percent(s string, arg Value) (Value, error) {
	args, isTuple := arg.(Tuple)
	if !isTuple {
		args = Tuple{arg}
	}
	dict, _ := arg.(*Dict)
	var b strings.Builder
	next := 0
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		f, n, err := parsePercent(s[i:])
		if err != nil {
			return nil, err
		}
		i += n - 1
		if f.verb == '%' {
			b.WriteByte('%')
			continue
		}
		var v Value
		switch {
		case f.name != "" && dict != nil:
			if v, err = in.index(dict, f.name); err != nil {
				return nil, err
			}
		case f.name != "":
			return nil, Errorf("TypeError", "%%(%s) wants a dict on the right of '%%'", f.name)
		case next < len(args):
			v = args[next]
			next++
		default:
			return nil, Errorf("TypeError", "the text has more %% places than there are values (%d)", len(args))
		}
		out, err := in.percentOne(f, v)
		if err != nil {
			return nil, err
		}
		b.WriteString(out)
		if err := in.Alloc(len(out)); err != nil {
			return nil, err
		}
	}
	if next < len(args) && (isTuple || dict == nil) {
		return nil, Errorf("TypeError", "%d values for %d %% places in the text", len(args), next)
	}
	return b.String(), in.Alloc(b.Len())
}

// percentSpec is one place of a % format.
type percentSpec struct {
	name  string
	spec  formatSpec
	verb  byte
	minus bool
}

func parsePercent(s string) (f percentSpec, n int, err error) {
	i := 1
	f.spec.prec = -1
	if i < len(s) && s[i] == '(' {
		j := strings.IndexByte(s, ')')
		if j < 0 {
			return f, 0, Errorf("ValueError", "'%%(' is not closed")
		}
		f.name, i = s[2:j], j+1
	}
	f.spec.fill = " "
	for ; i < len(s) && strings.IndexByte("-+ 0#", s[i]) >= 0; i++ {
		switch s[i] {
		case '-':
			f.minus = true
		case '0':
			f.spec.zero = true
		case '#':
			f.spec.alt = true
		default:
			f.spec.sign = s[i]
		}
	}
	if f.spec.width, i, err = parseWidth(s, i); err != nil {
		return f, 0, err
	}
	if i < len(s) && s[i] == '.' {
		if f.spec.prec, i, err = parseWidth(s, i+1); err != nil {
			return f, 0, err
		}
	}
	if i >= len(s) {
		return f, 0, Errorf("ValueError", "the text ends inside a %% place; want '%%%%' for a percent sign")
	}
	f.verb = s[i]
	if strings.IndexByte("diuoxXeEfFgGcrs%", f.verb) < 0 {
		return f, 0, Errorf("ValueError", "%q is no format after '%%'; want s, d, f, r or x, and '%%%%' for a percent sign", string(f.verb))
	}
	return f, i + 1, nil
}

const widthMax = 10_000 // of one formatted value, in characters

func parseWidth(s string, i int) (n, end int, err error) {
	for ; i < len(s) && isDigit(s[i]); i++ {
		if n = n*10 + int(s[i]-'0'); n > widthMax {
			return 0, i, Errorf("ValueError", "a width or precision is larger than %d", widthMax)
		}
	}
	return n, i, nil
}

func (in *Interp) percentOne(f percentSpec, v Value) (string, error) {
	sp := f.spec
	sp.align = '>'
	switch f.verb {
	case 's', 'r':
		sp.zero = false
		s, err := in.Str(v)
		if f.verb == 'r' {
			s, err = in.Repr(v)
		}
		if err != nil {
			return "", err
		}
		if f.minus {
			sp.align = '<'
		}
		return sp.text(s), nil
	case 'd', 'i', 'u':
		sp.verb = 'd'
		if x, ok := v.(float64); ok {
			b, _ := big.NewFloat(x).Int(nil)
			v = normInt(b)
		}
	case 'c':
		if s, ok := v.(string); ok {
			return sp.text(s), nil
		}
		n, _ := intOf(v)
		return sp.text(string(rune(n))), nil
	default:
		sp.verb = f.verb
	}
	if f.minus {
		sp.align, sp.zero = '<', false
	}
	if _, ok := floatOf(v); !ok {
		return "", Errorf("TypeError", "%%%c wants a number; this is %s", f.verb, article(TypeOf(v)))
	}
	return sp.number(v)
}

// formatSpec is [[fill]align][sign][#][0][width][,][.precision][type].
type formatSpec struct {
	fill  string
	align byte
	sign  byte
	alt   bool
	zero  bool
	comma bool
	width int
	prec  int
	verb  byte
}

func parseSpec(s string) (formatSpec, error) {
	f := formatSpec{fill: " ", prec: -1}
	rs := []rune(s)
	if len(rs) > 1 && strings.ContainsRune("<>^=", rs[1]) {
		f.fill, f.align = string(rs[0]), byte(rs[1])
		s = string(rs[2:])
	} else if s != "" && strings.IndexByte("<>^=", s[0]) >= 0 {
		f.align, s = s[0], s[1:]
	}
	i := 0
	if i < len(s) && strings.IndexByte("+- ", s[i]) >= 0 {
		f.sign = s[i]
		i++
	}
	if i < len(s) && s[i] == '#' {
		f.alt = true
		i++
	}
	if i < len(s) && s[i] == '0' {
		f.zero = true
		i++
	}
	var err error
	if f.width, i, err = parseWidth(s, i); err != nil {
		return f, err
	}
	if i < len(s) && s[i] == ',' {
		f.comma = true
		i++
	}
	if i < len(s) && s[i] == '.' {
		if f.prec, i, err = parseWidth(s, i+1); err != nil {
			return f, err
		}
	}
	if i < len(s) {
		f.verb = s[i]
		i++
	}
	if i < len(s) || f.verb != 0 && strings.IndexByte("sdbcoxXeEfFgGn%", f.verb) < 0 {
		return f, Errorf("ValueError", "%.40q is no format", s)
	}
	return f, nil
}

// text pads and cuts a string.
func (f formatSpec) text(s string) string {
	rs := []rune(s)
	if f.prec >= 0 && len(rs) > f.prec {
		rs = rs[:f.prec]
	}
	return f.pad(string(rs), len(rs), '<')
}

func (f formatSpec) pad(s string, n int, align byte) string {
	if f.align != 0 {
		align = f.align
	}
	if n >= f.width {
		return s
	}
	gap := f.width - n
	switch align {
	case '<':
		return s + strings.Repeat(f.fill, gap)
	case '^':
		return strings.Repeat(f.fill, gap/2) + s + strings.Repeat(f.fill, gap-gap/2)
	}
	return strings.Repeat(f.fill, gap) + s
}

// number formats an int or a float.
func (f formatSpec) number(v Value) (string, error) {
	s, neg, err := f.digits(v)
	if err != nil {
		return "", err
	}
	if f.comma {
		s = group(s)
	}
	sign := ""
	switch {
	case neg:
		sign = "-"
	case f.sign == '+' || f.sign == ' ':
		sign = string(f.sign)
	}
	if (f.zero || f.align == '=') && len(sign)+len(s) < f.width {
		fill := f.fill
		if f.zero {
			fill = "0"
		}
		s = strings.Repeat(fill, f.width-len(sign)-len(s)) + s
	}
	return f.pad(sign+s, len(sign)+len(s), '>'), nil
}

func (f formatSpec) digits(v Value) (s string, neg bool, err error) {
	if b, ok := bigOf(v); ok {
		if base, ok := map[byte]int{0: 10, 'd': 10, 'n': 10, 'x': 16, 'X': 16, 'o': 8, 'b': 2}[f.verb]; ok {
			s = new(big.Int).Abs(b).Text(base)
			if f.alt && base != 10 {
				s = "0" + string(f.verb) + s
			}
			if f.verb == 'X' {
				s = strings.ToUpper(s)
			}
			if f.prec > len(s) {
				s = strings.Repeat("0", f.prec-len(s)) + s
			}
			return s, b.Sign() < 0, nil
		}
	}
	x, ok := floatOf(v)
	if !ok || strings.IndexByte("dxXobcns", f.verb) >= 0 {
		return "", false, Errorf("ValueError", "the format %q does not suit %s", string(f.verb), article(TypeOf(v)))
	}
	neg = x < 0
	if neg {
		x = -x
	}
	switch {
	case f.verb == 0 && f.prec < 0:
		return FormatFloat(x, 12), neg, nil
	case f.verb == '%':
		return strconv.FormatFloat(100*x, 'f', orSix(f.prec), 64) + "%", neg, nil
	case f.verb == 0 || f.verb == 'g' || f.verb == 'G':
		return formatG(x, max(orSix(f.prec), 1)), neg, nil
	}
	verb := f.verb | 0x20 // lower case
	s = strconv.FormatFloat(x, verb, orSix(f.prec), 64)
	if f.verb == 'E' {
		s = strings.ToUpper(s)
	}
	return s, neg, nil
}

func formatG(x float64, prec int) string {
	s := strconv.FormatFloat(x, 'e', prec-1, 64)
	at := strings.IndexByte(s, 'e')
	exp, _ := strconv.Atoi(s[at+1:])
	mant := s[:at]
	if exp >= -4 && exp < prec {
		mant = strconv.FormatFloat(x, 'f', prec-1-exp, 64)
		at = -1
	}
	if strings.Contains(mant, ".") {
		mant = strings.TrimRight(strings.TrimRight(mant, "0"), ".")
	}
	if at < 0 {
		return mant
	}
	return mant + s[at:]
}

func orSix(prec int) int {
	if prec < 0 {
		return 6
	}
	return prec
}

// group puts a comma before every third digit from the right.
func group(s string) string {
	frac := ""
	if i := strings.IndexByte(s, '.'); i >= 0 {
		s, frac = s[:i], s[i:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s + frac
}

// formatValue formats v as format() and formatted strings do.
func (in *Interp) formatValue(v Value, conv byte, spec string) (string, error) {
	if conv == 'r' {
		r, err := in.Repr(v)
		if err != nil {
			return "", err
		}
		v = r
	}
	f, err := parseSpec(spec)
	if err != nil {
		return "", err
	}
	if _, isBool := v.(bool); !isBool && f.verb != 's' {
		if _, ok := floatOf(v); ok && (spec != "" || conv == 0) {
			return f.number(v)
		}
	}
	s, err := in.Str(v)
	if err != nil {
		return "", err
	}
	if f.verb != 0 && f.verb != 's' {
		return "", Errorf("ValueError", "the format %q does not suit %s", string(f.verb), article(TypeOf(v)))
	}
	return f.text(s), in.Alloc(len(s))
}

// formatString is str.format.
func (in *Interp) formatString(s string, args Args) (Value, error) {
	var b strings.Builder
	auto := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '{' && c != '}' {
			b.WriteByte(c)
			continue
		}
		if i+1 < len(s) && s[i+1] == c {
			b.WriteByte(c)
			i++
			continue
		}
		if c == '}' {
			return nil, Errorf("ValueError", "a single '}' in a format; want '}}' for a brace")
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			return nil, Errorf("ValueError", "a '{' in a format is never closed; want '{{' for a brace")
		}
		out, err := in.formatField(s[i+1:i+end], args, &auto)
		if err != nil {
			return nil, err
		}
		b.WriteString(out)
		if err := in.Alloc(len(out)); err != nil {
			return nil, err
		}
		i += end
	}
	return b.String(), in.Alloc(b.Len())
}

func (in *Interp) formatField(s string, args Args, auto *int) (string, error) {
	name, spec, _ := strings.Cut(s, ":")
	conv := byte(0)
	if n := len(name); n >= 2 && name[n-2] == '!' {
		conv, name = name[n-1], name[:n-2]
	}
	end := strings.IndexAny(name, ".[")
	if end < 0 {
		end = len(name)
	}
	v, err := in.formatArg(name[:end], args, auto)
	for rest := name[end:]; err == nil && rest != ""; {
		if rest[0] == '.' {
			n := strings.IndexAny(rest[1:], ".[") + 1
			if n == 0 {
				n = len(rest)
			}
			v, err = in.attr(v, rest[1:n])
			rest = rest[n:]
			continue
		}
		n := strings.IndexByte(rest, ']')
		if rest[0] != '[' || n < 0 {
			return "", Errorf("ValueError", "the format field {%.60s} is not valid", s)
		}
		var key Value = rest[1:n]
		if k, convErr := strconv.ParseInt(rest[1:n], 10, 64); convErr == nil {
			key = k
		}
		v, err = in.index(v, key)
		rest = rest[n+1:]
	}
	if err != nil {
		return "", err
	}
	return in.formatValue(v, conv, spec)
}

func (in *Interp) formatArg(name string, args Args, auto *int) (Value, error) {
	if name == "" {
		name = strconv.Itoa(*auto)
		*auto++
	}
	if n, err := strconv.Atoi(name); err == nil {
		if n < 0 || n >= len(args.Pos) {
			return nil, Errorf("IndexError", "the format wants value %d; there are %d", n+1, len(args.Pos))
		}
		return args.Pos[n], nil
	}
	names := make([]string, len(args.Kw))
	for i, kw := range args.Kw {
		if kw.Name == name {
			return kw.Val, nil
		}
		names[i] = kw.Name
	}
	return nil, Errorf("KeyError", "the format wants a value named %s%s", name, Suggest(name, names))
}
