package job

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
)

func TestParseRanges(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "0,3-5": "0,3-5", "3-5,0": "0,3-5", "1,2,3": "1-3", "1-3,2-7": "1-7", "1-3,4": "1-4", "5,5,5": "5", "0-3999": "0-3999", "03": "3",
	} {
		got, err := ParseRanges(in)
		if err != nil || got.String() != want {
			t.Errorf("ParseRanges(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", ",", "1,", "-1", "1-", "3-1", "a", "1-2-3", "4000", "0-4000", "99999999999", "1 ", "+1", "1.5"} {
		if got, err := ParseRanges(in); fault.Of(err) != fault.Invalid || err == nil {
			t.Errorf("ParseRanges(%q) = %v, %v; want kind invalid", in, got, err)
		}
	}
}

func FuzzParseRanges(f *testing.F) {
	for _, s := range []string{"0,3-5", "1-", "0-3999", "3-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRanges(s)
		if err != nil {
			return
		}
		again, err := ParseRanges(r.String())
		if err != nil || !slices.Equal(r, again) {
			t.Errorf("ParseRanges(%q) = %v, which reads as %v, %v", s, r, again, err)
		}
	})
}

// set is the dumb twin of Ranges.
func set(r Ranges) map[int32]bool {
	m := map[int32]bool{}
	for _, x := range r {
		for i := x.From; i <= x.To; i++ {
			m[i] = true
		}
	}
	return m
}

func anyRanges(t *rapid.T, label string) Ranges {
	var r Ranges
	for range rapid.IntRange(0, 4).Draw(t, label) {
		from := rapid.Int32Range(0, 30).Draw(t, "from")
		r = append(r, Range{from, from + rapid.Int32Range(0, 8).Draw(t, "more")})
	}
	return normal(r)
}

// TestRanges holds every operation to sets.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyRanges(t, "a"), anyRanges(t, "b")
		sa, sb := set(a), set(b)
		if a.Len() != len(sa) {
			t.Fatalf("%v has length %d, want %d", a, a.Len(), len(sa))
		}
		want := map[int32]bool{}
		for i := range int32(45) {
			if a.Has(i) != sa[i] {
				t.Fatalf("%v has %d: %v", a, i, a.Has(i))
			}
			if sa[i] && !sb[i] {
				want[i] = true
			}
		}
		less := a.Without(b)
		if d := cmp.Diff(want, set(less), cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("%v without %v is %v (-want +got):\n%s", a, b, less, d)
		}
		if !slices.Equal(less, normal(slices.Clone(less))) {
			t.Fatalf("%v without %v is %v: its ranges touch", a, b, less)
		}
		all := slices.Collect(a.All())
		if !slices.IsSorted(all) || len(all) != len(sa) {
			t.Fatalf("%v yields %v", a, all)
		}
	})
}

func TestFirstN(t *testing.T) {
	for n, want := range map[int32]string{-1: "", 0: "", 1: "0", 4: "0-3"} {
		if got := FirstN(n).String(); got != want {
			t.Errorf("FirstN(%d) = %q, want %q", n, got, want)
		}
	}
}
