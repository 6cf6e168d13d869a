//go:build !nextformat

package format

// Ahead is how many versions this build writes ahead of the program's own.
const Ahead = 0

// Fields are fields of a JSON object that only the version ahead knows.
type Fields struct{}

// Added returns them.
func Added() Fields { return Fields{} }

// AppendAdded appends to a binary item what only the version ahead knows.
func AppendAdded(b []byte) []byte { return b }
