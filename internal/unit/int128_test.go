package unit

import (
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

var (
	lowest  = Int128{math.MinInt64, 0}
	highest = Int128{math.MaxInt64, math.MaxUint64}
)

// against reports where an operation differs from the same one on big integers.
func against(t interface{ Errorf(string, ...any) }, op string, x Int128, y any, got Int128, err error, want *big.Int) {
	fits := want.Cmp(lowest.Big()) >= 0 && want.Cmp(highest.Big()) <= 0
	switch {
	case fits && err != nil:
		t.Errorf("%v %s %v: got error %v; want %v", x, op, y, err, want)
	case fits && got.Big().Cmp(want) != 0:
		t.Errorf("%v %s %v: got %v; want %v", x, op, y, got, want)
	case !fits && !errors.Is(err, ErrOverflow):
		t.Errorf("%v %s %v: got %v, %v; want %v, as it is %v", x, op, y, got, err, ErrOverflow, want)
	}
}

func checkAll(t interface{ Errorf(string, ...any) }, x, y Int128, n int64) {
	sum, err := x.Add(y)
	against(t, "+", x, y, sum, err, new(big.Int).Add(x.Big(), y.Big()))
	diff, err := x.Sub(y)
	against(t, "-", x, y, diff, err, new(big.Int).Sub(x.Big(), y.Big()))
	times, err := x.Mul(n)
	against(t, "*", x, n, times, err, new(big.Int).Mul(x.Big(), big.NewInt(n)))
	against(t, "product", Int(y.Hi), n, Product(y.Hi, n), nil, new(big.Int).Mul(big.NewInt(y.Hi), big.NewInt(n)))
	if got, want := x.Cmp(y), x.Big().Cmp(y.Big()); got != want {
		t.Errorf("%v cmp %v: got %d; want %d", x, y, got, want)
	}
	if got, want := x.Sign(), x.Big().Sign(); got != want {
		t.Errorf("sign of %v: got %d; want %d", x, got, want)
	}
	if got, err := FromBig(x.Big()); got != x || err != nil {
		t.Errorf("FromBig(%v): got %v, %v", x, got, err)
	}
	b := AppendInt128([]byte{1}, x)
	if got, n := ReadInt128(append(b[1:], 0xff)); got != x || n != len(b)-1 {
		t.Errorf("bytes of %v: got %v in %d of %d bytes", x, got, n, len(b)-1)
	}
	if got, n := ReadInt128(b[1 : len(b)-1]); n != 0 {
		t.Errorf("bytes of %v cut short: got %v in %d bytes; want none", x, got, n)
	}
}

// edges are the numbers at which carries, borrows and signs turn over.
func edges() []Int128 {
	var xs []Int128
	for _, hi := range []int64{math.MinInt64, math.MinInt64 + 1, -2, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64} {
		for _, lo := range []uint64{0, 1, 1<<63 - 1, 1 << 63, math.MaxUint64 - 1, math.MaxUint64} {
			xs = append(xs, Int128{hi, lo})
		}
	}
	return xs
}

func TestInt128Edges(t *testing.T) {
	factors := []int64{math.MinInt64, math.MinInt64 + 1, -3, -1, 0, 1, 2, 1 << 32, math.MaxInt64}
	for _, x := range edges() {
		for _, y := range edges() {
			for _, n := range factors {
				checkAll(t, x, y, n)
			}
		}
	}
	if got, want := lowest.String(), "-170141183460469231731687303715884105728"; got != want {
		t.Errorf("lowest: got %s; want %s", got, want)
	}
	if _, err := FromBig(new(big.Int).Add(highest.Big(), big.NewInt(1))); !errors.Is(err, ErrOverflow) {
		t.Errorf("FromBig(highest + 1): got %v; want %v", err, ErrOverflow)
	}
	if _, err := FromBig(new(big.Int).Sub(lowest.Big(), big.NewInt(1))); !errors.Is(err, ErrOverflow) {
		t.Errorf("FromBig(lowest - 1): got %v; want %v", err, ErrOverflow)
	}
}

func TestInt128Random(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := Int128{rapid.Int64().Draw(t, "x.hi"), rapid.Uint64().Draw(t, "x.lo")}
		y := Int128{rapid.Int64().Draw(t, "y.hi"), rapid.Uint64().Draw(t, "y.lo")}
		checkAll(t, x, y, rapid.Int64().Draw(t, "n"))
	})
}

func TestReadInt128Refuses(t *testing.T) {
	long := make([]byte, 20)
	for i := range long {
		long[i] = 0x80
	}
	wide := append([]byte(nil), long[:18]...)
	wide = append(wide, 4) // the 129th bit
	for _, b := range [][]byte{nil, {0x80}, long, wide} {
		if x, n := ReadInt128(b); n != 0 {
			t.Errorf("%x: got %v in %d bytes; want none", b, x, n)
		}
	}
}

func FuzzInt128(f *testing.F) {
	for _, x := range edges() {
		b := binary.BigEndian.AppendUint64(nil, uint64(x.Hi))
		b = binary.BigEndian.AppendUint64(b, x.Lo)
		f.Add(append(append(b, b...), b[:8]...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, n := ReadInt128(b); n > 0 {
			if y, m := ReadInt128(AppendInt128(nil, x)); y != x || m == 0 {
				t.Errorf("%x: read %v, wrote and read %v", b, x, y)
			}
		}
		if len(b) < 40 {
			return
		}
		u := func(i int) uint64 { return binary.BigEndian.Uint64(b[i*8:]) }
		checkAll(t, Int128{int64(u(0)), u(1)}, Int128{int64(u(2)), u(3)}, int64(u(4)))
	})
}
