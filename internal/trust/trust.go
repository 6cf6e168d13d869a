// Package trust says who is at the other end of a connection. A cluster has an
// authority of its own, whose key never leaves the server's data directory. It
// signs what the server shows and what proves each machine. A machine knows its
// authority by a hash that came with its join token, before it says anything.
//
// It promises TLS 1.3 and HTTP/2 and nothing below, that no secret is sent to a
// server that was not verified, and that a certificate for machines is good for
// no server and the other way round.
package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/fault"
)

// Lives of certificates. Each is good skew before it was made, for clocks that
// are behind, and is renewed when two thirds of its life are over.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	ServerLife    = 90 * 24 * time.Hour
	MachineLife   = 24 * time.Hour

	skew = time.Hour
)

// RenewAt returns when a certificate of this package is to be renewed.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore.Add(skew)) / 3)
}

// PinLen is the length of a pin, in digits.
const PinLen = 50

// Pin names a certificate: the SHA-256 of it, in 50 digits of base 36.
func Pin(c *x509.Certificate) string {
	h := sha256.Sum256(c.Raw)
	s := new(big.Int).SetBytes(h[:]).Text(36)
	return strings.Repeat("0", PinLen-len(s)) + s
}

// joinPrefix begins every join token.
const joinPrefix = "covey_join_"

// WithPin puts a pin into a join token: covey_join_PIN_SECRET. What is no join
// token stays as it is.
func WithPin(token, pin string) string {
	secret, ok := strings.CutPrefix(token, joinPrefix)
	if !ok || pin == "" {
		return token
	}
	return joinPrefix + pin + "_" + secret
}

// PinOf returns the pin in a join token, "" when it has none.
func PinOf(token string) string {
	rest, ok := strings.CutPrefix(token, joinPrefix)
	if !ok || len(rest) <= PinLen || rest[PinLen] != '_' {
		return ""
	}
	pin := rest[:PinLen]
	if strings.Trim(pin, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
		return ""
	}
	return pin
}

// ReadPEM reads the certificates of a file, at least one. Errors are of kind
// Invalid.
func ReadPEM(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the caller names it
	if err != nil {
		return nil, fault.Invalid.Errorf("certificate: %w", err)
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.Invalid.Errorf("%s holds a certificate that is damaged: %w", path, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fault.Invalid.Errorf("%s holds no certificate in PEM form", path)
	}
	return out, nil
}

// Pool makes a pool of certificates.
func Pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// EncodePEM writes certificates in PEM form.
func EncodePEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// WriteFile writes a file whole or not at all, durably. Errors are of kind
// Exhausted.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".new"
	err := writeSynced(tmp, data, mode)
	if err == nil {
		err = rename(tmp, path)
	}
	if err != nil {
		return fault.Exhausted.Errorf("%s cannot be written: %w; make room on its disk, and see that this user may write there", path, err)
	}
	return nil
}

func writeSynced(path string, data []byte, mode os.FileMode) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) { // an old one may have another mode
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // the caller names it
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
