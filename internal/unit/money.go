package unit

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Money is an exact amount of one currency. It counts parts of 1e-21/128 of
// the currency's unit, so that a quantity times a price is a whole number of
// parts for every measure, and the zero value is nothing. It reaches to about
// 1.3e15 units either way; what does not fit is [ErrOverflow].
type Money struct{ parts Int128 }

// Grains. A core-hour is 1e12 milli-core-ticks and a price counts 1e-9 units,
// so a product counts 1e-21: 128 parts. A GiB-hour is 1024e9 MiB-ticks, so a
// product counts 1e-18/1024 = 1e-21 * 125/128: 125 parts.
const (
	partsPerCore = 128
	partsPerGiB  = 125

	moneyPlaces = 28    // 1/128 is 78125e-7
	moneyScale  = 78125 // so that parts * moneyScale counts 1e-28
	wholeParts  = 21    // 128 * 10^wholeParts parts make one unit
	maxPlaces   = wholeParts

	pricePlaces = 9
	maxDigits   = 80 // of a number that somebody typed
)

// ErrNotSold says that a measure has no price.
var ErrNotSold = errors.New("the measure is not sold")

// Cost returns what a quantity costs: milli-core-ticks, MiB-ticks or
// milli-GPU-ticks at a price in 1e-9 units per core-hour, GiB-hour or
// GPU-hour. It never rounds.
func Cost(m Measure, quantity Int128, price int64) (Money, error) {
	var grain int64
	switch m {
	case CPU, GPU:
		grain = partsPerCore
	case RAM, Disk:
		grain = partsPerGiB
	case Net:
		return Money{}, fmt.Errorf("%v: %w", m, ErrNotSold)
	default:
		return Money{}, fmt.Errorf("%v: %w", m, ErrNotSold)
	}
	p, err := quantity.Mul(price)
	if err != nil {
		return Money{}, err
	}
	p, err = p.Mul(grain)
	return Money{p}, err
}

// Add returns m + o.
func (m Money) Add(o Money) (Money, error) {
	p, err := m.parts.Add(o.parts)
	return Money{p}, err
}

// Sub returns m - o.
func (m Money) Sub(o Money) (Money, error) {
	p, err := m.parts.Sub(o.parts)
	return Money{p}, err
}

// Mul returns m n times over.
func (m Money) Mul(n int64) (Money, error) {
	p, err := m.parts.Mul(n)
	return Money{p}, err
}

// Cmp returns -1, 0 or 1 as m is less than, equal to or greater than o.
func (m Money) Cmp(o Money) int { return m.parts.Cmp(o.parts) }

// Equal reports whether m and o are the same amount.
func (m Money) Equal(o Money) bool { return m == o }

// Sign returns -1, 0 or 1 as m is negative, zero or positive.
func (m Money) Sign() int { return m.parts.Sign() }

// Parts returns m in parts of 1e-21/128 units.
func (m Money) Parts() Int128 { return m.parts }

// MoneyOf returns the amount of so many parts of 1e-21/128 units.
func MoneyOf(parts Int128) Money { return Money{parts} }

// String returns m exactly, as a plain decimal number without trailing zeros.
func (m Money) String() string {
	return trimZeros(point(new(big.Int).Mul(m.parts.Big(), big.NewInt(moneyScale)), moneyPlaces))
}

// MarshalText returns what [Money.String] does.
func (m Money) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what [Money.MarshalText] wrote.
func (m *Money) UnmarshalText(b []byte) error {
	v, err := ParseMoney(string(b))
	if err == nil {
		*m = v
	}
	return err
}

// ParseMoney reads a plain decimal number: digits with at most one point and
// at most one minus sign before them. What is not a whole number of parts is
// an error.
func ParseMoney(s string) (Money, error) {
	n, err := parsePoint(s, moneyPlaces)
	if err != nil {
		return Money{}, fmt.Errorf("amount %.40q: %w", s, err)
	}
	parts, rest := new(big.Int).QuoRem(n, big.NewInt(moneyScale), new(big.Int))
	if rest.Sign() != 0 {
		return Money{}, fmt.Errorf("amount %.40q is not a multiple of 1e-21/128", s)
	}
	p, err := FromBig(parts)
	if err != nil {
		return Money{}, fmt.Errorf("amount %.40q: %w", s, err)
	}
	return Money{p}, nil
}

// ParsePrice reads a price, such as 0.031611, as 1e-9 units. A price has at
// most nine digits behind the point and is not negative.
func ParsePrice(s string) (int64, error) {
	n, err := parsePoint(s, pricePlaces)
	switch {
	case err != nil:
		return 0, fmt.Errorf("price %.40q: %w", s, err)
	case n.Sign() < 0:
		return 0, fmt.Errorf("price %.40q is negative; want 0 or more", s)
	case !n.IsInt64():
		return 0, fmt.Errorf("price %.40q is too high; want less than 9223372036", s)
	}
	return n.Int64(), nil
}

// FormatPrice prints a price in 1e-9 units as [ParsePrice] reads it.
func FormatPrice(price int64) string { return trimZeros(point(big.NewInt(price), pricePlaces)) }

// Hours returns a quantity of m exactly, in core-hours, GiB-hours or
// GPU-hours, as a plain decimal number without trailing zeros.
func (m Measure) Hours(quantity Int128) string {
	switch m {
	case RAM, Disk: // 1/1024 is 9765625e-10
		return trimZeros(point(new(big.Int).Mul(quantity.Big(), big.NewInt(9765625)), 9+10))
	case CPU, GPU:
		return trimZeros(point(quantity.Big(), 9+3))
	case Net:
	}
	return trimZeros(point(quantity.Big(), 9))
}

// Round returns m rounded to so many decimal places, 0 to 21, half to even.
// It is for showing an amount; what is owed stays unrounded.
func (m Money) Round(places int) (Money, error) {
	grain, err := grainOf(places)
	if err != nil {
		return Money{}, err
	}
	p, err := FromBig(new(big.Int).Mul(halfEven(m.parts.Big(), grain), grain))
	return Money{p}, err
}

// Fixed prints m rounded to so many decimal places, all of them shown.
func (m Money) Fixed(places int) string {
	grain, err := grainOf(places)
	if err != nil {
		return m.String()
	}
	return point(halfEven(m.parts.Big(), grain), places)
}

// Shown rounds amounts to so many decimal places for a table whose lines must
// sum to the total shown: the total is the exact sum rounded half to even, and
// the lines are cut down and then raised by one last place each in the order
// of what was cut off, the first line first where that is equal.
func Shown(lines []Money, places int) (shown []Money, total Money, err error) {
	grain, err := grainOf(places)
	if err != nil {
		return nil, Money{}, err
	}
	sum, floors := new(big.Int), new(big.Int)
	whole, cut := make([]*big.Int, len(lines)), make([]*big.Int, len(lines))
	order := make([]int, len(lines))
	for i, m := range lines {
		sum.Add(sum, m.parts.Big())
		whole[i], cut[i] = new(big.Int).DivMod(m.parts.Big(), grain, new(big.Int))
		floors.Add(floors, whole[i])
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cut[b].Cmp(cut[a]) })
	rounded := halfEven(sum, grain)
	missing := new(big.Int).Sub(rounded, floors).Int64() // 0 to len(lines)
	for _, i := range order[:missing] {
		whole[i].Add(whole[i], big.NewInt(1))
	}
	shown = make([]Money, len(lines))
	for i := range whole {
		if shown[i].parts, err = FromBig(whole[i].Mul(whole[i], grain)); err != nil {
			return nil, Money{}, err
		}
	}
	total.parts, err = FromBig(rounded.Mul(rounded, grain))
	return shown, total, err
}

// grainOf returns the parts that one in the last of so many places counts.
func grainOf(places int) (*big.Int, error) {
	if places < 0 || places > maxPlaces {
		return nil, fmt.Errorf("%d decimal places; want 0 to %d", places, maxPlaces)
	}
	g := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(wholeParts-places)), nil)
	return g.Mul(g, big.NewInt(partsPerCore)), nil
}

// halfEven returns n / d, rounded to the nearest integer, a half to the even one.
func halfEven(n, d *big.Int) *big.Int {
	q, r := new(big.Int).DivMod(n, d, new(big.Int))
	switch r.Lsh(r, 1).Cmp(d) {
	case 1:
		q.Add(q, big.NewInt(1))
	case 0:
		q.Add(q, new(big.Int).And(q, big.NewInt(1)))
	}
	return q
}

// point prints n / 10^places with all its places.
func point(n *big.Int, places int) string {
	digits := new(big.Int).Abs(n).String()
	if len(digits) <= places {
		digits = strings.Repeat("0", places+1-len(digits)) + digits
	}
	s := digits[:len(digits)-places]
	if places > 0 {
		s += "." + digits[len(digits)-places:]
	}
	if n.Sign() < 0 {
		s = "-" + s
	}
	return s
}

func trimZeros(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// parsePoint reads a plain decimal number as n / 10^places.
func parsePoint(s string, places int) (*big.Int, error) {
	if len(s) > maxDigits {
		return nil, fmt.Errorf("it has %d characters; want at most %d", len(s), maxDigits)
	}
	whole, frac, dotted := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	if whole == "" || dotted && frac == "" || strings.Trim(whole+frac, "0123456789") != "" {
		return nil, errors.New("want a plain decimal number, such as 0.031611")
	}
	frac = strings.TrimRight(frac, "0")
	if len(frac) > places {
		return nil, fmt.Errorf("it has %d digits behind the point; want at most %d", len(frac), places)
	}
	n, _ := new(big.Int).SetString(whole+frac+strings.Repeat("0", places-len(frac)), 10)
	if strings.HasPrefix(s, "-") {
		n.Neg(n)
	}
	return n, nil
}
