package e2e

import (
	"strings"
	"testing"
	"time"
)

// preferred is a service of the tier preferred of some role, with so many
// instances of a twentieth of a core.
func preferred(role, instances string) string {
	return strings.NewReplacer("ROLE", role, "COUNT", instances).Replace(`
p = Process(name = 'p', cmdline = 'sleep 1000000')
jobs = [Service(cluster = '@', role = 'ROLE', environment = 'prod', name = 'NAME', instances = COUNT, tier = 'preferred',
  task = Task(processes = [p], resources = Resources(cpu = 0.05, ram = 16*MB, disk = 16*MB)))]
`)
}

// Two roles, one of which has a quota: it gets as much as that and no more,
// also of a server that was started again, and has room again when its work has
// ended.
func TestQuota(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	key := func(role, name string) string { return w.cluster + "/" + role + "/prod/" + name }
	submit := func(code int, role, name, instances string) result {
		t.Helper()
		return w.want(code, "job", "create", key(role, name), w.file(name, preferred(role, instances)), "--wait", "--timeout", "40s")
	}
	inUse := func() string {
		t.Helper()
		var v struct {
			ProdShared struct {
				CPU int64 `json:"cpu_milli"`
			} `json:"prod_shared"`
			Quota struct {
				CPU int64 `json:"cpu_milli"`
			} `json:"quota"`
		}
		w.json(&v, "quota", "get", w.cluster+"/bounded", "-o", "json")
		if v.Quota.CPU != 100 {
			t.Errorf("the quota is %d thousandths of a core; want 100", v.Quota.CPU)
		}
		return map[int64]string{0: "none", 50: "half", 100: "all"}[v.ProdShared.CPU]
	}

	w.run("quota", "set", w.cluster+"/bounded", "0.1", "64MB", "64MB")
	submit(10, "bounded", "three", "3")
	submit(0, "bounded", "two", "2")
	submit(0, "free", "four", "4")
	const refusal = "role bounded would be over its quota for the tier preferred: cpu by 0.05 (quota 0.1, in use 0.1, more wanted 0.05); " +
		"ask an administrator for more (covey quota set), end something of the role's, or choose the tier preemptible"
	if r := submit(10, "bounded", "one", "1"); !strings.Contains(r.err, refusal) {
		t.Errorf("got %v; want %s", r, refusal)
	}
	if r := w.want(10, "quota", "set", w.cluster+"/bounded", "0.05", "64MB", "64MB"); !strings.Contains(r.err, "cpu 0.05 (in use 0.1)") {
		t.Errorf("got %v; want a quota below the use refused", r)
	}

	s := w.child("server", "")
	kill9(t, s)
	w.child("server", "", s)
	w.answers("server")
	if got := inUse(); got != "all" {
		t.Errorf("after the server was started again, %s of the quota is in use; want all", got)
	}
	if r := submit(10, "bounded", "one", "1"); !strings.Contains(r.err, refusal) {
		t.Errorf("of a server that was started again: got %v; want %s", r, refusal)
	}

	w.run("job", "kill", key("bounded", "two")+"/1")
	eventually(t, 60*time.Second, "the killed instance gives its room back", func() string {
		if got := inUse(); got != "half" {
			return got
		}
		return ""
	})
	submit(0, "bounded", "one", "1")
	if got := inUse(); got != "all" {
		t.Errorf("%s of the quota is in use; want all", got)
	}
}
