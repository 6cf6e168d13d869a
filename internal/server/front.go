package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/trust"
)

// front decides, on a server that follows, what it answers itself and what it
// hands on to the leader.
type front struct {
	b       *backend
	here    http.Handler // this server's own answers
	through *http.Transport

	catchWait time.Duration // a call that wrote is not kept for longer until this server shows what it wrote
}

// Headers between servers, and to clients.
const (
	ageHeader     = "Covey-Age"       // how old the answer of a follower may be
	forwardHeader = "Covey-Forwarded" // the name of the server that handed a call on
)

const (
	leaderWait  = 10 * time.Second // a call waits so long for somebody to lead
	forwardBody = 17 << 20         // the largest call, and its envelope
	pulseWait   = time.Second      // a leader that does not answer for so long gets no call
	caughtUp    = time.Second      // a server that handed a write on shows it within
)

// A place is who answers a procedure on a server that follows.
type place uint8

const (
	leaders  place = iota // the leader alone
	anybodys              // the leader knows more, but this server will do while nobody leads
	ours                  // this server, as of its last look
)

// places names the procedures that a follower may answer. All others change
// something, or need what only the leader has.
var places = map[string]place{
	api.JobServiceListJobsProcedure:         ours,
	api.JobServiceWatchJobProcedure:         ours,
	api.TaskServiceListTaskEventsProcedure:  ours,
	api.MachineServiceListMachinesProcedure: ours,
	api.MachineServiceGetMachineProcedure:   ours,
	api.ClusterServiceListTokensProcedure:   ours,
	api.QuotaServiceGetQuotaProcedure:       ours,
	api.QuotaServiceListQuotasProcedure:     ours,
	api.JobServiceGetJobProcedure:           anybodys,
	api.ClusterServiceGetClusterProcedure:   anybodys,
	// An agent's streams are told where the leader is; any server certifies.
	api.AgentServiceSessionProcedure: ours,
	api.AgentServiceLookProcedure:    ours,
	api.AgentServiceRenewProcedure:   ours,
}

// newFront returns what hands calls on; root is who may have signed the
// certificates of the other servers, beside those whom this machine trusts.
func newFront(b *backend, root *x509.Certificate) *front {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if root != nil {
		pool.AddCert(root)
	}
	var p http.Protocols
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &front{b: b, catchWait: caughtUp, through: &http.Transport{
		Protocols: &p, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool},
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout: time.Minute, HTTP2: &http.HTTP2Config{SendPingTimeout: leaseTTL, PingTimeout: leaseTTL},
	}}
}

// route returns who answers a call; nil: this server itself.
func (f *front) route(r *http.Request) http.Handler {
	v := f.b.View()
	if v.Following == nil || !strings.HasPrefix(r.URL.Path, "/covey.v1.") {
		return nil
	}
	where := places[r.URL.Path]
	if where == ours || r.Header.Get(forwardHeader) != "" {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.forward(w, r, where) })
}

// age tells the readers of a follower how old its answer may be.
func (f *front) age(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := f.b.View(); v.Following != nil {
			w.Header().Set(ageHeader, time.Since(v.Following.Since).Round(time.Millisecond).String())
		}
		next.ServeHTTP(w, r)
	})
}

// errAgain says that a call was not carried out, and can be tried elsewhere.
var errAgain = errors.New("the server does not lead any more")

// forward hands a call on to the leader, and to the next one if that one did
// not take it in.
func (f *front) forward(w http.ResponseWriter, r *http.Request, where place) {
	if !f.recognised(r) {
		f.own(w, r) // says why
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, forwardBody))
	if err != nil {
		rpc.Refuse(w, r, fault.Invalid.Errorf("the call is not whole, or has more than %d bytes: %w", forwardBody, err))
		return
	}
	_ = r.Body.Close()
	deadline := time.Now().Add(leaderWait)
	for {
		leader, us, problem := f.leader(r, deadline)
		if us || leader == nil && where == anybodys {
			f.own(w, withBody(r, body))
			return
		}
		if problem != nil {
			f.b.log.ErrorContext(r.Context(), "calls are not handed on to the leader", "error", problem)
			rpc.Refuse(w, r, f.b.View().Unreached(problem))
			return
		}
		if leader == nil {
			rpc.Refuse(w, r, f.b.View().Elsewhere())
			return
		}
		err := f.once(w, withBody(r, body), leader, where)
		if err == nil {
			return
		}
		if !errors.Is(err, errAgain) || time.Now().After(deadline) || r.Context().Err() != nil {
			rpc.Refuse(w, r, err)
			return
		}
		select {
		case <-r.Context().Done():
		case <-time.After(lookEvery):
		}
	}
}

// own lets this server answer.
func (f *front) own(w http.ResponseWriter, r *http.Request) {
	r.Header.Set(forwardHeader, f.b.holder)
	f.here.ServeHTTP(w, r)
}

// recognised reports whether the caller is known, also if its token was made
// at the leader just now. Nothing is kept or handed on for strangers.
func (f *front) recognised(r *http.Request) bool {
	if rpc.Recognises(f.b.View(), f.b.wall(), r) {
		return true
	}
	f.catchUp(r)
	return rpc.Recognises(f.b.View(), f.b.wall(), r)
}

func withBody(r *http.Request, body []byte) *http.Request {
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return r
}

// leader waits for somebody to lead: another server, or this one. A problem is
// one that no waiting mends.
func (f *front) leader(r *http.Request, deadline time.Time) (leader *url.URL, us bool, problem error) {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	for {
		news := f.b.Published() // before looking, so that no change is missed
		v := f.b.View()
		if v.Following == nil {
			return nil, true, nil
		}
		for _, s := range v.Servers {
			u, err := url.Parse(s.URL)
			if !s.Leads || err != nil || u.Host == "" {
				continue
			}
			if err = f.lives(r, u); err == nil {
				return u, false, nil
			} else if p := distrust(err, u); p != nil {
				return nil, false, p
			}
		}
		if time.Since(v.Following.Since) > leaseTTL {
			return nil, false, nil // the database is not reached: another server knows more
		}
		select {
		case <-time.After(lookEvery):
		case <-r.Context().Done():
			return nil, false, nil
		case <-late.C:
			return nil, false, nil
		case <-news:
		}
	}
}

// distrust says why two servers do not trust or understand each other, if that
// is what err is about.
func distrust(err error, server *url.URL) error {
	p := trust.ProblemOf(err)
	if p == nil {
		return nil
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fault.Unavailable.Errorf("the certificate of the server at %s is of another authority than this one's; all servers of a cluster need one: copy ca.pem and ca.key from its data directory to that of this server, and start this one again", server.Host)
	}
	return p
}

// lives says why a server does not answer; nil: it does. One that stands still
// takes calls in and does nothing with them until it is no longer the leader.
func (f *front) lives(r *http.Request, server *url.URL) error {
	ctx, cancel := context.WithTimeout(r.Context(), pulseWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.JoinPath("/healthz").String(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := trust.Explained{Next: f.through}.RoundTrip(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = fault.Unavailable.Errorf("%s says %s", server, resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}

// once hands a call on once. With errAgain in its error nothing has happened,
// or it does no harm to ask again; without an error, the call was answered.
func (f *front) once(w http.ResponseWriter, r *http.Request, leader *url.URL, where place) (failed error) {
	p := &httputil.ReverseProxy{
		Transport: f.through, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(leader)
			p.Out.Host = leader.Host
			p.Out.Header.Set(forwardHeader, f.b.holder)
			for _, h := range []string{"Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"} {
				p.Out.Header.Del(h) // this server has looked at them
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			if rpc.IsElsewhere(resp.Header) {
				return errAgain
			}
			f.catchUp(r)
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			var dial *net.OpError
			switch {
			case errors.Is(err, errAgain):
				failed = fault.Unavailable.Errorf("the leader at %s: %w; try again", leader, err)
			case errors.As(err, &dial) && dial.Op == "dial", where == anybodys:
				failed = fault.Unavailable.Errorf("the leader at %s is not reached: %w: %w", leader, err, errAgain)
			default:
				failed = fault.Timeout.Errorf("the leader at %s was lost while it worked on this: %w; look whether it happened", leader, err)
			}
		},
	}
	p.ServeHTTP(w, r)
	return failed
}

// catchUp waits until this server shows what the leader has just committed:
// whoever wrote reads here what was written.
func (f *front) catchUp(r *http.Request) {
	head, err := f.b.shared.Head(r.Context())
	if err != nil {
		return
	}
	late := time.NewTimer(f.catchWait)
	defer late.Stop()
	for {
		news := f.b.Published()
		if f.b.View().Snapshot.Rev >= head.Rev {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-late.C:
			return
		case <-news:
		}
	}
}
