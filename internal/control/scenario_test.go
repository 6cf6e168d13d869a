package control_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestScenarios plays each file of testdata: a line that is not indented is
// done, and what comes of it stands below it, indented. Read them to learn
// what the loop does.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d scenarios, error %v; want 25 or more", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { scenario(t, f) })
	}
}

func scenario(t *testing.T, file string) {
	t.Helper()
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	w := newWorld(t)
	for line := range strings.Lines(string(want)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "    ") {
			continue
		}
		got.WriteString(line + "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		w.out.Reset()
		w.do(line)
		for out := range strings.Lines(w.out.String()) {
			got.WriteString("    " + out)
		}
	}
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s differs; run go test ./internal/control -update and read the diff\n%s", file, got.String())
	}
}

// do carries out one line of a scenario.
func (w *world) do(line string) {
	w.t.Helper()
	f := strings.Fields(line)
	verb, args := f[0], f[1:]
	if f, ok := w.verbs()[verb]; ok {
		f(args)
		return
	}
	w.t.Fatalf("scenario: %q is not understood", line)
}

func (w *world) verbs() map[string]func([]string) {
	each := func(do func(*node)) func([]string) {
		return func(ids []string) {
			for _, n := range w.named(ids) {
				do(n)
			}
		}
	}
	return map[string]func([]string){
		"machines": w.machines,
		"hello":    func(a []string) { w.hello(w.node(a[0]), opt(a, "uid", "uid")); w.turn() },
		"join":     func(a []string) { each(w.join)(a); w.turn() },
		"silent":   each(func(n *node) { n.silent = true }),
		"back":     func(a []string) { each(func(n *node) { n.silent = false; n.session = ""; w.join(n) })(a); w.turn() },
		"leases":   func([]string) { w.leases = true },
		"unproved": func([]string) { w.unproved = true },
		"proved":   func([]string) { w.unproved = false },
		"manual":   each(func(n *node) { n.manual = true }),
		"auto":     each(func(n *node) { n.manual = false }),
		"hole":     each(func(n *node) { n.hole = true }),
		"mended":   each(func(n *node) { n.hole = false }),
		"forget":   each(func(n *node) { n.since, n.tasks = control.Seen{}, map[task.ID]task.Sighting{} }),
		"bye":      func(a []string) { w.bye(w.node(a[0])); w.turn() },
		"say":      func(a []string) { w.tell(a, false) },
		"full":     func(a []string) { w.tell(a, true) },
		"end":      w.end,
		"resize":   w.resize,
		"fact":     w.fact,
		"create":   w.create,
		"kill":     func(a []string) { w.command(control.KillJob{Key: key(a), Instances: w.ranges(a), By: "ann"}); w.turn() },
		"restart": func(a []string) {
			w.command(control.RestartJob{Key: key(a), Instances: w.ranges(a), By: "ann"})
			w.turn()
		},
		"resume": func([]string) { w.command(control.Resume{By: "ops"}); w.turn() },
		"recovered": func([]string) {
			w.command(control.EndRecovery{By: "ops"})
			w.turn()
		},
		"wait":   func(a []string) { w.pass(w.duration(a[0]) + second/1000) },
		"clock":  func(a []string) { w.skew += w.duration(a[0]) },
		"refuse": func([]string) { w.refuse = true },
		"retry":  func([]string) { w.turn() },
		"leader": func([]string) { w.lead(); w.turn() },
		"copy":   func([]string) { w.copy = w.store.Clone() },
		"restore": func([]string) {
			w.store, w.copy = w.copy, nil
			w.lead()
			w.turn()
		},
		"token":       func(a []string) { w.token(a[0]) },
		"newcomer":    func(a []string) { w.newcomer(a[0], a[1]) },
		"credentials": func([]string) { w.credentials() },
		"boot":        func(a []string) { w.node(a[0]).row.Boot = a[1] },
		"clone":       func(a []string) { w.clone(w.node(a[0]), a[1]) },
		"leave":       func(a []string) { w.leave(w.node(a[0]), false); w.turn() },
		"goodbye":     func(a []string) { w.leave(w.node(a[0]), true); w.turn() },
		"avoided":     func([]string) { w.avoided() },
		"limit":       func(a []string) { w.cfg.TurnChanges = w.number(a[0]); w.lead() },
		"brief":       func([]string) { w.brief = true },
		"tasks":       func([]string) { w.tasks() },
		"slots":       func([]string) { w.slots() },
		"held":        func([]string) { w.held() },
		"waits":       func([]string) { w.waits() },
		"paused":      func([]string) { w.printf("%q", w.loop.Paused()) },
		"audit":       func([]string) { w.printf("%v", w.loop.Audit()) },
		"counts":      func([]string) { w.counts() },
		"quota":       w.quota,
		"unquota":     func(a []string) { w.command(control.RemoveQuota{Role: a[0], By: "ops"}); w.turn() },
		"consumed":    func([]string) { w.consumed() },
	}
}

// quota gives a role a quota: ROLE [cpu=CORES] [ram=MIB] [disk=MIB] [gpu=MILLI]
func (w *world) quota(args []string) {
	q := tenant.Quota{Resources: unit.Resources{
		CPU: int64(w.number(opt(args, "cpu", "0"))) * 1000, RAM: int64(w.number(opt(args, "ram", "100000"))) * unit.MiB,
		Disk: int64(w.number(opt(args, "disk", "100000"))) * unit.MiB, GPU: int64(w.number(opt(args, "gpu", "0"))),
	}}
	w.command(control.SetQuota{Role: args[0], Quota: q, By: "ops"})
	w.turn()
}

func (w *world) consumed() {
	for role, sum := range w.loop.Snapshot().Consumers("") {
		for c, name := range []string{"prod shared", "prod dedicated", "non-prod shared", "non-prod dedicated"} {
			if r := sum[c]; r != (unit.Resources{}) {
				w.printf("%s, %s: %v", role, name, r)
			}
		}
	}
}

// machines brings machines up: m1 m2 ..., or m1-40, with cpu=N cores.
func (w *world) machines(args []string) {
	cpu := int64(w.number(opt(args, "cpu", "4")))
	for _, a := range args {
		if strings.Contains(a, "=") {
			continue
		}
		first, last, many := strings.Cut(strings.TrimPrefix(a, "m"), "-")
		if !many {
			last = first
		}
		for i := w.number(first); i <= w.number(last); i++ {
			id := machine.ID(fmt.Sprintf("m%d", i))
			n := &node{tasks: map[task.ID]task.Sighting{}, row: machine.Machine{
				ID: id, Host: "h", Attributes: []machine.Attribute{{Name: "host", Value: string(id)}},
				Capacity: unit.Resources{CPU: cpu * 1000, RAM: 64 << 30, Disk: 64 << 30}, Ports: machine.PortRange{From: 31000, To: 31999},
			}}
			w.nodes[id] = n
			w.join(n)
		}
	}
	w.turn()
}

func (w *world) node(id string) *node {
	n := w.nodes[machine.ID(id)]
	if n == nil {
		w.t.Fatalf("scenario: there is no machine %s", id)
	}
	return n
}

func (w *world) named(args []string) []*node {
	var out []*node
	for _, a := range args {
		first, last, many := strings.Cut(strings.TrimPrefix(a, "m"), "-")
		if !many {
			last = first
		}
		for i := w.number(first); i <= w.number(last); i++ {
			out = append(out, w.node(fmt.Sprintf("m%d", i)))
		}
	}
	return out
}

func (w *world) bye(n *node) {
	id, session := n.row.ID, n.session
	n.session = ""
	w.input("bye", func(t *control.Turn) error { t.Bye(id, session); return nil })
}

// tell sends a message: MACHINE [n=N] [session=S] [orphan=yes [cpu=N]] TASK=STATE ...
func (w *world) tell(args []string, full bool) {
	n := w.node(args[0])
	m := control.Message{Full: full, Session: opt(args, "session", ""), N: uint64(w.number(opt(args, "n", "0")))}
	if full && opt(args, "all", "") == "yes" {
		m.Sightings = n.all()
	}
	for _, a := range args[1:] {
		id, st, ok := strings.Cut(a, "=")
		if !ok || !strings.Contains(id, "/") {
			continue
		}
		x := w.sighting(n, id, st)
		if opt(args, "orphan", "no") == "yes" {
			x.Orphan, x.Config = true, job.Hash{}
			x.Resources = unit.Resources{CPU: int64(w.number(opt(args, "cpu", "0"))) * 1000}
		}
		m.Sightings = append(m.Sightings, x)
	}
	w.say(n, m)
	w.turn()
}

func (w *world) sighting(n *node, id, st string) task.Sighting {
	x, err := task.ParseID(id)
	if err != nil {
		w.t.Fatal(err)
	}
	to, ok := task.ParseState(st)
	if !ok {
		w.t.Fatalf("scenario: state %s", st)
	}
	s := n.tasks[x]
	s.ID, s.State = x, to
	if j, ok := w.loop.Snapshot().Job(x.Job); ok && s.Config == (job.Hash{}) {
		cfg, _ := w.loop.Snapshot().Config(j.Config)
		s.Config, s.Resources = j.Config, cfg.Task.Resources
	}
	return s
}

// end ends tasks on their machines: TASK=STATE ...
func (w *world) end(args []string) {
	for _, a := range args {
		id, st, _ := strings.Cut(a, "=")
		x, err := task.ParseID(id)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, n := range w.nodes {
			if _, here := n.tasks[x]; here {
				s := w.sighting(n, id, st)
				n.tasks[x] = s
				if !n.silent {
					w.say(n, control.Message{Sightings: []task.Sighting{s}})
				}
			}
		}
	}
	w.turn()
}

func (w *world) resize(args []string) {
	n := w.node(args[0])
	n.row.Foreign = unit.Resources{CPU: int64(w.number(opt(args, "foreign", "0"))) * 1000}
	n.row.Overhead = unit.Resources{CPU: int64(w.number(opt(args, "overhead", "0"))) * 1000}
	row := n.row
	row.Owed = unit.Resources{CPU: 77} // what an agent says of that is not used
	w.say(n, control.Message{Machine: &row})
	w.turn()
}

func (w *world) fact(args []string) {
	var fs []state.Fact
	for _, a := range args[1:] {
		fs = append(fs, state.Fact{Source: args[0] + "/j", Seq: uint64(w.number(a)), Payload: []byte("x")})
	}
	w.say(w.node(args[0]), control.Message{Facts: fs})
	w.turn()
}

func key(args []string) job.Key { return job.Key(args[0]) }

func (w *world) ranges(args []string) job.Ranges {
	if len(args) < 2 {
		return nil
	}
	r, err := job.ParseRanges(args[1])
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// create asks for a job: KEY INSTANCES [adhoc=MAX] [cpu=N] [partition=never|SECONDS] [stop=SECONDS] [exclusive=yes] [tier=TIER] [dedicated=VALUE] [gpu=MILLI]
func (w *world) create(args []string) {
	cfg := config(int64(w.number(opt(args, "cpu", "1"))))
	cfg.Task.FinalizationWait = int32(w.number(opt(args, "stop", "0")))
	cfg.Tier = opt(args, "tier", cfg.Tier)
	cfg.Task.Resources.GPU = int64(w.number(opt(args, "gpu", "0")))
	if who := opt(args, "dedicated", ""); who != "" {
		cfg.Constraints = []job.Constraint{{Attribute: "dedicated", Values: []string{who}}}
	}
	cfg.Exclusive = opt(args, "exclusive", "no") == "yes"
	if limit := opt(args, "adhoc", ""); limit != "" {
		cfg.Service, cfg.MaxTaskFailures = false, int32(w.number(limit))
	}
	switch p := opt(args, "partition", "0"); p {
	case "never":
		cfg.Partition.Reschedule = false
	default:
		cfg.Partition.DelayS = int64(w.number(p))
	}
	w.command(control.CreateJob{Job: job.Job{Key: key(args), Instances: w.ranges(args), Config: cfg}, By: "ann"})
	w.turn()
}

// config is a service that needs so many cores.
func config(cpu int64) job.Config {
	return job.Config{
		Service: true, Tier: job.Preemptible, MaxTaskFailures: 1, Partition: job.Partition{Reschedule: true},
		Task: job.Task{
			Name: "t", Processes: []job.Process{{Name: "p", Cmdline: "true", MaxFailures: 1}}, MaxFailures: 1,
			Resources: unit.Resources{CPU: 1000 * cpu, RAM: unit.MiB, Disk: unit.MiB},
		},
	}
}

// command asks, and says what became of it in the turn that follows.
func (w *world) command(c control.Command) {
	w.input("refused", func(t *control.Turn) error {
		first := t.Empty()
		ans, err := t.Do(c)
		if err == nil {
			w.printf("accepted: %d tasks", ans.Tasks)
		} else if first && !t.Empty() {
			w.t.Errorf("%T was refused (%v), and something of it stays", c, err)
		}
		return err
	})
}

func (w *world) tasks() {
	for x := range w.loop.Snapshot().Tasks() {
		w.printf("%v %v %s since %s, %d failures", x.ID, x.State, x.Machine, stamp(x.Since), x.Failures)
	}
}

func (w *world) slots() {
	for in := range w.loop.Snapshot().AllInstances() {
		w.printf("%v attempt %d live=%v open=%v streak %d failures %d last %v", in.Slot, in.Attempt, in.Live, in.Open, in.Streak, in.Failures, in.Last.State)
	}
}

func (w *world) avoided() {
	for m := range w.loop.Snapshot().Machines() {
		if m.Avoid != "" {
			w.printf("%s until %s: %s", m.ID, stamp(m.AvoidUntil), m.Avoid)
		}
	}
}

func (w *world) held() {
	for _, h := range w.loop.Held(1000) {
		w.printf("%v on %s: %s", h.Sighting.ID, h.Machine, h.Why)
	}
}

func (w *world) waits() {
	h := w.loop.Holds()
	for _, x := range []control.Hold{h.All, h.Exclusive} {
		if x.Why != "" {
			w.printf("%s, until %s", x.Why, stamp(x.Until))
		}
	}
	for x := range w.loop.Snapshot().Tasks() {
		if x.State == task.Partitioned {
			w.printf("%v %s", x.ID, h.Partitioned(w.loop.Snapshot(), x))
		}
		if y, waits := w.loop.Waits().Of(x.Task); waits {
			w.printf("%v %s", x.ID, y.Text)
		}
	}
}

// token makes a join token.
func (w *world) token(hash string) {
	w.command(control.AddCredential{Credential: state.Credential{Hash: hash, Kind: "join"}})
	w.turn()
}

// newcomer is another agent that joins as a machine: MACHINE TOKEN.
func (w *world) newcomer(id, token string) {
	c := state.Credential{Hash: "agent-by-" + token, Kind: "agent", Subject: id}
	w.command(control.UseJoin{Hash: token, Agent: c})
	w.turn()
}

// leave says that a machine takes no more tasks, or that it has stopped them
// all and ends.
func (w *world) leave(n *node, bye bool) {
	n.row.Leaving = true
	row := n.row
	n.silent = bye
	w.say(n, control.Message{Full: true, Bye: bye, Machine: &row, Sightings: n.all()})
}

func (w *world) credentials() {
	for c := range w.loop.Snapshot().Credentials() {
		w.printf("%s %s used=%v", c.Hash, c.Subject, c.Used)
	}
}

// clone says hello as a machine from another computer: MACHINE BOOT.
func (w *world) clone(n *node, boot string) {
	row := n.row
	row.Boot = boot
	h := control.Hello{Session: string(row.ID) + "-clone", UID: "uid", Machine: row, Seen: n.seen}
	w.input("hello of "+string(row.ID), func(t *control.Turn) error { return t.Hello(h) })
	w.turn()
}

func (w *world) counts() {
	n := map[task.State]int{}
	for x := range w.loop.Snapshot().Tasks() {
		n[x.State]++
	}
	for s := range task.States {
		if c := n[task.State(s)]; c > 0 {
			w.printf("%d %v", c, task.State(s))
		}
	}
}

func (w *world) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		w.t.Fatalf("scenario: %v", err)
	}
	return n
}

func (w *world) duration(s string) unit.Tick {
	d, err := time.ParseDuration(s)
	if err != nil {
		w.t.Fatalf("scenario: %v", err)
	}
	return unit.FromDuration(d)
}

// opt returns the value of name=value among args.
func opt(args []string, name, otherwise string) string {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return v
		}
	}
	return otherwise
}
