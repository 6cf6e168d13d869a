package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReport reads what go test -json writes for a package that passes, one
// with a failing, a skipped and a panicking test, and one that does not build.
func TestReport(t *testing.T) {
	for _, tt := range []struct{ name, events, want string }{
		{
			"passes",
			`{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"--- PASS: TestA/x (0.00s)\n"}
{"Action":"pass","Package":"p","Test":"TestA/x","Elapsed":0}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.5}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.5s\n"}
{"Action":"pass","Package":"p","Elapsed":0.5}
`,
			`--- PASS: TestA (0.50s)
ok  	p	0.5s

2 passed, 0 failed, 0 skipped
`,
		},
		{
			"fails, skips and panics",
			`{"Action":"output","Package":"p","Test":"TestF","Output":"=== RUN   TestF\n"}
{"Action":"output","Package":"p","Test":"TestF","Output":"    f_test.go:3: got 1, want 2\n"}
{"Action":"output","Package":"p","Test":"TestF","Output":"--- FAIL: TestF (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestF","Elapsed":0}
{"Action":"output","Package":"p","Test":"TestS","Output":"=== RUN   TestS\n"}
{"Action":"output","Package":"p","Test":"TestS","Output":"    s_test.go:3: no cgroups here\n"}
{"Action":"output","Package":"p","Test":"TestS","Output":"--- SKIP: TestS (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestS","Elapsed":0}
{"Action":"output","Package":"p","Test":"TestP","Output":"panic: oh\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.5s\n"}
{"Action":"fail","Package":"p","Elapsed":0.5}
`,
			`--- FAIL: TestP (did not end)
panic: oh
    f_test.go:3: got 1, want 2
--- FAIL: TestF (0.00s)
--- SKIP: TestS: s_test.go:3: no cgroups here
FAIL	p	0.5s

skipped, so not tested here:
  p TestS: s_test.go:3: no cgroups here

0 passed, 2 failed, 1 skipped
`,
		},
		{
			"does not build; a line that is no event",
			`{"ImportPath":"p","Action":"build-output","Output":"p/p.go:1:1: expected 'package'\n"}
{"ImportPath":"p","Action":"build-fail"}
warning: something
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}
{"Action":"pass","Package":"q","Test":"TestQ","Elapsed":0}
`,
			`p/p.go:1:1: expected 'package'
warning: something
FAIL	p [build failed]
--- PASS: TestQ (0.00s)

1 passed, 0 failed, 0 skipped
`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(tt.events)); err != nil {
				t.Fatal(err)
			}
			if err := r.finish(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	for range 3 {
		r.fold(event{Action: "output", Package: "p", Test: "T", Output: strings.Repeat("x", maxSaid/2)})
	}
	r.fold(event{Action: "output", Package: "p", Test: "T", Output: "last words\n"})
	r.fold(event{Action: "fail", Package: "p", Test: "T"})
	r.fold(event{Action: "fail", Package: "p"})
	if got := out.String(); len(got) != maxSaid || !strings.HasSuffix(got, "last words\n") {
		t.Errorf("got %d bytes ending in %q; want %d ending in the last words", len(got), got[max(0, len(got)-20):], maxSaid)
	}
}

// TestRun runs go test itself on modules made here: the outcome is go test's,
// and nothing to run is a failure.
func TestRun(t *testing.T) {
	for _, tt := range []struct{ name, test, pattern, wantErr string }{
		{"passes", `func TestA(t *testing.T) {}`, ".", ""},
		{"fails", `func TestA(t *testing.T) { t.Error("no") }`, ".", "go test: exit status 1"},
		{"does not build", `func TestA(t *testing.T) { nowhere() }`, ".", "go test: exit status 1"},
		{"runs nothing", `func TestA(t *testing.T) {}`, "TestB", "no test ran"},
		{"panics", `func TestA(t *testing.T) { panic("no") }`, ".", "go test: exit status 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{
				"go.mod":    "module m\n",
				"m_test.go": "package m\n\nimport \"testing\"\n\n" + tt.test + "\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			t.Chdir(dir)
			var out, errs strings.Builder
			err := run(t.Context(), []string{"-run", tt.pattern, "./..."}, &out, &errs)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if (tt.wantErr == "") != (got == "") || !strings.Contains(got, tt.wantErr) {
				t.Errorf("got error %q, want %q\n%s%s", got, tt.wantErr, &out, &errs)
			}
		})
	}
}
