package pyx

import (
	"math"
	"math/big"
	"slices"
	"strings"
)

// Truth reports whether v counts as true.
func (in *Interp) Truth(v Value) (bool, error) {
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	case int64:
		return v != 0, nil
	case float64:
		return v != 0, nil
	case string:
		return v != "", nil
	case *List:
		return len(v.Items) > 0, nil
	case Tuple:
		return len(v) > 0, nil
	case *Dict:
		return v.live > 0, nil
	case *Set:
		return v.d.live > 0, nil
	}
	return true, nil
}

func (in *Interp) unary(op string, v Value) (Value, error) {
	if op == "not" {
		ok, err := in.Truth(v)
		return !ok, err
	}
	switch op {
	case "+", "-":
		if f, ok := v.(float64); ok {
			if op == "-" {
				f = -f
			}
			return f, nil
		}
		if b, ok := bigOf(v); ok {
			if op == "-" {
				b = new(big.Int).Neg(b)
			}
			return normInt(b), nil
		}
	case "~":
		if b, ok := bigOf(v); ok {
			return normInt(new(big.Int).Not(b)), nil
		}
	}
	return nil, Errorf("TypeError", "'%s' cannot stand before %s", op, article(TypeOf(v)))
}

func (in *Interp) binary(op string, l, r Value) (Value, error) {
	if s, ok := l.(string); ok && op == "%" {
		return in.percent(s, r)
	}
	if b, ok := l.(Binarier); ok {
		if v, ok, err := b.Binary(in, op, r, false); ok || err != nil {
			return v, err
		}
	}
	if b, ok := r.(Binarier); ok {
		if v, ok, err := b.Binary(in, op, l, true); ok || err != nil {
			return v, err
		}
	}
	if v, ok, err := in.arith(op, l, r); ok || err != nil {
		return v, err
	}
	switch op {
	case "+":
		if v, ok, err := in.concat(l, r); ok || err != nil {
			return v, err
		}
	case "*":
		if v, ok, err := in.repeat(l, r); ok || err != nil {
			return v, err
		}
	case "|", "&", "-", "^":
		a, ok1 := l.(*Set)
		b, ok2 := r.(*Set)
		if ok1 && ok2 {
			return in.setOp(op, a, b)
		}
	}
	hint := ""
	if isCallable(l) || isCallable(r) {
		return nil, Errorf("TypeError", "'%s' does not work between %s and %s; are the brackets of a call missing?", op, article(TypeOf(l)), article(TypeOf(r)))
	}
	_, ls := l.(string)
	_, rs := r.(string)
	if op == "+" && ls != rs {
		hint = "; use str(...) to make a string of a value, or '%s' % value"
	}
	return nil, Errorf("TypeError", "'%s' does not work between %s and %s%s", strings.TrimPrefix(op, "true"), article(TypeOf(l)), article(TypeOf(r)), hint)
}

func (in *Interp) arith(op string, l, r Value) (Value, bool, error) {
	if a, ok := l.(int64); ok {
		if b, ok := r.(int64); ok {
			if v, ok := smallInt(op, a, b); ok {
				return v, true, nil
			}
		}
	}
	a, ok1 := bigOf(l)
	b, ok2 := bigOf(r)
	if ok1 && ok2 && op != "true/" {
		return in.bigArith(op, a, b)
	}
	x, ok1 := floatOf(l)
	y, ok2 := floatOf(r)
	if !ok1 || !ok2 {
		return nil, false, nil
	}
	return floatArith(op, x, y)
}

// smallInt computes what surely fits.
func smallInt(op string, a, b int64) (Value, bool) {
	const half = 1 << 31
	switch op {
	case "+":
		if s := a + b; (s > a) == (b > 0) {
			return s, true
		}
	case "-":
		if s := a - b; (s < a) == (b > 0) {
			return s, true
		}
	case "*":
		if -half < a && a < half && -half < b && b < half {
			return a * b, true
		}
	}
	return nil, false
}

const maxBits = 4096 // of a whole number

func (in *Interp) bigArith(op string, a, b *big.Int) (Value, bool, error) {
	z := new(big.Int)
	switch op {
	case "+":
		z.Add(a, b)
	case "-":
		z.Sub(a, b)
	case "*":
		z.Mul(a, b)
	case "/", "//", "%":
		if b.Sign() == 0 {
			return nil, false, Errorf("ZeroDivisionError", "division by zero")
		}
		z = floorQuo(a, b)
		if op == "%" {
			z = new(big.Int).Sub(a, z.Mul(z, b))
		}
	case "**":
		return in.power(a, b)
	case "&":
		z.And(a, b)
	case "|":
		z.Or(a, b)
	case "^":
		z.Xor(a, b)
	case "<<", ">>":
		if b.Sign() < 0 || !b.IsInt64() {
			return nil, false, Errorf("ValueError", "a shift wants a count of 0 or more")
		}
		n := min(b.Int64(), 2*maxBits)
		if op == "<<" {
			z.Lsh(a, uint(n))
		} else {
			z.Rsh(a, uint(n))
		}
	default:
		return nil, false, nil
	}
	if z.BitLen() > maxBits {
		return nil, false, Errorf("OverflowError", "the number has more than %d bits", maxBits)
	}
	return normInt(z), true, nil
}

// floorQuo divides and rounds down.
func floorQuo(a, b *big.Int) *big.Int {
	q, r := new(big.Int).QuoRem(a, b, new(big.Int))
	if r.Sign() != 0 && (r.Sign() < 0) != (b.Sign() < 0) {
		q.Sub(q, big.NewInt(1))
	}
	return q
}

func (in *Interp) power(a, b *big.Int) (Value, bool, error) {
	if b.Sign() < 0 {
		x, _ := new(big.Float).SetInt(a).Float64()
		y, _ := new(big.Float).SetInt(b).Float64()
		return floatArith("**", x, y)
	}
	if a.BitLen() > 1 && (!b.IsInt64() || b.Int64()*int64(a.BitLen()-1) > maxBits) {
		return nil, false, Errorf("OverflowError", "the power has more than %d bits", maxBits)
	}
	if a.BitLen() <= 1 && b.Sign() > 0 { // -1, 0 or 1: odd or even decides
		b = new(big.Int).Add(new(big.Int).And(b, big.NewInt(1)), big.NewInt(2))
	}
	return normInt(new(big.Int).Exp(a, b, nil)), true, nil
}

func floatArith(op string, x, y float64) (Value, bool, error) {
	switch op {
	case "+":
		return x + y, true, nil
	case "-":
		return x - y, true, nil
	case "*":
		return x * y, true, nil
	case "**":
		return math.Pow(x, y), true, nil
	case "/", "true/", "//", "%":
		if y == 0 {
			return nil, false, Errorf("ZeroDivisionError", "division by zero")
		}
	}
	switch op {
	case "/", "true/":
		return x / y, true, nil
	case "//":
		return math.Floor(x / y), true, nil
	case "%":
		m := math.Mod(x, y)
		if m != 0 && (m < 0) != (y < 0) {
			m += y
		}
		return m, true, nil
	}
	return nil, false, nil
}

func (in *Interp) concat(l, r Value) (Value, bool, error) {
	switch a := l.(type) {
	case string:
		if b, ok := r.(string); ok {
			if err := in.Alloc(len(a) + len(b)); err != nil {
				return nil, false, err
			}
			return a + b, true, nil
		}
	case *List:
		if b, ok := r.(*List); ok {
			err := in.Alloc(16 * (len(a.Items) + len(b.Items)))
			return &List{slices.Concat(a.Items, b.Items)}, err == nil, err
		}
	case Tuple:
		if b, ok := r.(Tuple); ok {
			err := in.Alloc(16 * (len(a) + len(b)))
			return slices.Concat(a, b), err == nil, err
		}
	}
	return nil, false, nil
}

func (in *Interp) repeat(l, r Value) (Value, bool, error) {
	n, ok := intOf(r)
	if !ok {
		if n, ok = intOf(l); !ok {
			return nil, false, nil
		}
		l = r
	}
	n = max(n, 0)
	switch s := l.(type) {
	case string:
		if err := in.AllocTimes(n, len(s)); err != nil {
			return nil, false, err
		}
		if s == "" {
			n = 0
		}
		return strings.Repeat(s, int(n)), true, nil
	case *List:
		items, err := in.repeatItems(s.Items, n)
		return &List{items}, err == nil, err
	case Tuple:
		items, err := in.repeatItems(s, n)
		return Tuple(items), err == nil, err
	}
	return nil, false, nil
}

func (in *Interp) repeatItems(items []Value, n int64) ([]Value, error) {
	if err := in.AllocTimes(n, 16*len(items)); err != nil || len(items) == 0 {
		return nil, err
	}
	return slices.Repeat(items, int(n)), nil
}

func (in *Interp) setOp(op string, a, b *Set) (Value, error) {
	var items []Value
	has := func(s *Set, k Value) bool {
		_, ok, err := s.d.Get(in, k)
		return ok && err == nil
	}
	for _, k := range a.d.Keys() {
		if op == "|" || op == "&" && has(b, k) || (op == "-" || op == "^") && !has(b, k) {
			items = append(items, k)
		}
	}
	if op == "|" || op == "^" {
		for _, k := range b.d.Keys() {
			if op == "|" || !has(a, k) {
				items = append(items, k)
			}
		}
	}
	return NewSet(in, items)
}
