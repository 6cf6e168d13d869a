package agentd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/unit"
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

// What is kept of ended tasks is a part of the disk that is offered.
func TestKeepEnded(t *testing.T) {
	const mib, gib = int64(1) << 20, int64(1) << 30
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		cfg  Config
		want runtime.Keep
	}{
		{"a small disk", Config{Capacity: unit.Resources{Disk: 300 * mib}}, runtime.Keep{Age: day, Bytes: 30 * mib, Margin: 6 * mib}},
		{"a large one", Config{Capacity: unit.Resources{Disk: 1000 * gib}}, runtime.Keep{Age: day, Bytes: 10 * gib, Margin: gib}},
		{"as told", Config{Capacity: unit.Resources{Disk: 100 * gib}, KeepFor: time.Hour, KeepBytes: 50 * gib}, runtime.Keep{Age: time.Hour, Bytes: 50 * gib, Margin: gib}},
		{"one of several agents", Config{Capacity: unit.Resources{Disk: 50 * gib}, Share: 2}, runtime.Keep{Age: day, Bytes: 5 * gib, Margin: gib, Share: 50 * gib}},
	} {
		c.want.Least = time.Minute
		if d := cmp.Diff(c.want, c.cfg.keepEnded()); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestKeepBytesFlag(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
	}{{"", 0}, {"1MiB", 1 << 20}, {"4GiB", 4 << 30}, {"512KiB", -1}, {"0GiB", -1}, {"-1GiB", -1}, {"5", -1}, {"much", -1}} {
		got, err := fromFlags(cli.AgentFlags{KeepBytes: c.text})
		if c.want < 0 && fault.Of(err) != fault.Invalid || c.want >= 0 && (err != nil || got.KeepBytes != c.want) {
			t.Errorf("--keep-bytes %q: %d, %v; want %d (-1: refused)", c.text, got.KeepBytes, err, c.want)
		}
	}
}
