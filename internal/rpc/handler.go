package rpc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/trust"
	"github.com/covey-platform/covey/internal/unit"
)

// Options is what a [Handler] needs beside its backend. The zero Options is
// usable on loopback.
type Options struct {
	Version string           // of the server, for people
	Hosts   []string         // names beside loopback under which the server may be reached, without ports
	Now     func() time.Time // nil: the wall clock
	Log     *slog.Logger     // nil: nothing is logged
	// Route returns who answers a call instead; nil, or no Route: this handler.
	Route func(*http.Request) http.Handler
	TLS   *trust.Presenter // what the server shows; nil: it is reached on loopback without TLS
	// Crowded is called, if set, when agents wait in line to be let in: until they
	// are, nobody can tell which of them are silent. It returns at once.
	Crowded func()
}

// Bounds of what one peer may ask for.
const (
	maxMessage = 1 << 20  // bytes of a message
	maxBundle  = 16 << 20 // of a job's files
	maxReport  = 16 << 20 // of what an agent says at once
	maxAnswer  = 4 << 20  // of an answer to a question
	squeeze    = 64 << 10 // a message of fewer bytes is not compressed: that costs more than to send it

	readLimit = 30 * time.Second // to send the whole of a call of one message
)

// services answers every procedure.
type services struct {
	b     Backend
	opt   Options
	looks *looks
	fits  chan struct{} // one for each question of FitJob that is worked on

	opening chan struct{} // one for each agent that is about to be let in
}

// now is the time of this moment.
func (s *services) now() unit.Tick { return unit.TickAt(s.opt.Now()) }

// Handler serves the API for b. It answers every path below /covey.v1. and
// nothing else.
func Handler(b Backend, opt Options) http.Handler { return newServices(b, opt).handler() }

func (s *services) handler() http.Handler {
	mux := http.NewServeMux()
	opts := []connect.HandlerOption{
		connect.WithConditionalHandlerOptions(func(spec connect.Spec) []connect.HandlerOption {
			return []connect.HandlerOption{connect.WithReadMaxBytes(messageLimit(spec.Procedure))}
		}),
		connect.WithRequestGate(s.gate),
		connect.WithCompressMinBytes(squeeze),
		connect.WithRecover(s.recovered),
		connect.WithInterceptors(guard{s}),
	}
	for _, name := range jsonNames {
		opts = append(opts, connect.WithCodec(strictJSON{name}))
	}
	mux.Handle(api.NewJobServiceHandler(s, opts...))
	mux.Handle(api.NewTaskServiceHandler(s, opts...))
	mux.Handle(api.NewMachineServiceHandler(s, opts...))
	mux.Handle(api.NewUsageServiceHandler(s, opts...))
	mux.Handle(api.NewQuotaServiceHandler(s, opts...))
	mux.Handle(api.NewClusterServiceHandler(s, opts...))
	mux.Handle(api.NewAgentServiceHandler(s, opts...))
	return s.door(mux)
}

// Protect serves h, which is no part of the API, to callers that may use verb,
// with the checks of [Handler].
func Protect(b Backend, opt Options, verb tenant.Verb, h http.Handler) http.Handler {
	s := newServices(b, opt)
	return s.door(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := s.authenticate(r.TLS, r.Header)
		if err == nil {
			err = tenant.Allow(who.Subject, verb, tenant.Object{})
		}
		if err != nil {
			refuse(w, err)
			return
		}
		h.ServeHTTP(w, r)
	}))
}

// NewServer returns a server for handlers of this package on loopback: HTTP/1
// and HTTP/2 on one port without TLS, with bounds on what a slow peer may hold.
// The caller sets BaseContext and ErrorLog.
func NewServer(h http.Handler) *http.Server {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, Protocols: &p,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 256,
			SendPingTimeout:      15 * time.Second,
			PingTimeout:          10 * time.Second,
			WriteByteTimeout:     20 * time.Second,
		},
	}
}

// NewTLSServer returns a server like [NewServer] that shows p, for [ServeTLS]: TLS 1.3 with HTTP/2 and sessions of agents, and nothing else.
func NewTLSServer(h http.Handler, p *trust.Presenter) *http.Server {
	s := NewServer(h)
	s.TLSConfig, s.Protocols = p.Config(), new(http.Protocols)
	s.Protocols.SetHTTP2(true)
	s.TLSConfig.NextProtos = append(s.TLSConfig.NextProtos, directProtocol)
	return s
}

func newServices(b Backend, opt Options) *services {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &services{b: b, opt: opt, looks: newLooks(), fits: make(chan struct{}, maxFits), opening: make(chan struct{}, maxOpening)}
}

// messageLimit bounds one message of a procedure, in bytes.
func messageLimit(procedure string) int {
	switch procedure {
	case api.JobServiceCreateJobProcedure, api.JobServiceFitJobProcedure:
		return maxBundle
	case api.AgentServiceSessionProcedure:
		return maxReport
	case api.AgentServiceLookProcedure:
		return maxAnswer
	default:
		return maxMessage
	}
}

// recovered makes a bug that hit one call the error of that call.
func (s *services) recovered(ctx context.Context, spec connect.Spec, _ http.Header, what any) error {
	s.opt.Log.ErrorContext(ctx, "a call ended in a panic",
		"procedure", spec.Procedure, "panic", fmt.Sprint(what), "stack", string(debug.Stack()))
	return connect.NewError(connect.CodeInternal, fault.Internal.Errorf("%s failed by a bug of the server; its log says more", spec.Procedure))
}

type connKey struct{}

// connOf returns what is known of the connection's TLS; nil: there is none.
func connOf(ctx context.Context) *tls.ConnectionState {
	c, _ := ctx.Value(connKey{}).(*tls.ConnectionState)
	return c
}

type controllerKey struct{}

// deadlines sets the deadlines of a call's connection. They are no promise:
// what a transport cannot do is left out.
type deadlines struct{ *http.ResponseController }

func deadlinesOf(ctx context.Context) deadlines {
	rc, _ := ctx.Value(controllerKey{}).(*http.ResponseController)
	return deadlines{rc}
}

func (d deadlines) read(t time.Time) {
	if d.ResponseController != nil {
		_ = d.SetReadDeadline(t)
	}
}

func (d deadlines) write(t time.Time) {
	if d.ResponseController != nil {
		_ = d.SetWriteDeadline(t)
	}
}

// door turns away what no client of ours sends: a page in somebody's browser,
// or a name that was bent to point here.
func (s *services) door(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if err := s.checkOrigin(r); err != nil {
			refuse(w, err)
			return
		}
		switch {
		case wantsDirect(r):
			s.upgrade(w, r)
			return
		case wantsShared(r):
			s.share(w, r, s.door(next))
			return
		}
		rc := http.NewResponseController(w)
		if !streams(r.URL.Path) {
			_ = rc.SetReadDeadline(time.Now().Add(readLimit))
		}
		if s.opt.Route != nil {
			if other := s.opt.Route(r); other != nil {
				other.ServeHTTP(w, r)
				return
			}
		}
		ctx := context.WithValue(context.WithValue(r.Context(), controllerKey{}, rc), connKey{}, r.TLS)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// streams reports whether the caller of a path may send for as long as it
// likes: the streams of agents set their own deadlines.
func streams(path string) bool {
	return path == api.AgentServiceSessionProcedure || path == api.AgentServiceLookProcedure
}

func (s *services) checkOrigin(r *http.Request) error {
	host := hostOf(r.Host)
	if !loopback(host) && !slices.Contains(s.opt.Hosts, host) && (s.opt.TLS == nil || !slices.Contains(s.opt.TLS.Hosts(), host)) {
		return fault.Denied.Errorf("this server does not answer to the name %.80q; want localhost, or a name that it was started with", host)
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return fault.Denied.Errorf("a page of another site may not call this server")
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(u.Host, r.Host) {
			return fault.Denied.Errorf("a page of %.80q may not call this server", origin)
		}
	}
	return nil
}

// hostOf returns the name in a Host header, in small letters, without a port.
func hostOf(s string) string {
	if h, _, err := net.SplitHostPort(s); err == nil {
		s = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(s, "[]"), "."))
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// refuse answers with an error in the form in which Connect carries one.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusForbidden
	if fault.Of(err) == fault.Unauthenticated {
		status = http.StatusUnauthorized
	}
	body, _ := json.Marshal(map[string]string{"code": codeOf(fault.Of(err)).String(), "message": text(err.Error())})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
