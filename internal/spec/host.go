package spec

import (
	"path"
	"strings"

	"github.com/covey-platform/covey/internal/spec/pyx"
)

// host gives a program what it may see: the schema, the bundle's files and
// the user's name.
func host(b Bundle, s *schema, read func(string) ([]byte, error)) pyx.Host {
	all := &pyx.Module{Name: "schema", Names: s.names}
	user := &pyx.Builtin{Name: "getpass.getuser", Fn: func(_ *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		if len(a.Pos)+len(a.Kw) > 0 {
			return nil, pyx.Errorf("TypeError", "getpass.getuser takes no arguments")
		}
		if b.User == "" {
			return nil, pyx.Errorf("KeyError", "nobody's name was sent with this configuration")
		}
		return b.User, nil
	}}
	h := pyx.Host{Names: s.names, Modules: map[string]*pyx.Module{
		"getpass": {Name: "getpass", Names: map[string]pyx.Value{"getuser": user}},
		"os":      osModule(b.User),
		"twitter": {Name: "twitter"},
	}}
	for _, n := range []string{
		"pystachio", "pystachio.basic", "pystachio.composite", "pystachio.container", "pystachio.naming", "apache", "apache.aurora", "apache.aurora.config",
		"apache.aurora.config.schema", "apache.aurora.config.schema.base", "apache.thermos", "apache.thermos.config", "apache.thermos.config.schema",
		"apache.thermos.config.schema_base", "apache.thermos.config.schema_helpers",
	} {
		h.Modules[n] = all
	}
	h.Open = func(from, name string) (string, []byte, error) {
		full := path.Clean(name)
		if !strings.HasPrefix(name, "/") {
			full = path.Join(path.Dir(from), name)
		}
		data, err := read(full)
		return full, data, err
	}
	return h
}

// osModule is the part of os that files use. The environment holds the names
// of the user and of no one's machine.
func osModule(user string) *pyx.Module {
	vars := map[string]string{}
	if user != "" {
		vars = map[string]string{"USER": user, "LOGNAME": user, "HOME": "/home/" + user}
	}
	get := func(_ *pyx.Interp, a pyx.Args) (pyx.Value, error) {
		if len(a.Pos) < 1 || len(a.Pos) > 2 || len(a.Kw) > 0 {
			return nil, pyx.Errorf("TypeError", "want a variable's name and, if you like, what holds when it is not set")
		}
		name, _ := a.Pos[0].(string)
		if v, ok := vars[name]; ok {
			return v, nil
		}
		if len(a.Pos) == 2 {
			return a.Pos[1], nil
		}
		return nil, nil
	}
	return &pyx.Module{Name: "os", Why: noMachine, Names: map[string]pyx.Value{
		"environ": &environ{vars, get}, "getenv": &pyx.Builtin{Name: "os.getenv", Fn: get}, "sep": "/", "linesep": "\n",
	}}
}

const noMachine = "they see no disk, no process and no machine, only what was sent with them; run programs in a Process, hand in values with --bind NAME=VALUE"

// environ is os.environ.
type environ struct {
	vars map[string]string
	get  func(*pyx.Interp, pyx.Args) (pyx.Value, error)
}

// TypeName returns "environment".
func (*environ) TypeName() string { return "environment" }

// Attr gives environ.get.
func (e *environ) Attr(_ *pyx.Interp, name string) (pyx.Value, bool, error) {
	if name == "get" {
		return &pyx.Builtin{Name: "os.environ.get", Fn: e.get}, true, nil
	}
	return nil, false, nil
}

// AttrNames lists what can follow the dot.
func (*environ) AttrNames() []string { return []string{"get"} }

// Index gives a variable.
func (e *environ) Index(_ *pyx.Interp, key pyx.Value) (pyx.Value, error) {
	name, _ := key.(string)
	if v, ok := e.vars[name]; ok {
		return v, nil
	}
	return nil, pyx.Errorf("KeyError", "the variable %s is not set: a configuration sees only USER, LOGNAME and HOME; use --bind to hand in values", show(key))
}

// Iterate gives the names of the variables.
func (e *environ) Iterate(*pyx.Interp) ([]pyx.Value, error) {
	var out []pyx.Value
	for _, n := range []string{"HOME", "LOGNAME", "USER"} {
		if _, ok := e.vars[n]; ok {
			out = append(out, n)
		}
	}
	return out, nil
}
