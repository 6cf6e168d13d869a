package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The directory of an agent is lost while its tasks run, in part or whole, and
// the agent starts anew: the tasks live on in their cgroups, others take their
// places, their room is nobody else's, and an operator ends them.
func TestAgentDirectoryLost(t *testing.T) {
	needRoot(t)
	for what, part := range map[string]string{"tasks": "agents/m1/tasks", "everything": "agents/m1"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newDev(t, 1)
			w.create("kept", strings.Replace(service(2), "exec -a", "{ while :; do :; done } & exec -a", 1))
			lost := []ident{w.process("kept", 0), w.process("kept", 1)}
			before := w.free("m1")
			w.loseDirectory(part, lost)
			if got := w.free("m1"); got > before-95 {
				t.Errorf("free cpu: got %d milli-cores, %d before; want the room of two tasks of 50 kept", got, before)
			}
			if out := w.run("cluster", "show"); !strings.Contains(out, "its agent lost its directory") {
				t.Errorf("cluster show: %s", out)
			}
			money(w)
			for _, p := range lost {
				if !p.lives() {
					t.Fatalf("%v was killed, and nobody said so", p)
				}
			}
			if out := w.run("cluster", "recover"); !strings.Contains(out, "2 held tasks stopped") {
				t.Errorf("cluster recover: %s", out)
			}
			for _, p := range lost {
				gone(t, p)
			}
			eventually(t, 60*time.Second, "nothing is held, and the room is free", func() string {
				var c clusterView
				w.json(&c, "cluster", "show")
				if got := w.free("m1"); len(c.Held) > 0 || got < before-5 {
					return fmt.Sprintf("%+v, %d milli-cores free; %d before", c, got, before)
				}
				return ""
			})
			w.process("kept", 0)
			w.process("kept", 1)
			eventually(t, 60*time.Second, "what they used since is the platform's", func() string {
				var u struct {
					Platform struct {
						CPU string `json:"cpu_core_hours"`
					} `json:"platform"`
				}
				w.json(&u, "usage")
				if rat(t, u.Platform.CPU).Sign() <= 0 {
					return fmt.Sprintf("%+v", u)
				}
				return ""
			})
			money(w)
		})
	}
}

// Ctrl-C ends what runs, also what the agent has no directory of.
func TestInterruptAfterDirectoryLost(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newDev(t, 1)
	w.create("kept", service(2))
	lost := []ident{w.process("kept", 0), w.process("kept", 1)}
	w.loseDirectory("agents/m1/tasks", lost)
	if err := w.dev.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := w.dev.wait(t, 90*time.Second); code != 0 {
		t.Errorf("dev after Ctrl-C: exit %d; want 0\n%s", code, w.dev.log())
	}
	if left := processesOf(w.dir + "/"); len(left) > 0 {
		t.Errorf("after Ctrl-C there are %q", left)
	}
	for _, p := range lost {
		if p.lives() {
			t.Errorf("%v outlives Ctrl-C", p)
		}
	}
	for _, dir := range cgroupsOf(w.uid()) {
		t.Errorf("after Ctrl-C there is %s", dir)
	}
}

// loseDirectory takes a part of dev's directory away and kills its agent. It
// returns when both instances of the service "kept" run anew, and the old ones
// are held.
func (w *world) loseDirectory(part string, old []ident) {
	w.t.Helper()
	if err := os.Rename(filepath.Join(w.data, part), filepath.Join(w.dir, "lost")); err != nil { // at once, whoever writes there
		w.t.Fatal(err)
	}
	kill9(w.t, w.child("agent", "m1"))
	eventually(w.t, 90*time.Second, "others take their places, and they are held", func() string {
		var c clusterView
		w.json(&c, "cluster", "show")
		v := w.status(w.key("kept"))
		if len(c.Held) != 2 || c.Held[0].ID != "e2e/test/kept/0.1" || c.Held[1].ID != "e2e/test/kept/1.1" || c.Recovery {
			return fmt.Sprintf("%+v", c)
		}
		for i, x := range v.Tasks {
			if got := marked(w.mark("kept", i)); x.Status != "RUNNING" || strings.HasSuffix(x.ID, ".1") || len(got) != 2 || !slices.Contains(got, old[i]) {
				return fmt.Sprintf("%+v, %v", v, got)
			}
		}
		return ""
	})
}

// free is what may be placed on a machine, in milli-cores.
func (w *world) free(machine string) int64 {
	w.t.Helper()
	var v struct {
		Machine struct {
			Free struct {
				CPU int64 `json:"cpu_milli"`
			} `json:"free"`
		} `json:"machine"`
	}
	w.json(&v, "machine", "show", machine)
	return v.Machine.Free.CPU
}
