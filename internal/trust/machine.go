package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/fault"
)

// A Machine is whom a machine's certificate names.
type Machine struct {
	Cluster    string // UID
	ID         string
	Credential string // the hash under which the machine's credential is stored; without that row the certificate is void
}

// uri is the name of a machine: covey://UID/machine/ID.
func (m Machine) uri() *url.URL {
	return &url.URL{Scheme: "covey", Host: m.Cluster, Path: "/machine/" + m.ID}
}

// MachineOf returns whom a verified certificate names. What names no machine
// is an error of kind Unauthenticated.
func MachineOf(c *x509.Certificate) (Machine, error) {
	if len(c.URIs) == 1 {
		u := c.URIs[0]
		id, ok := strings.CutPrefix(u.Path, "/machine/")
		m := Machine{Cluster: u.Host, ID: id, Credential: c.Subject.SerialNumber}
		if ok && id != "" && m.Credential != "" && *m.uri() == *u {
			return m, nil
		}
	}
	return Machine{}, fault.Unauthenticated.Errorf("the certificate names no machine of a cluster; a machine's is made by covey agent when it joins")
}

// A Request is a key that asks for a certificate. The key stays where it was
// made.
type Request struct {
	CSR []byte // PKCS #10, DER
	key crypto.Signer
}

// NewRequest makes a key.
func NewRequest() (Request, error) {
	key, err := newKey()
	if err != nil {
		return Request{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return Request{}, fault.Internal.Errorf("ask for a certificate: %w", err)
	}
	return Request{csr, key}, nil
}

// Answered takes in the certificate that was asked for. One for another key is
// an error.
func (r Request) Answered(der []byte) (*tls.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Internal.Errorf("the server sent a certificate that is damaged: %w", err)
	}
	if !sameKey(r.key.Public(), c.PublicKey) {
		return nil, fault.Internal.Errorf("the server sent a certificate for another key than was asked for")
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: r.key, Leaf: c}, nil
}

// maxCSR bounds what is parsed for a stranger, in bytes.
const maxCSR = 4 << 10

// ForMachine makes the certificate that a machine asked for. Of the request
// only the key counts. Errors of kind Invalid say what is wrong with it.
func (a *Authority) ForMachine(csr []byte, m Machine, now time.Time) ([]byte, error) {
	if len(csr) == 0 || len(csr) > maxCSR {
		return nil, fault.Invalid.Errorf("the request for a certificate has %d bytes; want PKCS #10 of 1 to %d", len(csr), maxCSR)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fault.Invalid.Errorf("the request for a certificate is not understood: %w", err)
	}
	switch k := r.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, fault.Invalid.Errorf("the request for a certificate has a key on curve %s; want P-256 or P-384", k.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return nil, fault.Invalid.Errorf("the request for a certificate has a key of kind %s; want ECDSA or Ed25519", r.PublicKeyAlgorithm)
	}
	if err = r.CheckSignature(); err != nil {
		return nil, fault.Invalid.Errorf("the request for a certificate is not signed by its key: %w", err)
	}
	c, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: m.ID, SerialNumber: m.Credential}, URIs: []*url.URL{m.uri()},
		NotBefore: now.Add(-skew), NotAfter: now.Add(MachineLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}, r.PublicKey)
	if err != nil {
		return nil, err
	}
	return c.Raw, nil
}

// WriteMachine stores a machine's certificate with its key in one file that
// only its owner may read.
func WriteMachine(path string, c *tls.Certificate) error {
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		return fault.Internal.Errorf("the machine's certificate has no key")
	}
	data, err := encodeKey(key)
	if err != nil {
		return err
	}
	return WriteFile(path, append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...), 0o600)
}

// ReadMachine reads what [WriteMachine] wrote. That there is none is an error
// that wraps [fs.ErrNotExist].
func ReadMachine(path string) (*tls.Certificate, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the caller names it
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, fault.Invalid.Errorf("%s is damaged: %w", path, err)
	}
	return &c, nil
}
