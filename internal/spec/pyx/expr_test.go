package pyx_test

import (
	"os"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

// TestExpressions holds expressions to what Python 2.7 printed for them.
func TestExpressions(t *testing.T) {
	data, err := os.ReadFile("testdata/expressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split(string(data), ">>> ")[1:]
	if len(cases) < 200 {
		t.Fatalf("there are %d cases; want at least 200", len(cases))
	}
	for _, c := range cases {
		c = strings.TrimSuffix(c, "\n")
		i := strings.LastIndexByte(c, '\n')
		src, want := strings.ReplaceAll(c[:i], "\n... ", "\n"), c[i+1:]
		in := pyx.New(pyx.Host{}, pyx.DefaultLimits())
		if err := in.Run("x", []byte("x = "+src+"\n")); err != nil {
			t.Errorf("%s\n%v", src, err)
			continue
		}
		v, _, _ := in.Global("x")
		got, err := in.Repr(v)
		if err != nil {
			t.Errorf("%s: %v", src, err)
		}
		if got = strings.ReplaceAll(got, "\n", `\n`); got != want {
			t.Errorf("%s\n got %s\nwant %s", src, got, want)
		}
	}
}

// TestPrograms holds programs to what Python 2.7 made of them.
func TestPrograms(t *testing.T) {
	data, err := os.ReadFile("testdata/programs.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split(string(data), "=== \n")[1:]
	if len(cases) < 15 {
		t.Fatalf("there are %d cases; want at least 15", len(cases))
	}
	for _, c := range cases {
		src, want, _ := strings.Cut(c, "---\n")
		in := pyx.New(pyx.Host{Modules: map[string]*pyx.Module{"os": {Name: "os"}}}, pyx.DefaultLimits())
		if err := in.Run("x", []byte(src)); err != nil {
			t.Errorf("%s\n%v", src, err)
			continue
		}
		v, _, _ := in.Global("result")
		got, err := in.Repr(v)
		if want = strings.TrimSpace(want); err != nil || got != want {
			t.Errorf("%s\n got %s, %v\nwant %s", src, got, err, want)
		}
	}
}

// FuzzParse feeds any text to the parser: it ends and never panics.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/expressions.txt", "testdata/programs.txt"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for c := range strings.SplitSeq(string(data), "\n") {
			f.Add(strings.TrimPrefix(c, ">>> "))
		}
		for c := range strings.SplitSeq(string(data), "=== \n") {
			src, _, _ := strings.Cut(c, "---\n")
			f.Add(src)
		}
	}
	f.Add("x = f'{a!r:>{b}} {{ {c[\"d\"]}'\nif x:\n\ty = 1\n  z = 2\n")
	f.Fuzz(func(t *testing.T, text string) {
		src := pyx.NewSource("x", text)
		_, err := pyx.Parse(src, pyx.DefaultLimits())
		if err == nil {
			return
		}
		e, ok := pyx.AsError(err)
		if !ok || e.Class != "SyntaxError" || !e.At.IsValid() {
			t.Errorf("the error has no place: %v", err)
		}
		if l, c := e.At.LineCol(); l < 1 || c < 1 || len(e.Error()) > 5000 {
			t.Errorf("%d:%d, %d bytes", l, c, len(e.Error()))
		}
	})
}
