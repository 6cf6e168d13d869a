package server

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/store"
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

// A data directory is one server's at a time, wherever its databases are: its
// token and its socket are there.
func TestOneServerInADirectory(t *testing.T) {
	dir := t.TempDir()
	lock, err := store.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	cfg := Config{DataDir: dir, Cluster: "west", Listen: "127.0.0.1:0", ClusterStore: filepath.Join(other, "a.db"), CompanyStore: filepath.Join(other, "b.db")}
	if err := Run(t.Context(), cfg); fault.Of(err) != fault.Conflict || !strings.Contains(err.Error(), dir) {
		t.Errorf("while another server has it: got %v; want an error of kind %v that names it", err, fault.Conflict)
	}
	if _, err := os.Stat(cfg.ClusterStore); err == nil {
		t.Error("a server that was refused made a database")
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Ready = func(string) { cancel() }
	if err := Run(ctx, cfg); err != nil {
		t.Errorf("when it is free: got %v", err)
	}
}
