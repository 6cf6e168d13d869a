package pyx

import (
	"strings"
	"unicode/utf8"
)

// A file is what open() returns: text in memory and a place in it.
type file struct {
	name string
	text string
	pos  int
}

// TypeName returns "file".
func (f *file) TypeName() string { return "file" }

func (f *file) lines() []string {
	rest := f.text[f.pos:]
	f.pos = len(f.text)
	if rest == "" {
		return nil
	}
	return strings.SplitAfter(strings.TrimSuffix(rest, "\n"), "\n")
}

func (in *Interp) from() string {
	if n := len(in.files); n > 0 {
		return in.files[n-1]
	}
	return ""
}

func (in *Interp) read(a Args) (name string, data []byte, err error) {
	path, ok := a.Pos[0].(string)
	if !ok {
		return "", nil, Errorf("TypeError", "want a file's name; this is %s", article(TypeOf(a.Pos[0])))
	}
	if in.host.Open == nil {
		return "", nil, Errorf("IOError", "there is no file %q: nothing was sent with this one", path)
	}
	name, data, err = in.host.Open(in.from(), path)
	if err != nil {
		return "", nil, Errorf("IOError", "%s", err)
	}
	return name, data, in.Alloc(len(data))
}

func openFunc(in *Interp, a Args) (Value, error) {
	mode, _ := arg(a, 1, "r").(string)
	if m, ok := a.named("mode"); ok {
		mode, _ = m.(string)
	}
	if mode == "" || strings.Trim(mode, "rbtU") != "" {
		return nil, Errorf("IOError", "a configuration can only read files; want open(name)")
	}
	name, data, err := in.read(a)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(data) {
		return nil, Errorf("IOError", "the file %s is not text in UTF-8", name)
	}
	return &file{name: name, text: string(data)}, nil
}

func includeFunc(in *Interp, a Args) (Value, error) {
	name, data, err := in.read(a)
	if err != nil {
		return nil, err
	}
	for i, f := range in.files {
		if f == name {
			return nil, Errorf("ValueError", "files include each other in a circle: %s", strings.Join(append(in.files[i:], name), " -> "))
		}
	}
	return nil, in.Run(name, data)
}

var fileMethods = map[string]goMethod{
	"read": func(in *Interp, self Value, _ Args) (Value, error) {
		f := self.(*file)
		s := f.text[f.pos:]
		f.pos = len(f.text)
		return s, in.Alloc(len(s))
	},
	"readlines": func(in *Interp, self Value, _ Args) (Value, error) {
		items, err := in.Iterate(self)
		return &List{items}, err
	},
	"readline": func(in *Interp, self Value, _ Args) (Value, error) {
		f := self.(*file)
		rest := f.text[f.pos:]
		if i := strings.IndexByte(rest, '\n'); i >= 0 {
			rest = rest[:i+1]
		}
		f.pos += len(rest)
		return rest, in.Alloc(len(rest))
	},
	"close": func(*Interp, Value, Args) (Value, error) { return nil, nil },
}
