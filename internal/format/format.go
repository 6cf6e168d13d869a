// Package format is what the formats on disk and on the wire have in common.
// Each carries a version, and a program reads the versions from one back to
// one ahead of its own. A version may add fields and nothing else, and what a
// program does not know it keeps.
//
// A build with the tag nextformat writes every format one version ahead, each
// with something that the build without it does not know: with both, a test
// changes programs under a running cluster, up and down.
package format

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Unknown returns the fields of the JSON object data that v, a struct or a
// pointer to one, has no field for. Data that is no object has none.
func Unknown(data []byte, v any) map[string]json.RawMessage {
	var all map[string]json.RawMessage
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		delete(all, name)
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// Keep returns the JSON object data with unknown at its end.
func Keep(data []byte, unknown map[string]json.RawMessage) ([]byte, error) {
	if len(unknown) == 0 {
		return data, nil
	}
	more, err := json.Marshal(unknown)
	if err != nil || len(data) <= len("{}") {
		return more, err
	}
	return append(append(data[:len(data)-1:len(data)-1], ','), more[1:]...), nil
}
