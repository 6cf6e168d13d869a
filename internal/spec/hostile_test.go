package spec_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/spec"
)

func one(text string) spec.Bundle {
	return spec.Bundle{Main: "a.aurora", User: "vagrant", Files: map[string][]byte{"a.aurora": []byte(text)}}
}

// TestHostile feeds files that would nest, grow or run without an end. Each
// must be refused, with a reason, well before a person loses patience.
func TestHostile(t *testing.T) {
	job := "jobs = [Job(cluster = 'c', role = 'r', environment = 'prod', name = 'n', task = SimpleTask('t', %s))]\n"
	for _, tc := range []struct{ name, text, want string }{
		{"10 MB of brackets", strings.Repeat("(", 10<<20), "may have at most"},
		{"1 MiB of brackets", strings.Repeat("(", 1<<20), "nest deeper"},
		{"1 MiB of lists", strings.Repeat("[", 1<<20), "nest deeper"},
		{"minus signs", "x = " + strings.Repeat("-", 1<<19) + "1", "nest too deep"},
		{"not not not", "x = " + strings.Repeat("not ", 1<<17) + "1\njobs = []", "list jobs is empty"},
		{"lambdas", "x = " + strings.Repeat("lambda: ", 1<<16) + "1", "nest too deep"},
		{"conditions", "x = " + strings.Repeat("1 if 1 else ", 1<<15) + "1", "nest too deep"},
		{"powers", "x = 1" + strings.Repeat("**1", 1<<17), "nest too deep"},
		{"sums", "x = 1" + strings.Repeat("+1", 1<<18), "operators in a row"},
		{"attributes", "x = a" + strings.Repeat(".a", 1<<18), "in a row"},
		{"calls", "x = a" + strings.Repeat("()", 1<<18), "in a row"},
		{"blocks", nestedBlocks(2000), "blocks nest deeper"},
		{"a loop", "while True: pass", "does not end"},
		{"a loop in a function", "def f():\n  while 1:\n    x = 1\nf()", "does not end"},
		{"a list that grows as it is walked", "x = [1]\nfor i in x: x.append(i)", "more than"},
		{"recursion", "def f(): return f()\nf()", "calls nest deeper"},
		{"recursion by sort", "def f(x): return sorted([1, 2], key = f)\nf(1)", "calls nest deeper"},
		{"a long string", "x = 'a' * 10**12", "makes more than"},
		{"a long list", "x = [0] * 10**12", "makes more than"},
		{"a long range", "x = range(10**15)", "makes more than"},
		{"the longest range", "x = range(-2**63, 2**63 - 1)", "makes more than"},
		{"doubling", "x = 'a'\nfor i in range(100): x = x + x", "makes more than"},
		{"join", "x = ('a' * 1000000).join(['b'] * 1000000)", "makes more than"},
		{"replace", "x = ('a' * 1000000).replace('a', 'b' * 1000000)", "makes more than"},
		{"width", "x = '%999999999d' % 1", "larger than"},
		{"width of format", "x = '{:>999999999}'.format(1)", "larger than"},
		{"a large number", "x = 10 ** 10 ** 10", "bits"},
		{"squaring", "x = 3\nfor i in range(100): x = x * x", "bits"},
		{"shifting", "x = 1 << 10**9", "bits"},
		{"a list in itself", "x = []\nx.append(x)\ny = str(x)", "holds itself"},
		{"a list in itself compared", "x = []\nx.append(x)\ny = []\ny.append(y)\nz = x == y", "holds itself"},
		{"a deep list", "x = []\nfor i in range(100000): x = [x]\ny = repr(x)", "holds itself"},
		{"a wide tree of lists", "x = []\nfor i in range(60): x = [x, x]\ny = repr(x)", "makes more than"},
		{"products", "import itertools\nx = itertools.product(*[range(100)] * 10)", "makes more than"},
		{"equal long strings", "a = 'x' * 10000000\nb = 'x' * 10000000\nc = sorted([a + '1', b + '1'] * 100000)", "does not end"},
		{"colliding keys", "x = list(set([i << 59 for i in range(16)] + [i * 2**40 for i in range(200000)]))\nwhile 1: pass", "does not end"},
		{"catching the limit", "while True:\n  try:\n    while True: pass\n  except: pass", "does not end"},
		{"a template that grows", fmt.Sprintf(job, "'{{a}}'") + "jobs = [jobs[0].bind(" + doublings() + ")]", "does not end"},
		{"a template of itself", fmt.Sprintf(job, "'{{a}}'") + "jobs = [jobs[0].bind(a = '{{a}}x')]", "without an end"},
		{"templates of each other", fmt.Sprintf(job, "'{{a}}'") + "jobs = [jobs[0].bind(a = '{{b}}', b = '{{a}}')]", "without an end"},
		{"a field of itself", "jobs = [Job(cluster = 'c', role = 'r', environment = 'prod', name = '{{name}}', task = SimpleTask('t', 'x'))]", "without an end"},
		{"a deep schema", deepStructs(), "nest deeper"},
		{"binding for ever", "x = SimpleTask('a', 'b')\nwhile True: x = x.bind(a = 1)", "calls of bind"},
		{"too many jobs", fmt.Sprintf(job, "'x'") + "jobs = jobs * 10001", "at most 10000"},
		{"including itself", "include('a.aurora')", "in a circle"},
		{"opening itself for ever", "x = []\nwhile True: x.append(open('a.aurora').read())", "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			f, err := spec.Eval(one(tc.text), spec.DefaultLimits())
			if err == nil {
				err = f.Jobs()[0].Err
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %.300v, want an error with %q", err, tc.want)
			}
			if fault.Of(err) != fault.Invalid {
				t.Errorf("the error is %v; want invalid", fault.Of(err))
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
			if len(err.Error()) > 4000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			t.Logf("%v %.200v", time.Since(start), err)
		})
	}
}

func nestedBlocks(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "if 1:\n")
	}
	return b.String()[:min(b.Len(), 1<<20)]
}

func doublings() string {
	var parts []string
	for c := 'a'; c < 'z'; c++ {
		parts = append(parts, fmt.Sprintf("%c = '{{%c}}{{%c}}{{%c}}'", c, c+1, c+1, c+1))
	}
	return strings.Join(append(parts, "z = '"+strings.Repeat("z", 100)+"'"), ", ")
}

func deepStructs() string {
	var b strings.Builder
	b.WriteString("class A0(Struct):\n  x = String\nv = A0(x = '{{y}}')\n")
	for i := 1; i < 300; i++ {
		fmt.Fprintf(&b, "class A%d(Struct):\n  x = A%d\nv = A%d(x = v)\n", i, i-1, i)
	}
	return b.String() + "y = str(v)\n"
}

func TestManyJobs(t *testing.T) {
	f, err := spec.Eval(manyJobs(10_000), spec.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range f.Jobs() {
		if e.Err != nil {
			t.Fatal(e.Err)
		}
	}
}
