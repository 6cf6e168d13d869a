package unit

import (
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// rat returns m as a fraction of the currency's unit, by the definition of a part.
func rat(m Money) *big.Rat {
	den := new(big.Int).Exp(big.NewInt(10), big.NewInt(21), nil)
	return new(big.Rat).SetFrac(m.Parts().Big(), den.Mul(den, big.NewInt(128)))
}

// hoursOf returns a quantity in core-hours or GiB-hours, by the definition of
// a tick and of a MiB.
func hoursOf(m Measure, q Int128) *big.Rat {
	den := int64(1000) // thousandths
	if m == RAM || m == Disk {
		den = 1024 // MiB
	}
	return new(big.Rat).SetFrac(q.Big(), new(big.Int).Mul(big.NewInt(int64(Hour)), big.NewInt(den)))
}

func drawQuantity(t *rapid.T, label string) Int128 {
	return Int128{rapid.Int64Range(-1<<20, 1<<20).Draw(t, label+" hi"), rapid.Uint64().Draw(t, label+" lo")}
}

func TestCostIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.SampledFrom([]Measure{CPU, RAM, Disk, GPU}).Draw(t, "measure")
		q := drawQuantity(t, "quantity")
		price := rapid.Int64Range(0, 1e9).Draw(t, "price")
		got, err := Cost(m, q, price)
		if err != nil {
			t.Fatal(err)
		}
		want := new(big.Rat).Mul(hoursOf(m, q), big.NewRat(price, 1e9))
		if rat(got).Cmp(want) != 0 {
			t.Errorf("%v of %v at %d: got %v; want %v", q, m, price, rat(got), want)
		}
		printed, ok := new(big.Rat).SetString(got.String())
		if !ok || printed.Cmp(want) != 0 {
			t.Errorf("%v of %v at %d: printed %s; want %v", q, m, price, got, want)
		}
		hours, ok := new(big.Rat).SetString(m.Hours(q))
		if !ok || hours.Cmp(hoursOf(m, q)) != 0 {
			t.Errorf("hours of %v of %v: printed %s; want %v", q, m, m.Hours(q), hoursOf(m, q))
		}
	})
}

func TestCostExamples(t *testing.T) {
	for _, tt := range []struct {
		measure  Measure
		quantity Int128
		price    string
		want     string
	}{
		{CPU, Product(1000, int64(Hour)), "0.031611", "0.031611"},
		{CPU, Int(1), "0.000000001", "0.000000000000000000001"},
		{GPU, Product(500, int64(Hour)), "0.95", "0.475"},
		{RAM, Product(1024, int64(Hour)), "0.004237", "0.004237"},
		{RAM, Int(1), "0.000000001", "0.0000000000000000000009765625"},
		{RAM, Int(-1), "0.000000001", "-0.0000000000000000000009765625"},
		{Disk, Product(10*1024, int64(Hour)), "0.000054795", "0.00054795"},
		{CPU, Int128{}, "1", "0"},
	} {
		price, err := ParsePrice(tt.price)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Cost(tt.measure, tt.quantity, price)
		if err != nil || got.String() != tt.want {
			t.Errorf("%v %v at %s: got %v, %v; want %s", tt.quantity, tt.measure, tt.price, got, err, tt.want)
		}
		if s := FormatPrice(price); s != tt.price {
			t.Errorf("price %s printed as %s", tt.price, s)
		}
	}
	if m, err := Cost(Net, Int(1), 1); !errors.Is(err, ErrNotSold) {
		t.Errorf("cost of net: got %v, %v; want %v", m, err, ErrNotSold)
	}
}

func TestMoneyOverflowIsAnError(t *testing.T) {
	top, bottom := MoneyOf(highest), MoneyOf(lowest)
	one := MoneyOf(Int(1))
	for name, f := range map[string]func() (Money, error){
		"top + 1":         func() (Money, error) { return top.Add(one) },
		"bottom - 1":      func() (Money, error) { return bottom.Sub(one) },
		"top * 2":         func() (Money, error) { return top.Mul(2) },
		"bottom * -1":     func() (Money, error) { return bottom.Mul(-1) },
		"price too big":   func() (Money, error) { return Cost(CPU, Product(math.MaxInt64, math.MaxInt64), 8) },
		"grain too big":   func() (Money, error) { return Cost(CPU, Product(math.MaxInt64, math.MaxInt64), 1) },
		"top rounded":     func() (Money, error) { return top.Round(0) },
		"parsed too big":  func() (Money, error) { return ParseMoney("2000000000000000") },
		"parsed far off":  func() (Money, error) { return ParseMoney("-" + strings.Repeat("9", 50)) },
		"shown too big":   func() (Money, error) { _, m, err := Shown([]Money{top, top}, 2); return m, err },
		"line raised off": func() (Money, error) { _, m, err := Shown([]Money{top, bottom, one}, 0); return m, err },
	} {
		if m, err := f(); !errors.Is(err, ErrOverflow) {
			t.Errorf("%s: got %v, %v; want %v", name, m, err, ErrOverflow)
		}
	}
}

func TestMoneyPrintsAndParses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := MoneyOf(Int128{rapid.Int64().Draw(t, "hi"), rapid.Uint64().Draw(t, "lo")})
		s := m.String()
		if strings.ContainsAny(s, "eE+ ") || strings.Contains(s, ".") && strings.HasSuffix(s, "0") || strings.HasSuffix(s, ".") {
			t.Errorf("printed %q; want a plain decimal number without trailing zeros", s)
		}
		if r, ok := new(big.Rat).SetString(s); !ok || r.Cmp(rat(m)) != 0 {
			t.Errorf("printed %q; want %v", s, rat(m))
		}
		var back Money
		if err := back.UnmarshalText([]byte(s)); err != nil || !back.Equal(m) {
			t.Errorf("%q read back: got %v, %v", s, back, err)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"", "-", ".", "1.", ".5", "+1", "1e3", "1,000", " 1", "1 ", "0x1", "--1", "1.2.3", "NaN", "1_000", "-.5", "٣",
		"0.0000000000000000000000000001", "0.00000000000000000000000000001", strings.Repeat("1", 81),
	} {
		if m, err := ParseMoney(s); err == nil {
			t.Errorf("amount %q: got %v; want an error", s, m)
		}
	}
	for _, s := range []string{"", "-1", "-0.5", "0.0000000001", "1e-3", "9223372037", "free"} {
		if p, err := ParsePrice(s); err == nil {
			t.Errorf("price %q: got %d; want an error", s, p)
		}
	}
	for s, want := range map[string]int64{"0": 0, "-0": 0, "1": 1e9, "0.10": 1e8, "00.5": 5e8, "9223372036.854775807": math.MaxInt64, "1.0000000000000": 1e9} {
		if got, err := ParsePrice(s); err != nil || got != want {
			t.Errorf("price %q: got %d, %v; want %d", s, got, err, want)
		}
	}
}

func TestRoundsHalfToEven(t *testing.T) {
	for _, tt := range []struct {
		amount string
		places int
		want   string
	}{
		{"0.005", 2, "0.00"},
		{"0.015", 2, "0.02"},
		{"0.025", 2, "0.02"},
		{"-0.005", 2, "0.00"},
		{"-0.015", 2, "-0.02"},
		{"0.0050000000000000000000078125", 2, "0.01"},
		{"2.5", 0, "2"},
		{"3.5", 0, "4"},
		{"-2.5", 0, "-2"},
		{"123.456", 1, "123.5"},
		{"7", 3, "7.000"},
		{"-0.001", 2, "0.00"},
		{"0.1", 21, "0.100000000000000000000"},
	} {
		m, err := ParseMoney(tt.amount)
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Round(tt.places)
		if got := m.Fixed(tt.places); got != tt.want || err != nil || r.Fixed(tt.places) != tt.want {
			t.Errorf("%s to %d places: got %s and %v, %v; want %s", tt.amount, tt.places, got, r, err, tt.want)
		}
	}
	if _, err := (Money{}).Round(22); err == nil {
		t.Error("22 places: got no error")
	}
}

// TestShownLinesSum: lines shown sum to the total shown, which is the exact
// total rounded, and no line is a whole last place off.
func TestShownLinesSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(0, 4).Draw(t, "places")
		lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Money {
			return MoneyOf(Product(rapid.Int64Range(-1e15, 1e15).Draw(t, "a"), rapid.Int64Range(1, 1e9).Draw(t, "b")))
		}), 0, 12).Draw(t, "lines")
		shown, total, err := Shown(lines, places)
		if err != nil {
			t.Fatal(err)
		}
		exact, sum := new(big.Rat), Money{}
		grain := new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(places)), nil))
		for i, m := range lines {
			exact.Add(exact, rat(m))
			if sum, err = sum.Add(shown[i]); err != nil {
				t.Fatal(err)
			}
			off := new(big.Rat).Sub(rat(shown[i]), rat(m))
			if off.Abs(off).Cmp(grain) >= 0 {
				t.Errorf("line %d: %v shown as %v", i, m, shown[i])
			}
		}
		if sum != total {
			t.Errorf("lines sum to %v; total shown %v", sum, total)
		}
		if off := new(big.Rat).Sub(rat(total), exact); off.Abs(off).Cmp(new(big.Rat).Quo(grain, big.NewRat(2, 1))) > 0 {
			t.Errorf("total %v shown for %v", total, exact)
		}
	})
	third := MoneyOf(Product(128e16, 111_000)) // 1.11
	shown, total, err := Shown([]Money{third, third, third}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1.1", "1.1", "1.1", "3.3"}, []string{shown[0].Fixed(1), shown[1].Fixed(1), shown[2].Fixed(1), total.Fixed(1)}); diff != "" {
		t.Errorf("three of 1.11 (-want +got):\n%s", diff)
	}
}

func FuzzParseMoney(f *testing.F) {
	for _, s := range []string{"0", "-1.5", "0.0000000000000000000000078125", "1e5", "170141183460469.23", "--", "1."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMoney(s)
		if err != nil {
			return
		}
		if r, ok := new(big.Rat).SetString(s); !ok || r.Cmp(rat(m)) != 0 {
			t.Errorf("%q: got %v", s, m)
		}
		if back, err := ParseMoney(m.String()); err != nil || back != m {
			t.Errorf("%q printed as %q, read as %v, %v", s, m, back, err)
		}
	})
}

func BenchmarkCost(b *testing.B) {
	q := Product(2048, int64(Hour))
	var sum Money
	for b.Loop() {
		m, err := Cost(RAM, q, 4_237_000)
		if err != nil {
			b.Fatal(err)
		}
		if sum, err = sum.Add(m); err != nil {
			sum = Money{}
		}
	}
}
