// Package ledger holds the nouns of money: what was used, who pays for it, the
// entries that say so and the statement that they add up to. Quantities and
// amounts are exact integers, see [unit.Int128] and [unit.Money]; nothing here
// rounds, and what must add up is checked and never made to.
package ledger

import (
	"github.com/covey-platform/covey/internal/ledger/pack"
	"github.com/covey-platform/covey/internal/unit"
)

// Sold is how many measures are metered: cpu, ram, disk and gpu.
const Sold = 4

// Measures returns the metered measures in order.
func Measures() []unit.Measure { return unit.Measures()[:Sold] }

// Amounts are quantities over time, by measure: milli-core-ticks for cpu,
// MiB-ticks for ram and disk, milli-GPU-ticks for gpu.
type Amounts [Sold]unit.Int128

// Add returns a + o.
func (a Amounts) Add(o Amounts) (Amounts, error) {
	var err error
	for i := range a {
		if a[i], err = a[i].Add(o[i]); err != nil {
			return Amounts{}, err
		}
	}
	return a, nil
}

// Sub returns a - o.
func (a Amounts) Sub(o Amounts) (Amounts, error) {
	var err error
	for i := range a {
		if a[i], err = a[i].Sub(o[i]); err != nil {
			return Amounts{}, err
		}
	}
	return a, nil
}

// Zero reports whether nothing of any measure is in a.
func (a Amounts) Zero() bool { return a == Amounts{} }

// Hours returns the amount of m exactly, in core-hours, GiB-hours or
// GPU-hours, as a plain decimal number.
func (a Amounts) Hours(m unit.Measure) string {
	if int(m) >= Sold {
		return "0"
	}
	return m.Hours(a[m])
}

// AppendAmounts appends a to b.
func AppendAmounts(b []byte, a Amounts) []byte {
	for _, x := range a {
		b = unit.AppendInt128(b, x)
	}
	return b
}

// ReadAmounts reads what [AppendAmounts] wrote.
func ReadAmounts(r *pack.Reader) Amounts {
	var a Amounts
	for i := range a {
		a[i] = r.Int128()
	}
	return a
}
