package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// What no restart can mend ends dev, with the reason.
func TestDevGivesUp(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	book := filepath.Join(w.dir, "book.json")
	for text, want := range map[string]string{`{"currency":"dollars","prices":[]}`: "dollars", "": "book.json"} {
		if text != "" {
			if err := os.WriteFile(book, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Remove(book); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		w.refused(want, "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", freeAddr(t), "--price-book", book)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "torn"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "torn", "cluster.db"), []byte("this is no database, and was never one of ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused("does not start", "dev", "--cluster", w.cluster, "--data-dir", filepath.Join(w.dir, "torn"), "--listen", freeAddr(t))
}
