package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/runtime/inside"
	"github.com/covey-platform/covey/internal/unit"
)

const (
	fetchWithin  = 10 * time.Minute // all artifacts of a task; Aurora's limit for a sandbox
	maxRedirects = 5
	fetchTries   = 3
)

// checkArtifacts refuses what could never be fetched, or could change under
// its name.
func checkArtifacts(as []job.Artifact) error {
	if len(as) > job.MaxArtifacts {
		return fault.Invalid.Errorf("%d artifacts; want at most %d", len(as), job.MaxArtifacts)
	}
	for _, a := range as {
		u, err := url.Parse(a.URI)
		if err != nil {
			return fault.Invalid.Errorf("artifact %.200q: %w", a.URI, err)
		}
		if !slices.Contains([]string{"http", "https", "file"}, u.Scheme) {
			return fault.Invalid.Errorf("artifact %.200q has scheme %.20q; want http, https or file", a.URI, u.Scheme)
		}
		if a.Digest == "" && u.Scheme != "file" {
			return fault.Invalid.Errorf("artifact %.200q has no digest; want sha256: and 64 hex digits", a.URI)
		}
		if _, err := digest(a.Digest); err != nil {
			return fault.Invalid.Errorf("artifact %.200q: %w", a.URI, err)
		}
		if a.Path != "" && (!filepath.IsLocal(a.Path) || job.Reserved(a.Path)) {
			return fault.Invalid.Errorf("artifact %.200q goes to %.200q; want a path below the sandbox, not in %s or %s, and not %s", a.URI, a.Path, job.LogsDir, job.TmpDir, job.PartialFile)
		}
	}
	return nil
}

// ending returns the end of a URI, which says most: a reason has little room.
func ending(uri string) string {
	const most = 48 // bytes
	if len(uri) <= most {
		return uri
	}
	return "..." + strings.ToValidUTF8(uri[len(uri)-most+3:], "")
}

// digest reads sha256:HEX; empty gives nil.
func digest(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	h, ok := strings.CutPrefix(s, "sha256:")
	b, err := hex.DecodeString(h)
	if !ok || err != nil || len(b) != sha256.Size {
		return nil, fault.Invalid.Errorf("digest %.100q; want sha256: and 64 hex digits", s)
	}
	return b, nil
}

// fetchArtifacts fills the sandbox. It ends early when the task is stopped.
func (s *supervisor) fetchArtifacts() error {
	as := s.rec.Config.Task.Artifacts
	if len(as) == 0 {
		return nil
	}
	ctx, cancel := s.within(fetchWithin)
	defer cancel()
	root, err := os.OpenRoot(s.plan.Sandbox)
	if err != nil {
		return fault.Unavailable.Errorf("artifacts: %w", err)
	}
	defer root.Close() //nolint:errcheck // only a directory
	f := newFetcher(ctx, root, s.plan.Login, s.rec.Config.Task.Resources.Disk)
	for _, a := range as {
		if err := f.fetch(a); err != nil {
			return fault.Unavailable.Errorf("artifact %s: %w", ending(a.URI), err)
		}
	}
	return nil
}

// A fetcher fills a sandbox in which nothing runs yet.
type fetcher struct {
	get     func(uri string) (*http.Request, error)
	stopped func() error // why to give up
	root    *os.Root
	login   *inside.Login // who owns what is made; nil: whoever we are
	room    int64         // bytes that may still be written
}

// newFetcher fetches until ctx ends. A room of 0 is a tebibyte.
func newFetcher(ctx context.Context, root *os.Root, l *inside.Login, room int64) *fetcher {
	if room <= 0 {
		room = 1 << 40
	}
	return &fetcher{
		get: func(uri string) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
		},
		stopped: ctx.Err, root: root, login: l, room: room,
	}
}

// fetch gets one artifact, checks it, and puts it in its place.
func (f *fetcher) fetch(a job.Artifact) error {
	want, err := digest(a.Digest)
	if err != nil {
		return err
	}
	u, err := url.Parse(a.URI)
	if err != nil {
		return err
	}
	at := a.Path
	if at == "" {
		at = path.Base(u.Path)
	}
	if !filepath.IsLocal(at) || job.Reserved(at) {
		return fault.Invalid.Errorf("its name %q is no place in a sandbox; give it a path", at)
	}
	const part = job.PartialFile
	for try := 1; ; try++ {
		err = f.download(u, part, want)
		if err == nil || try == fetchTries || fault.Of(err) == fault.Invalid || f.stopped() != nil {
			break
		}
		time.Sleep(time.Duration(try) * 200 * time.Millisecond)
	}
	defer f.root.Remove(part) //nolint:errcheck // gone when it was moved
	if err != nil {
		return err
	}
	if a.Extract {
		return f.extract(part, at, a.URI)
	}
	if err := f.mkdirs(path.Dir(at)); err != nil {
		return err
	}
	mode := os.FileMode(a.Mode) & 0o777
	if mode == 0 {
		mode = 0o644
	}
	if err := errors.Join(f.root.Chmod(part, mode), f.own(part)); err != nil {
		return err
	}
	return f.root.Rename(part, at)
}

// download writes what is behind a URI into a file. Kind Invalid: it is not
// what it should be, and trying again does not help.
func (f *fetcher) download(u *url.URL, to string, want []byte) error {
	in, err := f.open(u)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := f.root.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(in, f.room+1))
	if err2 := out.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	if n > f.room {
		return fault.Invalid.Errorf("larger than the %s left of the task's disk; reserve more", unit.Disk.Format(f.room))
	}
	if got := sum.Sum(nil); want != nil && string(got) != string(want) {
		return fault.Invalid.Errorf("digest is sha256:%x, want sha256:%x", got, want)
	}
	f.room -= n
	return nil
}

func (f *fetcher) open(u *url.URL) (io.ReadCloser, error) {
	if u.Scheme == "file" {
		return f.openFile(u.Path)
	}
	req, err := f.get(u.String())
	if err != nil {
		return nil, err
	}
	resp, err := webClient().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		err := fmt.Errorf("the server answered %s", resp.Status)
		if resp.StatusCode >= 400 && resp.StatusCode < 500 {
			err = fault.Invalid.Errorf("%w", err)
		}
		return nil, err
	}
	return resp.Body, nil
}

// webClient fetches from the web. What a name resolves to is looked at when
// the connection is made, after redirects and whatever DNS says this time:
// addresses of links (169.254.169.254 hands out the machine's credentials) are
// never asked.
func webClient() *http.Client {
	d := net.Dialer{Timeout: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fault.Invalid.Errorf("address %q: %w", address, err)
		}
		if ip := ap.Addr().Unmap(); ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
			return fault.Invalid.Errorf("address %v is not for artifacts", ip)
		}
		return nil
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: d.DialContext, DisableKeepAlives: true, DisableCompression: true,
			ResponseHeaderTimeout: time.Minute, TLSHandshakeTimeout: 30 * time.Second,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fault.Invalid.Errorf("more than %d redirects", maxRedirects)
			}
			if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
				return fault.Invalid.Errorf("redirect to scheme %q", req.URL.Scheme)
			}
			return nil
		},
	}
}

// openFile opens a file of the machine as the task's user would: a job must
// not read through us what its role may not read.
func (f *fetcher) openFile(p string) (io.ReadCloser, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		if f.login != nil {
			goruntime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if err := inside.BecomeThread(*f.login); err != nil {
				done <- opened{nil, err}
				return
			}
		}
		file, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0) //nolint:gosec // with the rights of the task's user
		done <- opened{file, err}
	}()
	o := <-done
	if o.err != nil {
		return nil, fault.Invalid.Errorf("%w", o.err)
	}
	if st, err := o.f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fault.Invalid.Errorf("%s is no regular file", p), err, o.f.Close())
	}
	return o.f, nil
}

// own gives a file to the task's user.
func (f *fetcher) own(p string) error {
	if f.login == nil {
		return nil
	}
	return f.root.Lchown(p, int(f.login.UID), int(f.login.GID))
}

// mkdirs makes directories of the task's user.
func (f *fetcher) mkdirs(dir string) error {
	if dir == "." || dir == "" {
		return nil
	}
	if st, err := f.root.Lstat(dir); err == nil && st.IsDir() {
		return nil
	}
	if err := f.mkdirs(path.Dir(dir)); err != nil {
		return err
	}
	if err := f.root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return f.own(dir)
}
