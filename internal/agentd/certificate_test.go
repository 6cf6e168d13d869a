package agentd

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/trust"
)

// TestDial holds what a machine needs to know before it says anything to a
// server by TLS, and that a certificate which is not usable is renewed.
func TestDial(t *testing.T) {
	a, err := trust.OpenAuthority(t.TempDir(), "dev", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pem := trust.EncodePEM(a.Certificate())
	for what, tt := range map[string]struct {
		roots, machine []byte
		named          bool
		says           string // of the error; empty: there is none
	}{
		"never joined by TLS": {says: "copy ca.pem"},
		"damaged":             {roots: []byte("x"), says: "no certificate in PEM form"},
		"torn":                {roots: pem[:len(pem)/2], says: "no certificate in PEM form"},
		"pinned":              {roots: pem},
		"named":               {named: true},
		"damaged, but named":  {roots: []byte("x"), named: true},
		"own one is damaged":  {roots: pem, machine: []byte("x")},
	} {
		c := Config{DataDir: t.TempDir(), Server: "https://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)}
		for f, data := range map[string][]byte{rootsFile: tt.roots, machineFile: tt.machine} {
			if data != nil {
				if err := os.WriteFile(filepath.Join(c.DataDir, f), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if tt.named {
			c.CAFile = filepath.Join(t.TempDir(), "named.pem")
			if err := os.WriteFile(c.CAFile, pem, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		client, err := c.dial(identity{Credential: "secret"})
		switch {
		case tt.says != "":
			if fault.Of(err) != fault.Invalid || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v; want invalid with %q", what, err, tt.says)
			}
		case err != nil:
			t.Errorf("%s: %v", what, err)
		default:
			if at, ok := client.RenewAt(); !ok || !at.IsZero() {
				t.Errorf("%s: the certificate is to be renewed at %v, %v; want now", what, at, ok)
			}
			client.Close()
		}
	}
	c := Config{DataDir: t.TempDir(), Server: "http://127.0.0.1:1"}
	client, err := c.dial(identity{Credential: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := client.RenewAt(); ok {
		t.Error("without TLS a certificate is to be renewed")
	}
}

// TestRenewalWaits holds that a server which is away is asked less and less
// often, and that a clock which is set back makes no longer pause.
func TestRenewalWaits(t *testing.T) {
	client, err := rpc.DialAgent(rpc.AgentConfig{URL: "https://127.0.0.1:1", Credential: "x"})
	if err != nil {
		t.Fatal(err)
	}
	r := &renewal{client: client, machine: "m1", path: filepath.Join(t.TempDir(), "x"), log: slog.New(slog.DiscardHandler)}
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is reached
	var got []time.Duration
	for range 9 {
		r.step(ctx, now)
		got = append(got, r.next.Sub(now))
		before := r.next
		if r.step(ctx, now.Add(r.wait-time.Millisecond)); !r.next.Equal(before) {
			t.Errorf("tried again %v early", time.Millisecond)
		}
		now = r.next
	}
	if got[0] != renewRetry || got[1] != 2*renewRetry || got[8] != renewLastRetry {
		t.Errorf("pauses %v; want from %v, doubled, to %v", got, renewRetry, renewLastRetry)
	}
	set := now.Add(-24 * time.Hour)
	if r.step(ctx, set); !r.next.Equal(set.Add(renewLastRetry)) {
		t.Errorf("after the clock was set back the next attempt is at %v; want %v", r.next, set.Add(renewLastRetry))
	}
}
