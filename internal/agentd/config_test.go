package agentd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
)

// A path where no directory can be is a bad parameter, and no question of who
// may do what.
func TestDataDir(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, file + "/below", "/proc/covey"} {
		c := Config{Server: "http://127.0.0.1:1", Machine: "m1", DataDir: dir}
		if err := c.complete(); fault.Of(err) != fault.Invalid {
			t.Errorf("%s: got %v (%v); want an error of kind %v", dir, err, fault.Of(err), fault.Invalid)
		}
	}
}
