package rpc

import (
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/covey-platform/covey/internal/fault"
)

// strictJSON reads JSON in which every field must be known. Scripts and people
// write it, and a misspelt field would be a question that was not asked: one
// that names the instances to kill would kill them all. The binary form, which
// programs of other versions speak, keeps unknown fields as ever.
type strictJSON struct{ name string }

// The names under which JSON comes: its content types without the prefix.
var jsonNames = [...]string{"json", "json; charset=utf-8"}

// Name implements [connect.Codec].
func (c strictJSON) Name() string { return c.name }

// Marshal implements [connect.Codec].
func (strictJSON) Marshal(m any) ([]byte, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, fault.Internal.Errorf("%T is no message", m)
	}
	return protojson.Marshal(p)
}

// Unmarshal implements [connect.Codec].
func (strictJSON) Unmarshal(b []byte, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return fault.Internal.Errorf("%T is no message", m)
	}
	if len(b) == 0 {
		return fault.Invalid.Errorf("the body is empty; want a JSON object, {} at the least")
	}
	err := protojson.Unmarshal(b, p)
	if err == nil || !strings.Contains(err.Error(), "unknown field") {
		return err
	}
	return fault.Invalid.Errorf("%w%s", err, meant(b, p.ProtoReflect().Descriptor()))
}
