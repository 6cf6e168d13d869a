package agentd

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/unit"
)

func TestStepped(t *testing.T) {
	for _, c := range []struct{ n, want int64 }{
		{-5, 0}, {0, 0}, {1, 16}, {16, 16}, {17, 32}, {127, 128}, {128, 128}, {129, 144}, {255, 256}, {256, 256}, {257, 288}, {1000, 1024}, {1025, 1152}, {1 << 40, 1 << 40},
	} {
		if got := stepped(c.n, cpuStep); got != c.want {
			t.Errorf("%d is stepped to %d, want %d", c.n, got, c.want)
		}
	}
	steps := map[int64]bool{}
	for n := int64(1); n <= 1<<16; n++ {
		got := stepped(n, cpuStep)
		if got < n || got-n >= max(cpuStep, n/8+1) || got < stepped(n-1, cpuStep) {
			t.Fatalf("%d is stepped to %d, and %d to %d; want no less than before, and an eighth too much at most", n, got, n-1, stepped(n-1, cpuStep))
		}
		steps[got] = true
	}
	if want := 16 + 8*8 + 8; len(steps) > want { // 16 of the finest up to 256, then 8 for each doubling
		t.Errorf("%d steps up to 64 cores; want at most %d", len(steps), want)
	}
}

// TestGauge is the table of what is kept back: more at once, less after it was
// enough for ten minutes.
func TestGauge(t *testing.T) {
	type look struct {
		at         float64 // minutes
		used, want int64
	}
	for _, c := range []struct {
		name  string
		kept  int64 // before
		looks []look
	}{
		{"little is used", 0, []look{{0, 0, 100}, {5, 99, 100}, {30, 0, 100}}},
		{"it rises at once", 0, []look{{0, 50, 100}, {1, 101, 112}, {2, 112, 112}, {3, 113, 128}, {4, 900, 960}}},
		{"never beyond what the machine has", 0, []look{{0, 990, 1000}, {1, 5000, 1000}}},
		{"it falls after ten minutes", 0, []look{{0, 300, 320}, {1, 120, 320}, {10.9, 120, 320}, {11, 120, 128}}},
		{"to the most of these ten minutes", 0, []look{{0, 300, 320}, {1, 120, 320}, {5, 200, 320}, {6, 10, 320}, {11, 10, 208}, {12, 10, 208}, {21.9, 10, 208}, {22, 10, 100}}},
		{"not while it comes back", 0, []look{{0, 300, 320}, {1, 120, 320}, {9, 310, 320}, {12, 120, 320}, {21.9, 120, 320}, {22, 120, 128}}},
		{"as it was before the agent began", 500, []look{{0, 120, 500}, {9, 120, 500}, {10, 120, 128}}},
		{"more was kept than the machine has", 5000, []look{{0, 120, 1000}}},
	} {
		g := newGauge(100, 1000, cpuStep, c.kept)
		for _, l := range c.looks {
			if got := g.see(time.Duration(l.at*float64(time.Minute)), l.used); got != l.want {
				t.Errorf("%s: after %v minutes, with %d used: %d is kept back, want %d", c.name, l.at, l.used, got, l.want)
			}
		}
	}
}

// TestGaugeChanges bounds how often a machine may have another overhead written
// down, whatever is used: it is less at most once in ten minutes, and what goes
// up and down in between changes nothing.
func TestGaugeChanges(t *testing.T) {
	g := newGauge(100, 64000, cpuStep, 0)
	changes, falls, before := 0, 0, int64(100)
	const hours = 10
	for at := time.Duration(0); at < hours*time.Hour; at += sampleEvery {
		used := int64(200)
		if at/time.Minute%2 == 0 {
			used = 4000 // every other minute
		}
		now := g.see(at, used)
		if now != before {
			changes++
		}
		before = now
	}
	if changes != 1 {
		t.Errorf("%d changes while it goes up and down every minute; want one", changes)
	}
	g = newGauge(100, 64000, cpuStep, 0)
	before = 100
	for at := time.Duration(0); at < hours*time.Hour; at += sampleEvery {
		now := g.see(at, 50000-int64(at/time.Second)) // slowly less
		if now < before {
			falls++
		}
		before = now
	}
	if falls == 0 || falls > hours*6 {
		t.Errorf("%d falls in %d hours; want at most one in ten minutes", falls, hours)
	}
}

func TestMean(t *testing.T) {
	var m mean
	for _, c := range []struct {
		at    time.Duration
		nanos time.Duration
		want  int64
	}{
		{0, 10 * time.Second, 0},
		{30 * time.Second, 40 * time.Second, 0}, // not a minute yet
		{60 * time.Second, 40 * time.Second, 500},
		{90 * time.Second, 40 * time.Second, 0}, // nothing since half a minute after the start
		{120 * time.Second, 55 * time.Second, 250},
		{150 * time.Second, 5 * time.Second, 0}, // counted anew
		{210 * time.Second, 125 * time.Second, 2000},
		{600 * time.Second, 515 * time.Second, 1000}, // nobody looked for a while
	} {
		if got := m.add(c.at, int64(c.nanos)); got != c.want {
			t.Errorf("after %v: %d thousandths of a core, want %d", c.at, got, c.want)
		}
		if len(m.seen) > 4 {
			t.Errorf("%d samples are kept", len(m.seen))
		}
	}
}

// weighing is an agent on a machine where the platform takes what the test says.
func weighing(t *testing.T, dir string) (d *daemon, takes func(runtime.Overhead, error)) {
	t.Helper()
	cfg := Config{
		DataDir: dir, Machine: "m1", Server: "http://127.0.0.1:1",
		Capacity: unit.Resources{CPU: 4000, RAM: 4 << 30, Disk: 100 << 30}, Overhead: unit.Resources{RAM: 64 * unit.MiB},
	}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	d = &daemon{cfg: cfg, log: slog.New(slog.DiscardHandler), id: identity{UID: "u", Machine: "m1"}, began: time.Now(), mind: agent.New("u", agent.Seen{}, agent.Seen{})}
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err == nil {
		if d.id, err = readIdentity(cfg, filepath.Join(dir, identityFile), data); err != nil {
			t.Fatal(err)
		}
	}
	d.self = cfg.describe("boot-1", nil)
	d.over = newOverhead(cfg, d.id.Kept, d.self.Boot)
	keeps := d.over.resources()
	d.keeps.Store(&keeps)
	d.seen.Store(&agent.Seen{})
	d.since.Store(&agent.Seen{})
	d.journal, err = openJournal(dir, "m1")
	if err != nil {
		t.Fatal(err)
	}
	return d, func(o runtime.Overhead, err error) { d.measure = func() (runtime.Overhead, error) { return o, err } }
}

// TestWeigh tells the leader of each step, and nothing as long as it stays; the
// next agent goes on where this one was.
func TestWeigh(t *testing.T) {
	dir := t.TempDir()
	d, takes := weighing(t, dir)
	reserve := unit.Resources{CPU: 200, RAM: 64 * unit.MiB, Disk: 5 << 30}
	if got := d.describe().Overhead; got != reserve {
		t.Errorf("at first %v is kept back, want %v: the reserve, by default of what nobody named", got, reserve)
	}
	d.session = &link{out: make(chan control.Message, 9)}
	told := func() (all []unit.Resources) {
		d.say(false)
		for len(d.session.out) > 0 {
			m := <-d.session.out
			if m.Full || m.Machine == nil {
				t.Errorf("it says %+v; want the machine and no more", m)
				continue
			}
			all = append(all, m.Machine.Overhead)
		}
		return all
	}
	now := d.began
	var got []unit.Resources
	for _, ram := range []int64{10, 63, 65, 70, 300, 299} {
		takes(runtime.Overhead{RAM: ram * unit.MiB}, nil)
		now = now.Add(sampleEvery)
		d.weigh(t.Context(), now)
		got = append(got, told()...)
	}
	want := []unit.Resources{{CPU: 200, RAM: 80 * unit.MiB, Disk: 5 << 30}, {CPU: 200, RAM: 320 * unit.MiB, Disk: 5 << 30}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the leader is told (-want +got):\n%s", diff)
	}
	takes(runtime.Overhead{}, errors.New("the group is gone"))
	d.weigh(t.Context(), now.Add(time.Hour))
	if again := told(); len(again) != 0 {
		t.Errorf("a measurement that failed has the leader told of %v", again)
	}
	for boot, want := range map[string]int64{"boot-1": 320, "boot-2": 64} {
		next, _ := weighing(t, dir)
		if got := newOverhead(next.cfg, next.id.Kept, boot).resources().RAM / unit.MiB; got != want {
			t.Errorf("the next agent, at %s, keeps back %d MiB of ram, want %d", boot, got, want)
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, identityFile)); err != nil || !strings.Contains(string(data), `"boot-1"`) {
		t.Errorf("%s: %s, %v", identityFile, data, err)
	}
}

// TestWeighOnceMore tells a leader that comes later with everything.
func TestWeighOnceMore(t *testing.T) {
	d, takes := weighing(t, t.TempDir())
	takes(runtime.Overhead{RAM: unit.MiB << 10}, nil)
	d.weigh(t.Context(), d.began)
	d.say(false) // nobody hears it
	if got := d.hello().Machine.Overhead.RAM; got != 1<<30 {
		t.Errorf("the next hello says that %d bytes are kept back, want %d", got, 1<<30)
	}
	d.session = &link{out: make(chan control.Message, 9)}
	d.say(true)
	if m := <-d.session.out; m.Machine == nil || m.Machine.Overhead.RAM != 1<<30 || !m.Full {
		t.Errorf("a full message says %+v", m)
	}
}
