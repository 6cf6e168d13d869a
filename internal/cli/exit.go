package cli

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/trust"
)

// The exit codes, Aurora's.
const (
	OK               = 0
	InvalidConfig    = 3   // a configuration file is wrong
	CommandFailed    = 4   // what was asked for was done, and did not turn out well
	InvalidCommand   = 5   // there is no such command or flag, or arguments are missing
	InvalidParameter = 6   // an argument or a flag has a bad value, or names nothing
	NetworkError     = 7   // the server is not reached
	TimedOut         = 9   // a wait reached its end; what was asked for may still happen
	APIError         = 10  // the server refuses, or failed
	Unknown          = 20  // anything else
	NotAllowed       = 30  // nobody knows you, or you may not
	Interrupted      = 130 // Ctrl-C
)

// exit is an error with an exit code.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string { return e.err.Error() }
func (e *exit) Unwrap() error { return e.err }

func exitf(code int, format string, args ...any) error {
	return &exit{code, fmt.Errorf(format, args...)}
}

func badCommand(format string, args ...any) error { return exitf(InvalidCommand, format, args...) }

func badParameter(format string, args ...any) error { return exitf(InvalidParameter, format, args...) }

// exitCode returns the code for what a command ended with.
func exitCode(ctx context.Context, err error) int {
	if err == nil {
		return OK
	}
	if ctx.Err() != nil && isInterrupt(err) {
		return Interrupted
	}
	if e, ok := errors.AsType[*exit](err); ok {
		return e.code
	}
	if e, ok := errors.AsType[*connect.Error](err); ok {
		return connectCode(e)
	}
	switch fault.Of(err) {
	case fault.Invalid, fault.NotFound:
		return InvalidParameter
	case fault.Conflict, fault.Exhausted, fault.Compacted:
		return APIError
	case fault.Unavailable:
		return NetworkError
	case fault.Timeout:
		return TimedOut
	case fault.Denied, fault.Unauthenticated:
		return NotAllowed
	case fault.Internal:
	}
	return Unknown
}

// connectCode tells what a server said from what happened on the way to it.
func connectCode(e *connect.Error) int {
	if !connect.IsWireError(e) {
		switch e.Code() {
		case connect.CodeDeadlineExceeded:
			return TimedOut
		case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeCanceled:
			return NetworkError
		default:
		}
	}
	switch e.Code() {
	case connect.CodeInvalidArgument, connect.CodeNotFound:
		return InvalidParameter
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return NotAllowed
	case connect.CodeDeadlineExceeded:
		return TimedOut
	default:
		return APIError
	}
}

// isInterrupt reports whether err comes of the end of the command's context.
func isInterrupt(err error) bool {
	return errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled
}

// message is what people read of an error.
func message(err error) string {
	if p := trust.ProblemOf(err); p != nil {
		return "the server is not reached: " + p.Error()
	}
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return err.Error()
	}
	if connect.IsWireError(e) || e.Code() == connect.CodeInternal {
		return e.Message()
	}
	switch e.Code() {
	case connect.CodeDeadlineExceeded:
		return "the server did not answer in time: " + e.Message()
	case connect.CodeUnavailable, connect.CodeUnknown:
		return "the server is not reached: " + e.Message() + "; see that it runs and that --server is right"
	default:
		return e.Message()
	}
}
