package pyx

import (
	"maps"
	"strings"
)

// A Host is what a program may see of the world.
type Host struct {
	Names   map[string]Value   // known in every file, beside Python's own
	Modules map[string]*Module // for import
	// Open returns the bytes of a file that open() or include() names, from the
	// file that is running. It may be nil: then there is none.
	Open func(from, path string) (name string, data []byte, err error)
}

// An Interp runs programs that share names and limits. It is used by one
// goroutine.
type Interp struct {
	host     Host
	limits   Limits
	builtins map[string]Value
	modules  map[string]*Module
	methods  methodTables
	globals  *frame
	places   map[string]Pos // where the globals were last assigned
	steps    int
	bytes    int
	calls    int
	nest     int
	files    []string // being run, outermost first
	at       Pos      // of the expression being evaluated, roughly
}

// New returns an interpreter with nothing run yet.
func New(host Host, limits Limits) *Interp {
	in := &Interp{host: host, limits: limits, places: map[string]Pos{}}
	in.globals = &frame{vars: map[string]Value{}, in: in}
	in.builtins, in.modules = builtins(), stdModules()
	in.methods = methodTables{strMethods, listMethods, tupleMethods, dictMethods, setMethods, frozenMethods, fileMethods}
	maps.Copy(in.builtins, host.Names)
	return in
}

// Global returns what a name is bound to after the files have run, and where
// it was last assigned.
func (in *Interp) Global(name string) (v Value, at Pos, ok bool) {
	v, ok = in.globals.vars[name]
	return v, in.places[name], ok
}

// At returns the place that is being evaluated.
func (in *Interp) At() Pos { return in.at }

// Run parses and runs a file. Errors are [*Error].
func (in *Interp) Run(name string, data []byte) error {
	if len(in.files) >= 20 {
		return Errorf("ValueError", "files include each other more than 20 deep: %s", strings.Join(in.files[:5], " -> "))
	}
	prog, err := Parse(NewSource(name, string(data)), in.limits)
	if err != nil {
		return err
	}
	in.files = append(in.files, name)
	fr := in.globals
	ctl, err := in.block(prog.body, fr)
	in.files = in.files[:len(in.files)-1]
	if err == nil && ctl != ctlNone {
		err = ErrorAt(in.at, "SyntaxError", "return, break or continue outside of a function or loop")
	}
	return err
}

// Step counts n steps of work.
func (in *Interp) Step(n int) error {
	in.steps += n
	if in.steps > in.limits.Steps || n < 0 {
		return limitf("the file does not end: it has taken more than %d steps; is there a loop without an end?", in.limits.Steps)
	}
	return nil
}

// Alloc counts n bytes about to be made.
func (in *Interp) Alloc(n int) error {
	if n < 0 || n > in.limits.Bytes-in.bytes {
		return limitf("the file makes more than %d MiB of strings and lists; a configuration needs far less", in.limits.Bytes>>20)
	}
	in.bytes += n
	return in.Step(n >> 12)
}

// AllocTimes counts n times size bytes about to be made.
func (in *Interp) AllocTimes(n int64, size int) error {
	if n <= 0 || size <= 0 {
		return nil
	}
	if n > int64(in.limits.Bytes)/int64(size) {
		return in.Alloc(-1)
	}
	return in.Alloc(int(n) * size)
}

const nestMax = 200 // of values inside values

// Enter counts one level of a walk into nested values; the caller must Leave.
func (in *Interp) Enter() error {
	in.nest++
	if in.nest > nestMax {
		return limitf("values nest deeper than %d, or one holds itself", nestMax)
	}
	return nil
}

// Leave ends what [Interp.Enter] began.
func (in *Interp) Leave() { in.nest-- }

// place gives an error without a place the place at.
func place(err error, at Pos) error {
	if err == nil {
		return nil
	}
	if e, ok := AsError(err); ok {
		if !e.At.IsValid() {
			e.At = at
		}
		return err
	}
	return &Error{At: at, Class: "Exception", Msg: err.Error()}
}

// A frame holds the names of a file, a function or a class body.
type frame struct {
	in      *Interp
	vars    map[string]Value
	parent  *frame // of the text around; nil for the file
	globals map[string]bool
	class   bool // names of a class body are not seen by its functions
	order   []string
	ret     Value
}

func (fr *frame) lookup(name string) (Value, bool) {
	for f := fr; f != nil; f = f.parent {
		if f.class && f != fr {
			continue
		}
		if v, ok := f.vars[name]; ok {
			return v, true
		}
	}
	v, ok := fr.in.builtins[name]
	return v, ok
}

func (fr *frame) set(name string, v Value) {
	f := fr
	if fr.globals[name] {
		f = fr.in.globals
		for p := fr.parent; p != nil; p = p.parent { // nonlocal: the nearest that has it
			if _, ok := p.vars[name]; ok {
				f = p
				break
			}
		}
	}
	if f.class {
		if _, ok := f.vars[name]; !ok {
			f.order = append(f.order, name)
		}
	}
	f.vars[name] = v
}

// names lists what can be named here, for suggestions.
func (fr *frame) names() []string {
	var out []string
	for f := fr; f != nil; f = f.parent {
		for n := range f.vars {
			out = append(out, n)
		}
	}
	for n := range fr.in.builtins {
		out = append(out, n)
	}
	return out
}
