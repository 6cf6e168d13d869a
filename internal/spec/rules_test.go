package spec_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/spec"
)

// A broken is a job that breaks one rule of the domain: the fields of a Job
// beside a key and a task, or those of its Task. « stands before the place that
// an error must name.
type broken struct {
	job, task string
	said      string // where spec says it first, in words of its own: part of that
	never     string // why no file can break the rule
}

// rules are all that a server refuses of a job (job.Job.Validate), by the text.
var rules = map[string]broken{
	"it has %d instances; want 1 to %d":                                  {job: `«instances = 4001`, said: "instances is 4001; want 1 to"},
	"its instances %v are not in order, or some of them twice":           {never: "a file says a number"},
	"tier %.40q is not known; want preferred, preemptible or revocable":  {job: `«tier = 'gold'`, said: "tier is 'gold'"},
	"placement %.40q is not known; want spread, or nothing for best fit": {job: `«placement = 'spreed'`, said: "did you mean spread"},
	"max_task_failures is %d; want 1 or more, or -1 for ever":            {job: `«max_task_failures = -2`, said: "max_task_failures is -2"},
	"it has %d metadata; want at most %d":                                {job: `«metadata = [Metadata(key = str(i), value = 'x') for i in range(101)]`},
	"it has %d constraints; want at most %d":                             {job: `«constraints = dict([('a%d' % i, 'x') for i in range(33)])`},
	"%w":                                                                 {job: `constraints = {«'a b': 'x'}`, said: "constraints is wrong: attribute"},
	"the constraint on %s holds a control character; leave it out":       {job: `constraints = {'host': 'limit:1', «'rack': 'a\x01'}`},
	"the constraint on %s says several things, or spreads over less than 1; want values, or a limit, or a spread, or a job": {never: "a constraint is one text"},
	"the constraint on %s: %w": {job: `constraints = {«'rack': 'with:a/b'}`, said: "want role/env/name"},
	"the constraint on %s has neither values nor a limit of 1 or more":   {job: `constraints = {«'rack': ''}`, said: "constraints['rack'] has no value"},
	"the constraint on %s has both values and a limit; want one of them": {never: "a constraint is one text"},
	"%v is %d; want %d to 2^55":                                          {task: `resources = Resources(cpu = 1, «ram = 2**58, disk = 1*MB)`},
	"its instances ask for more %v together than can be counted":         {job: `instances = 4000`, task: `resources = Resources(cpu = 1, «ram = 2**55, disk = 1*MB)`},
	"ram and disk are %d and %d bytes; want 1 MiB or more, in whole MiB": {task: `resources = Resources(cpu = 1, «ram = 64, disk = 1*MB)`, said: "less than one MiB"},
	"gpu is %s; want a share below 1 or whole GPUs":                      {task: `resources = Resources(cpu = 1, ram = 1*MB, disk = 1*MB, «gpu = 1.5)`, said: "want a share below 1"},
	"it names %d ports; want at most %d":                                 {task: `processes = [Process(name = 'p', «cmdline = ' '.join(['{{thermos.ports[p%d]}}' % i for i in range(65)]))]`, said: "a task has at most 64"},
	"it names a port that is wrong: %w":                                  {task: `processes = [Process(name = 'p', «cmdline = '{{thermos.ports[a b]}}')]`, said: "thermos.ports"},
	"it names port %s twice":                                             {never: "what is named twice is one port"},
	"its task has user %.40q; want the role, %q, as which its tasks run; leave user out, or give the job the role %.40q": {task: `«user = 'root'`},
	"%s of its task is %d; want %d to %d":                                                           {task: `«finalization_wait = -1`, said: "task.finalization_wait is -1"},
	"its task has %d processes; want 1 to %d":                                                       {task: `«processes = [Process(name = 'p%d' % i, cmdline = 'x') for i in range(3000)]`},
	"process %s has no cmdline":                                                                     {task: `processes = [Process(name = 'p', cmdline = 'x'), Process(name = 'q', «cmdline = ' ')]`},
	"process %s has a cmdline of %d bytes; want at most %d":                                         {task: `processes = [Process(name = 'p', «cmdline = 'x' * 2000000)]`},
	"process %s has a NUL byte in its cmdline":                                                      {task: `processes = [Process(name = 'p', «cmdline = 'a\x00b')]`},
	"%s of process %s is %d; want %d to %d":                                                         {task: `processes = [Process(name = 'p', cmdline = 'x', «min_duration = 10**9)]`},
	"its task has %d artifacts; want at most %d":                                                    {task: `«artifacts = [Artifact(uri = 'file:///x', path = 'x%d' % i) for i in range(33)]`},
	"an artifact has a URI of %d bytes; want 1 to %d":                                               {task: `artifacts = [Artifact(«uri = 'file:///' + 'x' * 5000, path = 'x')]`},
	"artifact %.100q has a path of %d bytes; want at most %d":                                       {task: `artifacts = [Artifact(uri = 'file:///x', «path = 'x' * 5000)]`},
	"artifact %.100q goes to %.100q; want a path below the sandbox, not in %s or %s, and not %s":    {task: `artifacts = [Artifact(uri = 'file:///x', path = 'x'), Artifact(uri = 'file:///x', «path = '.logs/a.txt')]`},
	"its partition policy waits %d s; want 0 to %d, a year":                                         {job: `partition_policy = PartitionPolicy(«delay_secs = 10**9)`},
	"%s of its lifecycle is %d s; want %d to %d, a year":                                            {job: `lifecycle = LifecycleConfig(http = HttpLifecycleConfig(port = 'health', «shutdown_wait_secs = 10**9))`, task: ported, said: "lifecycle.http.shutdown_wait_secs is"},
	"its health check has both or neither of http and shell; want one":                              {never: "shell wins over http, and neither is no check"},
	"its health check asks port %q, which the task does not name":                                   {job: `«health_check_config = HealthCheckConfig(health_checker = HealthCheckerConfig(http = HttpHealthChecker(endpoint = '/{{thermos.ports[http]}}')))`, task: ported, said: "http"},
	"%s of its health check is %d ms; want a time of %d to %d ms, a year":                           {job: `health_check_config = HealthCheckConfig(«interval_secs = 10**8)`, task: ported},
	"%s of its health check is %d; want %d or more":                                                 {job: `health_check_config = HealthCheckConfig(«max_consecutive_failures = -1)`, said: "max_consecutive_failures is -1"},
	"task %.80q has no process; want at least one":                                                  {task: `name = 't', «processes = []`, said: "wants at least one Process"},
	"task has two processes named %q; give each its own name":                                       {task: `processes = [Process(name = 'p', cmdline = 'x'), Process(«name = 'p', cmdline = 'x')]`, said: "as another process"},
	"a process has no name; give it one":                                                            {task: `processes = [«Process(cmdline = 'x')]`, said: "task.processes[0].name is missing"},
	"process name %.20q... has %d bytes; want at most %d":                                           {task: `processes = [Process(«name = 'p' * 129, cmdline = 'x')]`, said: "at most 128 bytes"},
	"process name %q starts with a period; choose another":                                          {task: `processes = [Process(«name = '.p', cmdline = 'x')]`, said: "does not begin with '.'"},
	"process name %q holds a slash; its logs need a plain file name":                                {task: `processes = [Process(«name = 'a/p', cmdline = 'x')]`, said: "without '/'"},
	"process name %q holds a control character; choose another":                                     {task: `processes = [Process(«name = 'p\x01', cmdline = 'x')]`, said: "want a name"},
	"order names process %.80q, which the task does not have; its processes are %s":                 {task: two + `, constraints = [Constraint(«order = ['p', 'r'])]`, said: "which the task does not have"},
	"order %s joins final processes with others; final ones run after all others by themselves":     {task: final + `, constraints = [Constraint(«order = ['p', 'q'])]`, said: "mixes ordinary and final"},
	"process %q may not wait for %q: a daemon never completes":                                      {task: strings.Replace(final, "final", "daemon", 1) + `, constraints = [Constraint(«order = ['q', 'p'])]`, said: "wait for the daemon"},
	"process %q may not wait for the ephemeral process %q; make it ephemeral too or drop the order": {task: strings.Replace(final, "final", "ephemeral", 1) + `, constraints = [Constraint(«order = ['q', 'p'])]`, said: "wait for the ephemeral"},
	"processes wait for each other in a circle: %s; remove one step of this order":                  {task: two + `, «constraints = order('p', 'q') + order('q', 'p')`, said: "in a circle"},
}

const (
	ported = `processes = [Process(name = 'p', cmdline = 'serve {{thermos.ports[health]}}')]`
	two    = `processes = [Process(name = 'p', cmdline = 'x'), Process(name = 'q', cmdline = 'x')]`
	final  = `processes = [Process(name = 'p', cmdline = 'x'), Process(name = 'q', cmdline = 'x', final = True)]`
)

// file is a configuration with the broken job, and the place to name.
func (b broken) file() (text, at string) {
	task := b.task
	if !strings.Contains(task, "processes =") {
		task += "\n  , processes = [Process(name = 'p', cmdline = 'x')]"
	}
	if !strings.Contains(task, "resources =") {
		task += "\n  , resources = Resources(cpu = 1, ram = 1*MB, disk = 1*MB)"
	}
	text = "jobs = [Job(cluster = 'c', role = 'r', environment = 'prod', name = 'n',\n  " + b.job + "\n  , task = Task(\n  " +
		strings.TrimLeft(task, " \n,") + "))]\n"
	text = strings.Replace(text, "\n  \n  , task", "\n  task", 1)
	before, after, _ := strings.Cut(text, "«")
	line := before[strings.LastIndexByte(before, '\n')+1:]
	return before + after, fmt.Sprintf("a.aurora:%d:%d", strings.Count(before, "\n")+1, len(line)+1)
}

// TestRules breaks every rule by which a server accepts a job in a file: each
// is refused at the place that is wrong, in the server's words or in better
// ones. A rule that is not in the table fails.
func TestRules(t *testing.T) {
	want := formats(t, "../job/validate.go", "../job/plan.go")
	for _, f := range want {
		if _, ok := rules[f]; !ok {
			t.Errorf("the rule %q is not tried: break it in a file, and see that the error names the place", f)
		}
	}
	for f, b := range rules {
		switch {
		case !slices.Contains(want, f):
			t.Errorf("there is no rule %q any more", f)
		case b.never == "":
			t.Run(f, func(t *testing.T) { breaks(t, f, b) })
		}
	}
}

func breaks(t *testing.T, format string, b broken) {
	text, at := b.file()
	e := eval(t, one(text))[0]
	je, ok := errors.AsType[*spec.JobError](e.Err)
	if !ok {
		t.Fatalf("%s\nis taken, or refused without a place: %v", text, e.Err)
	}
	if got := je.At.String(); got != at {
		t.Errorf("the place is %s; want %s:\n%v", got, at, e.Err)
	}
	words := regexp.MustCompile(`%(\\\.)?\d*[a-z]`).ReplaceAllString("^.*: job c/r/prod/n: "+regexp.QuoteMeta(format)+"$", ".*")
	if b.said != "" {
		words = regexp.QuoteMeta(b.said)
	}
	if first, _, _ := strings.Cut(e.Err.Error(), "\n"); !regexp.MustCompile(words).MatchString(first) {
		t.Errorf("said: %s\nwant: %s", first, words)
	}
}

// formats returns the texts of all rules, and fails where something is refused
// without a field.
func formats(t *testing.T, files ...string) []string {
	t.Helper()
	found := map[string]bool{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name == "bad" {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch to := call.Fun.(type) {
				case *ast.Ident:
					if to.Name == "bad" {
						found[literal(t, call.Args[1])] = true
					}
				case *ast.SelectorExpr:
					if to.Sel.Name == "Errorf" {
						t.Errorf("%s: %s refuses something without saying its field; want bad(...)", name, fn.Name.Name)
					}
				}
				return true
			})
		}
	}
	if len(found) < 40 {
		t.Errorf("%d rules found; want 40 or more", len(found))
	}
	return slices.Sorted(maps.Keys(found))
}

func literal(t *testing.T, e ast.Expr) string {
	t.Helper()
	l, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatalf("the text of a rule is no literal")
	}
	s, err := strconv.Unquote(l.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
