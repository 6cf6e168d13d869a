package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cluster is the name of the cluster that is measured.
const cluster = "scale"

// server is a covey server in a process of its own.
type server struct {
	covey string
	dir   string
	addr  string
	token string
	tls   bool
	db    string // both stores are this PostgreSQL database; empty: files in dir
	cmd   *exec.Cmd
	over  chan struct{}
	died  error // set before over is closed
	admin *http.Client
}

// newServer chooses a port for a server whose data is in dir, or in db.
func newServer(ctx context.Context, covey, dir, db string, secure bool) (*server, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{covey: covey, dir: dir, addr: l.Addr().String(), tls: secure, db: db}
	socket := filepath.Join(dir, "admin.sock")
	s.admin = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	return s, l.Close()
}

func (s *server) url() string {
	if s.tls {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// authority is the file with the server's authority, if it speaks TLS.
func (s *server) authority() string {
	if s.tls {
		return filepath.Join(s.dir, "ca.pem")
	}
	return ""
}

// believe has every call of this process trust the authority in a file. It
// returns nil without one.
func believe(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // nobody is to be believed
	}
	pem, err := os.ReadFile(file) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	http.DefaultClient.Transport = t
	return roots, nil
}

// start starts the process and waits until it answers.
func (s *server) start(ctx context.Context) error {
	logs, err := os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logs.Close() //nolint:errcheck // the child has its own
	args := []string{"server", "--cluster", cluster, "--data-dir", s.dir, "--listen", s.addr}
	if s.tls {
		args = append(args, "--tls")
	}
	if s.db != "" {
		args = append(args, "--cluster-store", s.db, "--company-store", s.db)
	}
	s.cmd = exec.CommandContext(ctx, s.covey, args...) //nolint:gosec // the program to measure
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.SysProcAttr = logs, logs, &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	if err := s.cmd.Start(); err != nil {
		return err
	}
	over := make(chan struct{})
	s.over = over
	go func(cmd *exec.Cmd) {
		s.died = cmd.Wait()
		close(over)
	}(s.cmd)
	for {
		_, err := believe(s.authority())
		var resp io.ReadCloser
		if err == nil {
			resp, err = get(ctx, http.DefaultClient, s.url()+"/healthz", "")
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, resp)
			_ = resp.Close()
			token, err := os.ReadFile(filepath.Join(s.dir, "token"))
			s.token = strings.TrimSpace(string(token))
			return err
		}
		select {
		case <-s.over:
			return fmt.Errorf("the server ended: %w; see %s", s.died, logs.Name())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill ends the process as a crash does.
func (s *server) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	<-s.over
	return nil
}

// stop ends it in order.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.over:
	case <-time.After(30 * time.Second):
		_ = s.kill()
	}
}

func get(ctx context.Context, c *http.Client, url, token string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return resp.Body, nil
}

// metrics reads the samples that the server shows, by name and labels.
func (s *server) metrics(ctx context.Context) (map[string]float64, error) {
	body, err := get(ctx, http.DefaultClient, s.url()+"/metrics", s.token)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // only read
	out := map[string]float64{}
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && name != "#" && err == nil {
			out[name] = v
		}
	}
	return out, lines.Err()
}

// usage is what a process has used and holds.
type usage struct {
	RSS   int64 // bytes
	Heap  int64 // bytes that live after a collection, and stacks
	Stack int64 // bytes of stacks
}

const collections = 3

// clockTick is Linux's USER_HZ.
const clockTick = 10 * time.Millisecond

// cpu is the CPU time that the process has used, its children's not.
func (s *server) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("/proc shows no times of the server")
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// memory is what the process holds, before and after collections: each halves
// stacks that were needed once.
func (s *server) memory(ctx context.Context) (u usage, err error) {
	if u.RSS, err = s.rss(); err != nil {
		return u, err
	}
	for range collections {
		var body io.ReadCloser
		if body, err = get(ctx, s.admin, "http://admin/debug/pprof/heap?gc=1", ""); err != nil {
			return u, err
		}
		_, err = io.Copy(io.Discard, body)
		if err = errors.Join(err, body.Close()); err != nil {
			return u, err
		}
	}
	m, err := s.metrics(ctx)
	u.Stack = int64(m["go_memstats_stack_inuse_bytes"])
	u.Heap = int64(m["go_memstats_alloc_bytes"]) + u.Stack
	return u, err
}

func (s *server) rss() (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0, errors.New("/proc shows no memory of the server")
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// profile writes a profile of the server into a file, if there is a directory for it.
func (s *server) profile(ctx context.Context, dir, name, what string) error {
	if dir == "" {
		return nil
	}
	body, err := get(ctx, s.admin, "http://admin/debug/pprof/"+what, "")
	if err != nil {
		return err
	}
	defer body.Close()                            //nolint:errcheck // only read
	f, err := os.Create(filepath.Join(dir, name)) //nolint:gosec // the caller names it
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

// disk is the size of the cluster's database, in bytes.
func (s *server) disk(ctx context.Context) (n int64) {
	if s.db != "" {
		m, _ := s.metrics(ctx)
		return int64(m["covey_store_bytes"])
	}
	for _, name := range []string{"cluster.db", "cluster.db-wal"} {
		if info, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			n += info.Size()
		}
	}
	return n
}
