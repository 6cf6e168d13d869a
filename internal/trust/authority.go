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
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/covey-platform/covey/internal/fault"
)

// Files of an authority in the server's data directory.
const (
	AuthorityFile    = "ca.pem"
	AuthorityKeyFile = "ca.key"
)

// An Authority signs what the parts of a cluster show to each other. Its
// methods may be called by several goroutines at once.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// OpenAuthority reads the authority in dir, and makes it when there is none.
// cluster is its name, for people. A damaged one is an error of kind Invalid:
// nothing is ever made over it, since machines would no longer know the server.
func OpenAuthority(dir, cluster string, now time.Time) (*Authority, error) {
	certPath, keyPath := filepath.Join(dir, AuthorityFile), filepath.Join(dir, AuthorityKeyFile)
	_, certErr := os.Stat(certPath)
	info, keyErr := os.Stat(keyPath)
	switch {
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		return makeAuthority(certPath, keyPath, cluster, now)
	case keyErr != nil:
		return nil, fault.Invalid.Errorf("the key of the cluster's authority: %w; restore %s from a backup, or remove %s too and let every machine join anew", keyErr, keyPath, certPath)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fault.Denied.Errorf("%s is readable by others (mode %#o); run chmod 600 %s, and if others were here, remove it with %s and let every machine join anew",
			keyPath, info.Mode().Perm(), keyPath, AuthorityFile)
	case errors.Is(certErr, fs.ErrNotExist):
		if a, err := readAuthority(certPath+".new", keyPath, now); err == nil { // its making was interrupted
			return a, rename(certPath+".new", certPath)
		}
	}
	return readAuthority(certPath, keyPath, now)
}

// makeAuthority writes the certificate aside, then the key, and puts the
// certificate in place last: whatever is interrupted is gone on with.
func makeAuthority(certPath, keyPath, cluster string, now time.Time) (*Authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Covey authority of cluster " + cluster},
		NotBefore: now.Add(-skew), NotAfter: now.Add(AuthorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	a := &Authority{cert: t, key: key}
	if a.cert, err = a.sign(t, key.Public()); err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := writeSynced(certPath+".new", EncodePEM(a.cert), 0o644); err != nil {
		return nil, fault.Exhausted.Errorf("%s cannot be written: %w", certPath, err)
	}
	if err := WriteFile(keyPath, keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := rename(certPath+".new", certPath); err != nil {
		return nil, fault.Exhausted.Errorf("%s cannot be written: %w", certPath, err)
	}
	return a, nil
}

func readAuthority(certPath, keyPath string, now time.Time) (*Authority, error) {
	certs, err := ReadPEM(certPath)
	if err != nil {
		return nil, fault.Invalid.Errorf("the cluster's authority is damaged: %w; restore %s from a backup, or remove it and %s and let every machine join anew", err, certPath, AuthorityKeyFile)
	}
	key, err := readKey(keyPath)
	if err != nil {
		return nil, fault.Invalid.Errorf("the key of the cluster's authority is damaged: %w; restore %s from a backup, or remove it and %s and let every machine join anew", err, keyPath, AuthorityFile)
	}
	c := certs[0]
	switch {
	case !c.IsCA || !sameKey(c.PublicKey, key.Public()):
		return nil, fault.Invalid.Errorf("%s is not the certificate of the key %s; restore both from one backup", certPath, keyPath)
	case now.After(c.NotAfter):
		return nil, fault.Invalid.Errorf("the cluster's authority %s ended on %s; see the machine's clock, or remove it and %s and let every machine join anew", certPath, c.NotAfter.Format(time.DateOnly), AuthorityKeyFile)
	}
	return &Authority{cert: c, key: key}, nil
}

// Certificate returns the authority's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// sign completes a certificate: whatever it is for, it ends with its
// authority.
func (a *Authority) sign(t *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fault.Internal.Errorf("serial number: %w", err)
	}
	t.SerialNumber = serial.Add(serial, big.NewInt(1))
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, public, a.key)
	if err != nil {
		return nil, fault.Internal.Errorf("sign a certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Internal.Errorf("sign a certificate: %w", err)
	}
	return c, nil
}

// forServer makes a certificate, with a new key, for a server of these names
// and addresses.
func (a *Authority) forServer(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: "covey server"}, NotBefore: now.Add(-skew), NotAfter: now.Add(ServerLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	c, err := a.sign(t, key.Public())
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{c.Raw, a.cert.Raw}, PrivateKey: key, Leaf: c}, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Internal.Errorf("make a key: %w", err)
	}
	return key, nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fault.Internal.Errorf("a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func readKey(path string) (crypto.Signer, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the caller names it
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fault.Invalid.Errorf("%s holds no key in PEM form", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, fault.Invalid.Errorf("%s holds a key that cannot sign", path)
	}
	return key, nil
}

// sameKey compares public keys of the kinds that are accepted; others are
// never the same.
func sameKey(a, b crypto.PublicKey) bool {
	switch k := a.(type) {
	case *ecdsa.PublicKey:
		return k.Equal(b)
	case ed25519.PublicKey:
		return k.Equal(b)
	}
	return false
}
