package runtime

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
)

// What an archive may hold at most. Its unpacked size is held to the task's
// disk.
const (
	maxEntries   = 200_000
	maxNesting   = 64
	maxRatio     = 1000     // unpacked over packed
	ratioAllowed = 64 << 20 // bytes unpacked before the ratio matters
)

// extract unpacks a tar, tar.gz or zip below a directory. Links must point
// into it; what is neither file, directory nor link, and every set-user-id bit,
// is refused or dropped.
func (f *fetcher) extract(archive, into, name string) error {
	in, err := f.root.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	st, err := in.Stat()
	if err != nil {
		return err
	}
	br := bufio.NewReaderSize(in, 64<<10)
	head, err := br.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	isZip := bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06"))
	isGzip := bytes.HasPrefix(head, []byte{0x1f, 0x8b})
	isTar := len(head) > 262 && string(head[257:262]) == "ustar"
	if !isZip && !isGzip && !isTar {
		return fault.Invalid.Errorf("%s is no archive that can be unpacked; want tar, tar.gz or zip", path.Base(name))
	}
	if err = f.mkdirs(into); err != nil {
		return err
	}
	dir, err := f.root.OpenRoot(into)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // only a directory
	x := &extractor{fetcher: fetcher{stopped: f.stopped, root: dir, login: f.login, room: f.room}, packed: st.Size(), whole: f.room}
	switch {
	case isZip:
		err = x.zip(in, st.Size())
	case isGzip:
		var z *gzip.Reader
		if z, err = gzip.NewReader(br); err == nil {
			err = x.tar(z)
		}
	default:
		err = x.tar(br)
	}
	f.room = x.room
	if err != nil && fault.Of(err) == fault.Internal {
		err = fault.Invalid.Errorf("unpack: %w", err)
	}
	return err
}

type extractor struct {
	fetcher
	packed, whole int64
	entries       int
}

func (x *extractor) tar(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p, err := x.place(h.Name)
		if err != nil {
			return err
		}
		if p == "." {
			continue
		}
		mode := h.FileInfo().Mode()
		switch h.Typeflag {
		case tar.TypeReg:
			err = x.file(p, mode, t)
		case tar.TypeDir:
			err = x.mkdirs(p)
		case tar.TypeSymlink:
			err = x.symlink(p, h.Linkname)
		case tar.TypeLink:
			err = x.link(p, h.Linkname)
		case tar.TypeXGlobalHeader:
		default:
			err = fault.Invalid.Errorf("entry %q is of type %q; want files, directories and links", h.Name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func (x *extractor) zip(r io.ReaderAt, size int64) error {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return err
	}
	for _, e := range z.File {
		p, err := x.place(e.Name)
		if err != nil {
			return err
		}
		if p == "." {
			continue
		}
		if err := x.zipEntry(p, e); err != nil {
			return err
		}
	}
	return nil
}

func (x *extractor) zipEntry(p string, e *zip.File) error {
	mode := e.Mode()
	if mode.IsDir() {
		return x.mkdirs(p)
	}
	in, err := e.Open()
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	switch {
	case mode&fs.ModeSymlink != 0:
		to, err := io.ReadAll(io.LimitReader(in, unix.PathMax))
		if err != nil {
			return err
		}
		return x.symlink(p, string(to))
	case mode.IsRegular():
		return x.file(p, mode, in)
	default:
		return fault.Invalid.Errorf("entry %q is of mode %v; want files, directories and links", e.Name, mode)
	}
}

// place checks an entry's name and counts it.
func (x *extractor) place(name string) (string, error) {
	if x.entries++; x.entries > maxEntries {
		return "", fault.Invalid.Errorf("more than %d entries", maxEntries)
	}
	if err := x.stopped(); err != nil {
		return "", err
	}
	p := path.Clean(name)
	if strings.ContainsAny(name, "\x00\\") || !filepath.IsLocal(name) || !filepath.IsLocal(p) {
		return "", fault.Invalid.Errorf("entry %.200q leaves the directory", name)
	}
	if strings.Count(p, "/") >= maxNesting {
		return "", fault.Invalid.Errorf("entry %.200q is nested deeper than %d", name, maxNesting)
	}
	if job.Reserved(p) {
		return "", fault.Invalid.Errorf("entry %.200q is the platform's", name)
	}
	return p, nil
}

func (x *extractor) file(p string, mode fs.FileMode, in io.Reader) error {
	if err := x.clear(p); err != nil {
		return err
	}
	f, err := x.root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(in, x.room+1))
	if err == nil {
		err = f.Chmod(mode.Perm() | 0o400) // set-user-id, set-group-id and sticky are not in Perm
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	if x.room -= n; x.room < 0 {
		return fault.Invalid.Errorf("unpacked it is larger than what is left of the task's disk; reserve more")
	}
	if done := x.whole - x.room; done > ratioAllowed && done/max(x.packed, 1) > maxRatio {
		return fault.Invalid.Errorf("it unpacks to more than %d times its size", maxRatio)
	}
	return x.own(p)
}

// clear makes room for an entry: an earlier one of the same name goes, and a
// link is never followed.
func (x *extractor) clear(p string) error {
	if err := x.mkdirs(path.Dir(p)); err != nil {
		return err
	}
	st, err := x.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.IsDir() {
		return fault.Invalid.Errorf("entry %q stands where a directory is", p)
	}
	return x.root.Remove(p)
}

// symlink makes a link that stays inside, as seen from where it stands.
func (x *extractor) symlink(p, to string) error {
	if path.IsAbs(to) || strings.ContainsRune(to, 0) || !filepath.IsLocal(path.Join(path.Dir(p), to)) {
		return fault.Invalid.Errorf("link %.200q to %.200q leaves the directory", p, to)
	}
	if err := x.clear(p); err != nil {
		return err
	}
	if err := x.root.Symlink(to, p); err != nil {
		return err
	}
	return x.own(p)
}

func (x *extractor) link(p, to string) error {
	if !filepath.IsLocal(to) || job.Reserved(to) {
		return fault.Invalid.Errorf("link %.200q to %.200q leaves the directory", p, to)
	}
	if err := x.clear(p); err != nil {
		return err
	}
	st, err := x.root.Lstat(path.Clean(to))
	if err != nil || !st.Mode().IsRegular() {
		return fault.Invalid.Errorf("link %.200q to %.200q, which is no file of the archive", p, to)
	}
	return x.root.Link(path.Clean(to), p)
}
