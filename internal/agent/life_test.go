package agent

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

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestLife plays every script of testdata. A script is the task (task, process,
// order, health, lifecycle, port), then lines of a time and an input; what the
// life answers stands below each line, indented, and is rewritten by -update.
//
// Every spawn is answered at once unless the script says "manual". The time
// "due" is what [Life.Next] said; "show" prints the processes.
func TestLife(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(f, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("%s (-want +got):\n%s\nrun go test -update and read the diff", f, d)
			}
		})
	}
}

// player is one life being played.
type player struct {
	spec   LifeSpec
	life   *Life
	manual bool
	out    bytes.Buffer
}

func play(t *testing.T, script string) []byte {
	t.Helper()
	var out bytes.Buffer
	p := &player{}
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "\t") {
			continue
		}
		out.WriteString(line)
		p.out.Reset()
		f := strings.Fields(line)
		if len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			if f[0] == "new" {
				p = &player{}
			} else if err := p.line(f); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		out.Write(p.out.Bytes())
	}
	return out.Bytes()
}

func (p *player) line(f []string) error {
	if p.life == nil {
		if done, err := p.setting(f); done || err != nil {
			return err
		}
		l, err := NewLife(p.spec)
		if err != nil {
			fmt.Fprintf(&p.out, "\trefused: %v\n", err)
			return nil
		}
		p.life = l
	}
	if f[0] == "show" {
		for _, s := range p.life.Processes() {
			fmt.Fprintf(&p.out, "\t%-8s %-7v runs=%d failures=%d exited=%v code=%d signal=%d why=%q blocked=%q\n",
				s.Name, s.State, s.Runs, s.Failures, s.Exited, s.Code, s.Signal, s.Why, s.Blocked)
		}
		return nil
	}
	now, ok := p.life.Next()
	if f[0] != "due" {
		d, err := time.ParseDuration(f[0])
		if err != nil {
			return err
		}
		now = d
	} else if !ok {
		return fmt.Errorf("nothing is due")
	}
	in, err := p.input(f[1:])
	if err != nil {
		return err
	}
	p.step(now, in)
	fmt.Fprintf(&p.out, "\t= %v", p.life.Stage())
	if at, ok := p.life.Next(); ok {
		fmt.Fprintf(&p.out, ", due %v", at)
		if at <= now {
			return fmt.Errorf("due %v is not after %v", at, now)
		}
	}
	fmt.Fprintln(&p.out)
	return nil
}

func (p *player) step(now time.Duration, in Input) {
	for _, a := range p.life.Step(now, in) {
		fmt.Fprintf(&p.out, "\t%s\n", describe(a))
		if s, ok := a.(Spawn); ok && !p.manual {
			defer p.step(now, Spawned(s))
		}
	}
}

func describe(a Action) string {
	switch a := a.(type) {
	case Spawn:
		return fmt.Sprintf("spawn %s %d", a.Process, a.Run)
	case Probe:
		return fmt.Sprintf("probe %d within %v", a.Seq, a.Timeout)
	case Post:
		return fmt.Sprintf("post :%d%s within %v", a.Port, a.Path, a.Timeout)
	case Signal:
		return strings.TrimSpace(fmt.Sprintf("signal %v %s", a.Sig, a.Process))
	case Report:
		return strings.TrimSpace(fmt.Sprintf("report %v %s", a.State, a.Reason))
	case End:
		return strings.TrimSpace(fmt.Sprintf("end %v %s", a.State, a.Reason))
	}
	return fmt.Sprintf("unknown action %T", a)
}

// input reads a verb: begin, tick, spawned P, nospawn P WHY, noplatform P WHY,
// exit P CODE, signal P NUMBER, ok, bad WHY, snoozed, posted, stop WHY, violated WHY.
func (p *player) input(f []string) (Input, error) {
	rest := strings.Join(f[1:], " ")
	run := 0
	for _, s := range p.life.Processes() {
		if len(f) > 1 && s.Name == f[1] {
			run = s.Runs
		}
	}
	switch f[0] {
	case "begin":
		return Begin{}, nil
	case "tick":
		return Tick{}, nil
	case "spawned":
		return Spawned{f[1], run}, nil
	case "nospawn", "noplatform":
		return SpawnFailed{f[1], run, strings.Join(f[2:], " "), f[0] == "noplatform"}, nil
	case "exit":
		n, err := strconv.Atoi(f[2])
		return Exited{Process: f[1], Run: run, Code: n}, err
	case "signal":
		n, err := strconv.Atoi(f[2])
		return Exited{Process: f[1], Run: run, Signal: n}, err
	case "stale":
		return Exited{Process: f[1], Run: run - 1, Code: 1}, nil
	case "ok", "bad", "snoozed":
		return Probed{Seq: p.life.health.seq, OK: f[0] == "ok", Snoozed: f[0] == "snoozed", Why: rest}, nil
	case "late":
		return Probed{Seq: p.life.health.seq - 1, Why: rest}, nil
	case "posted":
		return Posted{}, nil
	case "stop":
		return Stop{rest}, nil
	case "violated":
		return Violated{rest}, nil
	}
	return nil, fmt.Errorf("no such input")
}

// setting reads one line of the task; false means that the life begins.
func (p *player) setting(f []string) (bool, error) {
	t := &p.spec.Task
	kv := map[string]int64{}
	for _, w := range f[1:] {
		k, v, ok := strings.Cut(w, "=")
		n, err := strconv.ParseInt(v, 10, 64)
		if ok && err != nil {
			return false, err
		}
		if !ok {
			n = 1
		}
		kv[k] = n
	}
	or := func(k string, d int64) int64 {
		if v, ok := kv[k]; ok {
			return v
		}
		return d
	}
	switch f[0] {
	case "task":
		t.MaxFailures, t.MaxConcurrency = int32(or("max_failures", 1)), int32(or("max_concurrency", 0))
		t.FinalizationWait = int32(or("finalization_wait", 30))
	case "process":
		t.Processes = append(t.Processes, job.Process{
			Name: f[1], Cmdline: "true", MaxFailures: int32(or("max_failures", 1)), MinDuration: int32(or("min_duration", 5)),
			Daemon: kv["daemon"] == 1, Ephemeral: kv["ephemeral"] == 1, Final: kv["final"] == 1,
		})
	case "order":
		t.Order = append(t.Order, f[1:])
	case "health":
		p.spec.Health = &job.Health{
			HTTP: &job.HTTPCheck{Port: "health"}, InitialMilli: or("initial", 15000), EveryMilli: or("interval", 10000),
			TimeoutMilli: or("timeout", 1000), MaxFailures: int32(or("max_failures", 0)), MinSuccesses: int32(or("min_successes", 1)),
		}
	case "lifecycle":
		p.spec.Lifecycle = &job.HTTPLifecycle{
			Port: "health", Graceful: "/quitquitquit", Shutdown: "/abortabortabort",
			GracefulWaitS: int32(or("graceful_wait", 5)), ShutdownWaitS: int32(or("shutdown_wait", 5)),
		}
	case "port":
		p.spec.Ports = map[string]uint16{}
		for k, v := range kv {
			p.spec.Ports[k] = uint16(v)
		}
	case "manual":
		p.manual = true
	default:
		return false, nil
	}
	return true, nil
}

func TestNewLifeRefuses(t *testing.T) {
	one := job.Task{Processes: []job.Process{{Name: "a"}}}
	check := func(h job.Health) LifeSpec {
		h.Shell = &job.ShellCheck{Command: "true"}
		return LifeSpec{Task: one, Health: &h}
	}
	for want, s := range map[string]LifeSpec{
		"no process":                  {},
		"interval is 0 ms":            check(job.Health{TimeoutMilli: 1}),
		"timeout is 86400001 ms":      check(job.Health{TimeoutMilli: 86_400_001, EveryMilli: 1}),
		"initial interval is -1 ms":   check(job.Health{TimeoutMilli: 1, EveryMilli: 1, InitialMilli: -1}),
		"allows -1 failures":          check(job.Health{TimeoutMilli: 1, EveryMilli: 1, MaxFailures: -1}),
		"finalization_wait is -1 s":   {Task: job.Task{Processes: one.Processes, FinalizationWait: -1}},
		"two processes named \"a\"":   {Task: job.Task{Processes: []job.Process{{Name: "a"}, {Name: "a"}}}},
		"in a circle: a -> a; remove": {Task: job.Task{Processes: one.Processes, Order: [][]string{{"a", "a"}}}},
	} {
		if _, err := NewLife(s); err == nil || fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want an invalid error with %q", err, want)
		}
	}
}
