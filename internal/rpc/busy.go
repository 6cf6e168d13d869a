package rpc

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/covey-platform/covey/internal/fault"
)

// retryHeader says after how many seconds a call may be made again of which
// nothing has happened: HTTP's own word for it.
const retryHeader = "Retry-After"

// maxRetryAfter bounds what a caller believes of it.
const maxRetryAfter = time.Minute

// Busy is the answer of a server that has too much to do to take a call in:
// nothing of it has happened, and it may be made again after a while, in whole
// seconds. Its kind is Exhausted, here and at the other end.
func Busy(after time.Duration, format string, args ...any) error {
	why := fault.Exhausted.Errorf(format, args...)
	return fault.Exhausted.Errorf("%w", &busyError{max(after.Round(time.Second), time.Second), why.Error()})
}

type busyError struct {
	after time.Duration
	text  string
}

func (e *busyError) Error() string { return e.text }

// RetryAfter returns how long to wait until a call that a busy server did not
// take in may be made again; 0: err is about something else.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*busyError](err); ok {
		return e.after
	}
	return 0
}

// busyToWire puts when to come again into an error's metadata.
func busyToWire(e *busyError) *connect.Error {
	w := connect.NewError(connect.CodeResourceExhausted, errors.New(text(e.text)))
	w.Meta().Set(retryHeader, strconv.Itoa(int(e.after/time.Second)))
	return w
}

// busyFromWire is nil unless the server was too busy.
func busyFromWire(w *connect.Error) error {
	seconds, _ := strconv.Atoi(w.Meta().Get(retryHeader)) // 0 if it says nothing
	if seconds < 1 || w.Code() != connect.CodeResourceExhausted {
		return nil
	}
	return Busy(min(time.Duration(seconds)*time.Second, maxRetryAfter), "%s", w.Message())
}

// patiently makes a call again for as long as the server is too busy for it
// and ctx lives.
func patiently[T any](ctx context.Context, call func() (T, error)) (T, error) {
	for {
		v, err := call()
		wait := RetryAfter(FromWire(err))
		if wait == 0 {
			return v, err
		}
		select {
		case <-ctx.Done():
			return v, err
		case <-time.After(wait/2 + rand.N(wait)): // not all at once
		}
	}
}
