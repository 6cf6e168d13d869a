package rpc

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/trust"
)

// TestTLSOnly holds that the port takes nothing below TLS 1.3 and HTTP/2.
func TestTLSOnly(t *testing.T) {
	s := serveTLS(t)
	addr := strings.TrimPrefix(s.url, "https://")
	client := func(most uint16, protocols ...string) (*tls.Conn, error) {
		return tls.Dial("tcp", addr, &tls.Config{
			RootCAs: trust.Pool(s.authority.Certificate()), Time: s.clock.now, NextProtos: protocols, MinVersion: tls.VersionTLS12, MaxVersion: most,
		})
	}
	if conn, err := client(tls.VersionTLS12, "h2"); err == nil {
		_ = conn.Close()
		t.Error("a connection by TLS 1.2; want none")
	}
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		conn, err := client(tls.VersionTLS13, protocols...)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, "GET /covey.v1.ClusterService/GetCluster HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		if b, err := io.ReadAll(conn); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("HTTP/1 as %q: %q, %v; want the end of the connection", protocols, b, err)
		}
		_ = conn.Close()
	}
	for what, speak := range map[string]func() error{
		"an agent": func() error {
			a, err := DialAgent(AgentConfig{URL: "http://" + addr, Credential: agentToken})
			if err != nil {
				return err
			}
			return s.session(a)
		},
		"HTTP/1": func() error {
			resp, err := (&http.Client{Transport: trust.Explained{Next: &http.Transport{}}}).Post("http://"+addr, "application/json", http.NoBody)
			if err == nil {
				_ = resp.Body.Close()
			}
			return err
		},
	} {
		if err := speak(); err == nil || !strings.Contains(err.Error(), "speaks TLS") {
			t.Errorf("%s without TLS: %v; want words about TLS", what, err)
		}
	}
}

// TestExplained holds what people read when two ends do not fit together.
func TestExplained(t *testing.T) {
	s := serveTLS(t)
	plain := serve(t, newBackend(t))
	foreign := newAuthority(t)
	for what, tt := range map[string]struct {
		url  string
		conf AgentConfig
		says string
	}{
		"no TLS there":       {strings.Replace(plain, "http:", "https:", 1), AgentConfig{}, "speaks no TLS"},
		"unknown authority":  {s.url, AgentConfig{Roots: trust.Pool(foreign.Certificate())}, "--ca-file"},
		"wrong host":         {strings.Replace(s.url, "127.0.0.1", "localhost", 1), AgentConfig{}, "is for 127.0.0.1 and not for localhost"},
		"server's has ended": {s.url, AgentConfig{Now: func() time.Time { return s.clock.now().Add(100 * 24 * time.Hour) }}, "is good from"},
		"our clock is early": {s.url, AgentConfig{Now: func() time.Time { return s.clock.now().Add(-24 * time.Hour) }}, "set this machine's clock"},
		"nobody there":       {"https://127.0.0.1:1", AgentConfig{}, "connection refused"},
	} {
		c := tt.conf
		c.URL, c.Credential = tt.url, agentToken
		if c.Roots == nil {
			c.Roots = trust.Pool(s.authority.Certificate())
		}
		if c.Now == nil {
			c.Now = s.clock.now
		}
		a, err := DialAgent(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = a.Renew(t.Context(), machine.ID("m1")); err == nil || !strings.Contains(err.Error(), tt.says) || fault.Of(err) != fault.Unavailable {
			t.Errorf("%s: %v (%v); want unavailable with %q", what, err, fault.Of(err), tt.says)
		}
	}
}
