package spec_test

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/spec"
)

var update = flag.Bool("update", false, "write what is now said to testdata/errors.txt")

const errorsFile = "testdata/errors.txt"

// TestErrors holds the exact text of every error that a user is likely to
// meet. A case is "=== name", the file, "---", what is said: the error of the
// file, or those of its jobs.
func TestErrors(t *testing.T) {
	data, err := os.ReadFile(errorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cases := strings.Split(string(data), "=== ")
	out.WriteString(cases[0])
	for _, c := range cases[1:] {
		name, rest, _ := strings.Cut(c, "\n")
		text, want, _ := strings.Cut(rest, "---\n")
		want = strings.TrimSpace(want)
		got := said(text)
		out.WriteString("=== " + name + "\n" + text + "---\n" + got + "\n\n")
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(want, got); d != "" && !*update {
				t.Errorf("what is said (-want +got):\n%s", d)
			}
			if got == "" {
				t.Error("nothing is wrong")
			}
		})
	}
	if *update {
		if err := os.WriteFile(errorsFile, bytes.TrimRight(out.Bytes(), "\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(cases) - 1; n < 60 {
		t.Errorf("there are %d cases; want at least 60", n)
	}
}

func said(text string) string {
	f, err := spec.Eval(one(text), spec.DefaultLimits())
	if err != nil {
		return strings.TrimSpace(err.Error())
	}
	var out []string
	for _, e := range f.Jobs() {
		if e.Err != nil {
			out = append(out, e.Err.Error())
		}
	}
	return strings.TrimSpace(strings.Join(out, "\n"))
}
