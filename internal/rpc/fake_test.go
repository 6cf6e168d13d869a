package rpc

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// backend is a cluster in memory: the real loop over a store that forgets.
// Time is a counter, so that nothing depends on the clock.
type backend struct {
	mu       sync.Mutex
	loop     *control.Loop
	store    state.Mem
	tick     unit.Tick
	commit   chan struct{}
	sessions map[machine.ID]*session

	heard    []control.Message // what agents said, in order
	doubts   atomic.Bool       // whether it leads
	bill     ledger.Statement
	evaluate func(Bundle) (string, job.Job, error)
}

var start = unit.TickAt(time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC))

// Secrets of the tests, by what they are for.
const (
	adminToken   = "covey_admin_test"
	agentToken   = "covey_agent_test"
	otherToken   = "covey_agent_other"
	joinToken    = "covey_join_test"
	expiredToken = "covey_admin_expired"
	usedToken    = "covey_join_used"
)

func newBackend(t testing.TB) *backend {
	b := &backend{tick: start, commit: make(chan struct{}), sessions: map[machine.ID]*session{}}
	e, err := b.store.Acquire(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	b.loop = control.New(state.New(), e, 0, control.Defaults())
	for _, c := range []control.Command{
		control.Birth{Cluster: state.Cluster{Name: "dev", UID: "uid-1", Incarnation: 1}},
		credential(adminToken, "admin", "ann", 0, false), credential(agentToken, "agent", "m1", 0, false),
		credential(otherToken, "agent", "m2", 0, false), credential(joinToken, "join", "", 0, false),
		credential(expiredToken, "admin", "old", 1, false), credential(usedToken, "join", "", 0, true),
	} {
		if _, _, err := b.Do(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func credential(token, kind, subject string, expires unit.Tick, used bool) control.Command {
	return control.AddCredential{Credential: state.Credential{
		Hash: HashToken(token), Kind: kind, Subject: subject, Expires: expires, Used: used,
	}}
}

// turn runs one turn of the loop and makes it durable.
func (b *backend) turn(f func(*control.Turn) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tick += unit.Hour / 3600
	t := b.loop.Begin(b.tick, 0)
	refused := f(t) // nothing of it stays
	batch, err := t.End()
	if err != nil {
		return err
	}
	if !batch.Empty() {
		if err := b.store.Commit(context.Background(), batch); err != nil {
			return err
		}
	}
	r := b.loop.Commit(t)
	for _, send := range r.Sends {
		s := b.sessions[send.Machine]
		if s == nil {
			continue
		}
		o := Orders{Epoch: b.loop.Epoch(), Rev: b.loop.Snapshot().Rev, UID: "uid-1", Orders: send.Orders, Acks: send.Acks}
		for _, x := range send.Orders {
			if c, ok := b.loop.Snapshot().Config(x.Config); ok {
				enc, _ := c.Encode()
				o.Configs = map[job.Hash][]byte{x.Config: enc}
			}
		}
		s.put(o)
	}
	close(b.commit)
	b.commit = make(chan struct{})
	return refused
}

func (b *backend) View() View {
	b.mu.Lock()
	defer b.mu.Unlock()
	return View{
		Snapshot: b.loop.Snapshot(), Waits: b.loop.Waits(), Epoch: b.loop.Epoch(), Paused: b.loop.Paused(), Held: b.loop.Held(1000), Holds: b.loop.Holds(),
	}
}

func (b *backend) Do(_ context.Context, c control.Command) (ans control.Answer, seq state.Seq, err error) {
	err = b.turn(func(t *control.Turn) (err error) {
		ans, err = t.Do(c)
		return err
	})
	return ans, b.View().Snapshot.Seq, err
}

// said is how many messages of agents were taken in.
func (b *backend) said() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.heard)
}

func (b *backend) Records(ctx context.Context, after state.Seq, limit int) ([]state.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.Records(ctx, after, limit)
}

func (b *backend) Published() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.commit
}

func (b *backend) History(ctx context.Context, q state.HistoryQuery) ([]task.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.History(ctx, q)
}

func (b *backend) Evaluate(_ context.Context, in Bundle) (string, job.Job, error) {
	if b.evaluate != nil {
		return b.evaluate(in)
	}
	return "", job.Job{}, fault.Invalid.Errorf("%s:1:1: this is no configuration", in.Main)
}

func (b *backend) Bill(_ context.Context, by ledger.By, from, to unit.Tick) (ledger.Statement, error) {
	s := b.bill
	s.By, s.From, s.To = by, from, to
	return s, nil
}

func (b *backend) Usage(context.Context, ledger.By, unit.Tick, unit.Tick) ([]ledger.Row, ledger.Amounts, error) {
	return b.bill.Rows, b.bill.Platform, nil
}

func (b *backend) Attach(_ context.Context, h control.Hello, news func()) (AgentSession, error) {
	s := &session{b: b, machine: h.Machine.ID, news: news}
	err := b.turn(func(t *control.Turn) error { return t.Hello(h) })
	if err == nil {
		b.mu.Lock()
		b.sessions[h.Machine.ID] = s
		b.mu.Unlock()
	}
	return s, err
}

// session is an agent at the backend.
type session struct {
	b       *backend
	machine machine.ID
	news    func()

	mu     sync.Mutex
	orders []Orders
	over   bool
}

func (s *session) Hear(_ context.Context, m control.Message) (bool, error) {
	err := s.b.turn(func(t *control.Turn) error {
		s.b.heard = append(s.b.heard, m)
		return t.Hear(s.machine, m)
	})
	return err == nil && !s.b.doubts.Load(), err
}

func (s *session) put(o Orders) {
	s.mu.Lock()
	s.orders = append(s.orders, o)
	s.mu.Unlock()
	s.news()
}

// end lets the agent go.
func (s *session) end() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.news()
}

func (s *session) Take() (o Orders, some, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.orders) == 0 {
		return o, false, s.over
	}
	o, s.orders = s.orders[0], s.orders[1:]
	if len(s.orders) > 0 || s.over {
		go s.news()
	}
	return o, true, false
}

func (s *session) Close() {}

// serve runs the API on a port of its own, with HTTP/1 and HTTP/2.
func serve(t testing.TB, b Backend) string {
	return serveServices(t, newServices(b, Options{Version: "test", Now: func() time.Time { return start.Time() }}))
}

func serveServices(t testing.TB, s *services) string {
	h := s.handler()
	ts := httptest.NewUnstartedServer(h)
	ts.Config = NewServer(h)
	ts.Start()
	t.Cleanup(func() {
		ts.CloseClientConnections()
		ts.Close()
	})
	return ts.URL
}

// as is an HTTP client with a token, over HTTP/2.
func as(token string) *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: bearer{token, &http.Transport{Protocols: &p}}}
}

type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

// hello is what the agent of m1 says first.
func hello() control.Hello {
	return control.Hello{UID: "uid-1", Machine: aMachine("m1")}
}

func aMachine(id machine.ID) machine.Machine {
	return machine.Machine{
		ID: id, Host: "127.0.0.1", Attributes: []machine.Attribute{{Name: "host", Value: string(id)}},
		Capacity: unit.Resources{CPU: 4000, RAM: 8 << 30, Disk: 64 << 30}, Ports: machine.PortRange{From: 31000, To: 31999},
		Boot: "boot-1",
	}
}

func aJob(instances int32) job.Job {
	return job.Job{Key: "www-data/prod/hello", Instances: job.FirstN(instances), Config: job.Config{
		Service: true, Tier: job.Preferred, MaxTaskFailures: 1,
		Task: job.Task{
			Name: "hello", Resources: unit.Resources{CPU: 500, RAM: 128 << 20, Disk: 128 << 20}, Ports: []string{"http"},
			Processes: []job.Process{{Name: "hello", Cmdline: "serve {{thermos.ports[http]}}"}},
		},
	}}
}
