package server

import (
	"context"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/store"
)

// closing is a store of a cluster that this server has opened.
type closing interface {
	clusterStore
	Close() error
}

// openCluster opens the cluster's store, for the server that is called holder.
func (c *Config) openCluster(ctx context.Context, holder string) (closing, error) {
	if store.IsPostgres(c.ClusterStore) {
		return store.OpenPostgres(ctx, store.PostgresConfig{URL: c.ClusterStore, Name: holder, TTL: leaseTTL, Log: c.Log})
	}
	return store.Open(ctx, store.Config{Path: c.ClusterStore, Now: time.Now, TTL: leaseTTL, Log: c.Log})
}

func (c *Config) openCompany(ctx context.Context, holder string) (*store.Company, error) {
	if store.IsPostgres(c.CompanyStore) {
		return store.OpenCompanyPostgres(ctx, store.PostgresConfig{URL: c.CompanyStore, Name: holder, Log: c.Log})
	}
	return store.OpenCompany(ctx, c.CompanyStore, c.Log)
}

// member is what this server says of itself to the others, given the address
// on which it listens.
func (c *Config) member(holder, listens, token, owner string) (store.Member, error) {
	m := store.Member{Name: holder, URL: strings.TrimSuffix(c.Advertise, "/"), Token: token, Owner: owner}
	scheme := "http"
	if c.present != nil {
		scheme = "https"
	}
	if m.URL == "" {
		host, port, err := net.SplitHostPort(listens)
		if err != nil {
			return m, fault.Internal.Errorf("the address %q of this server: %w", listens, err)
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			if host, err = os.Hostname(); err != nil {
				return m, fault.Invalid.Errorf("this machine has no name: %w; say with --advertise how others reach this server", err)
			}
		}
		m.URL = scheme + "://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(m.URL)
	if err != nil || u.Scheme != scheme || u.Host == "" || u.Path != "" || strings.Contains(m.URL, ",") {
		return m, fault.Invalid.Errorf("--advertise %.200q is no address of this server; want %s://HOST:PORT", m.URL, scheme)
	}
	return m, nil
}

// root is the authority that signs the certificates of this cluster's servers.
func (c *Config) root() *x509.Certificate {
	if c.present == nil {
		return nil
	}
	return c.present.Authority().Certificate()
}
