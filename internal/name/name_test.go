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
