package unit

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func anyResources(t *rapid.T, name string) Resources {
	n := rapid.Int64Range(-1<<40, 1<<40)
	return Resources{CPU: n.Draw(t, name), RAM: n.Draw(t, name), Disk: n.Draw(t, name), GPU: n.Draw(t, name), Net: n.Draw(t, name)}
}

// TestResources holds the operations to those of each measure.
func TestResources(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, n := anyResources(t, "a"), anyResources(t, "b"), rapid.Int64Range(-100, 100).Draw(t, "n")
		sum, less, times := a.Add(b), a.Sub(b), a.Times(n)
		fits := true
		var short []Measure
		for _, m := range Measures() {
			if sum.Of(m) != a.Of(m)+b.Of(m) || less.Of(m) != a.Of(m)-b.Of(m) || times.Of(m) != a.Of(m)*n {
				t.Fatalf("%v of %v and %v: %v, %v, %v", m, a, b, sum, less, times)
			}
			if a.Of(m) > b.Of(m) {
				fits, short = false, append(short, m)
			}
		}
		if a.Fits(b) != fits || !slices.Equal(a.Short(b), short) {
			t.Fatalf("%v into %v: %v, short of %v; want %v, %v", a, b, a.Fits(b), a.Short(b), fits, short)
		}
		if less.Add(b) != a {
			t.Fatalf("%v - %v + %v = %v", a, b, b, less.Add(b))
		}
	})
}

func TestMeasuresAreACopy(t *testing.T) {
	ms := Measures()
	ms[0] = Net
	if Measures()[0] != CPU {
		t.Error("who changes the list that Measures returns changes every other one")
	}
	if (Resources{CPU: 1}).Of(Measure(9)) != 0 || Measure(9).String() != "measure(9)" {
		t.Error("a measure that is none has an amount or a name")
	}
}

func TestWhole(t *testing.T) {
	got := Resources{CPU: 3, RAM: 5*MiB + 7, Disk: MiB - 1, Net: 9}.Whole()
	if want := (Resources{CPU: 3, RAM: 5 * MiB, Net: 9}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		m    Measure
		n    int64
		want string
	}{
		{CPU, 500, "0.5"},
		{CPU, 1000, "1"},
		{CPU, 1, "0.001"},
		{CPU, 0, "0"},
		{CPU, -1500, "-1.5"},
		{GPU, 250, "0.25"},
		{RAM, 128 * MiB, "128 MiB"},
		{RAM, 2 << 30, "2 GiB"},
		{RAM, 2560 * MiB, "2560 MiB"},
		{RAM, 10<<30 + 512*MiB, "10.5 GiB"},
		{Disk, 0, "0 GiB"},
		{Net, 100_000_000, "100 Mbit/s"},
		{Net, 1_500_000, "1.5 Mbit/s"},
	} {
		if got := c.m.Format(c.n); got != c.want {
			t.Errorf("%v %d: %q, want %q", c.m, c.n, got, c.want)
		}
	}
	if got, want := (Resources{CPU: 500, RAM: 128 * MiB, GPU: 1000}).String(), "cpu 0.5, ram 128 MiB, gpu 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Resources{}).String(); got != "nothing" {
		t.Errorf("got %q, want nothing", got)
	}
}
