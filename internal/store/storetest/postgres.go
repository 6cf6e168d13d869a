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

// A Postgres is a PostgreSQL server that belongs to one test.
type Postgres struct {
	Port int
	made atomic.Int32 // databases
}

// StartPostgres starts a server for a test, on a free port of 127.0.0.1, from
// Debian's package. Where that is missing the test is skipped. settings are
// further ones, such as fsync=off.
func StartPostgres(tb testing.TB, settings ...string) *Postgres {
	tb.Helper()
	bin := postgresTools(tb)
	dir, err := os.MkdirTemp("", "covey-postgres-") //nolint:usetesting // its own user could not enter the test's directory
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	who := postgresUser(tb, dir)
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...) //nolint:gosec,noctx // a tool of PostgreSQL, ended below
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGQUIT}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync").CombinedOutput(); err != nil {
		tb.Fatalf("initdb: %v\n%s", err, out)
	}
	p := &Postgres{Port: freePort(tb)}
	args := []string{"-D", data}
	for _, s := range append([]string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(p.Port), "unix_socket_directories=" + dir, "max_connections=200",
	}, settings...) {
		args = append(args, "-c", s)
	}
	cmd := run("postgres", args...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // at once: nobody needs it again
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := p.exec(p.URL("postgres"), "SELECT 1"); err == nil {
			return p
		} else if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			tb.Fatalf("PostgreSQL does not answer: %v\n%s", err, said.String())
		}
	}
}

// URL names a database of the server.
func (p *Postgres) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", p.Port, database)
}

// Database makes an empty database and returns its URL.
func (p *Postgres) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test%d", p.made.Add(1))
	p.Exec(tb, p.URL("postgres"), "CREATE DATABASE "+name)
	return p.URL(name)
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
func postgresTools(tb testing.TB) string {
	tb.Helper()
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p)
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		tb.Skip("PostgreSQL is not installed: apt-get install postgresql")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

// postgresUser gives dir to the user who runs the server, which may not be root.
func postgresUser(tb testing.TB, dir string) *syscall.Credential {
	tb.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		tb.Skipf("PostgreSQL does not run as root, and there is no user for it: %v", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		tb.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		tb.Skipf("no directory for PostgreSQL's user: %v", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()                     //nolint:errcheck // nothing was written
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // of TCP
}
