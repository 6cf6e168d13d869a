package e2e

import (
	"fmt"
	"io"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// One file, one command, a real process; and every command that looks at it.
func TestDev(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t)
	began := time.Now()
	w.url = "http://" + freeAddr(t)
	w.dev = w.start("dev", "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", strings.TrimPrefix(w.url, "http://"), "--agents", "2")
	eventually(t, 10*time.Second, "/readyz is 200", func() string {
		resp, err := http.Get(w.url + "/readyz")
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return resp.Status
		}
		return ""
	})
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
	w.ready(w.dev)

	began = time.Now()
	key := w.create("first", service(2))
	t.Logf("job create --wait of two instances took %v", time.Since(began).Round(time.Millisecond))

	t.Run("metrics", func(t *testing.T) { metrics(w.on(t)) })
	t.Run("status", func(t *testing.T) {
		w := w.on(t)
		v := w.status(key)
		if v.Job.Key != key || len(v.Tasks) != 2 {
			t.Fatalf("got %+v; want job %s with two tasks", v, key)
		}
		for i, x := range v.Tasks {
			want := taskView{ID: "e2e/test/first/" + string(rune('0'+i)) + ".1", Instance: i, Status: "RUNNING", Machine: x.Machine}
			if x.Machine == "" || x.ID != want.ID || x.Instance != want.Instance || x.Status != want.Status || x.Reason != want.Reason {
				t.Errorf("got %+v; want %+v", x, want)
			}
			p := w.process("first", i)
			cg, err := cgroupFile(w.uid(), x.Machine, x.ID, "cgroup.procs")
			if err != nil || !strings.Contains("\n"+cg+"\n", "\n"+itoa(p.pid)+"\n") {
				t.Errorf("process %v is not in the cgroup of %s: %q, %v", p, x.ID, cg, err)
			}
			if got, want := readString(w.sandbox(x.ID)+"/witness"), itoa(i)+" "+itoa(int(p.start))+"\n"; got != want {
				t.Errorf("the task wrote %q; want %q", got, want)
			}
		}
		out := w.run("job", "status", key)
		if !strings.Contains(out, "RUNNING") || !strings.Contains(out, "e2e/test/first/1.1") {
			t.Errorf("table: %s", out)
		}
	})
	t.Run("look", func(t *testing.T) { look(w.on(t), key) })
	t.Run("logs", func(t *testing.T) { follow(w.on(t)) })
	t.Run("money", func(t *testing.T) { money(w.on(t)) })
	t.Run("codes", func(t *testing.T) { codes(w.on(t), key) })
}

// look walks through the commands that show things.
func look(w *world, key string) {
	t := w.t
	steps := w.steps(key + "/0")
	var path []string
	for _, s := range steps {
		path = append(path, s.To)
	}
	if got, want := strings.Join(path, " "), "PENDING ASSIGNED STARTING RUNNING"; got != want {
		t.Errorf("events: got %s; want %s", got, want)
	}
	var ls struct {
		Files []struct {
			Name string `json:"name"`
		} `json:"files"`
	}
	w.json(&ls, "task", "ls", key+"/0")
	found := false
	for _, f := range ls.Files {
		found = found || f.Name == "witness"
	}
	if !found {
		t.Errorf("ls: got %+v; want the file witness", ls)
	}
	var list struct {
		Jobs []struct {
			Key   string         `json:"key"`
			Tasks map[string]int `json:"tasks"`
		} `json:"jobs"`
	}
	w.json(&list, "job", "list")
	if len(list.Jobs) != 1 || list.Jobs[0].Key != key || list.Jobs[0].Tasks["RUNNING"] != 2 {
		t.Errorf("list: got %+v", list)
	}
	var explain struct {
		Instances []struct {
			ID     string `json:"id"`
			Status string `json:"status"`
		} `json:"instances"`
	}
	w.json(&explain, "job", "explain", key)
	if len(explain.Instances) != 2 || explain.Instances[1].Status != "RUNNING" {
		t.Errorf("explain: got %+v", explain)
	}
	var machines struct {
		Machines []struct {
			ID    string `json:"id"`
			Up    bool   `json:"up"`
			Tasks int    `json:"tasks"`
		} `json:"machines"`
	}
	tasks := 0
	eventually(t, 10*time.Second, "two machines are up", func() string {
		w.json(&machines, "machine", "list")
		tasks = 0
		for _, m := range machines.Machines {
			tasks += m.Tasks
		}
		if len(machines.Machines) != 2 || !machines.Machines[0].Up || !machines.Machines[1].Up {
			return "others"
		}
		return ""
	})
	if tasks != 2 {
		t.Errorf("machine list: got %+v; want 2 tasks", machines)
	}
	var show struct {
		Machine struct {
			ID     string   `json:"id"`
			Limits []string `json:"limits"`
		} `json:"machine"`
	}
	w.json(&show, "machine", "show", "m1")
	if show.Machine.ID != "m1" || len(show.Machine.Limits) != 0 {
		t.Errorf("machine show: got %+v; want m1 with every guarantee", show)
	}
}

// metrics are for who has a token, and count what there is.
func metrics(w *world) {
	t := w.t
	if code, _ := get(t, w.url+"/metrics"); code != http.StatusUnauthorized {
		t.Errorf("without a token: %d; want %d", code, http.StatusUnauthorized)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(readString(filepath.Join(w.data, "token"))))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", resp.Status, err, body)
	}
	for _, want := range []string{"covey_tasks 2", "covey_machines_up 2", "covey_store_waiting_rows "} {
		if !strings.Contains(string(body), "\n"+want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	for _, name := range []string{"covey_store_bytes", "covey_store_free_bytes"} {
		_, rest, _ := strings.Cut(string(body), "\n"+name+" ")
		if value, _, _ := strings.Cut(rest, "\n"); value == "" || value[0] < '1' || value[0] > '9' {
			t.Errorf("%s is %q; want above 0", name, value)
		}
	}
}

// follow reads a log while it is written, until Ctrl-C.
func follow(w *world) {
	t := w.t
	key := w.create("talker", script("Service", `i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done`, ""))
	p := w.start("logs", "task", "logs", "-f", key)

	eventually(t, 15*time.Second, "the log is followed", func() string {
		if out := p.out(); !strings.Contains(out, "line 12") {
			return fmt.Sprintf("%q", out)
		}
		return ""
	})
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t, 5*time.Second); code != 130 {
		t.Errorf("logs -f after Ctrl-C: exit %d; want 130", code)
	}
	if out := w.run("task", "logs", key, "--tail", "2"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "line") {
		t.Errorf("logs --tail 2: got %q", out)
	}
	w.run("job", "killall", key, "--wait")
}

// A bill is what bill -o json says.
type bill struct {
	Total string `json:"total"`
	Hours []struct {
		Hour, Capacity, Billed, Overhead, Idle, Down string
	} `json:"hours"`
	Rows []struct {
		Owner  string `json:"owner"`
		Amount string `json:"amount"`
		Used   struct {
			CPU string `json:"cpu_core_hours"`
		} `json:"used"`
	} `json:"rows"`
}

// money checks the bill's identity to the last digit.
func money(w *world) {
	t := w.t
	var b bill
	w.json(&b, "bill")
	if len(b.Hours) == 0 || len(b.Rows) == 0 {
		t.Fatalf("got %+v; want hours and rows", b)
	}
	billed := new(big.Rat)
	for _, h := range b.Hours {
		sum := new(big.Rat)
		for _, part := range []string{h.Billed, h.Overhead, h.Idle, h.Down} {
			sum.Add(sum, rat(t, part))
		}
		if sum.Cmp(rat(t, h.Capacity)) != 0 {
			t.Errorf("hour %s: parts make %v; want %s: %+v", h.Hour, sum, h.Capacity, h)
		}
		if rat(t, h.Capacity).Sign() <= 0 || rat(t, h.Idle).Sign() < 0 || rat(t, h.Overhead).Sign() <= 0 {
			t.Errorf("hour %s: %+v; want capacity and overhead, and nothing below 0", h.Hour, h)
		}
		billed.Add(billed, rat(t, h.Billed))
	}
	rows := new(big.Rat)
	for _, r := range b.Rows {
		rows.Add(rows, rat(t, r.Amount))
	}
	if rows.Cmp(billed) != 0 || rows.Cmp(rat(t, b.Total)) != 0 || rows.Sign() <= 0 {
		t.Errorf("rows make %v, hours are billed %v, total is %s; want all equal and above 0", rows, billed, b.Total)
	}
	var roles bill
	w.json(&roles, "bill", "--by", "role")
	if len(roles.Rows) != 1 || !strings.HasSuffix(roles.Rows[0].Owner, "e2e") {
		t.Errorf("bill --by role: got %+v; want one row, of role e2e", roles.Rows)
	}
	var u struct {
		Rows []struct {
			Owner string `json:"owner"`
		} `json:"rows"`
	}
	w.json(&u, "usage")
	if len(u.Rows) != len(b.Rows) {
		t.Errorf("usage: got %+v; want the owners of the bill", u)
	}
}

func rat(t testing.TB, s string) *big.Rat {
	t.Helper()
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("amount %q is no number", s)
	}
	return r
}

// codes checks the exit codes.
func codes(w *world, key string) {
	t := w.t
	contains := func(r result, texts ...string) {
		t.Helper()
		for _, s := range texts {
			if !strings.Contains(r.err, s) {
				t.Errorf("got %v; want %q", r, s)
			}
		}
	}
	bad := w.file("bad", "jobs = [Service(cluster = '@', role = 'e2e', environment = 'test', name = 'NAME', instnces = 2, task = Task(processes = []))]")
	contains(w.want(3, "job", "create", w.key("bad"), bad), "bad.aurora:1:", "instnces", "instances")
	fails := w.file("fails", script("Job", "echo the last words; exit 3", ""))
	contains(w.want(4, "job", "create", w.key("fails"), fails, "--wait-until", "FINISHED"), "the last words", "FAILED", "exit status 3")
	w.want(5, "job", "crate", key)
	contains(w.want(6, "job", "status", w.key("nothing")), w.key("nothing"))
	contains(w.want(6, "job", "status", "no key at all"), "cluster/role/env")
	contains(w.want(7, "job", "list", "--server", "http://"+freeAddr(t)), "not reached")
	contains(w.want(7, "job", "status", "elsewhere/e2e/test/first"), "elsewhere")
	large := w.file("large", strings.Replace(service(1), "ram = 16*MB", "ram = 4000*GB", 1))
	w.want(0, "job", "create", w.key("large"), large)
	contains(w.want(9, "job", "create", w.key("slow"), w.file("slow", script("Job", "sleep 60", "")), "--wait-until", "FINISHED", "--timeout", "500ms"), "accepted")
	contains(w.want(10, "job", "create", key, w.file("first", service(2))), key, "exists: 2 of its 2 instances live")
	if r := w.tryAs([]string{"COVEY_TOKEN=wrong"}, "job", "list"); r.code != 30 {
		t.Errorf("a wrong token: got %v; want exit 30", r)
	}
	if r := w.tryAs([]string{"COVEY_SERVER=" + w.url, "XDG_STATE_HOME=" + w.dir + "/nowhere"}, "job", "list"); r.code != 30 {
		t.Errorf("no token: got %v; want exit 30", r)
	}
	if r := w.tryAs([]string{"COVEY_SERVER=" + w.url}, "job", "status", "elsewhere/e2e/test/first"); r.code == 0 || !strings.Contains(r.err, "elsewhere") {
		t.Errorf("a key of another cluster: got %v; want a refusal", r)
	}
}

// Examples of which none is for the cluster are refused, and it is said which
// cluster they are for.
func TestExamplesOfAnotherCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	examples, err := filepath.Abs("../examples/teams")
	if err != nil {
		t.Fatal(err)
	}
	p := w.start("dev", "dev", "--cluster", w.cluster, "--data-dir", w.data, "--listen", freeAddr(t), "--examples", examples)
	if code := p.wait(t, 60*time.Second); code != 3 || !strings.Contains(p.log(), "start with --cluster dev") {
		t.Errorf("got exit %d: %s; want 3, and which cluster they are for", code, p.log())
	}
}
