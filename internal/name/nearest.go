package name

import (
	"slices"
	"strings"
)

// Nearest returns the name most like the wrong one, which somebody misspelt, or
// "" when none is near: at most a third of its letters may differ. Ties go to
// the first in order.
func Nearest(wrong string, names []string) string {
	if len(wrong) > 64 || wrong == "" {
		return ""
	}
	names = slices.Clone(names)
	slices.Sort(names)
	best, least := "", max(1, len(wrong)/3)+1
	low := strings.ToLower(wrong)
	for _, n := range names {
		if len(n) > 64 || n == wrong {
			continue
		}
		d := distance(low, strings.ToLower(n))
		if d < least {
			best, least = n, d
		}
	}
	return best
}

// distance counts the letters to insert, drop, change or swap with the next
// to make a into b.
func distance(a, b string) int {
	prev2, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}
