//go:build planted

package fault

var planted string

// Planted reports whether the named bug is switched on.
func Planted(bug string) bool { return bug == planted }

// Plant switches one bug on, and every other one off.
func Plant(bug string) { planted = bug }
