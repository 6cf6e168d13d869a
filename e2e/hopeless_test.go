package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// Without a price for now jobs run and usage is told; the bill alone is refused.
func TestNoPriceForNow(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	book := filepath.Join(w.dir, "book.json")
	prices := `{"currency":"EUR","prices":[{"to":"2026-01-01T00:00:00Z","cpu_core_hour":"1","ram_gib_hour":"1","disk_gib_hour":"1","gpu_hour":"1"}]}`
	if err := os.WriteFile(book, []byte(prices), 0o600); err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + freeAddr(t)
	w.dev = w.start("dev", "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "http://"), "--price-book", book)
	w.ready(w.dev)
	w.task(w.create("paid", service(1)), "RUNNING", 60*time.Second)
	if r := w.want(6, "bill"); !strings.Contains(r.err, "the price book has no price for") {
		t.Errorf("bill: got %v; want that there is no price", r)
	}
	eventually(t, 60*time.Second, "usage has the job", func() string {
		if r := w.try("usage"); r.code != 0 || !strings.Contains(r.out, "e2e/test/paid") {
			return r.String()
		}
		return ""
	})
}
