// Package spec turns configuration files (.aurora: Aurora's language, Python
// that declares) into jobs. It is hermetic: a file sees the files sent with
// it, the name of the user who sent it and nothing else; the same bundle gives
// the same bytes everywhere. It is bounded: whatever a file says, evaluation
// ends. Errors are of kind Invalid and name file, line and column, what is
// wrong and what was wanted.
package spec

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/spec/pyx"
)

// A Bundle is everything that evaluation depends on.
type Bundle struct {
	Main    string            // name of the file to evaluate
	Files   map[string][]byte // by slash-separated path, Main among them
	User    string            // who sends it: the answer of getpass.getuser()
	Binds   []string          // name=value, as --bind gives them; they win over .bind()
	Cluster string            // when set, jobs of other clusters are listed but not lowered
}

// Limits bounds one evaluation. Each field must be positive.
type Limits struct {
	Program     pyx.Limits
	BundleBytes int // of all files together; one file: Program.FileBytes
	Files       int
	Jobs        int
}

// DefaultLimits returns the limits of this version.
func DefaultLimits() Limits {
	return Limits{Program: pyx.DefaultLimits(), BundleBytes: 8 << 20, Files: 500, Jobs: 10_000}
}

// A Loader reads a file that an evaluation names, by its slash-separated path
// from where the main file's path starts. It decides what may be read.
type Loader func(path string) ([]byte, error)

// A File is an evaluated configuration.
type File struct {
	Hooks   []string // classes of the client hooks that the file defines
	entries []Entry
}

// An Entry is one job of a file. Err says why the job cannot run; Raw is set
// as far as the job is complete and consistent, also when this version cannot
// run it.
type Entry struct {
	Cluster string
	Key     string // role/environment/name; "?" stands for a part that is missing
	At      string // file:line:col of the job
	Job     job.Job
	Err     error
	Raw     []byte // canonical JSON of the job with its names bound, in Aurora's form
}

// Collect evaluates the file main with what load gives, and returns the
// bundle of every file that was read. It reports the first error of the file,
// not those of single jobs.
func Collect(main, user string, binds []string, load Loader, limits Limits) (Bundle, *File, error) {
	b := Bundle{Main: path.Clean(main), User: user, Binds: binds, Files: map[string][]byte{}}
	total := 0
	read := func(name string) ([]byte, error) {
		if data, ok := b.Files[name]; ok {
			return data, nil
		}
		data, err := load(name)
		if err != nil {
			return nil, unread(name, b.Main, err)
		}
		if len(data) > limits.Program.FileBytes {
			return nil, unread(name, b.Main, tooLong(limits))
		}
		if total += len(data); total > limits.BundleBytes || len(b.Files) >= limits.Files {
			return nil, tooBig(limits)
		}
		b.Files[name] = data
		return data, nil
	}
	f, err := eval(b, read, limits)
	return b, f, err
}

// unread names the file that cannot be read, unless it is the main one, of
// which [eval] says so.
func unread(name, main string, err error) error {
	if name == main {
		return err
	}
	return fmt.Errorf("cannot read %s: %w", name, err)
}

func tooLong(limits Limits) error {
	return fmt.Errorf("it has more than %d MiB; a file of a configuration may have at most so much", limits.Program.FileBytes>>20)
}

func tooBig(limits Limits) error {
	return fmt.Errorf("the files of this configuration are too many or too large; want at most %d with %d MiB together", limits.Files, limits.BundleBytes>>20)
}

// Eval evaluates a bundle.
func Eval(b Bundle, limits Limits) (*File, error) {
	total := 0
	for _, n := range slices.Sorted(maps.Keys(b.Files)) {
		if total += len(b.Files[n]); len(b.Files[n]) > limits.Program.FileBytes {
			return nil, fault.Invalid.Errorf("cannot read %s: %w", n, tooLong(limits))
		}
	}
	if total > limits.BundleBytes || len(b.Files) > limits.Files {
		return nil, fault.Invalid.Errorf("%w", tooBig(limits))
	}
	b.Main = path.Clean(b.Main)
	read := func(name string) ([]byte, error) {
		if data, ok := b.Files[name]; ok {
			return data, nil
		}
		names := make([]string, 0, len(b.Files))
		for n := range b.Files {
			names = append(names, n)
		}
		return nil, fmt.Errorf("there is no file %s among those sent%s; a configuration sees no other files", name, pyx.Suggest(name, names))
	}
	return eval(b, read, limits)
}

func eval(b Bundle, read func(string) ([]byte, error), limits Limits) (*File, error) {
	data, err := read(b.Main)
	if err != nil {
		return nil, fault.Invalid.Errorf("cannot read %s: %w", b.Main, err)
	}
	s := newSchema()
	in := pyx.New(host(b, s, read), limits.Program)
	if err = in.Run(b.Main, data); err != nil {
		return nil, invalid(err)
	}
	ev := &evaluation{in: in, schema: s, bundle: b, start: pyx.Pos{Src: pyx.NewSource(b.Main, string(data))}}
	if err = ev.bindings(); err != nil {
		return nil, invalid(err)
	}
	f := &File{}
	if err = ev.hooks(f); err != nil {
		return nil, invalid(err)
	}
	jobs, err := ev.jobs(limits.Jobs)
	if err != nil {
		return nil, invalid(err)
	}
	for _, j := range jobs {
		f.entries = append(f.entries, ev.entry(j))
	}
	if err = ev.untaken(jobs, f.entries); err != nil {
		return nil, invalid(err)
	}
	return f, nil
}

// invalid gives an evaluation's error its kind.
func invalid(err error) error { return fault.Invalid.Errorf("%w", err) }

// Jobs returns every job of the file in order. Those of one key cannot run:
// each has an error that says so.
func (f *File) Jobs() []Entry {
	byKey := map[string][]Entry{}
	for _, e := range f.entries {
		byKey[e.Cluster+"/"+e.Key] = append(byKey[e.Cluster+"/"+e.Key], e)
	}
	out := slices.Clone(f.entries)
	for i, e := range out {
		k := e.Cluster + "/" + e.Key
		if same := byKey[k]; len(same) > 1 && e.Err == nil {
			out[i].Err = ambiguous(k, same)
		}
	}
	return out
}

// Select returns the job that a key (cluster/role/environment/name) names, or
// else the first that may be meant by it and can have no key as it is. A job that
// cannot run is returned with its error.
func (f *File) Select(key string) (Entry, error) {
	var found, partly []Entry
	names := make([]string, 0, len(f.entries))
	for _, e := range f.entries {
		k := e.Cluster + "/" + e.Key
		switch {
		case e.Err != nil && couldBe(k, key):
			partly = append(partly, e)
		case k == key:
			found = append(found, e)
		}
		names = append(names, k)
	}
	switch {
	case len(found) == 1:
		return found[0], found[0].Err
	case len(found) == 0 && len(partly) > 0:
		return partly[0], partly[0].Err
	case len(found) == 0:
		list := strings.Join(names[:min(len(names), 10)], ", ")
		if len(names) > 10 {
			list += fmt.Sprintf(" and %d more", len(names)-10)
		}
		return Entry{}, fault.NotFound.Errorf("the file has no job %.200q%s; it has %s", key, pyx.Suggest(key, names), list)
	}
	return Entry{}, ambiguous(key, found)
}

// couldBe reports whether a job of a file that can have no key yet, since the
// file leaves parts of it out, each of them "?", or names an environment that
// nobody has, is like a key in all its other parts.
func couldBe(parts, key string) bool {
	have, want := strings.Split(parts, "/"), strings.Split(key, "/")
	if len(have) != 4 || len(want) != 4 {
		return false
	}
	open := false
	for i, p := range have {
		free := p == "?" || i == 2 && job.NewKey("role", p, "name").Validate() != nil
		if !free && p != want[i] {
			return false
		}
		open = open || free
	}
	return open
}

// ambiguous says that one key names several jobs.
func ambiguous(key string, found []Entry) error {
	return fault.Invalid.Errorf("the file defines the job %s %d times (%s and %s); give one of them another name",
		key, len(found), found[0].At, found[1].At)
}

// evaluation is what lowering needs of a file that has run.
type evaluation struct {
	in     *pyx.Interp
	schema *schema
	bundle Bundle
	binds  *env
	start  pyx.Pos // of the main file
	at     pyx.Pos // of the list of jobs
}

func (ev *evaluation) hooks(f *File) error {
	v, at, ok := ev.in.Global("hooks")
	if !ok {
		return nil
	}
	list, ok := items(v)
	if !ok {
		return pyx.ErrorAt(at, "TypeError", "hooks is %s; want a list: hooks = [...]", typeOf(v))
	}
	for _, h := range list {
		f.Hooks = append(f.Hooks, pyx.TypeOf(h))
	}
	return nil
}

func (ev *evaluation) jobs(most int) ([]*object, error) {
	v, at, ok := ev.in.Global("jobs")
	if !ok {
		return nil, pyx.ErrorAt(ev.start, "NameError", "this file defines no jobs; want a list of them: jobs = [...]")
	}
	ev.at = at
	list, ok := items(v)
	if !ok {
		return nil, pyx.ErrorAt(at, "TypeError", "jobs is %s; want a list: jobs = [...]", typeOf(v))
	}
	if len(list) == 0 {
		return nil, pyx.ErrorAt(at, "ValueError", "the list jobs is empty; want at least one job")
	}
	if len(list) > most {
		return nil, pyx.ErrorAt(at, "ValueError", "this file defines %d jobs; want at most %d", len(list), most)
	}
	out := make([]*object, len(list))
	for i, x := range list {
		o, ok := x.(*object)
		if !ok || !o.typ.is(ev.schema.types["Job"]) {
			return nil, pyx.ErrorAt(at, "TypeError", "jobs[%d] is %s; want Job(...) or Service(...)", i, typeOf(x))
		}
		out[i] = o
	}
	return out, nil
}

// entry lowers one job.
func (ev *evaluation) entry(o *object) Entry {
	l := &lowering{evaluation: ev, job: o}
	at := o.at
	if !at.IsValid() {
		at = ev.at
	}
	e := Entry{At: at.String()}
	err := l.run(&e)
	if err == nil {
		return e
	}
	label := e.Cluster + "/" + e.Key
	if fe, ok := errors.AsType[*fieldError](err); ok && fe.at.IsValid() {
		at = fe.at
	}
	if pe, ok := pyx.AsError(err); ok && pe.At.IsValid() {
		at = pe.At
	}
	e.Err = fault.Invalid.Errorf("%w", &JobError{Job: label, At: at, err: err})
	return e
}

// A JobError says what is wrong with one job of a file.
type JobError struct {
	Job string // cluster/role/environment/name
	At  pyx.Pos
	err error
}

// Error returns "file:line:col: job KEY: field is wrong; want ..." and the line.
func (e *JobError) Error() string {
	text := e.err.Error()
	if fe, ok := errors.AsType[*fieldError](e.err); ok {
		text = fe.Error()
		if pe, ok := pyx.AsError(fe.err); ok {
			text = fe.name() + ": " + pe.Msg
		}
	} else if pe, ok := pyx.AsError(e.err); ok {
		text = pe.Msg
	}
	if s := e.At.Snippet(); s != "" {
		text += "\n" + s
	}
	return fmt.Sprintf("%s: job %s: %s", e.At, e.Job, text)
}

// Unwrap returns what is wrong.
func (e *JobError) Unwrap() error { return e.err }
