package spec_test

import (
	"os"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/spec"
)

// FuzzEval feeds any text: evaluation ends, never panics, and its errors are
// the file's.
func FuzzEval(f *testing.F) {
	for _, c := range corpus(f) {
		f.Add(string(bundle(f, "testdata/aurora", c.File).Files[c.File]))
	}
	f.Add(string(manyJobs(2).Files["many.aurora"]))
	said, err := os.ReadFile(errorsFile)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range strings.Split(string(said), "=== ")[1:] {
		_, rest, _ := strings.Cut(c, "\n")
		text, _, _ := strings.Cut(rest, "---\n")
		f.Add(text)
	}
	f.Add("jobs = [Job(cluster = 'c', role = '{{a}}', environment = 'prod', name = '{{b.{{c}}[0]}}', task = SimpleTask('t', '{{&x}} {{{y}}}')).bind({'a.b[c]': 1}, a = Environment(b = 2))]")
	f.Add("x = '%(a)5.2f|%-3s|%x' % {'a': 1}\ny = '{0:>{1}}{a[k].b!r:^9}'.format(1, 2, a = {})\nz = f'{x!r:>10}{{}}'")
	f.Add("try:\n  raise ValueError('x')\nexcept (KeyError, ValueError) as e:\n  pass\nfinally:\n  del e\nwith open('a.aurora') as g: h = [l for l in g if l if not l.strip()]\n")
	f.Add("class A(Struct):\n  x = Default(List(Choice([Integer, String])), [])\n  y = Required(Map(String, Enum('a', 'b')))\nz = A(y = {'k': 'a'}, x = [1, 'b'])\nw = [i for i in z.x()] + sorted(set([z, z]))\n")
	limits := spec.DefaultLimits()
	limits.Program.Steps, limits.Program.Bytes = 100_000, 4<<20
	f.Fuzz(func(t *testing.T, text string) {
		file, err := spec.Eval(one(text), limits)
		if err != nil {
			if fault.Of(err) != fault.Invalid {
				t.Errorf("the error is %v: %v", fault.Of(err), err)
			}
			return
		}
		for _, e := range file.Jobs() {
			if e.Err == nil {
				if _, err := e.Job.Config.Encode(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
