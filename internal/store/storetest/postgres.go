package storetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Postgres is a PostgreSQL server that belongs to who started it.
type Postgres struct {
	Port int
	made atomic.Int32 // databases
	dir  string
	cmd  *exec.Cmd
}

// ErrNoPostgres says why no PostgreSQL can be started here.
var ErrNoPostgres = errors.New("no PostgreSQL here")

// StartPostgres starts a server for a test, on a free port of 127.0.0.1, from
// Debian's package. Where that is missing the test is skipped. settings are
// further ones, such as fsync=off.
func StartPostgres(tb testing.TB, settings ...string) *Postgres {
	tb.Helper()
	p, err := RunPostgres(tb.Context(), "", settings...)
	if errors.Is(err, ErrNoPostgres) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Stop)
	return p
}

// RunPostgres starts a server as [StartPostgres] does, with its data in a new
// directory in dir, until [Postgres.Stop]. The error is [ErrNoPostgres] where it
// is not installed, or cannot run.
func RunPostgres(ctx context.Context, dir string, settings ...string) (*Postgres, error) {
	bin, err := postgresTools()
	if err != nil {
		return nil, err
	}
	p := &Postgres{}
	if p.dir, err = os.MkdirTemp(dir, "covey-postgres-"); err != nil {
		return nil, err
	}
	if err = p.run(ctx, bin, settings); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

func (p *Postgres) run(ctx context.Context, bin string, settings []string) error {
	who, err := postgresUser(p.dir)
	if err != nil {
		return err
	}
	tool := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...) //nolint:gosec,noctx // a tool of PostgreSQL, ended by Stop
		cmd.Dir = p.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGQUIT}
		return cmd
	}
	data := filepath.Join(p.dir, "data")
	if out, bad := tool("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync").CombinedOutput(); bad != nil {
		return fmt.Errorf("initdb: %w\n%s", bad, out)
	}
	if p.Port, err = freePort(ctx); err != nil {
		return err
	}
	args := []string{"-D", data}
	for _, s := range append([]string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(p.Port), "unix_socket_directories=" + p.dir, "max_connections=200",
	}, settings...) {
		args = append(args, "-c", s)
	}
	cmd := tool("postgres", args...)
	var said strings.Builder
	cmd.Stderr = &said
	if err = cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = p.exec(p.URL("postgres"), "SELECT 1"); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			p.Stop()
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, said.String())
		}
	}
}

// Stop ends the server at once and removes its data: nobody needs it again.
func (p *Postgres) Stop() {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		_ = p.cmd.Wait()
		p.cmd = nil
	}
	_ = os.RemoveAll(p.dir)
}

// URL names a database of the server.
func (p *Postgres) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", p.Port, database)
}

// Database makes an empty database and returns its URL.
func (p *Postgres) Database(tb testing.TB) string {
	tb.Helper()
	url, err := p.NewDatabase()
	if err != nil {
		tb.Fatal(err)
	}
	return url
}

// NewDatabase makes an empty database and returns its URL.
func (p *Postgres) NewDatabase() (string, error) {
	name := fmt.Sprintf("test%d", p.made.Add(1))
	return p.URL(name), p.exec(p.URL("postgres"), "CREATE DATABASE "+name)
}

// Exec runs a statement in the database that a URL names.
func (p *Postgres) Exec(tb testing.TB, url, sql string) {
	tb.Helper()
	if err := p.exec(url, sql); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

func (p *Postgres) exec(url, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// postgresTools returns where PostgreSQL's programs are.
func postgresTools() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", fmt.Errorf("%w: apt-get install postgresql", ErrNoPostgres)
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

// postgresUser gives dir to the user who runs the server, which may not be root.
func postgresUser(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // it runs as who asks
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("%w: it does not run as root, and there is no user for it: %w", ErrNoPostgres, err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return nil, fmt.Errorf("%w: no directory for its user: %w", ErrNoPostgres, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()                          //nolint:errcheck // nothing was written
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // of TCP
}
