package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
)

const (
	reads  = "/covey.v1.JobService/ListJobs"
	writes = "/covey.v1.JobService/KillJob"
)

// A stub is a server of a cluster, as far as the choice among several goes.
type stub struct {
	url   *url.URL
	calls atomic.Int32 // without questions whether it lives
	last  atomic.Value // the body of the last call
}

// serving starts a stub that answers calls with f; nil: with its own name.
func serving(t *testing.T, name string, f http.HandlerFunc) *stub {
	t.Helper()
	s := &stub{}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			return
		}
		s.calls.Add(1)
		body, _ := io.ReadAll(r.Body)
		s.last.Store(string(body))
		if f != nil {
			f(w, r)
		}
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(func() { ts.CloseClientConnections(); ts.Close() })
	s.url, _ = url.Parse(ts.URL)
	return s
}

// dead returns the address of a server that does not run. Nobody else gets its
// port while the test runs.
func dead(t *testing.T) *url.URL {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	v4, ok := at.(*syscall.SockaddrInet4)
	if err != nil || !ok {
		t.Fatal(err)
	}
	return &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", v4.Port)}
}

func among(servers ...*url.URL) *several {
	return &several{servers: servers, next: &http.Transport{DisableKeepAlives: true}, pulse: time.Minute, answer: time.Minute}
}

// sent sends a call and returns who answered.
func sent(t *testing.T, s *several, procedure, body string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://nobody.invalid"+procedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// A command turns to a server that answers, stays with it, and sends what it
// has to say whole to each.
func TestSeveralTurns(t *testing.T) {
	a, b := serving(t, "a", nil), serving(t, "b", nil)
	s := among(dead(t), a.url, b.url)
	for _, procedure := range []string{reads, writes, reads} {
		if got, err := sent(t, s, procedure, "hello"); err != nil || got != "a" {
			t.Errorf("%s: got %q, %v; want a's answer", procedure, got, err)
		}
	}
	if got := a.last.Load(); got != "hello" {
		t.Errorf("a was sent %q; want hello", got)
	}
	if n := b.calls.Load(); n != 0 {
		t.Errorf("b had %d calls; want none while a answers", n)
	}
	if got, want := s.answered(), a.url.String(); got != want {
		t.Errorf("%s answered last; want %s", got, want)
	}

	// The one that answered last is gone: nothing was sent to it.
	s.at.Store(0)
	if got, err := sent(t, s, writes, "hello again"); err != nil || got != "a" || a.last.Load() != "hello again" {
		t.Errorf("a server that is gone by now: got %q, %v; want a's answer", got, err)
	}
}

// What was sent and may have been carried out is not sent again elsewhere, as
// long as it does more than read.
func TestSeveralSendsOnce(t *testing.T) {
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for _, c := range []struct {
		procedure string
		want      string // who answers; "": nobody does
		elsewhere int32
	}{{reads, "b", 1}, {writes, "", 0}} {
		a, b := serving(t, "a", cut), serving(t, "b", nil)
		got, err := sent(t, among(a.url, b.url), c.procedure, "hello")
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q, %v; want %q", c.procedure, got, err, c.want)
		}
		if n := b.calls.Load(); n != c.elsewhere {
			t.Errorf("%s: b had %d calls; want %d", c.procedure, n, c.elsewhere)
		}
	}
}

// A server that neither leads nor knows who does has carried nothing out, so
// that another is asked, also for what is no question.
func TestSeveralNobodyLeads(t *testing.T) {
	lost := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Covey-Leader", "")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	a, b := serving(t, "a", lost), serving(t, "b", nil)
	if got, err := sent(t, among(a.url, b.url), writes, "hello"); err != nil || got != "b" {
		t.Errorf("got %q, %v; want b's answer", got, err)
	}
	if got := b.last.Load(); got != "hello" {
		t.Errorf("b was sent %q; want hello", got)
	}
	c := serving(t, "c", lost)
	got, err := sent(t, among(a.url, c.url), writes, "hello")
	if err != nil || got != "c" {
		t.Errorf("when all are lost: got %q, %v; want what the last one says", got, err)
	}
}

// An answer that is old is not taken while another server can be asked.
func TestSeveralOldAnswers(t *testing.T) {
	aged := func(age string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Covey-Age", age) }
	}
	for _, c := range []struct {
		ages [2]string
		want string
	}{
		{[2]string{"50ms", "0s"}, "a"},
		{[2]string{"3s", "0s"}, "a"},
		{[2]string{"3.001s", "0s"}, "b"},
		{[2]string{"1h", "2h"}, "b"}, // better than nothing
		{[2]string{"soon", "0s"}, "a"},
	} {
		a, b := serving(t, "a", aged(c.ages[0])), serving(t, "b", aged(c.ages[1]))
		if got, err := sent(t, among(a.url, b.url), reads, ""); err != nil || got != c.want {
			t.Errorf("ages %v: got %q, %v; want %s's answer", c.ages, got, err, c.want)
		}
	}
}

// A server that takes calls in and stands still is given up for another one.
func TestSeveralStandsStill(t *testing.T) {
	hang := make(chan struct{})
	a := serving(t, "a", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(hang) })
	b := serving(t, "b", nil)
	s := among(a.url, b.url)
	s.answer = 50 * time.Millisecond
	if got, err := sent(t, s, reads, ""); err != nil || got != "b" {
		t.Errorf("got %q, %v; want b's answer", got, err)
	}
}

// When no server is reached, the error names each with its reason, and can
// still be told from one that was sent.
func TestSeveralNone(t *testing.T) {
	a, b := dead(t), dead(t)
	_, err := sent(t, among(a, b), writes, "hello")
	if err == nil || !refused(err) {
		t.Fatalf("got %v; want a refused connection", err)
	}
	for _, u := range []*url.URL{a, b} {
		if !strings.Contains(err.Error(), u.String()+": ") {
			t.Errorf("got %q; want the reason of %s", err, u)
		}
	}
	if _, err = sent(t, among(a), writes, "hello"); err == nil || strings.Contains(err.Error(), "none of") {
		t.Errorf("one server: got %v; want its reason alone", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	live := serving(t, "b", nil)
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://nobody.invalid"+reads, strings.NewReader(""))
	if resp, err := among(a, live.url).RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		t.Error("a call that the user has ended was answered")
	}
	if n := live.calls.Load(); n != 0 {
		t.Errorf("the other server had %d calls; want none", n)
	}
}

func TestHarmless(t *testing.T) {
	got := map[string]bool{}
	for _, p := range []string{"GetJob", "ListJobs", "WatchJob", "ExplainJob", "ReadLog", "KillJob", "CreateJob", "Resume", "RestartJob", "Forget"} {
		got[p] = harmless("/covey.v1.JobService/" + p)
	}
	want := map[string]bool{
		"GetJob": true, "ListJobs": true, "WatchJob": true, "ExplainJob": true, "ReadLog": true,
		"KillJob": false, "CreateJob": false, "Resume": false, "RestartJob": false, "Forget": false,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("what only reads (-want +got):\n%s", d)
	}
}

// A stream goes on elsewhere when its server was lost, and not when the server
// had its reasons or the user ended it.
func TestPasses(t *testing.T) {
	elsewhere := connect.NewWireError(connect.CodeUnavailable, errors.New("it does not lead"))
	elsewhere.Meta().Set("Covey-Leader", "http://b")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{connect.NewError(connect.CodeUnavailable, errors.New("cut")), true},
		{fmt.Errorf("while it waited: %w", connect.NewError(connect.CodeUnknown, io.ErrUnexpectedEOF)), true},
		{connect.NewWireError(connect.CodeUnavailable, errors.New("too much to do")), false},
		{elsewhere, true},
		{connect.NewError(connect.CodeCanceled, context.Canceled), false},
		{connect.NewError(connect.CodeInvalidArgument, errors.New("bad")), false},
		{io.EOF, false},
	} {
		if got := passes(c.err); got != c.want {
			t.Errorf("%v: got %v; want %v", c.err, got, c.want)
		}
	}
}

// covey cluster show says which of several servers answers, and why another
// one does not.
func TestClusterShowSeveral(t *testing.T) {
	_, live := startWorld(t.Context(), t)
	gone := dead(t).String()
	for _, order := range []string{gone + "," + live, live + "," + gone} {
		code, out, errs := typed(t, order, "cluster", "show")
		if want := "server     " + live + " v1\n"; code != 0 || !strings.Contains(out, want) {
			t.Errorf("--server %s: got %d, %q, %q; want %q in it", order, code, out, errs, want)
		}
		if want := "no answer  " + gone + ": "; !strings.Contains(out, want) {
			t.Errorf("--server %s: got %q; want %q in it", order, out, want)
		}
	}
	_, out, _ := typed(t, gone+","+live, "cluster", "show", "-o", "json")
	if want := `"url": "` + live + `",` + "\n      \"answers\": true"; !strings.Contains(out, want) {
		t.Errorf("got %s; want %s in it", out, want)
	}
	if _, out, _ = typed(t, live, "cluster", "show", "-o", "json"); strings.Contains(out, "asked") {
		t.Errorf("one server: got %s; want nothing about others", out)
	}
	other := dead(t).String()
	code, _, errs := typed(t, gone+","+other, "cluster", "show")
	if code != NetworkError || !strings.Contains(errs, gone+": ") || !strings.Contains(errs, other+": ") {
		t.Errorf("both gone: got %d, %q; want %d, and both named", code, errs, NetworkError)
	}
}
