package pyx

import (
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/name"
)

// Suggest returns "; did you mean X?" with the name most like the wrong one,
// or "" when none is near. What the language keeps to itself is never meant.
func Suggest(wrong string, names []string) string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.HasPrefix(n, "__") })
	if n := name.Nearest(wrong, names); n != "" {
		return "; did you mean " + n + "?"
	}
	return ""
}
