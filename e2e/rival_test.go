package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A second agent under the name of a machine that is alive is refused, at once
// and with what to do; the tasks do not notice. When the first one is gone, it
// is let in with the same token, and the first one cannot come back.
func TestSecondAgentOfAMachine(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newApart(t)
	key := w.create("held", service(1))
	p := w.process("held", 0)
	token := w.token("--subject", "m1")
	rival := w.agentArgs("m1", "rival", "--join-token-file", token)
	w.refused("Choose another name with --machine", rival...)
	w.untouched("held", []ident{p})

	kill9(t, w.agentIdent())
	var second *proc
	eventually(t, 60*time.Second, "the second agent is let in", func() string {
		if second == nil || !second.running() {
			second = w.start("agent", rival...)
		}
		if !strings.Contains(second.log(), "the leader let this machine in") {
			return fmt.Sprintf("%q", second.log())
		}
		return ""
	})
	w.refused("runs on this computer, from another data directory", w.agentArgs("m1", "agent")...)
	if !p.lives() {
		t.Errorf("the first agent's task was killed")
	}
	eventually(t, 30*time.Second, "the job runs on the second", func() string {
		if v := w.status(key); len(v.Tasks) != 1 || v.Tasks[0].Status != "RUNNING" || v.Tasks[0].ID == "e2e/test/held/0.1" {
			return fmt.Sprint(v)
		}
		return ""
	})
	w.agent = second
	kill9(t, w.agentIdent()) // the first may come back now, but its credential is void
	first := w.start("agent", w.agentArgs("m1", "agent")...)
	eventually(t, 30*time.Second, "the first agent is told why it is not let in", func() string {
		if log := first.log(); !strings.Contains(log, "another agent has joined as this machine") {
			return fmt.Sprintf("%q", log)
		}
		return ""
	})
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	first.wait(t, 10*time.Second)
}
