package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Jobs that pass their limits, fail, wait, and are told to stop; in one
// cluster, side by side.
func TestJobs(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	for name, f := range map[string]func(*world){
		"memory": memoryHog, "disk": diskHog, "forkbomb": forkBomb, "nobinary": noBinary, "deaf": deafHealth, "sick": sickHealth,
		"stop": stopOrder, "adhoc": adHoc, "throttled": throttled, "larger": larger, "duplicate": duplicate, "kill": killInstances,
		"restart": restart, "isolation": isolation, "traversal": badNames,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(w.on(t))
		})
	}
}

// fails creates a job that fails, and returns what job create --wait says and
// the last step.
func (w *world) fails(name, text string) (result, step) {
	w.t.Helper()
	r := w.want(4, "job", "create", w.key(name), w.file(name, text), "--wait-until", "FINISHED", "--timeout", "50s")
	return r, w.ended(w.key(name), "e2e/test/"+name+"/0.1")
}

func memoryHog(w *world) {
	r, s := w.fails("memory", script("Job", "sleep 1000 & a=x; while true; do a=$a$a; done", ""))
	if s.To != "FAILED" || !strings.HasPrefix(s.Reason, "memory limit 48 MiB exceeded") || !strings.Contains(r.err, "memory limit 48 MiB exceeded") {
		w.t.Errorf("got %+v and %v; want FAILED, memory limit 48 MiB exceeded", s, r)
	}
}

func diskHog(w *world) {
	r, s := w.fails("disk", script("Job", "dd if=/dev/zero of=big bs=1M count=200 2>/dev/null; exec sleep 1000", ""))
	if s.To != "FAILED" || !strings.HasPrefix(s.Reason, "disk limit 48 MiB exceeded") || !strings.Contains(r.err, "disk limit") {
		w.t.Errorf("got %+v and %v; want FAILED, disk limit 48 MiB exceeded", s, r)
	}
}

// A fork bomb stays in its cgroup, and goes with its job without a rest.
func forkBomb(w *world) {
	t := w.t
	text := script("Service", `b() { exec -a @-bomb-0 sleep 100000; }; while true; do b & done 2>/dev/null`, "")
	key := w.create("bomb", strings.Replace(text, "processes = [p],", "processes = [p], pids_limit = 60,", 1))
	eventually(t, 30*time.Second, "the bomb goes off", func() string {
		if n := len(marked(w.mark("bomb", 0))); n < 40 {
			return itoa(n)
		}
		return ""
	})
	for range 20 {
		if n := len(marked(w.mark("bomb", 0))); n > 60+16 { // 16 are for init, who leaves some
			t.Fatalf("%d processes; want at most 76", n)
		}
		time.Sleep(pollEvery)
	}
	w.run("job", "killall", key, "--wait")
	if left := marked(w.mark("bomb", 0)); len(left) > 0 {
		t.Errorf("%d processes are left after killall --wait", len(left))
	}
}

func noBinary(w *world) {
	r, s := w.fails("nobinary", script("Job", "/usr/bin/no-such-program --flag", ""))
	if s.To != "FAILED" || !strings.Contains(s.Reason, "exit status 127") || !strings.Contains(r.err, "no-such-program") {
		w.t.Errorf("got %+v and %v; want exit status 127 and the log that names the program", s, r)
	}
}

// speaker is a service that runs this test's binary, with a health check.
func speaker(mode string, initial float64, more string) string {
	return fmt.Sprintf(`
p = Process(name = 'p', cmdline = 'exec ./speaker %s %s {{thermos.ports[health]}}')
jobs = [Service(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME',
  task = Task(processes = [p], finalization_wait = 1, resources = Resources(cpu = 0.2, ram = 64*MB, disk = 64*MB),
    artifacts = [Artifact(uri = 'file://%s', path = 'speaker', mode = '755')]),
  health_check_config = HealthCheckConfig(health_checker = HealthCheckerConfig(http = HttpHealthChecker()),
    initial_interval_secs = %v, interval_secs = 0.5, timeout_secs = 0.5, max_consecutive_failures = 1)%s)]
`, witnessArg, mode, witness, initial, more)
}

// A health check that never answers fails the task, with that reason.
func deafHealth(w *world) {
	t := w.t
	key := w.key("deaf")
	r := w.want(4, "job", "create", key, w.file("deaf", speaker("deaf", 1, "")), "--wait", "--timeout", "50s")
	s := w.ended(key, "e2e/test/deaf/0.1")
	if s.To != "FAILED" || !strings.Contains(strings.ToLower(s.Reason), "health") || !strings.Contains(strings.ToLower(r.err), "health") {
		t.Errorf("got %+v and %v; want FAILED by its health", s, r)
	}
	if s.From != "STARTING" {
		t.Errorf("got %+v; want a task that was never RUNNING", s)
	}
	w.run("job", "killall", key, "--wait")
}

// A healthy task is RUNNING when it is healthy, and fails when it turns sick.
func sickHealth(w *world) {
	t := w.t
	key := w.create("sick", speaker("polite", 2, ""))
	x := w.task(key, "RUNNING", 20*time.Second)
	if x.Ports["health"] == 0 {
		t.Fatalf("got %+v; want a port health", x)
	}
	if code, body := get(t, fmt.Sprintf("http://127.0.0.1:%d/health", x.Ports["health"])); code != 200 || body != "ok" {
		t.Errorf("the task answers %d %q; want 200 ok", code, body)
	}
	if err := os.WriteFile(filepath.Join(w.sandbox(x.ID), "sick"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s := w.ended(key, x.ID); s.To != "FAILED" || s.From != "RUNNING" || !strings.Contains(strings.ToLower(s.Reason), "health") {
		t.Errorf("got %+v; want FAILED by its health", s)
	}
	w.run("job", "killall", key, "--wait")
}

// A task that is told to stop is asked, asked again, told and killed.
func stopOrder(w *world) {
	t := w.t
	life := ", lifecycle = LifecycleConfig(http = HttpLifecycleConfig(graceful_shutdown_wait_secs = 1, shutdown_wait_secs = 1))"
	key := w.create("stop", speaker("stubborn", 15, life))
	box := w.sandbox("e2e/test/stop/0.1")
	began := time.Now()
	w.run("job", "killall", key, "--wait")
	took := time.Since(began)
	ended := strings.ReplaceAll(box, "/tasks/tasks/", "/tasks/ended/")
	got := readString(filepath.Join(box, "witness"))
	if got == "" {
		found, _ := filepath.Glob(filepath.Dir(ended) + "*/sandbox/witness")
		for _, f := range found {
			got += readString(f)
		}
	}
	if want := "start speaker\nPOST /quitquitquit\nPOST /abortabortabort\nTERM\n"; got != want {
		t.Errorf("the task saw %q; want %q", got, want)
	}
	if took < 2900*time.Millisecond || took > 15*time.Second {
		t.Errorf("the end took %v; want three waits of a second", took)
	}
}

// An ad hoc job runs to its end, or until it has failed often enough.
func adHoc(w *world) {
	t := w.t
	w.run("job", "create", w.key("works"), w.file("works", script("Job", "echo done > witness", "")), "--wait-until", "FINISHED")
	if got := readString(w.sandbox("e2e/test/works/0.1") + "/witness"); got != "done\n" {
		t.Errorf("the task wrote %q", got)
	}
	w.run("job", "create", w.key("fails"), w.file("fails", script("Job", "exit 5", ", max_task_failures = 2")))
	var ids []string
	eventually(t, 30*time.Second, "the job gives up", func() string {
		ids = nil
		for _, s := range w.steps(w.key("fails")) {
			if s.To == "FAILED" {
				ids = append(ids, s.Task)
			}
		}
		v := w.status(w.key("fails"))
		if len(v.Tasks) != 1 || v.Tasks[0].Status != "FAILED" || len(ids) < 2 {
			return fmt.Sprint(v, ids)
		}
		return ""
	})
	if want := []string{"e2e/test/fails/0.1", "e2e/test/fails/0.2"}; !slices.Equal(ids, want) {
		t.Errorf("attempts that failed: got %v; want %v", ids, want)
	}
}

// Early deaths are followed by a pause that is seen, and doubles.
func throttled(w *world) {
	t := w.t
	key := w.key("throttled")
	w.run("job", "create", key, w.file("throttled", script("Service", "exit 1", "")))
	x := w.task(key, "THROTTLED", 20*time.Second)
	if x.Reason == "" {
		t.Errorf("got %+v; want a reason", x)
	}
	eventually(t, 30*time.Second, "the third attempt fails", func() string {
		for _, s := range w.steps(key) {
			if s.Task == "e2e/test/throttled/0.3" && s.To == "FAILED" {
				return ""
			}
		}
		return "no third one"
	})
	var waits []string
	for _, s := range w.steps(key) {
		if s.To == "THROTTLED" {
			waits = append(waits, s.Task)
		}
		if s.To == "THROTTLED" && strings.HasSuffix(s.Task, "/0.2") {
			t.Errorf("the first early death was not followed at once: %+v", s)
		}
	}
	if len(waits) == 0 || waits[0] != "e2e/test/throttled/0.3" {
		t.Errorf("tasks that waited: got %v; want the third first", waits)
	}
	w.run("job", "killall", key, "--wait")
}

// A job that is larger than any machine is accepted, waits, and says why.
func larger(w *world) {
	t := w.t
	key := w.key("larger")
	w.run("job", "create", key, w.file("larger", strings.Replace(service(1), "cpu = 0.05", "cpu = 4000", 1)))
	x := w.task(key, "PENDING", 10*time.Second)
	if !strings.HasPrefix(x.Reason, "larger than any machine") {
		t.Errorf("got %+v; want the reason", x)
	}
	out := w.run("job", "explain", key)
	if !strings.Contains(out, "m1") || !strings.Contains(out, "cpu") {
		t.Errorf("explain: got %s; want the machine and what it lacks", out)
	}
	w.run("job", "killall", key, "--wait")
}

// A second job of the same name is refused, and changes nothing.
func duplicate(w *world) {
	t := w.t
	key := w.create("twice", service(1))
	p := w.process("twice", 0)
	r := w.want(10, "job", "create", key, w.file("twice", service(3)))
	if !strings.Contains(r.err, key) || !strings.Contains(r.err, "1 instance") {
		t.Errorf("got %v; want the key and what runs", r)
	}
	w.untouched("twice", []ident{p})
	w.run("job", "killall", key, "--wait")
}

// job kill ends the instances that it names, and no others.
func killInstances(w *world) {
	t := w.t
	slow := `bash -c "trap \'sleep 0.5; exit\' TERM; while true; do sleep 0.1; done"`
	text := strings.Replace(service(3), "sleep 1000000", slow, 1)
	key := w.create("some", text)
	p := []ident{w.process("some", 0), w.process("some", 1), w.process("some", 2)}
	w.run("job", "kill", key+"/0,2", "--wait")
	for i, want := range []bool{false, true, false} {
		if p[i].lives() != want {
			t.Errorf("instance %d lives: %v; want %v", i, p[i].lives(), want)
		}
	}
	if v := w.status(key); len(v.Tasks) != 1 || v.Tasks[0].Instance != 1 || v.Tasks[0].Status != "RUNNING" {
		t.Errorf("got %+v; want instance 1 alone", v)
	}
	w.want(6, "job", "kill", key+"/x")
	w.run("job", "killall", key, "--wait")
	if p[1].lives() {
		t.Error("killall --wait left a process")
	}
}

// job restart replaces tasks one after another.
func restart(w *world) {
	t := w.t
	key := w.create("again", service(2))
	p := []ident{w.process("again", 0), w.process("again", 1)}
	w.run("job", "restart", key+"/1")
	if !p[0].lives() || p[1].lives() {
		t.Errorf("after restart of instance 1: %v lives: %v, %v lives: %v", p[0], p[0].lives(), p[1], p[1].lives())
	}
	w.process("again", 1, p[1])
	w.run("job", "killall", key, "--wait")
}

// badNames are refused before anything is made of them.
func badNames(w *world) {
	for _, name := range []string{"..", ".", "a/b", "../../../etc/passwd", "", "a b", "a\x00b", strings.Repeat("x", 300)} {
		text := strings.ReplaceAll(service(1), "name = 'NAME'", "name = "+strings.ReplaceAll(strconv.Quote(name), `"`, "'"))
		r := w.tryFile(w.cluster+"/e2e/test/"+strings.ReplaceAll(name, "\x00", ""), w.file("badname", text))
		if r.code != 3 && r.code != 6 && r.code != 5 {
			w.t.Errorf("a job called %q: got %v; want a refusal", name, r)
		}
	}
}

func (w *world) tryFile(key, file string) result { return w.try("job", "create", key, file) }

// isolation is looked at from inside.
func isolation(w *world) {
	t := w.t
	token := filepath.Join(w.data, "token")
	other := w.create("neighbour", service(1))
	cmdline := strings.Join([]string{
		`tell() { echo "$1=$2" >> witness; }`,
		`tell uid $(id -u)`, `tell nnp "$(grep NoNewPrivs /proc/self/status | cut -f2)"`,
		`for c in Inh Prm Eff Bnd Amb; do tell Cap$c "$(grep Cap$c /proc/self/status | cut -f2)"; done`,
		`tell token "$(cat ` + token + ` 2>&1 | tr "\n" " ")"`,
		`tell data "$(ls ` + w.data + ` 2>&1 | tr "\n" " ")"`,
		`tell neighbour "$(ls ` + w.sandbox("e2e/test/neighbour/0.1") + ` 2>&1 | tr "\n" " ")"`,
		`tell processes "$(ls /proc | grep -c "^[0-9]")"`,
		`tell init "$(kill -9 1 2>&1; kill -0 1 2>&1)"`,
		`tell etc "$(touch /etc/x 2>&1)"`,
		`tell root "$(touch /x 2>&1)"`,
		`tell sys "$(ls /sys 2>&1 | wc -l)"`,
		`tell mount "$(mount -t tmpfs none /tmp 2>&1)"`,
		`tell dmesg "$(cat /proc/kcore 2>&1 | head -c 10)"`,
		`tell pwd "$PWD $HOME"`,
		`tell env "$(env | cut -d= -f1 | sort | tr "\n" " ")"`,
		`tell api "$(exec 3<>/dev/tcp/127.0.0.1/` + w.url[strings.LastIndexByte(w.url, ':')+1:] + `; printf "POST /covey.v1.JobService/ListJobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}" >&3; head -1 <&3 | tr -d "\r")"`,
		`exec -a @-isolation-0 sleep 1000000`,
	}, "\n")
	key := w.create("isolation", script("Service", cmdline, ""))
	p := w.process("isolation", 0)
	got := map[string]string{}
	for line := range strings.Lines(readString(w.sandbox("e2e/test/isolation/0.1") + "/witness")) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		got[k] = v
	}
	for k, want := range map[string]string{
		"nnp": "1", "CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
		"CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "pwd": "/sandbox /sandbox",
		"api": "HTTP/1.1 401 Unauthorized",
	} {
		if got[k] != want {
			t.Errorf("%s: got %q; want %q", k, got[k], want)
		}
	}
	if uid, err := strconv.Atoi(got["uid"]); err != nil || uid < 100 {
		t.Errorf("uid: got %q; want one that is not privileged", got["uid"])
	}
	for _, k := range []string{"token", "data", "neighbour", "init", "etc", "root", "mount"} {
		v := strings.ToLower(got[k])
		if !strings.Contains(v, "no such file") && !strings.Contains(v, "denied") && !strings.Contains(v, "not permitted") && !strings.Contains(v, "read-only") && !strings.Contains(v, "must be superuser") && !strings.Contains(v, "cannot open") {
			t.Errorf("%s: got %q; want a refusal", k, got[k])
		}
	}
	if secret := strings.TrimSpace(readString(token)); secret == "" || strings.Contains(fmt.Sprint(got), secret) {
		t.Errorf("the admin token is %q, and was seen by the task", secret)
	}
	if n, _ := strconv.Atoi(got["processes"]); n < 1 || n > 12 {
		t.Errorf("the task sees %q processes; want its own", got["processes"])
	}
	for name := range strings.FieldsSeq(got["env"]) {
		if !slices.Contains([]string{"PATH", "HOME", "PWD", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "_", "SHLVL", "OLDPWD"}, name) {
			t.Errorf("the task has %s in its environment", name)
		}
	}

	// And from outside.
	st := procStatus(p.pid)
	if uids := strings.Fields(st["Uid"]); len(uids) != 4 || slices.Contains(uids, "0") || st["NoNewPrivs"] != "1" || st["CapEff"] != "0000000000000000" || st["Seccomp"] != "2" {
		t.Errorf("status: got Uid %s, NoNewPrivs %s, CapEff %s, Seccomp %s; want no privilege and a filter", st["Uid"], st["NoNewPrivs"], st["CapEff"], st["Seccomp"])
	}
	for _, ns := range []string{"mnt", "pid", "ipc", "uts"} {
		mine, err1 := os.Readlink("/proc/self/ns/" + ns)
		its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.pid, ns))
		if err1 != nil || err2 != nil || mine == its {
			t.Errorf("namespace %s: got %q, %v; want another than %q, %v", ns, its, err2, mine, err1)
		}
	}
	limits := map[string]string{"memory.limit_in_bytes": "50331648", "pids.max": "272", "cpu.cfs_quota_us": "20000"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		limits = map[string]string{"memory.max": "50331648", "pids.max": "272", "cpu.max": "20000 100000"}
	}
	for file, want := range limits {
		if v, err := cgroupFile(w.uid(), "m1", "e2e/test/isolation/0.1", file); err != nil || v != want {
			t.Errorf("cgroup %s: got %q, %v; want %q", file, v, err, want)
		}
	}
	w.run("job", "killall", key, "--wait")
	w.run("job", "killall", other, "--wait")
}

// exitRecord is what a supervisor writes at the end.
type exitRecord struct {
	Ended    bool       `json:"ended"`
	Reason   string     `json:"reason"`
	CPUNanos int64      `json:"cpu_nanos"`
	Ran      []struct{} `json:"processes"`
}

func readExit(path string) (exitRecord, error) {
	var r exitRecord
	data, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	err = json.Unmarshal([]byte(strings.TrimRight(string(data), "\x00")), &r)
	return r, err
}
