package cli

import (
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/covey-platform/covey/internal/cli/evaluate"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// world is a cluster in memory behind the real API: the real loop over a store
// that forgets, and an agent on the real wire that pretends to run what it is
// told. A process whose command begins with "fail" fails at once, one with
// "done" finishes; others run. One with "linger" does not end before it is let go.
type world struct {
	mu       sync.Mutex
	loop     *control.Loop
	store    state.Mem
	tick     unit.Tick
	begun    time.Time
	commit   chan struct{}
	sessions map[machine.ID]*worldSession
	configs  map[job.Hash]job.Config
	agent    *rpc.Session
	ran      map[task.ID]job.Config
	stopped  []task.Sighting // of tasks that linger
	asked    atomic.Int64    // how often GetJob was called
}

const worldToken = "covey_admin_world"

func startWorld(ctx context.Context, t testing.TB) (w *world, url string) {
	w = &world{
		begun: time.Now(), tick: unit.TickAt(time.Now()), commit: make(chan struct{}), sessions: map[machine.ID]*worldSession{},
		configs: map[job.Hash]job.Config{}, ran: map[task.ID]job.Config{},
	}
	e, err := w.store.Acquire(ctx, "test")
	if err != nil {
		t.Fatal(err)
	}
	w.loop = control.New(state.New(), e, 0, control.Defaults())
	for _, c := range []control.Command{
		control.Birth{Cluster: state.Cluster{Name: "dev", UID: "uid-1", Incarnation: 1}},
		control.AddCredential{Credential: state.Credential{Hash: rpc.HashToken(worldToken), Kind: "admin", Subject: "ann"}},
		control.AddCredential{Credential: state.Credential{Hash: rpc.HashToken("agent"), Kind: "agent", Subject: "m1"}},
	} {
		if _, _, err = w.Do(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	api := rpc.Handler(w, rpc.Options{Version: "v1"})
	srv := rpc.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/GetJob") {
			w.asked.Add(1)
		}
		api.ServeHTTP(rw, r)
	}))
	go func() { _ = srv.Serve(l) }()
	url = "http://" + l.Addr().String()
	t.Cleanup(func() { _ = srv.Close() })
	w.runAgent(ctx, t, url)
	return w, url
}

func (w *world) turn(f func(*control.Turn) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.loop.Begin(unit.TickAt(time.Now()), unit.FromDuration(time.Since(w.begun)))
	refused := f(t) // nothing of it stays
	b, err := t.End()
	if err != nil {
		return err
	}
	if !b.Empty() {
		if err := w.store.Commit(context.Background(), b); err != nil {
			return err
		}
	}
	for _, send := range w.loop.Commit(t).Sends {
		o := rpc.Orders{Epoch: w.loop.Epoch(), Rev: w.loop.Snapshot().Rev, UID: "uid-1", Orders: send.Orders, Configs: map[job.Hash][]byte{}}
		for _, x := range send.Orders {
			if c, ok := w.loop.Snapshot().Config(x.Config); ok && x.Verb == task.Run {
				o.Configs[x.Config], _ = c.Encode()
			}
		}
		if ch := w.sessions[send.Machine]; ch != nil {
			ch.put(o)
		}
	}
	close(w.commit)
	w.commit = make(chan struct{})
	return refused
}

func (w *world) View() rpc.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	return rpc.View{Snapshot: w.loop.Snapshot(), Waits: w.loop.Waits(), Epoch: w.loop.Epoch()}
}

func (w *world) Do(_ context.Context, c control.Command) (ans control.Answer, seq state.Seq, err error) {
	err = w.turn(func(t *control.Turn) (err error) { ans, err = t.Do(c); return err })
	return ans, w.View().Snapshot.Seq, err
}

func (w *world) Records(ctx context.Context, after state.Seq, limit int) ([]state.Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store.Records(ctx, after, limit)
}

func (w *world) Published() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.commit
}

func (w *world) History(ctx context.Context, q state.HistoryQuery) ([]task.Task, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store.History(ctx, q)
}

func (w *world) Evaluate(ctx context.Context, b rpc.Bundle) (string, job.Job, error) {
	return evaluate.One(ctx, os.Args[0], evaluate.Request{Main: b.Main, Files: b.Files, User: b.User, Binds: b.Binds, Key: b.Key})
}

// Bill is a bill of one hour that adds up.
func (w *world) Bill(_ context.Context, by ledger.By, from, to unit.Tick) (ledger.Statement, error) {
	m := func(s string) unit.Money { v, _ := unit.ParseMoney(s); return v }
	return ledger.Statement{
		Currency: "USD", By: by, From: from, To: to, Billed: m("0.25"),
		Hours: []ledger.HourCost{{From: from, To: from + unit.Hour, Capacity: m("1.000000000000000000001"), Billed: m("0.25"), Overhead: m("0.05"), Idle: m("0.700000000000000000001")}},
		Rows:  w.rows(),
	}, nil
}

func (w *world) rows() []ledger.Row {
	m, _ := unit.ParseMoney("0.25")
	return []ledger.Row{{Role: "www-data", Job: "www-data/prod/hello", Reserved: ledger.Amounts{unit.Int(500_000_000_000)}, Amount: m}}
}

func (w *world) Usage(context.Context, ledger.By, unit.Tick, unit.Tick) ([]ledger.Row, ledger.Amounts, error) {
	return w.rows(), ledger.Amounts{unit.CPU: unit.Product(1500, int64(unit.Hour))}, nil
}

func (w *world) Attach(_ context.Context, h control.Hello, news func()) (rpc.AgentSession, error) {
	s := &worldSession{w: w, id: h.Machine.ID, news: news}
	err := w.turn(func(t *control.Turn) error { return t.Hello(h) })
	w.mu.Lock()
	w.sessions[h.Machine.ID] = s
	w.mu.Unlock()
	return s, err
}

type worldSession struct {
	w    *world
	id   machine.ID
	news func()

	mu     sync.Mutex
	orders []rpc.Orders
}

func (s *worldSession) put(o rpc.Orders) {
	s.mu.Lock()
	s.orders = append(s.orders, o)
	s.mu.Unlock()
	s.news()
}

func (s *worldSession) Hear(_ context.Context, m control.Message) (bool, error) {
	return true, s.w.turn(func(t *control.Turn) error { return t.Hear(s.id, m) })
}

func (s *worldSession) Take() (o rpc.Orders, some, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.orders) == 0 {
		return o, false, false
	}
	o, s.orders = s.orders[0], s.orders[1:]
	if len(s.orders) > 0 {
		go s.news()
	}
	return o, true, false
}

func (s *worldSession) Close() {}

// runAgent pretends to be the agent of m1.
func (w *world) runAgent(ctx context.Context, t testing.TB, url string) {
	a, err := rpc.DialAgent(rpc.AgentConfig{URL: url, Credential: "agent"})
	if err != nil {
		t.Fatal(err)
	}
	w.agent, err = a.Session(ctx, control.Hello{UID: "uid-1", Machine: machine.Machine{
		ID: "m1", Host: "127.0.0.1", Attributes: []machine.Attribute{{Name: "host", Value: "m1"}, {Name: "rack", Value: "a"}},
		Capacity: unit.Resources{CPU: 4000, RAM: 8 << 30, Disk: 64 << 30}, Ports: machine.PortRange{From: 31000, To: 31999},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.agent.Send(control.Message{Full: true}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			o, err := w.agent.Recv()
			if err != nil {
				return
			}
			for _, x := range o.Orders {
				w.obey(x, o.Configs[x.Config])
			}
		}
	}()
	go func() { _ = a.Look(ctx, "m1", w.look) }()
}

func (w *world) obey(o task.Order, config []byte) {
	s := task.Sighting{ID: o.ID, Config: o.Config, Resources: o.Resources, Ports: o.Ports}
	var seen []task.Sighting
	switch o.Verb {
	case task.Stop:
		s.State = task.Killed
		w.mu.Lock()
		lingers := strings.HasPrefix(w.ran[o.ID].Task.Processes[0].Cmdline, "linger")
		if lingers {
			w.stopped = append(w.stopped, s)
		}
		w.mu.Unlock()
		if lingers {
			return
		}
	case task.Run:
		c, _ := job.Decode(config)
		w.mu.Lock()
		w.ran[o.ID] = c
		w.mu.Unlock()
		s.State = task.Running
		seen = append(seen, s)
		switch { // told at once: nobody sees it run who asks in between
		case strings.HasPrefix(c.Task.Processes[0].Cmdline, "fail"):
			s.State, s.Reason = task.Failed, "process exited with 1"
		case strings.HasPrefix(c.Task.Processes[0].Cmdline, "done"):
			s.State = task.Finished
		}
	default:
		return
	}
	if len(seen) == 0 || seen[0].State != s.State {
		seen = append(seen, s)
	}
	_ = w.agent.Send(control.Message{Sightings: seen})
}

// letGo ends the tasks that linger when somebody has looked at a job twice from
// now on.
func (w *world) letGo(ts *testscript.TestScript, _ bool, _ []string) {
	for seen, end := w.asked.Load(), time.Now().Add(time.Minute); w.asked.Load() < seen+2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("nobody waits")
		}
	}
	w.mu.Lock()
	gone := w.stopped
	w.stopped = nil
	w.mu.Unlock()
	ts.Check(w.agent.Send(control.Message{Sightings: gone}))
}

// look shows one log of two lines and one file.
func (w *world) look(_ context.Context, q rpc.Question) (rpc.LookAnswer, error) {
	w.mu.Lock()
	c, ok := w.ran[q.Task]
	w.mu.Unlock()
	if !ok {
		return rpc.LookAnswer{}, fault.NotFound.Errorf("task %v was never here", q.Task)
	}
	text := "line one of " + q.Task.String() + "\nline two\n"
	switch q.What {
	case rpc.Logs:
		return rpc.LookAnswer{Entries: []rpc.LookEntry{{Name: c.Task.Processes[0].Name + "/0/stdout", Size: int64(len(text))}}}, nil
	case rpc.Log:
		from := q.Offset
		if from < 0 {
			from = max(0, int64(len(text))+from)
		}
		rest := text[min(from, int64(len(text))):]
		return rpc.LookAnswer{Data: []byte(rest), Offset: from, Next: from + int64(len(rest)), EOF: true}, nil
	case rpc.List:
		if q.Path != "" {
			return rpc.LookAnswer{}, fault.NotFound.Errorf("task %v has no file %s", q.Task, q.Path)
		}
		return rpc.LookAnswer{Entries: []rpc.LookEntry{{Name: "a.txt", Size: 3, Mode: "-rw-r--r--"}}}, nil
	case rpc.Read:
	}
	return rpc.LookAnswer{}, fault.Invalid.Errorf("no such question")
}
