package machine

import (
	"cmp"
	"fmt"
)

// An Epoch is one term of a leader. Terms are ordered by incarnation, then by
// number: a restored database starts a new incarnation, and every election
// inside one counts N up.
type Epoch struct {
	Incarnation uint64
	N           uint64
}

// Compare orders epochs, earlier first.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(cmp.Compare(e.Incarnation, o.Incarnation), cmp.Compare(e.N, o.N))
}

// String returns "incarnation.n".
func (e Epoch) String() string { return fmt.Sprintf("%d.%d", e.Incarnation, e.N) }
