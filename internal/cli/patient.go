package cli

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// patient makes a call again that a server had too much to do to take in: then
// nothing of it has happened, and the server says when to come again.
type patient struct {
	next  http.RoundTripper
	most  time.Duration // to wait, all in all
	pause func(context.Context, time.Duration) error
}

// busyPatience is how long a command tries to hand a call to a busy server.
const busyPatience = time.Minute

func newPatient(next http.RoundTripper) patient { return patient{next, busyPatience, pause} }

// RoundTrip sends r, again and again if need be. The answer of a server that
// stays busy is returned in the end: it says so in words.
func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	for waited := time.Duration(0); ; {
		resp, err := p.next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		wait := comeAgain(resp)
		if wait == 0 || waited+wait > p.most || r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
			return resp, nil
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		_ = resp.Body.Close()
		waited += wait
		if err = p.pause(r.Context(), wait/2+rand.N(wait)); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// comeAgain is how long a server that is too busy wants to be left alone; 0: it
// is not, and what is exhausted is something else, such as a quota.
func comeAgain(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests {
		return 0
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // 0 if it says nothing
	return max(0, time.Duration(seconds)*time.Second)
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
