//go:build nextformat

package rpc

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// addNext adds to a message what only the version ahead knows.
func addNext(m proto.Message) {
	const field = 2000
	m.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), "added"))
}
