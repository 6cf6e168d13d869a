package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dev was killed with two agents and is started with one: the tasks of the
// other agent are ended in order, and nothing is left at the end.
func TestFewerAgents(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 2)
	key := w.create("far", script("Service", `echo up >> trace; trap 'echo down >> trace; exit 0' TERM; while true; do sleep 0.1; done`, ", constraints = {'host': 'm2'}"))
	first := w.status(key).Tasks[0]
	agents := []ident{w.child("agent", "m1"), w.child("agent", "m2")}
	server := w.child("server", "")
	w.replace(w.dev, syscall.SIGKILL)
	for _, p := range append(agents, server) {
		gone(t, p) // with their parent
	}
	w.startDev(1)
	eventually(t, 40*time.Second, "the task is ended in order", func() string {
		if got := readString(w.sandbox(first.ID) + "/trace"); got != "up\ndown\n" {
			return fmt.Sprintf("%q", got)
		}
		return ""
	})
	eventually(t, 30*time.Second, "its instance waits for its machine, and says so", func() string {
		v := w.status(key)
		if len(v.Tasks) != 1 || v.Tasks[0].Status != "PENDING" || v.Tasks[0].ID == first.ID || v.Tasks[0].Reason == "" {
			return fmt.Sprintf("%+v", v)
		}
		return ""
	})
	if err := w.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := w.dev.wait(t, 30*time.Second); code != 0 {
		t.Errorf("dev after Ctrl-C: exit %d; want 0\n%s", code, w.dev.log())
	}
	if left := processesOf(w.dir + "/"); len(left) > 0 {
		t.Errorf("after Ctrl-C there are %q", left)
	}
}

// What a task has written does not make its machine smaller when the agent
// starts again.
func TestDiskOfOwnTasks(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	disk := func() int64 {
		var m struct {
			Machine struct {
				Capacity struct {
					Disk int64 `json:"disk_bytes"`
				} `json:"capacity"`
			} `json:"machine"`
		}
		w.json(&m, "machine", "show", "m1")
		return m.Machine.Capacity.Disk
	}
	const size = 512
	before := disk()
	if before <= 0 {
		t.Fatalf("m1 offers %d bytes of disk", before)
	}
	key := w.create("writes", fmt.Sprintf(`
p = Process(name = 'p', cmdline = 'head -c %dM /dev/zero > data; echo done > wrote; sleep 1000000')
jobs = [Service(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME',
  task = Task(processes = [p], resources = Resources(cpu = 0.2, ram = 64*MB, disk = %d*MB)))]
`, size, size+64))
	sandbox := w.sandbox(w.status(key).Tasks[0].ID)
	eventually(t, 60*time.Second, "the task has written", func() string { return map[bool]string{false: "not yet"}[readString(sandbox+"/wrote") == "done\n"] })
	agent := w.child("agent", "m1")
	kill9(t, agent)
	w.child("agent", "m1", agent)
	eventually(t, 30*time.Second, "the agent is let in again", func() string {
		if log := w.dev.log(); strings.Count(log, "the leader let this machine in") < 2 {
			return log
		}
		return ""
	})
	if after := disk(); after < before {
		t.Errorf("m1 offered %d MiB of disk, and %d after its agent started again beside a task that holds %d", before>>20, after>>20, size)
	}
}
