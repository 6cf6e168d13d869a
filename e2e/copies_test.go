package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The databases are lost, and the agents' directories are not: the agents
// belong to a cluster that is no more. Their tasks run on.
func TestLostDatabases(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("orphan", service(2))
	orphans := []ident{w.process("orphan", 0), w.process("orphan", 1)}
	w.crashDev()
	files, _ := filepath.Glob(filepath.Join(w.data, "c*.db*"))
	if len(files) < 2 {
		t.Fatalf("databases: got %v", files)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	w.refused(filepath.Join(w.data, "agents"), "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "http://"))
	for i, o := range orphans {
		if got := marked(w.mark("orphan", i)); !slices.Equal(got, []ident{o}) {
			t.Errorf("instance %d: got %v; want the task as before, %v", i, got, o)
		}
	}
}

// The whole data directory is an old copy, the agents' part included.
func TestOldCopyOfEverything(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("same", service(2))
	same := []ident{w.process("same", 0), w.process("same", 1)}
	w.create("replaced", service(1))
	w.crashDev()
	copyDir := filepath.Join(w.dir, "copy")
	if out, err := exec.Command("cp", "-a", w.data, copyDir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.startDev(1)
	first := w.process("replaced", 0)
	kill9(t, first)
	second := w.process("replaced", 0, first)
	w.create("unknown", service(1))
	unknown := w.process("unknown", 0)
	w.crashDev()
	if err := os.RemoveAll(w.data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(copyDir, w.data); err != nil {
		t.Fatal(err)
	}
	w.startDev(1)
	w.answers("copy")
	if out := w.run("cluster", "show"); !strings.Contains(out, "recovery") {
		t.Errorf("the copy is not noticed: %s", out)
	}
	eventually(t, 60*time.Second, "the replaced one settles", func() string {
		v := w.status(w.key("replaced"))
		if len(v.Tasks) != 1 || v.Tasks[0].Status != "RUNNING" || !strings.HasSuffix(v.Tasks[0].ID, ".1048577") {
			return fmt.Sprint(v)
		}
		return ""
	})
	for what, p := range map[string]ident{"same 0": same[0], "same 1": same[1], "replaced": second, "unknown": unknown} {
		if !p.lives() {
			t.Errorf("%s was killed", what)
		}
	}
	w.untouched("same", same)
}

// counts writes a number into its log ten times a second until it is told to
// end, and has a final process that writes into the sandbox.
const counts = `
p = Process(name = 'p', cmdline = 'trap "echo term; exit 0" TERM; trap "echo usr1; exit 7" USR1; echo mark @-NAME-0; n=0; while :; do echo $n; n=$((n+1)); sleep 0.1; done')
f = Process(name = 'f', final = True, cmdline = 'echo bye > /sandbox/last && echo final')
jobs = [Job(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME',
  task = Task(processes = [p, f], finalization_wait = 20, resources = Resources(cpu = 0.1, ram = 32*MB, disk = 32*MB)))]
`

// The whole directory of dev goes back to a copy, or is moved, while tasks
// run: the agent works with the supervisors as before. Logs go on, a stop is
// in order, and ends are told truly, also when the agent is dead meanwhile.
func TestLivesInCopy(t *testing.T) {
	needRoot(t)
	for what, move := range map[string]func(w *world) string{
		"replaced by a copy": func(w *world) string {
			// What still writes may keep a directory from being removed at once.
			w.shell("cp -a data bak; until rm -rf data; do :; done; cp -a bak data")
			return w.data
		},
		"moved": func(w *world) string {
			w.shell("mv data moved")
			return filepath.Join(w.dir, "moved")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newDev(t, 1)
			stopped, ends := w.create("stopped", counts), w.create("ends", counts)
			for _, key := range []string{stopped, ends} {
				w.logGoesOn(key)
				w.recorded(key)
			}
			w.crashDev()
			w.data = move(w)
			w.startDev(1)
			for _, key := range []string{stopped, ends} {
				w.task(key, "RUNNING", 60*time.Second)
				w.logGoesOn(key)
			}
			w.run("job", "killall", stopped, "--wait")
			if s := w.ended(stopped, "e2e/test/stopped/0.1"); s.To != "KILLED" {
				t.Errorf("stopped: got %+v; want KILLED", s)
			}
			w.leaves("stopped", "term")

			agent := w.child("agent", "m1")
			p := w.recorded(ends)
			agent.signal(t, syscall.SIGKILL)
			p.signal(t, syscall.SIGUSR1)
			gone(t, agent)
			if s := w.ended(ends, "e2e/test/ends/0.1"); s.To != "FAILED" || !strings.Contains(s.Reason, "exit status 7") {
				t.Errorf("ends: got %+v; want FAILED with exit status 7", s)
			}
			w.leaves("ends", "usr1")
		})
	}
}

func (w *world) shell(commands string) {
	w.t.Helper()
	cmd := exec.Command("sh", "-c", commands)
	cmd.Dir = w.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
}

// logGoesOn waits until covey task logs has more to show than now.
func (w *world) logGoesOn(key string) {
	w.t.Helper()
	before := w.try("task", "logs", key).out
	eventually(w.t, 60*time.Second, "the log of "+key+" goes on", func() string {
		if r := w.try("task", "logs", key); len(r.out) <= len(before) {
			return r.String()
		}
		return ""
	})
}

// recorded waits until the directory of a job's task names the first process,
// and returns that.
func (w *world) recorded(key string) ident {
	w.t.Helper()
	_, name, _ := strings.Cut(key, "/")
	var p ident
	eventually(w.t, 30*time.Second, key+" is recorded", func() string {
		s := readString(filepath.Join(w.taskDirIn(name+"/0.1"), "state.json"))
		var st struct {
			State     string `json:"state"`
			Processes []struct {
				Pid int `json:"pid"`
			} `json:"processes"`
		}
		if json.Unmarshal([]byte(s), &st) != nil || st.State != "RUNNING" || len(st.Processes) == 0 {
			return s
		}
		var ok bool
		if p, ok = identify(st.Processes[0].Pid); !ok {
			return s
		}
		return ""
	})
	return p
}

// taskDirIn is [world.taskDir] below the present data directory.
func (w *world) taskDirIn(id string) string {
	w.t.Helper()
	found, _ := filepath.Glob(filepath.Join(w.data, "agents", "m1", "tasks", "*", escape(id)))
	if len(found) != 1 {
		w.t.Fatalf("directories of task %s: got %v; want one", id, found)
	}
	return found[0]
}

// leaves sees what an ended task has left: a log that counts without a gap to
// its last line, and what its final process said and wrote.
func (w *world) leaves(name, last string) {
	w.t.Helper()
	box := filepath.Join(w.taskDirIn("e2e/test/"+name+"/0.1"), "sandbox")
	got := strings.Split(strings.TrimSpace(readString(filepath.Join(box, ".logs/p/1/stdout"))), "\n")
	want := []string{"mark " + w.mark(name, 0)}
	for i := range len(got) - 2 {
		want = append(want, fmt.Sprint(i))
	}
	if want = append(want, last); !slices.Equal(got, want) {
		w.t.Errorf("%s: log is %q; want %q", name, got, want)
	}
	if said, wrote := readString(filepath.Join(box, ".logs/f/1/stdout")), readString(filepath.Join(box, "last")); said != "final\n" || wrote != "bye\n" {
		w.t.Errorf("%s: the final process said %q and wrote %q; want final and bye; the end is %s", name, said, wrote, readString(filepath.Join(filepath.Dir(box), "exit.json")))
	}
}
