// Package server is the shell around a cluster's loop: it gives it a clock, a
// store and the wire, and carries out what its turns decide. Everything that
// decides is elsewhere; here are the goroutines.
//
// One goroutine takes the turns. What is acknowledged is durable; what goes to
// the machines was committed before. When nobody knows whether a commit
// happened, the term ends: everything is read again from the store.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/rate"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/trust"
)

// A Config says how a server runs.
type Config struct {
	DataDir      string   // its databases, token and socket; made when missing
	Listen       string   // HOST:PORT; port 0 chooses one; beyond loopback it speaks TLS
	TLS          bool     // speak TLS on loopback too
	TLSCert      string   // path of a certificate with its chain; empty: one of the cluster's own authority
	TLSKey       string   // path of its key
	Cluster      string   // the name of the cluster
	PriceBook    string   // path of a price book; empty: the default prices
	ClusterStore string   // path or postgres URL of the cluster's database; empty: cluster.db in DataDir
	CompanyStore string   // path or postgres URL of the company's database; empty: company.db in DataDir
	Advertise    string   // URL under which others reach this server; empty: from Listen
	Hosts        []string // names beside loopback under which the server may be reached
	Self         string   // path of this binary, for child processes that evaluate files
	Version      string
	Log          *slog.Logger
	// Ready, if set, is told the address once the server answers.
	Ready func(addr string)

	present *trust.Presenter // nil: without TLS
}

// TokenFile is the admin token's file in a data directory.
const TokenFile = "token"

func (c *Config) complete() error {
	if err := name.Valid("cluster", c.Cluster); err != nil {
		return fault.Invalid.Errorf("%w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return fault.Invalid.Errorf("--tls-cert and --tls-key belong together; give both, or neither for a certificate of the cluster's own authority")
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil || c.DataDir == "" {
		return fault.Invalid.Errorf("data directory %q cannot be used; name one with --data-dir", c.DataDir)
	}
	c.DataDir = dir
	if c.ClusterStore == "" {
		c.ClusterStore = filepath.Join(dir, "cluster.db")
	}
	if c.CompanyStore == "" {
		c.CompanyStore = filepath.Join(dir, "company.db")
		if store.IsPostgres(c.ClusterStore) {
			c.CompanyStore = c.ClusterStore
		}
	}
	if store.IsPostgres(c.ClusterStore) && !store.IsPostgres(c.CompanyStore) {
		return fault.Invalid.Errorf("the cluster is kept in PostgreSQL and the company in the file %s, which no other server could read; name a postgres:// URL with --company-store too, or leave it out to use the same database", c.CompanyStore)
	}
	return MakeDataDir(dir)
}

// MakeDataDir makes a data directory that only its owner may enter.
func MakeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return makeError(dir, err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return writeError(dir, err)
	}
	_ = probe.Close()
	if err := os.Remove(probe.Name()); err != nil {
		return writeError(dir, err)
	}
	return nil
}

// makeError tells a directory that this user may not make, or that finds no
// room, from a path where none can be.
func makeError(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return writeError(dir, err)
	default:
		return fault.Invalid.Errorf("data directory %s cannot be made: %w; name another with --data-dir", dir, err)
	}
}

func writeError(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fault.Denied.Errorf("data directory %s is not writable: %w; name another with --data-dir, or make it writable for this user", dir, err)
	}
	return fault.Exhausted.Errorf("data directory %s cannot be written: %w; make room on its disk and start again", dir, err)
}

// book reads the price book.
func (c *Config) book() (rate.Book, error) {
	if c.PriceBook == "" {
		return rate.Default(), nil
	}
	data, err := os.ReadFile(c.PriceBook)
	if err != nil {
		return rate.Book{}, fault.Invalid.Errorf("price book: %w", err)
	}
	b, err := rate.Parse(data)
	if err != nil {
		return rate.Book{}, fault.Invalid.Errorf("price book %s: %w", c.PriceBook, err)
	}
	return b, nil
}

// listen opens the port.
func (c *Config) listen(ctx context.Context) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return nil, fault.Invalid.Errorf("listen address %q: %w; want HOST:PORT such as 127.0.0.1:8081", c.Listen, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fault.Unavailable.Errorf("cannot listen on %s: %w; see that the address is this machine's and that no other program has the port, or choose another with --listen HOST:PORT", c.Listen, err)
	}
	return l, nil
}

// writeFile writes a file whole or not at all, for its owner only.
func writeFile(path string, v any) error {
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.MarshalIndent(v, "", "  "); err != nil {
			return fault.Internal.Errorf("%s: %w", path, err)
		}
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return writeError(filepath.Dir(path), err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return writeError(filepath.Dir(path), err)
	}
	return nil
}

// shutdownTime is how long calls may take to end when the server stops.
const shutdownTime = 3 * time.Second
