package job

import (
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
)

func TestKey(t *testing.T) {
	cluster, k, err := ParseKey("west/www-data/prod/hello.1")
	if err != nil || cluster != "west" || k != "www-data/prod/hello.1" {
		t.Fatalf("ParseKey: %q, %q, %v", cluster, k, err)
	}
	if k.Role() != "www-data" || k.Env() != "prod" || k.Name() != "hello.1" || k != NewKey("www-data", "prod", "hello.1") {
		t.Errorf("parts %q, %q, %q", k.Role(), k.Env(), k.Name())
	}
	for _, s := range []string{"w/a/devel/b", "w/a/test/b", "w/a/staging/b", "w/a/staging12/b", "1/_/prod/-", "w/...a/prod/b"} {
		if _, _, err := ParseKey(s); err != nil {
			t.Errorf("ParseKey(%q): %v", s, err)
		}
	}
	long := strings.Repeat("x", 65)
	for _, s := range []string{
		"", "w", "w/a/prod", "w/a/prod/b/c", "/a/prod/b", "w//prod/b", "w/a//b", "w/a/prod/", "w/../prod/b", "w/a/prod/.", "./a/prod/b",
		"w/a/production/b", "w/a/stagingx/b", "w/a/prod /b", "w/a/PROD/b", "w/ü/prod/b", "w/a/prod/b\x00", "w/a/prod/b\n", "w/" + long + "/prod/b",
		"w/a/staging" + strings.Repeat("1", 60) + "/b", "w/a/prod/" + long,
	} {
		_, _, err := ParseKey(s)
		if err == nil || fault.Of(err) != fault.Invalid {
			t.Errorf("ParseKey(%q): %v, want kind invalid", s, err)
			continue
		}
		if len(err.Error()) > 300 {
			t.Errorf("ParseKey(%.20q...): the error has %d bytes", s, len(err.Error()))
		}
	}
}

// FuzzParseKey holds that a key that is taken is written as it was read, and
// that none of its parts is a path.
func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"west/www-data/prod/hello", "w/a/staging1/b", "w/../prod/b", "w/a/prod/b/c", "////"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		cluster, k, err := ParseKey(s)
		if err != nil {
			if fault.Of(err) != fault.Invalid {
				t.Errorf("ParseKey(%q): kind %v", s, fault.Of(err))
			}
			return
		}
		if got := cluster + "/" + k.Role() + "/" + k.Env() + "/" + k.Name(); got != s {
			t.Errorf("ParseKey(%q) has the parts of %q", s, got)
		}
		for _, part := range []string{cluster, k.Role(), k.Env(), k.Name()} {
			if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "/\\\x00") {
				t.Errorf("ParseKey(%q) has part %q", s, part)
			}
		}
	})
}
