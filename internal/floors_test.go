// Package internal holds the house. This test is its floor plan.
package internal

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	house = "github.com/covey-platform/covey/internal/"
	wire  = "github.com/covey-platform/covey/api/"
)

// floors lists every package by height. A package imports only what stands
// strictly below it, so no two packages of one floor know each other. A
// package below another, such as sched/score, lives on its parent's floor.
var floors = [][]string{
	0:  {"fault", "format", "name", "unit"},
	1:  {"job", "machine", "tenant"},
	2:  {"task", "release"},
	3:  {"ledger"},
	4:  {"state"},
	5:  {"spec", "converge", "rollout", "sched", "meter", "rate", "market", "deliver", "judge", "discover", "chaos", "knob"},
	6:  {"control", "agent", "whatif"},
	7:  {"store", "pool", "runtime", "gateway", "observe", "trust", "wall"},
	8:  {"rpc"},
	9:  {"web", "cli"},
	10: {"server", "agentd", "sim", "simulate"},
}

const (
	pure    = 6 // the highest floor without a goroutine, clock, file or network
	wirelow = 8 // the lowest floor that knows the wire
)

// only narrows what a package may import further than its floor does.
var only = map[string][]string{
	"agent": {"fault", "unit", "job", "machine", "task"},
	"web":   {"fault"},
	"cli":   {"fault", "spec", "unit", "job", "trust"},
}

// impure names what a pure floor may not import, with all that lies below it.
var impure = map[string]string{
	"os": "files", "io/ioutil": "files", "syscall": "files", "golang.org/x/sys": "files",
	"net": "the network", "database/sql": "a database", "modernc.org/sqlite": "a database",
	"github.com/jackc/pgx": "a database", "log": "a log",
	"crypto/rand": "chance without a seed", "math/rand": "chance without a seed",
	"hash/maphash": "chance without a seed", "github.com/google/uuid": "chance without a seed",
	"sync": "goroutines", "golang.org/x/sync": "goroutines",
}

// harmless lies below an impure path and touches nothing but its arguments.
var harmless = []string{"net/url", "net/netip", "math/rand/v2"}

// ambient names the functions of otherwise harmless packages that no pure
// floor may use: what they return is not made of their arguments.
var ambient = map[string]map[string]string{
	"time": {
		"Now": "the clock", "Since": "the clock", "Until": "the clock", "Sleep": "the clock", "After": "the clock", "Tick": "the clock",
		"NewTimer": "the clock", "NewTicker": "the clock", "AfterFunc": "the clock", "Local": "this machine's zone",
	},
	"context": {
		"WithTimeout": "the clock", "WithTimeoutCause": "the clock",
		"WithDeadline": "the clock", "WithDeadlineCause": "the clock", "AfterFunc": "goroutines",
	},
	"path/filepath": {
		"Abs": "files", "EvalSymlinks": "files", "Glob": "files", "Walk": "files", "WalkDir": "files",
	},
	"math/rand/v2": {
		"Int": unseeded, "IntN": unseeded, "Int32": unseeded, "Int32N": unseeded, "Int64": unseeded, "Int64N": unseeded,
		"Uint": unseeded, "UintN": unseeded, "Uint32": unseeded, "Uint32N": unseeded, "Uint64": unseeded, "Uint64N": unseeded,
		"N": unseeded, "Float32": unseeded, "Float64": unseeded, "NormFloat64": unseeded, "ExpFloat64": unseeded,
		"Perm": unseeded, "Shuffle": unseeded,
	},
}

const unseeded = "chance without a seed"

// codecs belong to the wire.
var codecs = []string{"google.golang.org/protobuf", "connectrpc.com"}

// rows is the one codec that may be used below the wire, and the package that
// writes rows with it.
const (
	rows      = "google.golang.org/protobuf/encoding/protowire"
	rowwriter = "state"
)

// TestFloors walks the house.
func TestFloors(t *testing.T) {
	seen := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		wrongs, err := check(name, src)
		for _, w := range wrongs {
			t.Error(w)
		}
		seen++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 2 {
		t.Errorf("found %d Go files below internal; want the house", seen)
	}
}

// TestPlan holds the plan itself to its form: a package has one floor, and
// what a narrow package may import lies below it.
func TestPlan(t *testing.T) {
	seen := map[string]bool{}
	for _, names := range floors {
		for _, n := range names {
			if seen[n] {
				t.Errorf("%s stands on two floors", n)
			}
			seen[n] = true
		}
	}
	for pkg, deps := range only {
		for _, dep := range deps {
			if floor(dep) < 0 || floor(dep) >= floor(pkg) {
				t.Errorf("%s (floor %d) is granted %s (floor %d)", pkg, floor(pkg), dep, floor(dep))
			}
		}
	}
}

// TestCheck plants one violation in each source and wants it found, and wants
// silence where there is none.
func TestCheck(t *testing.T) {
	imports := func(paths ...string) string {
		var b strings.Builder
		b.WriteString("package p\n")
		for _, p := range paths {
			fmt.Fprintf(&b, "import %s\n", p)
		}
		return b.String()
	}
	ours := func(name string) string { return strconv.Quote(house + name) }
	api := strconv.Quote(wire + "covey/v1")

	for _, tt := range []struct {
		name, src string
		want      []string
	}{
		// Floors.
		{"sched/a.go", imports(ours("state"), ours("job"), `"slices"`), nil},
		{"job/a.go", imports(ours("state")), []string{"job/a.go:2:8: job (floor 1) imports state (floor 4)"}},
		{"sched/a.go", imports(ours("rollout")), []string{"sched/a.go:2:8: sched (floor 5) imports rollout (floor 5)"}},
		{"sched/score/a.go", imports(ours("meter/hour")), []string{"sched/score/a.go:2:8: sched (floor 5) imports meter (floor 5)"}},
		{"sched/a.go", imports(ours("sched/score")), nil},
		{"util/a.go", imports(), []string{`util/a.go: package "util" is on no floor`}},
		{"util/a_test.go", imports(), []string{`util/a_test.go: package "util" is on no floor`}},
		{"server/a.go", imports(ours("util")), []string{"server/a.go:2:8: imports util, which is on no floor"}},
		{"a.go", imports(), []string{"a.go: stands beside the floors; give it a package"}},
		{"a_test.go", imports(`"os"`), nil},
		{"job/a_test.go", imports(ours("sim"), `"os"`, api), nil},

		// Narrow packages.
		{"agent/a.go", imports(ours("task"), ours("fault")), nil},
		{"agent/a.go", imports(ours("state")), []string{"agent/a.go:2:8: agent may import only [fault unit job machine task], not state"}},
		{"web/a.go", imports(ours("unit")), []string{"web/a.go:2:8: web may import only [fault], not unit"}},
		{"cli/a.go", imports(api, ours("spec"), ours("job"), ours("unit"), ours("fault"), `"os"`), nil},
		{"cli/a.go", imports(ours("state")), []string{"cli/a.go:2:8: cli may import only [fault spec unit job trust], not state"}},

		// The wire.
		{"rpc/a.go", imports(api, `"connectrpc.com/connect"`, `"google.golang.org/protobuf/proto"`), nil},
		{"web/a.go", imports(api), nil},
		{"agentd/a.go", imports(api), nil},
		{"pool/a.go", imports(api), []string{"pool/a.go:2:8: imports " + wire + "covey/v1 below rpc, where the wire stops"}},
		{"job/a.go", imports(api), []string{"job/a.go:2:8: imports " + wire + "covey/v1 below rpc, where the wire stops"}},
		{"store/a.go", imports(`"google.golang.org/protobuf/proto"`), []string{"store/a.go:2:8: imports google.golang.org/protobuf/proto below rpc, where the wire stops"}},
		{"control/a.go", imports(`"connectrpc.com/connect"`), []string{"control/a.go:2:8: imports connectrpc.com/connect below rpc, where the wire stops"}},
		{"state/a.go", imports(strconv.Quote(rows)), nil},
		{"store/a.go", imports(strconv.Quote(rows)), []string{"store/a.go:2:8: imports " + rows + " below rpc, where the wire stops"}},
		{"state/a.go", imports(`"google.golang.org/protobuf/proto"`), []string{"state/a.go:2:8: imports google.golang.org/protobuf/proto below rpc, where the wire stops"}},

		// Purity.
		{"agent/a.go", imports(`"os"`), []string{"agent/a.go:2:8: imports os (files) on a pure floor"}},
		{"agent/a.go", imports(`"os/exec"`), []string{"agent/a.go:2:8: imports os/exec (files) on a pure floor"}},
		{"spec/a.go", imports(`"net/http"`), []string{"spec/a.go:2:8: imports net/http (the network) on a pure floor"}},
		{"spec/a.go", imports(`"net/url"`, `"math/rand/v2"`), nil},
		{"unit/a.go", imports(`"crypto/rand"`), []string{"unit/a.go:2:8: imports crypto/rand (chance without a seed) on a pure floor"}},
		{"state/a.go", imports(`"sync/atomic"`), []string{"state/a.go:2:8: imports sync/atomic (goroutines) on a pure floor"}},
		{"store/a.go", imports(`"os"`, `"database/sql"`, `"sync"`), nil},
		{"control/a.go", "package p\nfunc f() { go f() }\n", []string{"control/a.go:2:12: starts a goroutine on a pure floor"}},
		{"server/a.go", "package p\nfunc f() { go f() }\n", nil},
		{"task/a.go", "package p\nimport \"time\"\nvar t = time.Now()\n", []string{"task/a.go:3:9: time.Now (the clock) on a pure floor; take what it gives as an argument"}},
		{"task/a.go", "package p\nimport clock \"time\"\nvar f = clock.Since\n", []string{"task/a.go:3:9: time.Since (the clock) on a pure floor; take what it gives as an argument"}},
		{"task/a.go", "package p\nimport . \"time\"\nvar t = Now()\n", []string{"task/a.go:2:8: imports time without its name, which hides what it uses"}},
		{"task/a.go", "package p\nimport \"time\"\nvar d = time.Second\n", nil},
		{"store/a.go", "package p\nimport \"time\"\nvar t = time.Now()\n", nil},
		{"sched/a.go", "package p\nimport \"context\"\nvar f = context.WithTimeout\n", []string{"sched/a.go:3:9: context.WithTimeout (the clock) on a pure floor; take what it gives as an argument"}},
		{"sched/a.go", "package p\nimport \"math/rand/v2\"\nvar n = rand.IntN(3)\n", []string{"sched/a.go:3:9: math/rand/v2.IntN (chance without a seed) on a pure floor; take what it gives as an argument"}},
		{"sched/a.go", "package p\nimport \"math/rand/v2\"\nvar r = rand.New(rand.NewPCG(1, 2))\n", nil},
	} {
		got, err := check(tt.name, []byte(tt.src))
		if err != nil {
			t.Errorf("%s: %v\n%s", tt.name, err, tt.src)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s\n%s", tt.name, diff, tt.src)
		}
	}
}

// floor returns the height of a package, or -1.
func floor(pkg string) int {
	return slices.IndexFunc(floors, func(names []string) bool { return slices.Contains(names, pkg) })
}

// below reports whether the import path p is dir or lies under it.
func below(p, dir string) bool {
	rest, ok := strings.CutPrefix(p, dir)
	return ok && (rest == "" || rest[0] == '/')
}

// check returns what the file name, relative to internal, does against the
// plan. Test files may import and do anything; only their package is checked.
func check(name string, src []byte) ([]string, error) {
	test := strings.HasSuffix(name, "_test.go")
	if path.Dir(name) == "." {
		if test {
			return nil, nil
		}
		return []string{name + ": stands beside the floors; give it a package"}, nil
	}
	pkg, _, _ := strings.Cut(name, "/")
	height := floor(pkg)
	if height < 0 {
		return []string{fmt.Sprintf("%s: package %q is on no floor", name, pkg)}, nil
	}
	if test {
		return nil, nil
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, 0)
	if err != nil {
		return nil, err
	}
	var wrongs []string
	report := func(n ast.Node, format string, args ...any) {
		wrongs = append(wrongs, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
	}
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		if why := forbidden(imp, pkg); why != "" {
			report(spec, "%s", why)
		}
	}
	if height <= pure {
		checkPure(f, report)
	}
	return wrongs, nil
}

// forbidden says why pkg may not import imp, or nothing.
func forbidden(imp, pkg string) string {
	height := floor(pkg)
	rest, ours := strings.CutPrefix(imp, house)
	dep, _, _ := strings.Cut(rest, "/")
	granted, narrow := only[pkg]
	switch {
	case ours && dep == pkg:
		return ""
	case ours && floor(dep) < 0:
		return fmt.Sprintf("imports %s, which is on no floor", dep)
	case ours && narrow && !slices.Contains(granted, dep):
		return fmt.Sprintf("%s may import only %v, not %s", pkg, granted, dep)
	case ours && floor(dep) >= height:
		return fmt.Sprintf("%s (floor %d) imports %s (floor %d)", pkg, height, dep, floor(dep))
	}
	if imp == rows && pkg == rowwriter {
		return ""
	}
	onWire := strings.HasPrefix(imp, wire) || slices.ContainsFunc(codecs, func(c string) bool { return below(imp, c) })
	if onWire && height < wirelow {
		return fmt.Sprintf("imports %s below rpc, where the wire stops", imp)
	}
	if height > pure || slices.Contains(harmless, imp) {
		return ""
	}
	for dir, why := range impure {
		if below(imp, dir) {
			return fmt.Sprintf("imports %s (%s) on a pure floor", imp, why)
		}
	}
	return ""
}

// checkPure reports goroutines and what a file takes from its surroundings.
func checkPure(f *ast.File, report func(ast.Node, string, ...any)) {
	called := map[string]string{} // the name in this file -> import path
	for _, spec := range f.Imports {
		imp, _ := strconv.Unquote(spec.Path.Value)
		if ambient[imp] == nil {
			continue
		}
		local := path.Base(strings.TrimSuffix(imp, "/v2"))
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." {
			report(spec, "imports %s without its name, which hides what it uses", imp)
		}
		called[local] = imp
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			report(n, "starts a goroutine on a pure floor")
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			imp := called[x.Name]
			if why := ambient[imp][n.Sel.Name]; why != "" {
				report(n, "%s.%s (%s) on a pure floor; take what it gives as an argument", imp, n.Sel.Name, why)
			}
		}
		return true
	})
}
