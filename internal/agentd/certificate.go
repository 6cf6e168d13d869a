package agentd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/trust"
)

// Files in the data directory of a machine that joined over TLS.
const (
	rootsFile   = "ca.pem"    // who may sign the server's certificate
	machineFile = "agent.pem" // the machine's own certificate, with its key
)

// named returns the certificates that somebody named with --ca-file.
func (c *Config) named() ([]*x509.Certificate, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	roots, err := trust.ReadPEM(c.CAFile)
	if err != nil {
		return nil, fault.Of(err).Errorf("--ca-file: %w", err)
	}
	return roots, nil
}

// keep writes down what joining brought.
func (c *Config) keep(cert *tls.Certificate, roots []*x509.Certificate) error {
	if cert == nil {
		return nil
	}
	if err := trust.WriteFile(filepath.Join(c.DataDir, rootsFile), trust.EncodePEM(roots...), 0o600); err != nil {
		return err
	}
	return trust.WriteMachine(filepath.Join(c.DataDir, machineFile), cert)
}

// dial returns the way to the server of a machine that joined.
func (c *Config) dial(id identity) (*rpc.Agent, error) {
	cfg := rpc.AgentConfig{URL: c.Server, Others: c.Servers, Credential: id.Credential, Version: c.Version, Renewed: c.renewed, Steady: runtime.BootTime}
	for _, s := range id.Servers {
		if strings.HasPrefix(s, "https:") == strings.HasPrefix(c.Server, "https:") {
			cfg.Others = append(cfg.Others, s)
		}
	}
	if !strings.HasPrefix(c.Server, "https:") {
		return rpc.DialAgent(cfg)
	}
	roots, err := c.named()
	if err == nil && roots == nil {
		if roots, err = trust.ReadPEM(filepath.Join(c.DataDir, rootsFile)); err != nil {
			err = fault.Of(err).Errorf("who may sign the server's certificate is not known: %w; copy ca.pem from the server's data directory to %s, or name it with --ca-file",
				err, filepath.Join(c.DataDir, rootsFile))
		}
	}
	if err != nil {
		return nil, err
	}
	cfg.Roots = trust.Pool(roots...)
	cfg.Cert, err = trust.ReadMachine(filepath.Join(c.DataDir, machineFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Log.Warn("the machine's certificate is not usable; another is asked for", "error", err)
	}
	return rpc.DialAgent(cfg)
}

// Time between attempts to renew the certificate.
const (
	renewRetry     = time.Second
	renewLastRetry = time.Minute
)

// renewal keeps a machine's certificate good.
type renewal struct {
	client  *rpc.Agent
	machine machine.ID
	path    string // where it is kept
	log     *slog.Logger

	wait time.Duration // after a failure; 0: there was none
	next time.Time     // no attempt before that
	last string        // error that was logged
}

func (d *daemon) renew(ctx context.Context, client *rpc.Agent) error {
	if _, ok := client.RenewAt(); !ok {
		return nil
	}
	r := &renewal{client: client, machine: machine.ID(d.cfg.Machine), path: filepath.Join(d.cfg.DataDir, machineFile), log: d.log}
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		r.step(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// step renews the certificate if it is time.
func (r *renewal) step(ctx context.Context, now time.Time) {
	at, _ := r.client.RenewAt()
	if pause := r.next.Sub(now); now.Before(at) || 0 < pause && pause <= renewLastRetry { // a clock that was set back makes no longer pause
		return
	}
	cert, err := r.client.Renew(ctx, r.machine)
	if err != nil {
		if text := err.Error(); ctx.Err() == nil && text != r.last {
			r.log.WarnContext(ctx, "the machine's certificate is not renewed; the tasks run on", "error", text)
			r.last = text
		}
		r.wait = min(max(2*r.wait, renewRetry), renewLastRetry)
		r.next = now.Add(r.wait)
		return
	}
	r.wait, r.next, r.last = 0, time.Time{}, ""
	r.log.InfoContext(ctx, "the machine's certificate is renewed", "until", cert.Leaf.NotAfter)
	if err := trust.WriteMachine(r.path, cert); err != nil {
		r.log.ErrorContext(ctx, "the machine's certificate is not written down; after a restart another is asked for", "error", err)
	}
}
