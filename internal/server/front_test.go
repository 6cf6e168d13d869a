package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

const frontToken = "covey_admin_front"

// headed is a shared store of which only the head is asked.
type headed struct {
	sharedStore
	rev state.Rev
}

func (h headed) Head(context.Context) (state.Head, error) { return state.Head{Rev: h.rev}, nil }

// frontOf makes the front of a server that follows, whose own answer is "here".
// It knows one token.
func frontOf(t *testing.T, servers ...rpc.Server) *front {
	t.Helper()
	d := state.NewDraft(state.New(), unit.TickAt(time.Now()))
	for _, c := range []state.Change{
		state.PutCluster{Cluster: state.Cluster{Name: "dev", UID: "uid", Incarnation: 1}},
		state.PutCredential{Credential: state.Credential{Hash: rpc.HashToken(frontToken), Kind: "admin", Subject: "ann"}},
	} {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	b := &backend{looper: newLooper(nil, "dev", "me", newStats(), slog.New(slog.DiscardHandler))}
	b.shared = headed{}
	b.show(&rpc.View{Snapshot: d.Snapshot(), Servers: servers, Following: &rpc.Following{Since: time.Now().Add(time.Hour)}})
	f := newFront(b, nil)
	f.here = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "here "+r.Header.Get(forwardHeader)+" "+string(body))
	})
	t.Cleanup(f.through.CloseIdleConnections)
	return f
}

// change shows another view.
func (f *front) change(do func(*rpc.View)) {
	v := f.b.View()
	do(&v)
	f.b.show(&v)
}

// another is a server that answers calls with h. Whether it lives it says itself.
func another(t *testing.T, h http.HandlerFunc) rpc.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/", h)
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = rpc.NewServer(mux)
	ts.Start()
	t.Cleanup(func() { ts.CloseClientConnections(); ts.Close() })
	return rpc.Server{Name: "other", URL: ts.URL, Leads: true}
}

// dead is a server that does not run, on a port that nobody else gets.
func dead(t *testing.T) rpc.Server {
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
	return rpc.Server{Name: "dead", URL: fmt.Sprintf("http://127.0.0.1:%d", v4.Port), Leads: true}
}

// call makes a call to a server with front f, as a user with a token does.
func (f *front) call(t *testing.T, procedure, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, procedure, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+frontToken)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if h := f.route(r); h != nil {
		h.ServeHTTP(w, r)
	} else {
		f.here.ServeHTTP(w, r)
	}
	return w
}

// said reads the error in an answer.
func said(t *testing.T, w *httptest.ResponseRecorder) (code, message string) {
	t.Helper()
	var e struct{ Code, Message string }
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
		t.Fatalf("the answer %q is no error: %v", w.Body, err)
	}
	return e.Code, e.Message
}

// What only reads is answered where it is asked, what writes goes to the leader,
// and nothing is handed on twice.
func TestFrontRoutes(t *testing.T) {
	leader := another(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "there") })
	f := frontOf(t, leader)
	for _, c := range []struct {
		procedure string
		header    []string
		want      string
	}{
		{api.JobServiceListJobsProcedure, nil, "here  {}"},
		{api.MachineServiceListMachinesProcedure, nil, "here  {}"},
		{api.AgentServiceSessionProcedure, nil, "here  {}"},
		{api.JobServiceKillJobProcedure, nil, "there"},
		{api.JobServiceGetJobProcedure, nil, "there"},
		{api.JobServiceKillJobProcedure, []string{forwardHeader, "other"}, "here other {}"},
		{"/metrics", nil, "here  {}"},
		{"/covey.v1.LaterService/Unknown", nil, "there"},
		{api.JobServiceKillJobProcedure, []string{"Authorization", "Bearer guess"}, "here me {}"}, // which says why
		{api.JobServiceKillJobProcedure, []string{"Authorization", ""}, "here me {}"},
	} {
		if got := f.call(t, c.procedure, "{}", c.header...).Body.String(); got != c.want {
			t.Errorf("%s %v: got %q; want %q", c.procedure, c.header, got, c.want)
		}
	}
	f.change(func(v *rpc.View) { v.Following = nil })
	if got := f.call(t, api.JobServiceKillJobProcedure, "{}").Body.String(); got != "here  {}" {
		t.Errorf("a leader's own call: got %q; want it answered here", got)
	}
}

// A call reaches the leader whole, under its own token, without what was for this
// server alone, and its answer comes back whole.
func TestFrontHandsOn(t *testing.T) {
	got := map[string]string{}
	leader := another(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = map[string]string{"path": r.URL.Path, "body": string(body), "host": r.Host}
		for _, h := range []string{"Authorization", forwardHeader, "Origin", "Sec-Fetch-Site", "Content-Type"} {
			got[h] = r.Header.Get(h)
		}
		w.Header().Set("Trailer-Of", "its own")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "an answer")
	})
	f := frontOf(t, rpc.Server{Name: "me", URL: "http://127.0.0.1:1"}, leader)
	w := f.call(t, api.JobServiceCreateJobProcedure, `{"key":"a"}`, "Origin", "http://here", "Sec-Fetch-Site", "same-origin")
	want := map[string]string{
		"path": api.JobServiceCreateJobProcedure, "body": `{"key":"a"}`, "host": strings.TrimPrefix(leader.URL, "http://"),
		"Authorization": "Bearer " + frontToken, forwardHeader: "me", "Origin": "", "Sec-Fetch-Site": "", "Content-Type": "application/json",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("what the leader was asked (-want +got):\n%s", d)
	}
	if w.Code != http.StatusTeapot || w.Body.String() != "an answer" || w.Header().Get("Trailer-Of") != "its own" {
		t.Errorf("got %d %q %v; want the leader's answer", w.Code, w.Body, w.Header())
	}
	if w = f.call(t, api.JobServiceCreateJobProcedure, strings.Repeat("x", forwardBody+1)); w.Code != http.StatusBadRequest {
		t.Errorf("a call that is too large: got %d %s; want it refused here", w.Code, w.Body)
	}
}

// Whoever wrote through a server reads there what was written.
func TestFrontCatchesUp(t *testing.T) {
	leader := another(t, func(http.ResponseWriter, *http.Request) {})
	f := frontOf(t, leader)
	d := state.NewDraft(f.b.View().Snapshot, unit.TickAt(time.Now()))
	if err := d.Apply(state.PutCluster{Cluster: f.b.View().Snapshot.Cluster}); err != nil {
		t.Fatal(err)
	}
	later := d.Snapshot()
	f.b.shared = headed{rev: later.Rev}
	if f.b.View().Snapshot.Rev >= later.Rev {
		t.Fatal("the server has nothing to catch up with")
	}
	f.catchWait = time.Minute
	time.AfterFunc(50*time.Millisecond, func() { f.change(func(v *rpc.View) { v.Snapshot = later }) })
	f.call(t, api.JobServiceKillJobProcedure, "{}")
	if got := f.b.View().Snapshot.Rev; got != later.Rev {
		t.Errorf("the call was answered at revision %d; want %d, which it made", got, later.Rev)
	}
}

// A leader that leads no more is asked no more: the next one is.
func TestFrontNextLeader(t *testing.T) {
	var f *front
	second := another(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "second "+string(body))
	})
	var once sync.Once
	first := another(t, func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { f.change(func(v *rpc.View) { v.Servers = []rpc.Server{second} }) })
		w.Header().Set("Covey-Leader", second.URL)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	f = frontOf(t, first)
	if got := f.call(t, api.JobServiceKillJobProcedure, "all of it").Body.String(); got != "second all of it" {
		t.Errorf("got %q; want the second leader's answer to the whole call", got)
	}
	// It may be this server itself.
	first = another(t, func(w http.ResponseWriter, _ *http.Request) {
		f.change(func(v *rpc.View) { v.Following = nil })
		w.Header().Set("Covey-Leader", "")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	f.change(func(v *rpc.View) { v.Servers = []rpc.Server{first} })
	if got := f.call(t, api.JobServiceKillJobProcedure, "all of it").Body.String(); got != "here me all of it" {
		t.Errorf("got %q; want this server's own answer", got)
	}
}

// A server that has lost touch with its database hands nothing on to a leader
// that does not answer: it says so, and reads what it knows.
func TestFrontNobodyLeads(t *testing.T) {
	for name, servers := range map[string][]rpc.Server{"nobody": nil, "one that is gone": {dead(t)}} {
		f := frontOf(t, servers...)
		f.change(func(v *rpc.View) { v.Following = &rpc.Following{Since: time.Now().Add(-time.Hour)} })
		w := f.call(t, api.JobServiceKillJobProcedure, "{}")
		if code, text := said(t, w); code != "unavailable" || !strings.Contains(text, "does not lead") || !rpc.IsElsewhere(w.Header()) {
			t.Errorf("%s leads: got %s %q %v; want to be told to ask another server", name, code, text, w.Header())
		}
		if got := f.call(t, api.JobServiceGetJobProcedure, "{}").Body.String(); got != "here me {}" {
			t.Errorf("%s leads: a question got %q; want what this server knows", name, got)
		}
	}
}

// A leader that is lost while it works on a call may have carried it out.
func TestFrontLeaderLost(t *testing.T) {
	f := frontOf(t, another(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	w := f.call(t, api.JobServiceKillJobProcedure, "{}")
	if code, text := said(t, w); code != "deadline_exceeded" || !strings.Contains(text, "look whether it happened") {
		t.Errorf("got %s %q; want to be told to look", code, text)
	}
	if rpc.IsElsewhere(w.Header()) {
		t.Error("the answer says that another server may be asked; it may have happened")
	}
}

// Servers of different authorities do not trust each other, and say at once
// what to do.
func TestFrontDistrust(t *testing.T) {
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	ts.EnableHTTP2 = true
	ts.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	ts.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	ts.StartTLS()
	t.Cleanup(ts.Close)
	leader := rpc.Server{Name: "other", URL: ts.URL, Leads: true}
	f := frontOf(t, leader)
	var log bytes.Buffer
	f.b.log = slog.New(slog.NewTextHandler(&log, nil))
	w := f.call(t, api.JobServiceKillJobProcedure, "{}")
	code, text := said(t, w)
	if code != "unavailable" || !strings.Contains(text, "copy ca.pem and ca.key") || !strings.Contains(text, strings.TrimPrefix(ts.URL, "https://")) {
		t.Errorf("got %s %q; want to be told which files to copy from where", code, text)
	}
	if !rpc.IsElsewhere(w.Header()) {
		t.Error("the answer does not say that another server may be asked")
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "copy ca.pem") {
		t.Errorf("the log says %q; want the reason", log.String())
	}

	// By an authority that it knows, it is asked.
	f.through.TLSClientConfig.RootCAs.AddCert(ts.Certificate())
	ts.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	if got := f.call(t, api.JobServiceKillJobProcedure, "{}").Body.String(); got != "HTTP/2.0" {
		t.Errorf("got %q; want the leader's answer by HTTP/2", got)
	}
}

// Readers of a server that follows learn how old its answer may be.
func TestFrontAge(t *testing.T) {
	f := frontOf(t)
	age := func() string {
		w := httptest.NewRecorder()
		f.age(f.here).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, api.JobServiceListJobsProcedure, http.NoBody))
		return w.Header().Get(ageHeader)
	}
	f.change(func(v *rpc.View) { v.Following = &rpc.Following{Since: time.Now().Add(-time.Hour)} })
	if d, err := time.ParseDuration(age()); err != nil || d < time.Hour || d > 2*time.Hour {
		t.Errorf("age %v, %v; want an hour and a little", d, err)
	}
	f.change(func(v *rpc.View) { v.Following = nil })
	if got := age(); got != "" {
		t.Errorf("a leader's answer has age %q; want none", got)
	}
}
