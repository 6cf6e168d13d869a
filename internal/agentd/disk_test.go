package agentd

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/unit"
)

func TestDiskSince(t *testing.T) {
	for _, c := range []struct {
		name           string
		was, now, want disk
	}{
		{"tasks have written", disk{100, 200}, disk{40, 200}, disk{100, 200}},
		{"others made room", disk{100, 200}, disk{150, 200}, disk{150, 200}},
		{"it was full at first", disk{0, 200}, disk{90, 200}, disk{90, 200}},
		{"it has grown", disk{100, 200}, disk{140, 300}, disk{200, 300}},
		{"it has shrunk", disk{100, 200}, disk{10, 150}, disk{50, 150}},
		{"it is another, far smaller one", disk{100, 200}, disk{5, 50}, disk{5, 50}},
		{"it is another, and full", disk{100, 200}, disk{0, 50}, disk{0, 50}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.now.since(c.was); got != c.want {
				t.Errorf("got %+v; want %+v", got, c.want)
			}
		})
	}
}

// What a task has written is not taken off what its machine offers when the
// agent starts again.
func TestDiskIsKept(t *testing.T) {
	c := Config{DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	first, err := c.findDisk()
	if err != nil || first <= 0 {
		t.Fatalf("%d, %v; want the disk of a directory for tests to have room", first, err)
	}
	if err := os.WriteFile(filepath.Join(c.DataDir, diskFile), fmt.Appendf(nil, `{"free":%d,"total":%d}`, first+64*unit.MiB, diskSize(t, c.DataDir)), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := c.findDisk(); err != nil || again != first+64*unit.MiB {
		t.Errorf("at the second start: %d, %v; want %d, of which tasks hold 64 MiB", again, err, first+64*unit.MiB)
	}
	if err := os.WriteFile(filepath.Join(c.DataDir, diskFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if anew, err := c.findDisk(); err != nil || anew <= 0 || anew >= first+64*unit.MiB {
		t.Errorf("with a torn file: %d, %v; want what is free now", anew, err)
	}
}

func diskSize(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}
