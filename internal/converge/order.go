package converge

import (
	"maps"
	"slices"
)

// sorted returns the keys of a set in order, so that no decision follows the
// order of a map.
func sorted[K comparable](set map[K]bool, compare func(a, b K) int) []K {
	return slices.SortedFunc(maps.Keys(set), compare)
}
