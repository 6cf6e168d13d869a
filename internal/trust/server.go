package trust

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/covey-platform/covey/internal/fault"
)

// A Presenter holds the certificate that a server shows, and renews it while
// the server runs. Its methods may be called by several goroutines at once.
type Presenter struct {
	authority *Authority
	now       func() time.Time
	log       *slog.Logger
	names     []string // of a certificate of our own
	certFile  string   // of a given one; empty: our own
	keyFile   string

	mu      sync.Mutex
	cert    *tls.Certificate
	root    *x509.Certificate // the last of the chain: what joining machines know the server by
	looked  time.Time         // when the files were looked at
	changed time.Time         // when they had changed
}

// lookEvery is how often files of a given certificate are looked at.
const lookEvery = time.Minute

// Present makes a certificate for a server of these names and addresses.
func (a *Authority) Present(names []string, now func() time.Time, log *slog.Logger) (*Presenter, error) {
	p := &Presenter{authority: a, now: now, log: log, names: names}
	var err error
	if p.cert, err = a.forServer(names, now()); err != nil {
		return nil, err
	}
	p.root = a.cert
	return p, nil
}

// PresentFiles shows a certificate from elsewhere, the chain up to its
// authority in one file in PEM form. The files are read again when they change.
// Machines still prove themselves by certificates of a.
func (a *Authority) PresentFiles(certFile, keyFile string, now func() time.Time, log *slog.Logger) (*Presenter, error) {
	p := &Presenter{authority: a, now: now, log: log, certFile: certFile, keyFile: keyFile, looked: now()}
	p.changed = p.modified()
	var err error
	p.cert, p.root, err = p.read()
	return p, err
}

func (p *Presenter) read() (*tls.Certificate, *x509.Certificate, error) {
	chain, err := ReadPEM(p.certFile)
	if err != nil {
		return nil, nil, fault.Of(err).Errorf("--tls-cert: %w", err)
	}
	c, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		return nil, nil, fault.Invalid.Errorf("--tls-cert %s with --tls-key %s: %w", p.certFile, p.keyFile, err)
	}
	if now := p.now(); now.After(c.Leaf.NotAfter) || now.Before(c.Leaf.NotBefore) {
		return nil, nil, fault.Invalid.Errorf("--tls-cert %s is good from %s to %s, and now is %s; renew it, or set the clock", p.certFile,
			c.Leaf.NotBefore.Format(time.RFC3339), c.Leaf.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return &c, chain[len(chain)-1], nil
}

func (p *Presenter) modified() time.Time {
	var last time.Time
	for _, f := range []string{p.certFile, p.keyFile} {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// current returns the certificate, renewed if it is time. When that fails, the
// old one is shown on.
func (p *Presenter) current() (*tls.Certificate, *x509.Certificate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	switch {
	case p.certFile == "" && now.Before(RenewAt(p.cert.Leaf)), p.certFile != "" && now.Sub(p.looked) < lookEvery:
		return p.cert, p.root
	case p.certFile == "":
		c, err := p.authority.forServer(p.names, now)
		if err != nil {
			p.log.Error("the server's certificate is not renewed", "error", err)
			break
		}
		p.cert = c
		p.log.Info("the server's certificate is renewed", "until", c.Leaf.NotAfter)
	default:
		p.looked = now
		m := p.modified()
		if m.Equal(p.changed) {
			break
		}
		c, root, err := p.read()
		if err != nil {
			p.log.Error("the server's certificate changed and is not usable; the old one is shown on", "error", err)
			break
		}
		p.cert, p.root, p.changed = c, root, m
		p.log.Info("the server's certificate is read again", "until", c.Leaf.NotAfter)
	}
	return p.cert, p.root
}

// Pin returns what goes into join tokens.
func (p *Presenter) Pin() string {
	_, root := p.current()
	return Pin(root)
}

// Hosts returns the names and addresses in the certificate.
func (p *Presenter) Hosts() []string {
	c, _ := p.current()
	out := slices.Clone(c.Leaf.DNSNames)
	for _, ip := range c.Leaf.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

// Authority returns who signs for machines.
func (p *Presenter) Authority() *Authority { return p.authority }

// Config returns what a listener needs: TLS 1.3, HTTP/2, and certificates of
// the cluster's machines where they are shown.
func (p *Presenter) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		Time:       p.now,
		ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs:  Pool(p.authority.cert),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, _ := p.current()
			return c, nil
		},
		SessionTicketsDisabled: true, // a resumed session would prove what was true before
	}
}
