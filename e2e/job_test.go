package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Jobs of a world, and what is seen of them.

// A view is what job status -o json says.
type view struct {
	Job struct {
		Key string `json:"key"`
	} `json:"job"`
	Tasks []taskView `json:"tasks"`
}

type taskView struct {
	ID       string            `json:"id"`
	Instance int               `json:"instance"`
	Status   string            `json:"status"`
	Machine  string            `json:"machine"`
	Reason   string            `json:"reason"`
	Ports    map[string]uint16 `json:"ports"`
}

func (w *world) key(name string) string { return w.cluster + "/e2e/test/" + name }

// file writes a configuration. In it, @ stands for the cluster's name and
// NAME for the job's.
func (w *world) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name+".aurora")
	text = strings.NewReplacer("@", w.cluster, "NAME", name).Replace(text)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// create creates a job and waits until it runs.
func (w *world) create(name, text string) string {
	w.t.Helper()
	w.run("job", "create", w.key(name), w.file(name, text), "--wait", "--timeout", "40s")
	return w.key(name)
}

// finished waits until every one of n instances of a job has ended well.
func (w *world) finished(name string, n int) {
	w.t.Helper()
	eventually(w.t, 60*time.Second, name+" is FINISHED", func() string {
		r := w.try("job", "status", w.key(name), "-o", "json")
		if strings.Count(r.out, `"FINISHED"`) != n {
			return r.String()
		}
		return ""
	})
}

// service is a job of n instances whose process sleeps under the name
// CLUSTER-NAME-INSTANCE, after it has written its start time into the file
// "witness".
func service(n int) string {
	return fmt.Sprintf(`
p = Process(name = 'p', cmdline = 'echo {{mesos.instance}} $(cut -d" " -f22 /proc/$$/stat) >> witness; exec -a @-NAME-{{mesos.instance}} sleep 1000000')
jobs = [Service(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME', instances = %d,
  task = Task(processes = [p], resources = Resources(cpu = 0.05, ram = 16*MB, disk = 16*MB)))]
`, n)
}

// script is a job of one process. more are further fields of the job.
func script(kind, cmdline, more string) string {
	return fmt.Sprintf(`
p = Process(name = 'p', cmdline = %s)
jobs = [%s(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME',
  task = Task(processes = [p], finalization_wait = 2, resources = Resources(cpu = 0.2, ram = 48*MB, disk = 48*MB))%s)]
`, pyString(cmdline), kind, more)
}

func pyString(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`).Replace(s) + "'"
}

func (w *world) mark(name string, instance int) string {
	return fmt.Sprintf("%s-%s-%d", w.cluster, name, instance)
}

// process waits until exactly one process of an instance of a service lives,
// none of those in not.
func (w *world) process(name string, instance int, not ...ident) ident {
	w.t.Helper()
	var p ident
	eventually(w.t, 30*time.Second, "one process of "+w.mark(name, instance), func() string {
		found := marked(w.mark(name, instance))
		if len(found) != 1 {
			return fmt.Sprint(found)
		}
		for _, x := range not {
			if found[0] == x {
				return "still " + x.String()
			}
		}
		p = found[0]
		return ""
	})
	return p
}

func (w *world) status(key string) view {
	w.t.Helper()
	var v view
	w.json(&v, "job", "status", key)
	return v
}

// task waits until the only task of a job is in a state.
func (w *world) task(key, status string, within time.Duration) taskView {
	w.t.Helper()
	var x taskView
	eventually(w.t, within, key+" is "+status, func() string {
		v := w.status(key)
		if len(v.Tasks) != 1 || v.Tasks[0].Status != status {
			return fmt.Sprint(v)
		}
		x = v.Tasks[0]
		return ""
	})
	return x
}

// A step is a line of task events -o json.
type step struct {
	Task   string `json:"id"`
	From   string `json:"from"`
	To     string `json:"to"`
	At     string `json:"at"`
	Reason string `json:"reason"`
}

func (w *world) steps(key string) []step {
	w.t.Helper()
	var v struct {
		Events []step `json:"events"`
	}
	w.json(&v, "task", "events", key)
	return v.Events
}

// ended waits until a task has ended, and returns its last step.
func (w *world) ended(key, id string) step {
	w.t.Helper()
	var last step
	eventually(w.t, 30*time.Second, id+" has ended", func() string {
		for _, s := range w.steps(key) {
			if s.Task == id && isEnd(s.To) {
				last = s
				return ""
			}
		}
		return fmt.Sprint(w.steps(key))
	})
	return last
}

func isEnd(status string) bool {
	return status == "FINISHED" || status == "FAILED" || status == "KILLED" || status == "LOST"
}

// sandbox returns the directory of a task on this machine, whether it has
// ended or not.
func (w *world) sandbox(id string) string {
	w.t.Helper()
	return filepath.Join(w.taskDir(id), "sandbox")
}

func (w *world) taskDir(id string) string {
	w.t.Helper()
	for _, pattern := range []string{"data/agents/*/tasks", "agent*/tasks"} {
		for _, sub := range []string{"tasks", "ended"} {
			found, _ := filepath.Glob(filepath.Join(w.dir, pattern, sub, escape(id)+"*"))
			if len(found) > 0 {
				return found[0]
			}
		}
	}
	w.t.Fatalf("no directory of task %s", id)
	return ""
}

// supervisor returns the process that looks after a task.
func (w *world) supervisor(id string) ident {
	w.t.Helper()
	found := processes(func(_ int, args []string) bool {
		return len(args) > 2 && args[1] == "__supervise" && filepath.Base(args[2]) == escape(id) && strings.HasPrefix(args[2], w.dir+"/")
	})
	if len(found) != 1 {
		w.t.Fatalf("supervisors of %s: got %v; want one", id, found)
	}
	return found[0]
}

// child waits for the part of dev that was started with arguments, and is
// none of those in not.
func (w *world) child(part, machine string, not ...ident) ident {
	w.t.Helper()
	var p ident
	eventually(w.t, 10*time.Second, "dev has a child "+part+" "+machine, func() string {
		found := processes(func(pid int, args []string) bool {
			return len(args) > 1 && args[1] == part && parentOf(pid) == w.dev.cmd.Process.Pid &&
				(machine == "" || strings.Contains(strings.Join(args, " "), "--machine "+machine+" "))
		})
		for _, x := range found {
			again := false
			for _, y := range not {
				again = again || x == y
			}
			if !again {
				p = x
				return ""
			}
		}
		return fmt.Sprint(found)
	})
	return p
}

// kill9 kills a process and waits until it is gone.
func kill9(t testing.TB, p ident) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	gone(t, p)
}

func gone(t testing.TB, p ident) {
	t.Helper()
	eventually(t, 10*time.Second, "process "+p.String()+" is gone", func() string {
		if p.lives() {
			return fmt.Sprintf("%q", argsOf(p.pid))
		}
		return ""
	})
}

func itoa(n int) string { return strconv.Itoa(n) }
