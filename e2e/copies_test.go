package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The databases are lost, and the agents' directories are not: the agents
// belong to a cluster that is no more. Their tasks run on.
func TestLostDatabases(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("orphan", service(2))
	orphans := []ident{w.process("orphan", 0), w.process("orphan", 1)}
	w.crashDev()
	files, _ := filepath.Glob(filepath.Join(w.data, "c*.db*"))
	if len(files) < 2 {
		t.Fatalf("databases: got %v", files)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	w.refused(filepath.Join(w.data, "agents"), "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "http://"))
	for i, o := range orphans {
		if got := marked(w.mark("orphan", i)); !slices.Equal(got, []ident{o}) {
			t.Errorf("instance %d: got %v; want the task as before, %v", i, got, o)
		}
	}
}

// The whole data directory is an old copy, the agents' part included.
func TestOldCopyOfEverything(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("same", service(2))
	same := []ident{w.process("same", 0), w.process("same", 1)}
	w.create("replaced", service(1))
	w.crashDev()
	copyDir := filepath.Join(w.dir, "copy")
	if out, err := exec.Command("cp", "-a", w.data, copyDir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.startDev(1)
	first := w.process("replaced", 0)
	kill9(t, first)
	second := w.process("replaced", 0, first)
	w.create("unknown", service(1))
	unknown := w.process("unknown", 0)
	w.crashDev()
	if err := os.RemoveAll(w.data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(copyDir, w.data); err != nil {
		t.Fatal(err)
	}
	w.startDev(1)
	w.answers("copy")
	if out := w.run("cluster", "show"); !strings.Contains(out, "recovery") {
		t.Errorf("the copy is not noticed: %s", out)
	}
	eventually(t, 60*time.Second, "the replaced one settles", func() string {
		v := w.status(w.key("replaced"))
		if len(v.Tasks) != 1 || v.Tasks[0].Status != "RUNNING" || !strings.HasSuffix(v.Tasks[0].ID, ".1048577") {
			return fmt.Sprint(v)
		}
		return ""
	})
	for what, p := range map[string]ident{"same 0": same[0], "same 1": same[1], "replaced": second, "unknown": unknown} {
		if !p.lives() {
			t.Errorf("%s was killed", what)
		}
	}
	w.untouched("same", same)
}
