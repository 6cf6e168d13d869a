package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

// What a command does when its server is lost: it turns to another one, and to
// the same one again when it knows no other.
const (
	patience   = 15 * time.Second
	retryPause = 200 * time.Millisecond
)

// several is the servers of a cluster: any of them will do. What was not
// carried out for certain, or does no harm, is asked of another one.
type several struct {
	servers []*url.URL
	at      atomic.Int32 // the one that answered last
	looked  sync.Once
	next    http.RoundTripper
}

const (
	pulseWait   = time.Second     // a server that does not answer for so long is not chosen first
	tolerated   = 3 * time.Second // how old an answer may be when another server can be asked
	answerLimit = 5 * time.Second // to begin the answer to a question that another server can be asked
)

// RoundTrip sends r to the server that answered last, or to the next.
func (s *several) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(s.servers) == 1 {
		return s.next.RoundTrip(r)
	}
	s.looked.Do(func() { s.choose(r.Context()) })
	first := int(s.at.Load())
	for i := 0; ; i++ {
		at := (first + i) % len(s.servers)
		if i > 0 && r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			r.Body = body
		}
		last := i+1 >= len(s.servers)
		resp, err := s.ask(r, s.servers[at], !last && harmless(r.URL.Path))
		if err == nil && len(resp.Header.Values("Covey-Leader")) == 0 && (last || !stale(resp.Header)) {
			s.at.Store(int32(at))
			return resp, nil
		}
		again := err == nil || refused(err) || harmless(r.URL.Path)
		if !again || last || r.Body != nil && r.GetBody == nil || r.Context().Err() != nil {
			return resp, err
		}
		if err == nil { // a server that does not lead, and knows nobody who does
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
			_ = resp.Body.Close()
		}
	}
}

// choose finds a server that answers: one that stands still would take the
// first call in and do nothing with it.
func (s *several) choose(ctx context.Context) {
	for i, u := range s.servers {
		soon, cancel := context.WithTimeout(ctx, pulseWait)
		req, err := http.NewRequestWithContext(soon, http.MethodGet, u.JoinPath("/healthz").String(), http.NoBody)
		if err == nil {
			var resp *http.Response
			if resp, err = s.next.RoundTrip(req); err == nil {
				err = resp.Body.Close()
			}
		}
		cancel()
		if err == nil {
			s.at.Store(int32(i))
			return
		}
	}
}

// ask sends r to one server. An impatient one gives up when the answer does
// not begin soon.
func (s *several) ask(r *http.Request, server *url.URL, impatient bool) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	one := r.Clone(ctx)
	one.URL.Scheme, one.URL.Host, one.Host = server.Scheme, server.Host, ""
	if impatient {
		late := time.AfterFunc(answerLimit, func() { cancel(errSilent) })
		defer late.Stop()
	}
	resp, err := s.next.RoundTrip(one)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = ending{resp.Body, cancel}
	return resp, nil
}

var errSilent = errors.New("the server is silent")

// ending frees what an answer holds when it is closed.
type ending struct {
	io.ReadCloser
	end context.CancelCauseFunc
}

func (e ending) Close() error {
	err := e.ReadCloser.Close()
	e.end(nil)
	return err
}

// stale reports whether an answer is that of a server which has lost touch with
// its database: another one knows more.
func stale(h http.Header) bool {
	age, err := time.ParseDuration(h.Get("Covey-Age"))
	return err == nil && age > tolerated
}

// refused reports whether nothing was sent.
func refused(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// harmless reports whether a call only reads.
func harmless(procedure string) bool {
	name := path.Base(procedure)
	for _, verb := range []string{"Get", "List", "Watch", "Explain", "Read"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}

// passes reports whether a stream that ended with err may go on when it is
// opened again: the server was lost, or does not lead any more.
func passes(err error) bool {
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return false
	}
	return !connect.IsWireError(e) && e.Code() != connect.CodeCanceled && e.Code() != connect.CodeInvalidArgument || len(e.Meta().Values("Covey-Leader")) > 0
}
