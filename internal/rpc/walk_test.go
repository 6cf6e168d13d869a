package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/tenant"
)

// procedure is one call of the API, found by reflection.
type procedure struct {
	path   string
	method protoreflect.MethodDescriptor
}

func (p procedure) streaming() bool {
	return p.method.IsStreamingClient() || p.method.IsStreamingServer()
}

// procedures lists every call of every service.
func procedures() []procedure {
	var out []procedure
	for _, f := range []protoreflect.FileDescriptor{pb.File_covey_v1_covey_proto, pb.File_covey_v1_agent_proto} {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				out = append(out, procedure{"/" + string(s.FullName()) + "/" + string(m.Name()), m})
			}
		}
	}
	return out
}

func TestEveryProcedureHasARule(t *testing.T) {
	all := procedures()
	if len(all) < 20 || len(all) != len(rules) {
		t.Errorf("%d procedures and %d rules; want as many of both", len(all), len(rules))
	}
	for _, p := range all {
		r, ok := rules[p.path]
		if !ok {
			t.Errorf("%s has no rule", p.path)
			continue
		}
		if r.verb == tenant.Health {
			t.Errorf("%s needs no permission; only health may", p.path)
		}
	}
}

// enveloped puts a message of a stream into Connect's frame: five bytes of
// flags and length before it.
func enveloped(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// call posts a body to a procedure in Connect's JSON form and returns the HTTP
// status and the code of the error, "" if there is none. A stream's answer is
// read until an error, its end or a while after the last message.
func call(t *testing.T, url, token string, p procedure, body []byte) (status int, code, message string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	kind := "application/json"
	if p.streaming() {
		kind, body = "application/connect+json", enveloped(body)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+p.path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := as(token).Do(req)
	if err != nil {
		t.Fatalf("%s: %v", p.path, err)
	}
	defer resp.Body.Close()
	var failed struct{ Code, Message string }
	if !p.streaming() || resp.Header.Get("Content-Type") == "application/json" {
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			_ = json.Unmarshal(b, &failed)
		}
		return resp.StatusCode, failed.Code, failed.Message
	}
	stop := time.AfterFunc(300*time.Millisecond, cancel) // a stream without an error goes on
	defer stop.Stop()
	for {
		var head [5]byte
		if _, err := io.ReadFull(resp.Body, head[:]); err != nil {
			return resp.StatusCode, "", ""
		}
		b := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(resp.Body, b); err != nil {
			return resp.StatusCode, "", ""
		}
		if head[0]&2 != 0 { // the end
			var end struct {
				Error struct{ Code, Message string }
			}
			_ = json.Unmarshal(b, &end)
			return resp.StatusCode, end.Error.Code, end.Error.Message
		}
	}
}

// aimed is a request that names the objects which the tokens of the tests are
// for.
func aimed(p procedure, machine string) []byte {
	switch p.method.Name() {
	case "Session":
		return fmt.Appendf(nil, `{"hello":{"wire":1,"session":"s","clusterUid":"uid-1","machine":{"id":%q}}}`, machine)
	case "Look", "Join", "Renew":
		return fmt.Appendf(nil, `{"machine":%q}`, machine)
	case "SetQuota":
		return []byte(`{"role":"www-data","quota":{"cpuMilli":"1"}}`)
	case "GetQuota", "RemoveQuota":
		return []byte(`{"role":"www-data"}`)
	case "GetMachine":
		return fmt.Appendf(nil, `{"id":%q}`, machine)
	}
	if p.method.Input().Fields().ByName("key") != nil {
		return []byte(`{"key":"dev/www-data/prod/hello"}`)
	}
	return []byte(`{}`)
}

// TestPermissions calls everything as everybody.
func TestPermissions(t *testing.T) {
	url := serve(t, newBackend(t))
	for _, p := range procedures() {
		service, _, _ := strings.Cut(strings.TrimPrefix(p.path, "/covey.v1."), "/")
		for who, token := range map[string]string{
			"nobody": "", "garbage": "covey_admin_guess", "expired": expiredToken, "used": usedToken,
			"join": joinToken, "agent": agentToken, "other": otherToken, "admin": adminToken,
		} {
			allowed := false
			switch who {
			case "admin":
				allowed = service != "AgentService"
			case "agent":
				allowed = service == "AgentService" && p.method.Name() != "Join"
			case "join":
				allowed = p.method.Name() == "Join"
			}
			if who == "join" && allowed {
				continue // would use the token up; TestAgentLife does
			}
			want := "permission_denied"
			switch who {
			case "nobody", "garbage", "expired", "used":
				want = "unauthenticated"
			}
			_, code, message := call(t, url, token, p, aimed(p, "m1"))
			if denied := code == "permission_denied" || code == "unauthenticated"; denied == allowed || denied && code != want {
				t.Errorf("%s as %s: %q %s; allowed should be %v", p.path, who, code, message, allowed)
			}
		}
	}
}

// badBodies makes bodies that no handler may trip over: those that are no
// message at all, and messages whose fields hold what they should not.
func badBodies(m protoreflect.MessageDescriptor) map[string][]byte {
	deep := strings.Repeat(`{"a":`, 50_000) + "1" + strings.Repeat("}", 50_000)
	bad := map[string][]byte{
		"nothing": nil, "no JSON": []byte("{"), "a list": []byte("[]"), "null": []byte("null"), "a number": []byte("1e999"),
		"NUL": {0}, "bad UTF-8": []byte("{\"key\":\"\xff\xfe\"}"), "deep": []byte(`{"deep":` + deep + `}`),
		"deep lists": []byte(`{"files":` + strings.Repeat("[", 100_000)), "too large": bytes.Repeat([]byte(" "), maxBundle+1),
		"twice": []byte(`{"key":"a","key":"b"}`), "unknown": []byte(`{"no_such_field":{"x":[1,2,3]}}`),
	}
	hostile := []string{
		`"\u0000"`, `"../../etc/passwd"`, `"dev/../prod/x"`, `"/"`, `"////"`, `"` + strings.Repeat("x", 300_000) + `"`,
		`"dev/www-data/prod/hello/0"`, `"-1"`, `"0-99999999999"`, `"9999-01-01T00:00:00Z"`, `"0000-00-00"`,
		`-1`, `9223372036854775807`, `-9223372036854775808`, `1e400`, `true`, `null`, `{}`, `[]`, `[[]]`, `{"a":"b"}`, `"\ud800"`,
		`["x\u0007"]`, `{"m":"AAAA"}`,
	}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		for n, v := range hostile {
			rest := ""
			if f.Name() != "key" && m.Fields().ByName("key") != nil {
				rest = `"key":"dev/www-data/prod/hello",`
			}
			bad[fmt.Sprintf("%s %d", f.Name(), n)] = []byte("{" + rest + `"` + f.JSONName() + `":` + v + "}")
		}
	}
	return bad
}

// TestBadInput sends what no client of ours sends to every call, as who may
// call it: the answer is the caller's fault, never the server's.
func TestBadInput(t *testing.T) {
	b := newBackend(t)
	url := serve(t, b)
	for _, p := range procedures() {
		token := adminToken
		if strings.Contains(p.path, "AgentService") {
			token = agentToken
		}
		if p.method.Name() == "Join" {
			token = joinToken
		}
		for what, body := range badBodies(p.method.Input()) {
			if p.method.IsStreamingServer() && len(body) > maxBundle {
				continue // its frame is refused by its length, below
			}
			status, code, message := call(t, url, token, p, body)
			if status >= 500 || code == "internal" || code == "unknown" {
				t.Errorf("%s with %s: %d %s %s; want the caller's fault", p.path, what, status, code, message)
			}
		}
	}
	for _, p := range procedures() { // a frame that says it is large
		if p.streaming() {
			continue
		}
		status, code, _ := call(t, url, adminToken, p, bytes.Repeat([]byte{'1'}, maxBundle+10))
		if status < 400 || status >= 500 || code == "" {
			t.Errorf("%s with 16 MiB: %d %q; want a refusal", p.path, status, code)
		}
	}
}

// TestUnknownField holds that a misspelt field is refused, with the one that
// was meant: without it the call would mean another thing.
func TestUnknownField(t *testing.T) {
	url := serve(t, newBackend(t))
	for _, c := range []struct{ procedure, body, want string }{
		{"JobService/KillJob", `{"key":"dev/a/prod/b","instance":"0"}`, `unknown field "instance"; did you mean "instances"? KillJobRequest has key, instances, message`},
		{"JobService/ListJobs", `{"x":"a"}`, `unknown field "x"; ListJobsRequest has filter, limit, page`},
		{"ClusterService/Resume", `{"by":"me"}`, `unknown field "by"; ResumeRequest has no fields`},
	} {
		for _, kind := range []string{"application/json", "application/json; charset=utf-8"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/covey.v1."+c.procedure, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", kind)
			resp, err := as(adminToken).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var said struct{ Message string }
			err = json.NewDecoder(resp.Body).Decode(&said)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(said.Message, c.want) {
				t.Errorf("%s as %s: %d %q, %v; want 400 and %q", c.procedure, kind, resp.StatusCode, said.Message, err, c.want)
			}
		}
	}
}

// TestMeant finds a misspelt field in messages inside others, in either form of
// its name.
func TestMeant(t *testing.T) {
	read, submit := (&pb.ReadLogRequest{}).ProtoReflect().Descriptor(), (&pb.CreateJobRequest{}).ProtoReflect().Descriptor()
	for _, c := range []struct {
		body string
		kind protoreflect.MessageDescriptor
		want string
	}{
		{`{"after":[{"log":"a"},{"ofset":"b"}]}`, read, `; did you mean "offset"? LogPosition has `},
		{`{"after":[{"taskId":"a"},{"task_id":"a"}],"tial":3}`, read, `; did you mean "tail"? ReadLogRequest has key, `},
		{`{"files":{"keyy":"a"},"keyy":"a"}`, submit, `; did you mean "key"? CreateJobRequest has key, `},
		{`{"files":{"keyy":"a"}}`, submit, ""},
		{`{"after":{"fle":1}}`, read, ""},
		{`[`, read, ""},
	} {
		if got := meant([]byte(c.body), c.kind); !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: got %q; want %q", c.body, got, c.want)
		}
	}
}

// TestDoor holds that a browser's page and a bent name get nothing.
func TestDoor(t *testing.T) {
	url := serve(t, newBackend(t))
	for _, tt := range []struct {
		what   string
		change func(*http.Request)
		want   int
	}{
		{"curl", func(*http.Request) {}, http.StatusOK},
		{"the page itself", func(r *http.Request) { r.Header.Set("Origin", url) }, http.StatusOK},
		{"another site's page", func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, http.StatusForbidden},
		{"a page from a file", func(r *http.Request) { r.Header.Set("Origin", "null") }, http.StatusForbidden},
		{"another port's page", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") }, http.StatusForbidden},
		{"a bent name", func(r *http.Request) { r.Host = "evil.example" }, http.StatusForbidden},
		{"localhost", func(r *http.Request) { r.Host = "localhost:1234" }, http.StatusOK},
		{"IPv6", func(r *http.Request) { r.Host = "[::1]:1234" }, http.StatusOK},
		{"cross-site", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		{"a form", func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, http.StatusUnsupportedMediaType},
		{"plain text", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, http.StatusUnsupportedMediaType},
		{"GET", func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
		{"two tokens", func(r *http.Request) { r.Header.Add("Authorization", "Bearer x") }, http.StatusUnauthorized},
		{"basic", func(r *http.Request) { r.Header.Set("Authorization", "Basic YTpi") }, http.StatusUnauthorized},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/covey.v1.ClusterService/GetCluster", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+adminToken)
		tt.change(req)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: %s; want %d", tt.what, resp.Status, tt.want)
		}
	}
}

// FuzzAPI sends bytes to a procedure as JSON.
func FuzzAPI(f *testing.F) {
	var unary []procedure
	for _, p := range procedures() {
		if !p.streaming() && p.method.Name() != "Join" {
			unary = append(unary, p)
		}
	}
	for i, p := range unary {
		f.Add(uint8(i), aimed(p, "m1"))
		f.Add(uint8(i), []byte(`{"key":"dev/a/prod/b","instances":"0,3-5","limit":3,"filter":"*/a","files":{"a":"eA=="},"main":"a","ttlSeconds":"60"}`))
	}
	h := Handler(newBackend(f), Options{Now: func() time.Time { return start.Time() }})
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		p := unary[int(which)%len(unary)]
		w := &recorder{head: http.Header{}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+p.path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+adminToken)
		h.ServeHTTP(w, req)
		if w.status >= 500 {
			t.Errorf("%s with %q: %d %s", p.path, body, w.status, w.body.String())
		}
	})
}

// recorder is a response that is kept.
type recorder struct {
	head   http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.head }
func (r *recorder) WriteHeader(s int)           { r.status = s }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
