package name

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestValid(t *testing.T) {
	for _, s := range []string{"a", "www-data", "a.b_c-D9", "...", "-", "_", strings.Repeat("x", Max)} {
		if err := Valid("role", s); err != nil {
			t.Errorf("Valid(%q): %v", s, err)
		}
	}
	for _, s := range []string{"", ".", "..", "a/b", "a b", "ä", "a\x00", "a\n", "%", "+", strings.Repeat("x", Max+1)} {
		err := Valid("role", s)
		if err == nil {
			t.Errorf("Valid(%q) = nil, want an error", s)
			continue
		}
		if !strings.Contains(err.Error(), "role") || len(err.Error()) > 200 {
			t.Errorf("Valid(%q): %v; want the thing named, in 200 bytes", s, err)
		}
	}
}

// What a name may not hold is shown as people read it, not as a byte of it.
func TestValidShows(t *testing.T) {
	for _, c := range []struct{ s, want string }{
		{"aü", `name "aü" holds 'ü' at byte 2; want only letters a-z`},
		{"日本", `holds '日' at byte 1;`},
		{"a b", `holds ' ' at byte 2;`},
		{"a\x00", `holds '\x00' at byte 2;`},
		{"a\xc3", `holds the byte 0xc3 at byte 2;`},
		{"\ufffd", "holds '\ufffd' at byte 1;"},
	} {
		if err := Valid("name", c.s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Valid(%q): %v; want %q", c.s, err, c.want)
		}
	}
}

// FuzzEscape holds that an escaped name is one path element, and that no two
// names have the same.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"www/prod/a/0.1", "..", ".", "", "a+b", "a%2Fb", "a/b", "a\x00b", "/etc", "ä"} {
		f.Add(s, s+"x")
	}
	f.Add("a/b", "a+b")
	f.Add("%2e", ".")
	f.Fuzz(func(t *testing.T, a, b string) {
		x := Escape(a)
		if strings.ContainsAny(x, "/\\\x00\n") || strings.HasPrefix(x, ".") || x != "" && filepath.Base(x) != x {
			t.Errorf("Escape(%q) = %q, which is no plain path element", a, x)
		}
		if a != b && x == Escape(b) {
			t.Errorf("Escape(%q) = Escape(%q) = %q", a, b, x)
		}
	})
}

// TestValidLabel: what others call an attribute may hold more than a name, as
// long as it can be seen and typed.
func TestValidLabel(t *testing.T) {
	for _, s := range []string{"rack", "topology.kubernetes.io/zone", "größe", "a:b=c", strings.Repeat("x", Max)} {
		if err := ValidLabel("attribute", s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, want := range map[string]string{
		"": "is empty", strings.Repeat("x", Max+1): "has 65 bytes", "a b": "no blanks", "a\tb": "no blanks", "rack\n": "no blanks", "a\u00a0b": "no blanks",
		"\x1b[31m": "no control characters", "a\u200bb": "no control characters", "a\xff": "no UTF-8",
	} {
		if err := ValidLabel("attribute", s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", s, err, want)
		}
	}
}
