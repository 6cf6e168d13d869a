package cli

import (
	"context"
	"errors"
	"fmt"
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

	// How long a server may take to say that it lives, and to begin the answer
	// to a question that another server can be asked.
	pulse, answer time.Duration
}

const (
	pulseWait  = time.Second     // a server that does not answer for so long is not chosen first
	answerWait = 5 * time.Second // a question is asked of another server then
	tolerated  = 3 * time.Second // how old an answer may be when another server can be asked
)

// RoundTrip sends r to the server that answered last, or to the next.
func (s *several) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(s.servers) == 1 {
		return s.next.RoundTrip(r)
	}
	s.looked.Do(func() { s.choose(r.Context()) })
	first := int(s.at.Load())
	var failed []error // one for each server that was asked in vain
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
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.servers[at], err))
		}
		if !again || last || r.Body != nil && r.GetBody == nil || r.Context().Err() != nil {
			return resp, each(failed, err)
		}
		if err == nil { // a server that does not lead, and knows nobody who does
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
			_ = resp.Body.Close()
		}
	}
}

// each says of every server why it was asked in vain. Of one alone, or when the
// last one answered, last is all there is to say.
func each(failed []error, last error) error {
	if last == nil || len(failed) < 2 {
		return last
	}
	texts, args := make([]string, len(failed)), make([]any, len(failed))
	for i, err := range failed {
		texts[i], args[i] = "%w", err
	}
	return fmt.Errorf("none of the servers: "+strings.Join(texts, "; "), args...)
}

// choose finds a server that answers: one that stands still would take the
// first call in and do nothing with it.
func (s *several) choose(ctx context.Context) {
	for i, u := range s.servers {
		if s.lives(ctx, u) == nil {
			s.at.Store(int32(i))
			return
		}
	}
}

// lives asks a server whether it lives.
func (s *several) lives(ctx context.Context, server *url.URL) error {
	soon, cancel := context.WithTimeout(ctx, s.pulse)
	defer cancel()
	req, err := http.NewRequestWithContext(soon, http.MethodGet, server.JoinPath("/healthz").String(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := s.next.RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// answered returns the server that answered last.
func (s *several) answered() string { return baseOf(s.servers[s.at.Load()]) }

// baseOf returns a server's address without a slash at its end.
func baseOf(server *url.URL) string { return strings.TrimSuffix(server.String(), "/") }

// pulses asks every server but the one that answered last whether it lives, all
// at once. What is nil does.
func (s *several) pulses(ctx context.Context) map[string]error {
	out := map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, u := range s.servers {
		if i == int(s.at.Load()) {
			continue
		}
		wg.Go(func() {
			err := s.lives(ctx, u)
			mu.Lock()
			defer mu.Unlock()
			out[baseOf(u)] = err
		})
	}
	wg.Wait()
	return out
}

// ask sends r to one server. An impatient one gives up when the answer does
// not begin soon.
func (s *several) ask(r *http.Request, server *url.URL, impatient bool) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	one := r.Clone(ctx)
	one.URL.Scheme, one.URL.Host, one.Host = server.Scheme, server.Host, ""
	if impatient {
		late := time.AfterFunc(s.answer, func() { cancel(errSilent) })
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
