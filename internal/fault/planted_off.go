//go:build !planted

package fault

// Planted reports whether the named bug is switched on. It never is, but in
// test programs built with the tag planted, which check that the simulator
// finds such bugs.
func Planted(string) bool { return false }
