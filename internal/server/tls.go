package server

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/trust"
)

// onLoopback reports whether an address HOST:PORT is reached from this machine
// alone.
func onLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// secure decides how the port speaks. Tokens travel in the clear on loopback
// only, where nobody but this machine's root can listen.
func (c *Config) secure() error {
	if onLoopback(c.Listen) && !c.TLS && c.TLSCert == "" {
		return nil
	}
	now := time.Now
	a, err := trust.OpenAuthority(c.DataDir, c.Cluster, now())
	if err != nil {
		return err
	}
	if c.TLSCert != "" {
		c.present, err = a.PresentFiles(c.TLSCert, c.TLSKey, now, c.Log)
		return err
	}
	names, err := c.names()
	if err == nil {
		c.present, err = a.Present(names, now, c.Log)
	}
	return err
}

// names are those under which clients may reach the server.
func (c *Config) names() ([]string, error) {
	out := []string{"localhost", "127.0.0.1", "::1"}
	if h, err := os.Hostname(); err == nil && validHost(strings.ToLower(h)) {
		out = append(out, strings.ToLower(h))
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, fault.Invalid.Errorf("listen address %q: %w; want HOST:PORT such as 127.0.0.1:8081", c.Listen, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fault.Unavailable.Errorf("the addresses of this machine: %w; listen on one of them", err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				out = append(out, n.IP.String())
			}
		}
	} else {
		out = append(out, host)
	}
	for _, h := range append([]string{out[len(out)-1]}, c.Hosts...) {
		if h = strings.ToLower(h); !validHost(h) {
			return nil, fault.Invalid.Errorf("host %.80q is no name and no address; want one such as covey.example.com, without a port", h)
		}
		out = append(out, h)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// validHost reports whether a certificate can name h.
func validHost(h string) bool {
	if net.ParseIP(h) != nil {
		return true
	}
	return h != "" && len(h) <= 253 && strings.Trim(h, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" && !strings.HasPrefix(h, ".") && !strings.HasPrefix(h, "-")
}

// http makes the server of the port.
func (c *Config) http(h http.Handler) *http.Server {
	s := rpc.NewServer(h)
	if c.present != nil {
		s = rpc.NewTLSServer(h, c.present)
	}
	s.ErrorLog = slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug) // strangers who do not get in
	return s
}
