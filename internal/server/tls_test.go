package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/trust"
)

// TestSecure holds that nothing but loopback is ever spoken to in the clear.
func TestSecure(t *testing.T) {
	for _, tt := range []struct {
		listen string
		tls    bool
		want   bool
	}{
		{"127.0.0.1:0", false, false},
		{"127.9.9.9:0", false, false},
		{"[::1]:0", false, false},
		{"localhost:0", false, false},
		{"127.0.0.1:0", true, true},
		{":0", false, true},
		{"0.0.0.0:0", false, true},
		{"[::]:0", false, true},
		{"10.1.2.3:0", false, true},
		{"covey.example.com:0", false, true},
		{"localhost.example.com:0", false, true},
		{"[::ffff:10.0.0.1]:0", false, true},
	} {
		c := Config{DataDir: t.TempDir(), Cluster: "dev", Listen: tt.listen, TLS: tt.tls, Log: slog.New(slog.DiscardHandler)}
		if err := c.secure(); err != nil {
			t.Errorf("%s: %v", tt.listen, err)
			continue
		}
		if got := c.present != nil; got != tt.want {
			t.Errorf("%s with TLS asked for %v: TLS is %v; want %v", tt.listen, tt.tls, got, tt.want)
		}
		_, err := os.Stat(filepath.Join(c.DataDir, trust.AuthorityKeyFile))
		if got := err == nil; got != tt.want {
			t.Errorf("%s: a key of an authority is %v; want %v", tt.listen, got, tt.want)
		}
	}
}

// TestNames holds what a server's certificate names.
func TestNames(t *testing.T) {
	c := Config{Listen: "10.1.2.3:8081", Hosts: []string{"Covey.Example.com", "10.9.9.9"}}
	got, err := c.names()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"localhost", "127.0.0.1", "::1", "10.1.2.3", "covey.example.com", "10.9.9.9"} {
		if !slices.Contains(got, want) {
			t.Errorf("names %q; want %s among them", got, want)
		}
	}
	for _, bad := range []string{"", "a b", "https://x", "x:8081", "*.example.com", "\u00e9.example", strings.Repeat("a", 300)} {
		c := Config{Listen: "10.1.2.3:8081", Hosts: []string{bad}}
		if _, err := c.names(); fault.Of(err) != fault.Invalid || err == nil {
			t.Errorf("--host %q: %v; want invalid", bad, err)
		}
	}
}

// TestCertificateFlags holds that half a certificate is refused.
func TestCertificateFlags(t *testing.T) {
	c := Config{DataDir: t.TempDir(), Cluster: "dev", TLSCert: "x"}
	if err := c.complete(); fault.Of(err) != fault.Invalid || err == nil || !strings.Contains(err.Error(), "--tls-key") {
		t.Errorf("--tls-cert alone: %v; want invalid", err)
	}
	c = Config{DataDir: t.TempDir(), Cluster: "dev", Listen: "127.0.0.1:0", TLSCert: "/nonexistent", TLSKey: "/nonexistent", Log: slog.New(slog.DiscardHandler)}
	if err := c.secure(); fault.Of(err) != fault.Invalid || err == nil || !strings.Contains(err.Error(), "--tls-cert") {
		t.Errorf("--tls-cert that is not there: %v; want invalid", err)
	}
}

// TestDevStaysAtHome holds that a whole platform on one machine is for that
// machine alone.
func TestDevStaysAtHome(t *testing.T) {
	d := &dev{cfg: DevConfig{Listen: "0.0.0.0:0"}}
	if _, err := d.address(t.Context()); fault.Of(err) != fault.Invalid || err == nil || !strings.Contains(err.Error(), "covey server") {
		t.Errorf("dev on every address: %v; want invalid", err)
	}
}
