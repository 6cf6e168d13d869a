package unit

import (
	"cmp"
	"errors"
	"math/big"
	"math/bits"
)

// ErrOverflow says that a result does not fit into 128 bits. Nothing wraps.
var ErrOverflow = errors.New("the result does not fit into 128 bits")

// An Int128 is the signed integer Hi * 2^64 + Lo. The zero value is 0. Values
// are compared with == or [Int128.Cmp].
type Int128 struct {
	Hi int64
	Lo uint64
}

// Int returns x.
func Int(x int64) Int128 { return Int128{x >> 63, uint64(x)} }

// Product returns a * b, which always fits.
func Product(a, b int64) Int128 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	// Two's complement: a negative factor counted 2^64 too many of the other one.
	if a < 0 {
		hi -= uint64(b)
	}
	if b < 0 {
		hi -= uint64(a)
	}
	return Int128{int64(hi), lo}
}

// Add returns x + y.
func (x Int128) Add(y Int128) (Int128, error) {
	lo, carry := bits.Add64(x.Lo, y.Lo, 0)
	hi, _ := bits.Add64(uint64(x.Hi), uint64(y.Hi), carry)
	z := Int128{int64(hi), lo}
	if (x.Hi < 0) == (y.Hi < 0) && (z.Hi < 0) != (x.Hi < 0) {
		return Int128{}, ErrOverflow
	}
	return z, nil
}

// Sub returns x - y.
func (x Int128) Sub(y Int128) (Int128, error) {
	lo, borrow := bits.Sub64(x.Lo, y.Lo, 0)
	hi, _ := bits.Sub64(uint64(x.Hi), uint64(y.Hi), borrow)
	z := Int128{int64(hi), lo}
	if (x.Hi < 0) != (y.Hi < 0) && (z.Hi < 0) != (x.Hi < 0) {
		return Int128{}, ErrOverflow
	}
	return z, nil
}

// Mul returns x * y.
func (x Int128) Mul(y int64) (Int128, error) {
	xhi, xlo := x.magnitude()
	_, ym := Int(y).magnitude()
	over, high := bits.Mul64(xhi, ym)
	hi, lo := bits.Mul64(xlo, ym)
	hi, carry := bits.Add64(hi, high, 0)
	negative := (x.Hi < 0) != (y < 0)
	limit := uint64(1) << 63 // the magnitude of the lowest value, which has no positive twin
	if over != 0 || carry != 0 || hi > limit || hi == limit && (lo != 0 || !negative) {
		return Int128{}, ErrOverflow
	}
	if negative {
		hi, lo = negate(hi, lo)
	}
	return Int128{int64(hi), lo}, nil
}

// magnitude returns |x| as an unsigned number of 128 bits.
func (x Int128) magnitude() (hi, lo uint64) {
	if x.Hi < 0 {
		return negate(uint64(x.Hi), x.Lo)
	}
	return uint64(x.Hi), x.Lo
}

func negate(hi, lo uint64) (nhi, nlo uint64) {
	nlo, borrow := bits.Sub64(0, lo, 0)
	nhi, _ = bits.Sub64(0, hi, borrow)
	return nhi, nlo
}

// Cmp returns -1, 0 or 1 as x is less than, equal to or greater than y.
func (x Int128) Cmp(y Int128) int { return cmp.Or(cmp.Compare(x.Hi, y.Hi), cmp.Compare(x.Lo, y.Lo)) }

// Sign returns -1, 0 or 1 as x is negative, zero or positive.
func (x Int128) Sign() int { return x.Cmp(Int128{}) }

// Big returns x as a big integer.
func (x Int128) Big() *big.Int {
	z := big.NewInt(x.Hi)
	return z.Add(z.Lsh(z, 64), new(big.Int).SetUint64(x.Lo))
}

// FromBig returns b, if it fits.
func FromBig(b *big.Int) (Int128, error) {
	hi := new(big.Int).Rsh(b, 64) // rounds towards minus infinity, as two's complement does
	if !hi.IsInt64() {
		return Int128{}, ErrOverflow
	}
	lo := new(big.Int).Sub(b, new(big.Int).Lsh(hi, 64))
	return Int128{hi.Int64(), lo.Uint64()}, nil
}

// String returns x in decimal digits.
func (x Int128) String() string { return x.Big().String() }

// AppendInt128 appends x to b: 1 byte for values from -64 to 63, at most 19.
// Values near zero, of either sign, are short.
func AppendInt128(b []byte, x Int128) []byte {
	sign := uint64(x.Hi >> 63)
	hi, lo := uint64(x.Hi)<<1|x.Lo>>63, x.Lo<<1
	hi, lo = hi^sign, lo^sign
	for hi != 0 || lo >= 0x80 {
		b = append(b, byte(lo&0x7f)|0x80)
		hi, lo = hi>>7, lo>>7|hi<<57
	}
	return append(b, byte(lo))
}

// ReadInt128 reads what [AppendInt128] wrote at the start of b and returns how
// many bytes it took, 0 if there is no such number.
func ReadInt128(b []byte) (x Int128, n int) {
	var hi, lo uint64
	for i, c := range b {
		shift := uint(i) * 7
		bits7 := uint64(c & 0x7f)
		switch {
		case shift < 64:
			lo |= bits7 << shift
			hi |= bits7 >> (64 - shift) // a shift by 64 gives 0
		case shift < 126:
			hi |= bits7 << (shift - 64)
		case shift == 126 && bits7 <= 3:
			hi |= bits7 << 62
		default:
			return Int128{}, 0
		}
		if c < 0x80 {
			sign := -(lo & 1)
			return Int128{int64((hi >> 1) ^ sign), (lo>>1 | hi<<63) ^ sign}, i + 1
		}
	}
	return Int128{}, 0
}
