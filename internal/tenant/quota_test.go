package tenant

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
)

func used(r unit.Resources) Consumption { return Consumption{ProdShared: r} }

func TestAdmit(t *testing.T) {
	q := Quota{unit.Resources{CPU: 4000, RAM: 8 << 30, Disk: 100 << 30, GPU: 1000}}
	for _, tt := range []struct {
		what          string
		before, after Consumption
		want          string // empty: admitted
	}{
		{"all of it", Consumption{}, used(q.Resources), ""},
		{"network", Consumption{}, used(unit.Resources{Net: 1 << 40}), ""},
		{"not counted", Consumption{}, Consumption{ProdDedicated: unit.Resources{CPU: 9000}, NonProdShared: unit.Resources{CPU: 9000}, NonProdDedicated: unit.Resources{GPU: 9000}}, ""},
		{"over before, and less now", used(unit.Resources{CPU: 9000}), used(unit.Resources{CPU: 8000, RAM: 1 << 30}), ""},
		{"over before, and the same", used(unit.Resources{CPU: 9000}), used(unit.Resources{CPU: 9000, RAM: 1 << 30}), ""},
		{
			"one measure", used(unit.Resources{CPU: 3500}), used(unit.Resources{CPU: 4001}),
			"cpu by 0.001 (quota 4, in use 3.5, more wanted 0.501)",
		},
		{
			"every measure",
			Consumption{},
			used(unit.Resources{CPU: 5000, RAM: 9 << 30, Disk: 101 << 30, GPU: 1500}),
			"cpu by 1 (quota 4, in use 0, more wanted 5), ram by 1 GiB (quota 8 GiB, in use 0 GiB, more wanted 9 GiB), " +
				"disk by 1 GiB (quota 100 GiB, in use 0 GiB, more wanted 101 GiB), gpu by 0.5 (quota 1, in use 0, more wanted 1.5)",
		},
	} {
		err := q.Admit("www", tt.before, tt.after)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v; want it admitted", tt.what, err)
			}
			continue
		}
		want := "role www would be over its quota for the tier preferred: " + tt.want +
			"; ask an administrator for more (covey quota set), end something of the role's, or choose the tier preemptible"
		if err == nil || fault.Of(err) != fault.Exhausted || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", tt.what, err, want)
		}
	}
}

// TestCounts: sums that 64 bits do not hold are refused before they are made.
func TestCounts(t *testing.T) {
	half := Consumption{NonProdShared: unit.Resources{RAM: maxReserved / 2}}
	for _, tt := range []struct {
		what string
		more unit.Resources
		ok   bool
	}{
		{"nothing", unit.Resources{}, true},
		{"the other half", unit.Resources{RAM: maxReserved / 2}, true},
		{"one more", unit.Resources{RAM: maxReserved/2 + 1}, false},
		{"so much that the sum begins at nothing again", unit.Resources{RAM: 1 << 62}, false},
		{"another measure", unit.Resources{Net: maxReserved}, true},
	} {
		if err := half.Counts("www", tt.more); (err == nil) != tt.ok || err != nil && fault.Of(err) != fault.Exhausted {
			t.Errorf("%s: %v; want it to count %t", tt.what, err, tt.ok)
		}
	}
}

func TestCover(t *testing.T) {
	q := Quota{unit.Resources{CPU: 4000, RAM: 8 << 30}}
	if err := q.Cover("www", Consumption{ProdShared: unit.Resources{CPU: 4000, Net: 5}, NonProdShared: unit.Resources{CPU: 9000}}); err != nil {
		t.Errorf("what is in use: %v; want it enough", err)
	}
	err := q.Cover("www", used(unit.Resources{CPU: 4500, RAM: 8 << 30, GPU: 1}))
	const want = "role www reserves more than that in the tier preferred: cpu 4 (in use 4.5), gpu 0 (in use 0.001); give at least what is in use, or end something of the role's first"
	if fault.Of(err) != fault.Conflict || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestQuotaValidate(t *testing.T) {
	for want, r := range map[string]unit.Resources{
		"": {CPU: maxMilli, RAM: maxBytes, Disk: maxBytes, GPU: maxMilli},
		"cpu of a quota is -0.001; want 0 to 1000000000":                {CPU: -1},
		"gpu of a quota is 1000000000.001; want 0 to 1000000000":        {GPU: maxMilli + 1},
		"ram of a quota is 1 bytes; want whole MiB":                     {RAM: 1},
		"disk of a quota is 67108865 GiB; want 0 to 67108864 GiB":       {Disk: maxBytes + 1<<30},
		"a quota has no network bandwidth; want cpu, ram, disk and gpu": {Net: 1},
	} {
		err := Quota{r}.Validate()
		if got := text(err); got != want || err != nil && fault.Of(err) != fault.Invalid {
			t.Errorf("%+v: %q; want %q", r, got, want)
		}
	}
	for role, ok := range map[string]bool{"*": true, "www-data": true, "": false, "a/b": false, "**": false, "..": false} {
		if err := ValidOwner(role); (err == nil) != ok || err != nil && fault.Of(err) != fault.Invalid {
			t.Errorf("role %q: %v; want it accepted: %v", role, err, ok)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestClassOf(t *testing.T) {
	for want, is := range map[Class][2]bool{
		ProdShared: {true, false}, ProdDedicated: {true, true}, NonProdShared: {false, false}, NonProdDedicated: {false, true},
	} {
		if got := ClassOf(is[0], is[1]); got != want {
			t.Errorf("preferred %v, dedicated %v: class %d; want %d", is[0], is[1], got, want)
		}
	}
}

// TestConsumption holds sums to those of each class, and an instance to the
// larger of its two views.
func TestConsumption(t *testing.T) {
	claim := rapid.Custom(func(t *rapid.T) Claim {
		n := rapid.Int64Range(0, 9)
		return Claim{Class(rapid.IntRange(0, int(Classes)-1).Draw(t, "class")), unit.Resources{CPU: n.Draw(t, "cpu"), RAM: n.Draw(t, "ram"), Net: n.Draw(t, "net")}}
	})
	rapid.Check(t, func(t *rapid.T) {
		wanted, held := claim.Draw(t, "wanted"), claim.Draw(t, "held")
		var c Consumption
		c.Take(wanted, held)
		for class := range Classes {
			for _, m := range unit.Measures() {
				want := int64(0)
				for _, x := range []Claim{wanted, held} {
					if x.Class == class {
						want = max(want, x.Resources.Of(m))
					}
				}
				if got := c[class].Of(m); got != want {
					t.Fatalf("class %d has %d %v of %+v and %+v; want %d", class, got, m, wanted, held, want)
				}
			}
		}
		if back := c.Add(c).Sub(c); back != c {
			t.Fatalf("%v and as much less as much is %v", c, back)
		}
	})
}
