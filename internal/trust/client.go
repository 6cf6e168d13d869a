package trust

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"time"

	"github.com/covey-platform/covey/internal/fault"
)

// A Pinned is a server that is known by nothing but a pin, until a connection
// to it was made.
type Pinned struct {
	pin   string
	host  string
	now   func() time.Time
	found atomic.Pointer[x509.Certificate]
}

// NewPinned returns the way to a server: host is its name or address, as in
// its URL, without a port.
func NewPinned(pin, host string, now func() time.Time) *Pinned {
	return &Pinned{pin: pin, host: host, now: now}
}

// Root returns the certificate that the pin names, once a server showed it;
// nil before.
func (p *Pinned) Root() *x509.Certificate { return p.found.Load() }

// Config returns a client's side that ends the handshake, and with it the
// connection before anything was sent, unless the server's certificate is good
// for its host and goes back to what the pin names.
func (p *Pinned) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // verify does it, against the pin
		VerifyConnection:   p.verify,
	}
}

func (p *Pinned) verify(s tls.ConnectionState) error {
	var root *x509.Certificate
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates {
		if Pin(c) == p.pin {
			root = c
		} else {
			between.AddCert(c)
		}
	}
	if root == nil {
		return &ProblemError{text: "the server shows no certificate of the authority that the join token names: it is another server, or somebody stands between; nothing was sent. " +
			"See that --server is right; if the cluster's authority was made anew, make a new token with covey token create --kind join"}
	}
	// That the leaf is the pinned one itself is fine: who gives a certificate
	// without its authority pins that.
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: Pool(root), Intermediates: between, DNSName: p.host, CurrentTime: p.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	p.found.Store(root)
	return nil
}

// Expired returns why a machine's certificate is of no use any more, or nil.
func Expired(c *x509.Certificate, now time.Time) error {
	if now.After(c.NotAfter) {
		return fault.Unauthenticated.Errorf("the machine's certificate ended at %s; it is renewed with the machine's credential", c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
