package rpc

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/covey-platform/covey/internal/name"
)

// meant says of a message in JSON with a field that m does not know which one
// was meant, and which there are; it begins with "; " or is empty.
func meant(b []byte, m protoreflect.MessageDescriptor) string {
	wrong, in := unknownField(b, m, deepest)
	if in == nil {
		return ""
	}
	var known, names []string
	for i := range in.Fields().Len() {
		f := in.Fields().Get(i)
		known = append(known, f.JSONName())
		names = append(names, f.JSONName(), string(f.Name()))
	}
	hint := "; "
	if n := name.Nearest(wrong, names); n != "" {
		hint = fmt.Sprintf("; did you mean %q? ", n)
	}
	if len(known) == 0 {
		return hint + string(in.Name()) + " has no fields"
	}
	return hint + string(in.Name()) + " has " + strings.Join(known, ", ")
}

// deepest is how far unknownField looks into messages in messages.
const deepest = 16

// unknownField finds the first field, by name, that a message in JSON has and
// its kind does not; nil when it finds none.
func unknownField(b []byte, m protoreflect.MessageDescriptor, depth int) (wrong string, in protoreflect.MessageDescriptor) {
	var fields map[string]json.RawMessage
	if depth == 0 || m.FullName().Parent() == "google.protobuf" || json.Unmarshal(b, &fields) != nil {
		return "", nil
	}
	for _, n := range slices.Sorted(maps.Keys(fields)) {
		f := m.Fields().ByJSONName(n)
		if f == nil {
			f = m.Fields().ByTextName(n)
		}
		if f == nil {
			return n, m
		}
		for _, v := range messagesOf(fields[n], f) {
			if wrong, in = unknownField(v.json, v.kind, depth-1); in != nil {
				return wrong, in
			}
		}
	}
	return "", nil
}

// A part is a message in JSON inside another.
type part struct {
	json json.RawMessage
	kind protoreflect.MessageDescriptor
}

// messagesOf returns the messages that a field holds.
func messagesOf(v json.RawMessage, f protoreflect.FieldDescriptor) (out []part) {
	switch {
	case f.IsMap():
		kind := f.MapValue().Message()
		var all map[string]json.RawMessage
		if kind == nil || json.Unmarshal(v, &all) != nil {
			return nil
		}
		for _, k := range slices.Sorted(maps.Keys(all)) {
			out = append(out, part{all[k], kind})
		}
	case f.Message() == nil:
	case f.IsList():
		var all []json.RawMessage
		if json.Unmarshal(v, &all) != nil {
			return nil
		}
		for _, x := range all {
			out = append(out, part{x, f.Message()})
		}
	default:
		out = []part{{v, f.Message()}}
	}
	return out
}
