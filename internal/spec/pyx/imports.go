package pyx

import (
	"slices"
	"strings"
)

func (in *Interp) importModule(s *importStmt, fr *frame) error {
	m, err := in.module(s.module)
	if err != nil {
		return err
	}
	if s.as != "" {
		fr.set(s.as, m)
		return nil
	}
	top := s.module
	for i := range len(top) {
		if top[i] == '.' {
			top = top[:i]
			break
		}
	}
	if m, err = in.module(top); err == nil {
		fr.set(top, m)
	}
	return err
}

func (in *Interp) module(name string) (*Module, error) {
	if m, ok := in.host.Modules[name]; ok {
		return m, nil
	}
	if m, ok := in.modules[name]; ok {
		return m, nil
	}
	names := append(keysOf(in.host.Modules), keysOf(in.modules)...)
	if hint := Suggest(name, names); hint != "" {
		return nil, Errorf("ImportError", "the module %s is not available in configuration files%s", name, hint)
	}
	instead, known := elsewhere[strings.Split(name, ".")[0]]
	if !known {
		instead = "share text with include('file.aurora'), run programs in a Process, hand in values with --bind NAME=VALUE"
	}
	return nil, Errorf("ImportError",
		"the module %s is not available in configuration files: they see only what was sent with them, so there is no network, no clock and no other file; %s. What can be imported: %s",
		name, instead, strings.Join(tops(names), ", "))
}

// elsewhere says what to do instead of importing a module that files of other
// systems use.
var elsewhere = map[string]string{
	"datetime": "hand in a time with --bind NAME=VALUE", "time": "hand in a time with --bind NAME=VALUE",
	"random": "a file says the same each time; hand in what changes with --bind NAME=VALUE", "uuid": "hand in what changes with --bind NAME=VALUE",
	"json": "write dicts and lists as they are: they are the same in this language", "yaml": "write dicts and lists as they are",
	"re": "strings have split, replace, startswith and the like", "string": "strings have split, replace, format and the like",
	"math": "there are min, max, abs, round, sum, // and **", "sys": "hand in values with --bind NAME=VALUE",
	"subprocess": "run programs in a Process", "shutil": "work on files in a Process", "glob": "name the files",
	"socket": "ask the network in a Process", "requests": "ask the network in a Process", "urllib": "ask the network in a Process",
	"urllib2": "ask the network in a Process", "httplib": "ask the network in a Process",
}

// tops returns the modules that lie in no other, without those that change
// nothing.
func tops(names []string) []string {
	var out []string
	for _, n := range names {
		if !strings.ContainsAny(n, "._") {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lacks says that a module has no such name.
func (in *Interp) lacks(m *Module, name string) string {
	has := keysOf(m.Names)
	for n := range in.modules {
		if sub, ok := strings.CutPrefix(n, m.Name+"."); ok {
			has = append(has, sub)
		}
	}
	slices.Sort(has)
	s := "the module " + m.Name + " has no " + name + " in configuration files" + Suggest(name, has)
	if m.Why != "" {
		s += ": " + m.Why
	}
	if len(has) > 0 && len(has) <= 12 {
		s += "; it has " + strings.Join(has, ", ")
	}
	return s
}

func (in *Interp) importNames(s *fromStmt, fr *frame) error {
	m, err := in.module(s.module)
	if err != nil {
		return err
	}
	if len(s.names) == 0 {
		for n, v := range m.Names {
			fr.set(n, v)
		}
		return nil
	}
	for i, n := range s.names {
		v, ok := m.Names[n]
		if !ok {
			sub, err := in.module(s.module + "." + n)
			if err != nil {
				return Errorf("ImportError", "%s", in.lacks(m, n))
			}
			v = sub
		}
		fr.set(s.as[i], v)
	}
	return nil
}

func keysOf[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
