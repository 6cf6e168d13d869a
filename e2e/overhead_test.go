package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestOverhead starts many small tasks: their supervisors take more than the
// machine's reserve, which keeps as much back and bills it as overhead. Where one
// large task holds the room, the rest is owed and nothing is placed, until it ends.
func TestOverhead(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	w.startServer()
	const mib = 1 << 20
	w.agent = w.start("agent", w.agentArgs("m1", "agent", "--join-token-file", w.token("--subject", "m1"), "--overhead-ram", "16MiB")...)
	w.up("m1")
	type amounts struct {
		RAM int64 `json:"ram_bytes"`
	}
	var m struct {
		Machine struct{ Overhead, Owed, Free amounts }
	}
	w.json(&m, "machine", "show", "m1")
	before := m.Machine.Overhead.RAM
	task := func(name, ram string, n int) {
		w.create(name, fmt.Sprintf(`
p = Process(name = 'p', cmdline = 'exec sleep 100000')
jobs = [Service(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME', instances = %d,
  task = Task(processes = [p], finalization_wait = 2, resources = Resources(cpu = 0.001, ram = %s, disk = 1*MB)))]
`, n, ram))
	}
	const n, beside = 40, 48 // beside the small ones, in MiB, as much is left
	task("large", fmt.Sprintf("%d*MB", m.Machine.Free.RAM/mib-n*8-beside), 1)
	task("small", "8*MB", n)
	eventually(t, 60*time.Second, "the overhead grows by a MiB for each supervisor, and is owed", func() string {
		w.json(&m, "machine", "show", "m1")
		if o := m.Machine; o.Overhead.RAM+o.Owed.RAM < before+n*mib || o.Owed.RAM <= 0 || o.Free.RAM != -o.Owed.RAM {
			return fmt.Sprintf("%+v, and %d at first", o, before)
		}
		return ""
	})
	money(w)
	w.run("job", "killall", w.key("large"), "--wait")
	eventually(t, 60*time.Second, "all of it is kept back", func() string {
		w.json(&m, "machine", "show", "m1")
		if o := m.Machine; o.Overhead.RAM < before+n*mib || o.Owed.RAM != 0 || o.Free.RAM < 0 {
			return fmt.Sprintf("%+v, and %d at first", o, before)
		}
		return ""
	})
	money(w)
}
