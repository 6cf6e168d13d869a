//go:build !nextformat

package rpc

import "google.golang.org/protobuf/proto"

// addNext adds to a message what only the version ahead knows.
func addNext(proto.Message) {}
