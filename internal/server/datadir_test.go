package server

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
)

// A path where no directory can be is a bad parameter, and no question of who
// may do what.
func TestMakeDataDir(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, file + "/below", "/proc/covey"} {
		if err := MakeDataDir(dir); fault.Of(err) != fault.Invalid {
			t.Errorf("%s: got %v (%v); want an error of kind %v", dir, err, fault.Of(err), fault.Invalid)
		}
	}
	if err := MakeDataDir(filepath.Join(t.TempDir(), "a", "b")); err != nil {
		t.Errorf("a new one: got %v", err)
	}
}
