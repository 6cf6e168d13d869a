package pyx

import "strings"

func (in *Interp) compare(op string, l, r Value) (bool, error) {
	switch op {
	case "is", "is not":
		return same(l, r) == (op == "is"), nil
	case "==", "!=":
		eq, err := in.Equal(l, r)
		return eq == (op == "=="), err
	case "in", "not in":
		ok, err := in.contains(r, l)
		return ok == (op == "in"), err
	}
	c, err := in.order(l, r)
	if err != nil {
		return false, err
	}
	switch op {
	case "<":
		return c < 0, nil
	case "<=":
		return c <= 0, nil
	case ">":
		return c > 0, nil
	}
	return c >= 0, nil
}

// same is the operator is. The caller's own values are comparable in Go.
func same(l, r Value) bool {
	if _, ok := l.(Tuple); ok {
		return false
	}
	if _, ok := r.(Tuple); ok {
		return false
	}
	return l == r
}

// Equal reports whether two values are equal.
func (in *Interp) Equal(l, r Value) (bool, error) {
	if err := in.Step(1); err != nil {
		return false, err
	}
	if err := in.Enter(); err != nil {
		return false, err
	}
	defer in.Leave()
	if b, ok := l.(Binarier); ok {
		if v, ok, err := b.Binary(in, "==", r, false); ok || err != nil {
			t, _ := v.(bool)
			return t, err
		}
	}
	if b, ok := r.(Binarier); ok {
		if v, ok, err := b.Binary(in, "==", l, true); ok || err != nil {
			t, _ := v.(bool)
			return t, err
		}
	}
	if x, ok := floatOf(l); ok {
		if y, ok := floatOf(r); ok {
			a, okA := bigOf(l)
			b, okB := bigOf(r)
			if okA && okB {
				return a.Cmp(b) == 0, nil
			}
			return x == y, nil
		}
		return false, nil
	}
	switch a := l.(type) {
	case *List:
		if b, ok := r.(*List); ok {
			return in.equalItems(a.Items, b.Items)
		}
		return false, nil
	case Tuple:
		if b, ok := r.(Tuple); ok {
			return in.equalItems(a, b)
		}
		return false, nil
	case *Dict:
		b, ok := r.(*Dict)
		if !ok || a.live != b.live {
			return false, nil
		}
		return in.equalDicts(a, b)
	case *Set:
		b, ok := r.(*Set)
		if !ok || a.d.live != b.d.live {
			return false, nil
		}
		return in.equalDicts(a.d, b.d)
	}
	if s, ok := l.(string); ok {
		if err := in.Step(len(s) >> 6); err != nil {
			return false, err
		}
	}
	return same(l, r), nil
}

func (in *Interp) equalItems(a, b []Value) (bool, error) {
	if len(a) != len(b) {
		return false, nil
	}
	for i := range a {
		if eq, err := in.Equal(a[i], b[i]); err != nil || !eq {
			return false, err
		}
	}
	return true, nil
}

func (in *Interp) equalDicts(a, b *Dict) (bool, error) {
	for _, e := range a.entries {
		if e.dead {
			continue
		}
		v, ok, err := b.Get(in, e.key)
		if err != nil || !ok {
			return false, err
		}
		if eq, err := in.Equal(e.val, v); err != nil || !eq {
			return false, err
		}
	}
	return true, nil
}

func (in *Interp) contains(box, x Value) (bool, error) {
	switch b := box.(type) {
	case string:
		s, ok := x.(string)
		if !ok {
			return false, Errorf("TypeError", "'in' a string wants a string; this is %s", article(TypeOf(x)))
		}
		return strings.Contains(b, s), in.Step(len(b) >> 6)
	case *Dict:
		_, ok, err := b.Get(in, x)
		return ok, err
	case *Set:
		_, ok, err := b.d.Get(in, x)
		return ok, err
	case Binarier:
		if v, ok, err := b.Binary(in, "in", x, true); ok || err != nil {
			t, _ := v.(bool)
			return t, err
		}
	}
	items, err := in.Iterate(box)
	if err != nil {
		return false, err
	}
	for _, y := range items {
		if eq, err := in.Equal(x, y); err != nil || eq {
			return eq, err
		}
	}
	return false, nil
}

// order compares two values that have an order: numbers, strings, sequences.
func (in *Interp) order(l, r Value) (int, error) {
	if err := in.Enter(); err != nil {
		return 0, err
	}
	defer in.Leave()
	if err := in.Step(1); err != nil {
		return 0, err
	}
	if b, ok := l.(Binarier); ok {
		if v, ok, err := b.Binary(in, "cmp", r, false); ok || err != nil {
			n, _ := intOf(v)
			return int(n), err
		}
	}
	if x, ok := floatOf(l); ok {
		if y, ok := floatOf(r); ok {
			return orderNumbers(l, r, x, y), nil
		}
	}
	switch a := l.(type) {
	case string:
		if b, ok := r.(string); ok {
			return strings.Compare(a, b), in.Step(min(len(a), len(b)) >> 6)
		}
	case *List:
		if b, ok := r.(*List); ok {
			return in.orderItems(a.Items, b.Items)
		}
	case Tuple:
		if b, ok := r.(Tuple); ok {
			return in.orderItems(a, b)
		}
	}
	return 0, Errorf("TypeError", "%s and %s have no order", article(TypeOf(l)), article(TypeOf(r)))
}

func orderNumbers(l, r Value, x, y float64) int {
	a, ok1 := bigOf(l)
	b, ok2 := bigOf(r)
	if ok1 && ok2 {
		return a.Cmp(b)
	}
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func (in *Interp) orderItems(a, b []Value) (int, error) {
	for i := range min(len(a), len(b)) {
		eq, err := in.Equal(a[i], b[i])
		if err != nil {
			return 0, err
		}
		if !eq {
			return in.order(a[i], b[i])
		}
	}
	return len(a) - len(b), nil
}
