package rpc

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/covey-platform/covey/internal/fault"
)

// codes pairs each kind of error with the code that carries it.
var codes = [...]struct {
	kind fault.Kind
	code connect.Code
}{
	{fault.Internal, connect.CodeInternal},
	{fault.Invalid, connect.CodeInvalidArgument},
	{fault.NotFound, connect.CodeNotFound},
	{fault.Conflict, connect.CodeAborted},
	{fault.Denied, connect.CodePermissionDenied},
	{fault.Exhausted, connect.CodeResourceExhausted},
	{fault.Unavailable, connect.CodeUnavailable},
	{fault.Timeout, connect.CodeDeadlineExceeded},
	{fault.Unauthenticated, connect.CodeUnauthenticated},
	{fault.Compacted, connect.CodeOutOfRange},
}

// codeOf returns the code that carries k.
func codeOf(k fault.Kind) connect.Code {
	for _, p := range codes {
		if p.kind == k {
			return p.code
		}
	}
	return connect.CodeInternal
}

// kindOf returns the kind that a code stands for. Codes that the server never
// sends by itself come from what lies between.
func kindOf(c connect.Code) fault.Kind {
	for _, p := range codes {
		if p.code == c {
			return p.kind
		}
	}
	switch c {
	case connect.CodeAlreadyExists, connect.CodeFailedPrecondition:
		return fault.Conflict
	case connect.CodeCanceled:
		return fault.Unavailable
	case connect.CodeUnimplemented:
		return fault.Invalid
	default:
		return fault.Internal
	}
}

// toWire returns err as an error of the wire: its kind becomes a code and its
// text stays. What is an error of the wire already stays as it is.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*connect.Error](err); ok {
		return err
	}
	if e, ok := errors.AsType[*elsewhereError](err); ok {
		return elsewhereToWire(e)
	}
	if e, ok := errors.AsType[*busyError](err); ok {
		return busyToWire(e)
	}
	kind := fault.Of(err)
	if kind == fault.Internal {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			kind = fault.Timeout
		case errors.Is(err, context.Canceled):
			return connect.NewError(connect.CodeCanceled, err)
		}
	}
	return connect.NewError(codeOf(kind), errors.New(text(err.Error())))
}

// FromWire returns an error of the wire with its kind, or nil. Its text is the
// message alone, as the server wrote it.
func FromWire(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return err
	}
	if busy := busyFromWire(e); busy != nil {
		return busy
	}
	return kindOf(e.Code()).Errorf("%s", e.Message())
}

// kindByName reads what [fault.Kind.String] wrote; Internal if it is unknown.
func kindByName(s string) fault.Kind {
	for _, p := range codes {
		if p.kind.String() == s {
			return p.kind
		}
	}
	return fault.Internal
}
