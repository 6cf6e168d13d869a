package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// A ProblemError is why two ends do not trust or understand each other, with what
// to do about it.
type ProblemError struct {
	text    string
	err     error
	refused bool
	no      bool // the protocol is not spoken
}

func (p *ProblemError) Error() string { return p.text }
func (p *ProblemError) Unwrap() error { return p.err }

// Refused reports whether the server refused this end's certificate.
func (p *ProblemError) Refused() bool { return p.refused }

// Unspoken reports whether the server does not speak the protocol that was
// asked for.
func (p *ProblemError) Unspoken() bool { return p.no }

// ProblemOf returns the problem in err, nil if it has none.
func ProblemOf(err error) *ProblemError {
	p, _ := errors.AsType[*ProblemError](err)
	return p
}

// Explained sends requests, and says in words why a server was not trusted or
// not understood.
type Explained struct{ Next http.RoundTripper }

// RoundTrip sends r. Its error may wrap a [*ProblemError].
func (e Explained) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := e.Next.RoundTrip(r)
	if err != nil {
		return nil, explain(r.Context(), err, r.URL.Scheme, r.URL.Host)
	}
	if r.URL.Scheme == "http" && resp.StatusCode == http.StatusBadRequest && resp.Header.Get("Content-Type") == "" {
		head, _ := io.ReadAll(io.LimitReader(resp.Body, 256)) // it is closed or read on below
		if bytes.HasPrefix(head, []byte(WantsTLS)) {
			_ = resp.Body.Close()
			return nil, speaksTLS(r.URL.Host, nil)
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
	}
	return resp, nil
}

// WantsTLS is what Go's HTTP servers, and Covey's, answer to plain HTTP/1 on a
// port of TLS.
const WantsTLS = "Client sent an HTTP request to an HTTPS server."

func speaksTLS(host string, err error) *ProblemError {
	return &ProblemError{text: fmt.Sprintf("the server at %s speaks TLS, and http:// was asked for; want https://%s", host, host), err: err}
}

func explain(ctx context.Context, err error, scheme, host string) error {
	if ProblemOf(err) != nil {
		return err
	}
	if scheme == "http" {
		if !dialled(err) || ctx.Err() != nil || !answersTLS(ctx, host) {
			return err
		}
		return speaksTLS(host, err)
	}
	if text := verification(err, host); text != "" {
		return &ProblemError{text: text, err: err}
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &ProblemError{text: fmt.Sprintf("the server at %s speaks no TLS, and https:// was asked for; want http://%s if it is on loopback", host, host), err: err}
	}
	for _, a := range alerts {
		if strings.HasSuffix(err.Error(), "tls: "+a.name) {
			return &ProblemError{text: fmt.Sprintf("the server at %s %s", host, a.text), err: err, refused: a.refused, no: a.name == unspoken}
		}
	}
	return err
}

const unspoken = "no application protocol"

// alerts is what a server says that ends a connection by TLS. Their type is
// crypto/tls's own, so that their text is all there is.
var alerts = [...]struct {
	name, text string
	refused    bool
}{
	{"expired certificate", "says that this machine's certificate has ended; it is renewed with the machine's credential", true},
	{"unknown certificate authority", "does not know the authority that signed this machine's certificate; join again with a new token", true},
	{"bad certificate", "refuses this machine's certificate; join again with a new token", true},
	{unspoken, "does not speak HTTP/2 over TLS; see that it is a covey server", false},
	{"protocol version not supported", "and this program have no version of TLS in common; want TLS 1.3", false},
}

func verification(err error, host string) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Sprintf("the certificate of the server at %s is of an authority that is not known here; copy ca.pem from the server's data directory "+
			"and name it with --ca-file or COVEY_CA, or once with covey cluster add NAME URL --ca-file FILE", host)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := append([]string(nil), e.Certificate.DNSNames...)
		for _, ip := range e.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("the certificate of the server at %s is for %s and not for %s; use one of those names, or start the server with --host %s",
			host, strings.Join(names, ", "), e.Host, e.Host)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return fmt.Sprintf("the certificate of the server at %s is good from %s to %s only, and here it is %s; set this machine's clock, or renew the server's certificate",
			host, e.Cert.NotBefore.UTC().Format(time.RFC3339), e.Cert.NotAfter.UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Sprintf("the certificate of the server at %s is not good: %v", host, e.Err)
	}
	return ""
}

// dialled reports whether err came after the connection was there.
func dialled(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return !ok || e.Op != "dial"
}

// answersTLS reports whether a port speaks TLS. Nothing is said to it but
// hello.
func answersTLS(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}} //nolint:gosec // nothing is sent
	c, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
