package pyx

import (
	"fmt"
	"math"
	"math/big"
	"sort"
	"strconv"
)

type (
	noneKey  struct{}
	tupleKey string
	hostKey  string
)

// key returns what stands for v in a map: equal values give equal keys.
func (in *Interp) key(v Value) (any, error) {
	switch v := v.(type) {
	case nil:
		return noneKey{}, nil
	case int64:
		return v, nil
	case string:
		return v, in.Step(len(v) >> 6)
	case bool:
		n, _ := intOf(v)
		return n, nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<62 {
			return int64(v), nil
		}
		return v, nil
	case *big.Int:
		return hostKey("big:" + v.String()), nil
	case Tuple:
		return in.tupleKey(v)
	case *Function, *Builtin, *Class, *Instance, *Module:
		return v, nil
	case *Set:
		if v.frozen {
			return in.frozenKey(v)
		}
	case Hasher:
		k, err := v.Key(in)
		return hostKey(k), err
	}
	return nil, Errorf("TypeError", "a %s cannot be a key or an element of a set; want a string, a number or a tuple", TypeOf(v))
}

func (in *Interp) tupleKey(t Tuple) (any, error) {
	if err := in.Enter(); err != nil {
		return nil, err
	}
	defer in.Leave()
	s := make([]byte, 0, 16*len(t))
	for _, x := range t {
		k, err := in.key(x)
		if err != nil {
			return nil, err
		}
		s = fmt.Appendf(s, "%T", k)
		s = strconv.AppendQuote(s, fmt.Sprint(k))
	}
	return tupleKey(s), in.Alloc(len(s))
}

func (in *Interp) frozenKey(s *Set) (any, error) {
	var parts []string
	for _, x := range s.d.Keys() {
		k, err := in.tupleKey(Tuple{x})
		if err != nil {
			return nil, err
		}
		parts = append(parts, fmt.Sprint(k))
	}
	sort.Strings(parts)
	return hostKey(fmt.Sprintf("frozenset%q", parts)), nil
}

// HashString returns Python 2.7's hash of a string, 64 bits, not randomised.
func HashString(s string) int64 {
	if s == "" {
		return 0
	}
	rs := []rune(s)
	x := uint64(rs[0]) << 7
	for _, r := range rs {
		x = x*1000003 ^ uint64(r)
	}
	x ^= uint64(len(rs))
	return notMinusOne(x)
}

// HashTuple returns Python 2.7's hash of a tuple from those of its elements.
func HashTuple(hs []int64) int64 {
	x, mult := uint64(0x345678), uint64(1000003)
	for i, h := range hs {
		x = (x ^ uint64(h)) * mult
		mult += uint64(82520 + 2*(len(hs)-i-1))
	}
	return notMinusOne(x + 97531)
}

func notMinusOne(x uint64) int64 {
	if int64(x) == -1 {
		return -2
	}
	return int64(x)
}

// Hash returns Python 2.7's hash of v where that does not depend on an
// address in memory; it decides the order in which sets are walked.
func (in *Interp) Hash(v Value) (int64, error) {
	switch v := v.(type) {
	case string:
		return HashString(v), in.Step(len(v) >> 6)
	case int64:
		return notMinusOne(uint64(v)), nil
	case bool:
		n, _ := intOf(v)
		return n, nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<62 {
			return notMinusOne(uint64(int64(v))), nil
		}
		return HashString(FormatFloat(v, -1)), nil
	case Tuple:
		if err := in.Enter(); err != nil {
			return 0, err
		}
		defer in.Leave()
		hs := make([]int64, len(v))
		if err := in.Step(len(v)); err != nil {
			return 0, err
		}
		for i, x := range v {
			h, err := in.Hash(x)
			if err != nil {
				return 0, err
			}
			hs[i] = h
		}
		return HashTuple(hs), nil
	case Hasher:
		return v.Hash(in)
	}
	return 0, nil
}

// Items returns the elements in the order of Python 2's table: open
// addressing with perturbation, grown fourfold when two thirds are used.
func (s *Set) Items(in *Interp) ([]Value, error) {
	keys := s.d.Keys()
	if len(keys) < 2 {
		return keys, nil
	}
	hs := make([]int64, len(keys))
	for i, k := range keys {
		h, err := in.Hash(k)
		if err != nil {
			return nil, err
		}
		hs[i] = h
	}
	table := newTable(8)
	for i := range keys {
		table.insert(hs, i)
		if err := in.Step(table.probes); err != nil {
			return nil, err
		}
		table.probes = 0
		if table.used*3 >= len(table.slots)*2 {
			table = table.grown(hs)
		}
	}
	out := make([]Value, 0, len(keys))
	for _, i := range table.slots {
		if i >= 0 {
			out = append(out, keys[i])
		}
	}
	return out, nil
}

// hashTable holds positions of elements; -1 is an empty slot.
type hashTable struct {
	slots  []int
	used   int
	probes int // slots looked at that were taken
}

func newTable(size int) hashTable {
	t := hashTable{slots: make([]int, size)}
	for i := range t.slots {
		t.slots[i] = -1
	}
	return t
}

func (t *hashTable) insert(hs []int64, n int) {
	mask := uint64(len(t.slots) - 1)
	h := uint64(hs[n])
	i := h
	for perturb := h; t.slots[i&mask] >= 0; perturb >>= 5 {
		i = i*5 + perturb + 1
		t.probes++
	}
	t.slots[i&mask] = n
	t.used++
}

func (t hashTable) grown(hs []int64) hashTable {
	want := t.used * 4
	if t.used > 50000 {
		want = t.used * 2
	}
	size := 8
	for size <= want {
		size *= 2
	}
	g := newTable(size)
	for _, n := range t.slots {
		if n >= 0 {
			g.insert(hs, n)
		}
	}
	return g
}
