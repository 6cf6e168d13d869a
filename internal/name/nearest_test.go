package name

import "testing"

// The nearest name is one that a slip of the hand makes into the wrong one.
func TestNearest(t *testing.T) {
	known := []string{"cluster", "role", "environment", "instances", "instance_ids", "key"}
	for _, c := range []struct{ wrong, want string }{
		{"clutser", "cluster"}, // two letters swapped
		{"rol", "role"},        // one dropped
		{"Roles", "role"},      // one added, and a capital
		{"envronmnt", "environment"},
		{"instance", "instances"},
		{"instanceIds", "instance_ids"},
		{"keys", "key"},
		{"kex", "key"},
		{"xyz", ""}, // too far from everything
		{"", ""},
		{"role", ""}, // it is none of the others
	} {
		if got := Nearest(c.wrong, known); got != c.want {
			t.Errorf("Nearest(%q) = %q; want %q", c.wrong, got, c.want)
		}
	}
	if got := Nearest("ab", []string{"ac", "aa"}); got != "aa" {
		t.Errorf("a tie gave %q; want the first in order, aa", got)
	}
}
