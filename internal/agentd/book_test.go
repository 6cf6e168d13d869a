package agentd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// TestBook remembers orders and what was told over a restart, and takes no
// torn file for one.
func TestBook(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "orders")
	b, err := openBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	id := func(n uint32) task.ID { return task.ID{Job: "www/prod/a.b", Instance: 3, Attempt: n} }
	s := task.Sighting{ID: id(1), Config: job.HashOf([]byte("c")), Resources: unit.Resources{CPU: 500}, Ports: []uint16{31000}}
	if err := b.note(s); err != nil {
		t.Fatal(err)
	}
	b.tell(id(1))
	if err := b.note(task.Sighting{ID: id(2)}); err != nil {
		t.Fatal(err)
	}
	b.forget(id(2))
	b.tell(id(3)) // told of without ever having been noted
	if err := os.WriteFile(filepath.Join(dir, "torn.json"), []byte(`{"id":"www`), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, again.sighting(id(1))); d != "" {
		t.Errorf("after a restart (-want +got):\n%s", d)
	}
	if !again.told(id(1)) || !again.told(id(3)) || again.told(id(2)) || len(again.entries) != 2 {
		t.Errorf("after a restart: %+v", again.entries)
	}
	if d := cmp.Diff(task.Sighting{ID: id(9)}, again.sighting(id(9))); d != "" {
		t.Errorf("of a task that nobody knows (-want +got):\n%s", d)
	}
}

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{DataDir: dir, Machine: "m1"}
	if _, err := identify(t.Context(), cfg); fault.Of(err) != fault.Unauthenticated {
		t.Errorf("without identity and token: %v, want kind unauthenticated", err)
	}
	want := identity{Version: identityVersion, UID: "u", Cluster: "west", Machine: "m1", Credential: "c"}
	if err := want.write(dir, true); err != nil {
		t.Fatal(err)
	}
	got, err := identify(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(identity{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for text, wantKind := range map[string]fault.Kind{
		`{"vers`:        fault.Invalid,
		`{"version":1}`: fault.Invalid,
		`{"version":9,"cluster_uid":"u","machine":"m1"}`: fault.Invalid,
		`{"version":1,"cluster_uid":"u","machine":"m2"}`: fault.Conflict,
	} {
		if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := identify(t.Context(), cfg)
		if fault.Of(err) != wantKind || err == nil || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v, want kind %v", text, err, wantKind)
		}
	}
}

// TestLock keeps a second agent off the directory while the first one lives.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); fault.Of(err) != fault.Conflict {
		t.Errorf("a second agent: %v, want kind conflict", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lock(dir)
	if err != nil {
		t.Fatalf("after the first one has ended: %v", err)
	}
	_ = again.Close()
}

// An address at which nobody could be reached is refused before anything else.
func TestHost(t *testing.T) {
	for host, ok := range map[string]bool{
		"10.0.0.7": true, "node7": true, "node-7.example.com": true, "2001:db8::7": true, "127.0.0.1": true, "": true,
		"0.0.0.0": false, "::": false, "224.0.0.1": false, "fe80::1%eth0": false, "10.0.0.7:80": false, "http://node7": false, "-node": false,
		"node_7": false, "a b": false, "node7.": false, "x\n": false, strings.Repeat("a.", 127) + "com": false,
	} {
		c, err := fromFlags(cli.AgentFlags{Server: "http://127.0.0.1:1", DataDir: t.TempDir(), Machine: "m1", Host: host})
		if err == nil {
			err = c.complete()
		}
		if (err == nil) != ok || err != nil && fault.Of(err) != fault.Invalid {
			t.Errorf("--host %q: %v; want accepted %v", host, err, ok)
		}
		if want := orElse(host, "127.0.0.1"); ok && c.describe("boot", nil).Host != want {
			t.Errorf("--host %q: the machine is reached at %q; want %q", host, c.describe("boot", nil).Host, want)
		}
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func TestFromFlags(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := fromFlags(cli.AgentFlags{
		Server: "http://127.0.0.1:1", Machine: "m1", CPU: "3.5", RAM: "4GiB", Disk: "1025KiB", OverheadCPU: "0.25", OverheadRAM: "64MiB",
		Ports: "31000-31009", JoinTokenFile: token, Attributes: map[string][]string{"rack": {"b"}, "host": {"x", "y"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := machine.PortRange{From: 31000, To: 31009}
	if got.Ports != want || got.JoinToken != "secret" {
		t.Errorf("ports %v, token %q; want %v, secret", got.Ports, got.JoinToken, want)
	}
	if c := (unit.Resources{CPU: 3500, RAM: 4 << 30, Disk: unit.MiB}); got.Capacity != c {
		t.Errorf("capacity %v, want %v", got.Capacity, c)
	}
	if o := (unit.Resources{CPU: 250, RAM: 64 * unit.MiB}); got.Overhead != o {
		t.Errorf("overhead %v, want %v", got.Overhead, o)
	}
	wantAttrs := []machine.Attribute{{Name: "host", Value: "x"}, {Name: "host", Value: "y"}, {Name: "rack", Value: "b"}}
	if d := cmp.Diff(wantAttrs, got.Attributes); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
	for name, f := range map[string]cli.AgentFlags{
		"--cpu":             {CPU: "many"},
		"--cpu 0":           {CPU: "0"},
		"--cpu -1":          {CPU: "-1"},
		"--cpu -0.5":        {CPU: "-0.5"},
		"--ram":             {RAM: "4GB"},
		"--attribute":       {Attributes: map[string][]string{"ra ck": {"a"}}},
		"--disk":            {Disk: "9223372036854775807TiB"},
		"--overhead-cpu":    {OverheadCPU: "x"},
		"--ports low":       {Ports: "80-90"},
		"--ports reversed":  {Ports: "31009-31000"},
		"--ports":           {Ports: "31000"},
		"--join-token-file": {JoinTokenFile: token + "x"},
	} {
		flag, _, _ := strings.Cut(name, " ")
		if _, err := fromFlags(f); fault.Of(err) != fault.Invalid || err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v; want kind invalid, and the flag's name", name, err)
		}
	}
}

// TestDescribe sorts attributes, always has a host, and says each of them once.
func TestDescribe(t *testing.T) {
	c := Config{Machine: "m1", Attributes: []machine.Attribute{{Name: "rack", Value: "b"}, {Name: "host", Value: "m1"}, {Name: "rack", Value: "a"}, {Name: "a", Value: "1"}}}
	want := []machine.Attribute{{Name: "a", Value: "1"}, {Name: "host", Value: "m1"}, {Name: "rack", Value: "a"}, {Name: "rack", Value: "b"}}
	if d := cmp.Diff(want, c.describe("boot", nil).Attributes); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestReach keeps how far back an agent remembers over a restart of it, and not
// over one of the computer, nor over the loss of the book, nor when the data
// directory is an old copy or nobody could tell.
func TestReach(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "orders")
	since := agent.Seen{Epoch: machine.Epoch{Incarnation: 1, N: 3}, Rev: 77}
	b := open(t, dir)
	if got := b.since("boot"); got != (agent.Seen{}) {
		t.Errorf("an empty book goes back to %+v; want nowhere", got)
	}
	if err := b.begin("boot", since); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir)
	if len(b.entries) != 0 {
		t.Errorf("it is taken for an order: %+v", b.entries)
	}
	for _, c := range []struct {
		what string
		d    *daemon
		boot string
		want agent.Seen
	}{
		{"a restarted agent", &daemon{book: b}, "boot", since},
		{"a restarted computer", &daemon{book: b}, "another", agent.Seen{}},
		{"an old copy", &daemon{book: b, oldCopy: true}, "boot", agent.Seen{}},
		{"no witness", &daemon{book: b, missing: "witness"}, "boot", agent.Seen{}},
	} {
		if got := c.d.recall(c.boot); got != c.want {
			t.Errorf("%s remembers since %+v; want %+v", c.what, got, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, reachFile), []byte(`{"boot":"b`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := b.since("boot"); got != (agent.Seen{}) {
		t.Errorf("a torn file goes back to %+v; want nowhere", got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir).since("boot"); got != (agent.Seen{}) {
		t.Errorf("a lost book goes back to %+v; want nowhere", got)
	}
}

// TestSeeGone tells the leader of tasks that are in the book and not on the
// machine, so that it does not order them again.
func TestSeeGone(t *testing.T) {
	id := func(n uint32) task.ID { return task.ID{Job: "www/prod/a", Attempt: n} }
	d := daemon{book: open(t, filepath.Join(t.TempDir(), "orders")), mind: agent.New("u", agent.Seen{}, agent.Seen{})}
	for n := range uint32(2) {
		if err := d.book.note(task.Sighting{ID: id(n + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	d.seeGone(map[task.ID]bool{id(1): true})
	want := []task.Sighting{{ID: id(2), State: task.Lost, Reason: "its directory was lost: it may have run, and ended"}}
	if diff := cmp.Diff(want, d.mind.Report(true)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	deeds, err := d.mind.Obey(agent.Orders{UID: "u", N: 1, Orders: []task.Order{{ID: id(2), Verb: task.Run}}})
	if err != nil || len(deeds) != 0 {
		t.Errorf("told to run it again: %+v, error %v; want nothing", deeds, err)
	}
}

func open(t *testing.T, dir string) *book {
	t.Helper()
	b, err := openBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
