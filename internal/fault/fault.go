// Package fault gives every error in the program a kind.
//
// There are few kinds, and each exists because some caller acts on it: the
// wire turns a kind into a status code, the command line into an exit code,
// and the loops into "try again" or "give up". Everything else about an error
// is text for people: what was wrong, what was wanted, what to do next.
package fault

import (
	"errors"
	"fmt"
)

// A Kind says what a caller can do about an error.
type Kind uint8

// The kinds.
const (
	Internal        Kind = iota // a bug or a broken world; the zero Kind, so nothing is blamed on users by accident
	Invalid                     // the request can never succeed as written
	NotFound                    // the thing named does not exist
	Conflict                    // it exists already, or it changed since you looked; look again
	Denied                      // you may not
	Exhausted                   // a quota, a limit or a capacity is used up
	Unavailable                 // try again later, unchanged
	Timeout                     // a deadline passed; whether it happened is not known
	Unauthenticated             // nobody knows who you are
	Compacted                   // the history asked for is gone; take a fresh list
)

var names = [...]string{
	"internal", "invalid", "not found", "conflict", "denied", "exhausted", "unavailable", "timeout",
	"unauthenticated", "compacted",
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Errorf returns an error of kind k. It wraps operands of %w like [fmt.Errorf].
func (k Kind) Errorf(format string, args ...any) error {
	return &kinded{k, fmt.Errorf(format, args...)}
}

// Of returns the kind of err: the outermost kind in its chain, or Internal.
func Of(err error) Kind {
	if e, ok := errors.AsType[*kinded](err); ok {
		return e.kind
	}
	return Internal
}

type kinded struct {
	kind Kind
	err  error
}

func (e *kinded) Error() string { return e.err.Error() }
func (e *kinded) Unwrap() error { return e.err }
