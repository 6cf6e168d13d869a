package runtime

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/task"
)

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func serve(t *testing.T, files map[string][]byte) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/"
}

func testFetcher(t *testing.T, room int64) (*fetcher, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sandbox")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	return newFetcher(context.Background(), root, nil, room), dir
}

// tree lists what is in a directory: mode, path, and content or target.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := info.Mode().String() + " " + rel
		if info.Mode().IsRegular() {
			b, _ := os.ReadFile(p)
			line += " " + string(b)
		} else if to, err := os.Readlink(p); err == nil {
			line += " -> " + to
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tarOf(t *testing.T, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		content := []byte(nil)
		if h.Typeflag == tar.TypeReg || h.Typeflag == 0 {
			content = []byte("content of " + h.Name)
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipOf(t *testing.T, names map[string]fs.FileMode) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for n, m := range names {
		h := &zip.FileHeader{Name: n, Method: zip.Deflate}
		h.SetMode(m)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		content := "content of " + n
		if m&fs.ModeSymlink != 0 {
			content = "../../etc"
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFetch(t *testing.T) {
	good := tarOf(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir},
		tar.Header{Name: "bin/run", Typeflag: tar.TypeReg, Mode: 0o6755},
		tar.Header{Name: "bin/alias", Typeflag: tar.TypeSymlink, Linkname: "../bin/run"},
		tar.Header{Name: "same", Typeflag: tar.TypeLink, Linkname: "bin/run"},
		tar.Header{Name: "empty", Typeflag: tar.TypeDir, Mode: 0o1777})
	unpacked := []string{
		"drwxr-xr-x x", "drwxr-xr-x x/bin", "Lrwxrwxrwx x/bin/alias -> ../bin/run", "-rwxr-xr-x x/bin/run content of bin/run",
		"drwxr-xr-x x/empty", "-rwxr-xr-x x/same content of bin/run",
	}
	zipped := zipOf(t, map[string]fs.FileMode{"a/b": 0o755 | fs.ModeSetuid})
	files := map[string][]byte{"f": []byte("plain"), "t.tar": good, "t.tgz": gz(t, good), "z.zip": zipped}
	url := serve(t, files)
	for _, c := range []struct {
		a    job.Artifact
		want []string
	}{
		{job.Artifact{URI: url + "f", Digest: digestOf(files["f"])}, []string{"-rw-r--r-- f plain"}},
		{job.Artifact{URI: url + "f", Digest: digestOf(files["f"]), Path: "d/e/g", Mode: 0o4755}, []string{"drwxr-xr-x d", "drwxr-xr-x d/e", "-rwxr-xr-x d/e/g plain"}},
		{job.Artifact{URI: url + "t.tar", Digest: digestOf(files["t.tar"]), Path: "x", Extract: true}, unpacked},
		{job.Artifact{URI: url + "t.tgz", Digest: digestOf(files["t.tgz"]), Path: "x", Extract: true}, unpacked},
		{job.Artifact{URI: url + "z.zip", Digest: digestOf(zipped), Path: ".", Extract: true}, []string{"drwxr-xr-x a", "-rwxr-xr-x a/b content of a/b"}},
	} {
		f, dir := testFetcher(t, 1<<20)
		if err := f.fetch(c.a); err != nil {
			t.Errorf("%s: %v", c.a.URI, err)
		}
		if d := cmp.Diff(c.want, tree(t, dir)); d != "" {
			t.Errorf("%s: -want +got\n%s", c.a.URI, d)
		}
	}
}

func TestFetchRefuses(t *testing.T) {
	url := serve(t, map[string][]byte{"f": []byte("plain"), "bomb": gz(t, make([]byte, 100<<20))})
	ok := digestOf([]byte("plain"))
	redirect := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/latest/", http.StatusFound))
	defer redirect.Close()
	for name, c := range map[string]struct {
		a    job.Artifact
		room int64
		want string
	}{
		"wrong digest":  {job.Artifact{URI: url + "f", Digest: digestOf([]byte("other"))}, 1 << 20, "digest is " + ok + ", want " + digestOf([]byte("other"))},
		"too large":     {job.Artifact{URI: url + "f", Digest: ok}, 4, "larger than the 0 MiB left of the task's disk; reserve more"},
		"absent":        {job.Artifact{URI: url + "g", Digest: ok}, 1 << 20, "404 Not Found"},
		"metadata":      {job.Artifact{URI: "http://169.254.169.254/x", Digest: ok}, 1 << 20, "is not for artifacts"},
		"redirected":    {job.Artifact{URI: redirect.URL, Digest: ok, Path: "x"}, 1 << 20, "is not for artifacts"},
		"mapped":        {job.Artifact{URI: "http://[::ffff:169.254.169.254]/x", Digest: ok}, 1 << 20, "is not for artifacts"},
		"no archive":    {job.Artifact{URI: url + "f", Digest: ok, Extract: true}, 1 << 20, "is no archive"},
		"no name":       {job.Artifact{URI: url, Digest: ok}, 1 << 20, "is no place in a sandbox"},
		"a device":      {job.Artifact{URI: "file:///dev/zero"}, 1 << 20, "no regular file"},
		"for root only": {job.Artifact{URI: "file:///etc/shadow"}, 1 << 20, "permission denied"},
	} {
		f, dir := testFetcher(t, c.room)
		if os.Geteuid() == 0 {
			l := loginFor("somebody")
			f.login = &l
		}
		err := f.fetch(c.a)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v; want %q", name, err, c.want)
		}
		if got := tree(t, dir); len(got) != 0 {
			t.Errorf("%s: left %v", name, got)
		}
	}
}

// Archives that want out, or too much.
func TestEvilArchives(t *testing.T) {
	reg := func(n string) tar.Header { return tar.Header{Name: n, Typeflag: tar.TypeReg} }
	sym := func(n, to string) tar.Header { return tar.Header{Name: n, Typeflag: tar.TypeSymlink, Linkname: to} }
	hard := func(n, to string) tar.Header { return tar.Header{Name: n, Typeflag: tar.TypeLink, Linkname: to} }
	evil := map[string][]byte{
		"parent":                tarOf(t, reg("../x")),
		"parent inside":         tarOf(t, reg("a/../../x")),
		"absolute":              tarOf(t, reg("/x")),
		"absolute link":         tarOf(t, sym("l", "/etc")),
		"link out":              tarOf(t, sym("a/l", "../../x")),
		"through a link":        tarOf(t, sym("l", "."), sym("m", "l/.."), reg("m/x")),
		"link then file":        tarOf(t, sym("l", "../victim"), reg("l")),
		"hard link out":         tarOf(t, hard("l", "../victim")),
		"hard link absolute":    tarOf(t, hard("l", "/etc/passwd")),
		"hard link to a link":   tarOf(t, sym("s", "x"), hard("l", "s")),
		"device":                tarOf(t, tar.Header{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 8}),
		"character device":      tarOf(t, tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}),
		"pipe":                  tarOf(t, tar.Header{Name: "p", Typeflag: tar.TypeFifo}),
		"back slash":            tarOf(t, reg("a\\..\\..\\x")),
		"logs":                  tarOf(t, reg(".logs/p0/1/stdout")),
		"logs by a detour":      tarOf(t, reg("./x/../.logs/y")),
		"logs as a link":        tarOf(t, sym(".logs", "x")),
		"what is being fetched": tarOf(t, reg(".covey-artifact")),
		"deep":                  tarOf(t, reg(strings.Repeat("a/", maxNesting)+"x")),
		"file as directory":     tarOf(t, reg("a"), reg("a/b")),
		"directory as file":     tarOf(t, reg("a/b"), reg("a")),
		"torn":                  tarOf(t, reg("a"))[:515],
		"torn gzip":             gz(t, tarOf(t, reg("a")))[:60],
		"gzip of nothing known": gz(t, bytes.Repeat([]byte("x"), 1000)),
		"bomb":                  gz(t, zeros(t, 2<<20)),
		"zip parent":            zipOf(t, map[string]fs.FileMode{"../x": 0o644}),
		"zip absolute":          zipOf(t, map[string]fs.FileMode{"/x": 0o644}),
		"zip link out":          zipOf(t, map[string]fs.FileMode{"l": 0o777 | fs.ModeSymlink}),
		"zip pipe":              zipOf(t, map[string]fs.FileMode{"p": 0o644 | fs.ModeNamedPipe}),
		"zip back slash":        zipOf(t, map[string]fs.FileMode{"..\\x": 0o644}),
		"torn zip":              zipOf(t, map[string]fs.FileMode{"x": 0o644})[:40],
	}
	for name, b := range evil {
		f, dir := testFetcher(t, 1<<20)
		victim := filepath.Join(filepath.Dir(dir), "victim")
		if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "archive"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		err := f.extract("archive", "into", name)
		if fault.Of(err) != fault.Invalid && !strings.Contains(fmt.Sprint(err), "not a directory") {
			t.Errorf("%s: got %v; want invalid", name, err)
		}
		if b, err := os.ReadFile(victim); err != nil || string(b) != "whole" {
			t.Errorf("%s: the victim is %q, %v", name, b, err)
		}
		if got, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(got) != 2 {
			t.Errorf("%s: made %v outside, %v", name, got, err)
		}
	}
}

// zeros is a tar of one file of n zeros.
func zeros(t *testing.T, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "z", Typeflag: tar.TypeReg, Mode: 0o644, Size: n}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArtifactEndToEnd(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	pack := gz(t, tarOf(t, tar.Header{Name: "bin/run", Typeflag: tar.TypeReg, Mode: 0o4755}))
	url := serve(t, map[string][]byte{"app-here.tgz": pack})
	s := w.spec("stat -c '%a %U' app app/bin app/bin/run; echo more >> app/bin/run && tail -c5 app/bin/run")
	s.Config.Task.Artifacts = []job.Artifact{{URI: url + "app-{{mesos.hostname}}.tgz", Digest: digestOf(pack), Path: "app", Extract: true}}
	id := w.start(s)
	w.end(id)
	if got, want := w.output(id, "p0"), "755 covey-role\n755 covey-role\n755 covey-role\nmore\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	bad := w.spec("true")
	bad.Config.Task.Artifacts = []job.Artifact{{URI: url + "app-here.tgz", Digest: digestOf(nil), Path: "app"}}
	got := w.end(w.start(bad))
	if got.State != task.Failed || !strings.Contains(got.Reason, "artifact "+url) || len(got.Processes) != 0 {
		t.Errorf("got %v %q; want FAILED because of the artifact, and no process", got.State, got.Reason)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte("PK\x05\x06"))
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, dir := testFetcher(t, 1<<20)
		if err := os.WriteFile(filepath.Join(dir, "archive"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = x.extract("archive", "into", "fuzz") // refused or not, nothing may be outside
		if got, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(got) != 1 {
			t.Errorf("made %v outside, %v", got, err)
		}
	})
}
