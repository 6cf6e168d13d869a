package control

import (
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/tenant"
)

// A machine has one agent. Two that go by one name would each be believed when
// they say what runs there, and what runs on one of the computers would be
// taken for lost and started again.

// newcomer makes way for an agent that joins under a name that a machine has.
// It is refused while that machine's agent is alive. When that one has been
// silent for longer than its lease, its credentials are void, so that it cannot
// come back beside the newcomer.
func (t *Turn) newcomer(id machine.ID) error {
	s := t.draft.Snapshot()
	m, _ := s.Machine(id)
	a := t.loop.agents[id]
	if m.Up && a != nil && a.until > t.steady && !fault.Planted("rival-let-in") {
		return fault.Conflict.Errorf("machine %s has an agent, and it is alive; the join token stays good. Choose another name with --machine; or, if this agent is to take its place, stop that one: %v after it was heard last, a join is let in", id, t.loop.cfg.AgentLease.Duration().Round(time.Second))
	}
	for _, c := range slices.Collect(s.CredentialsOf(tenant.Agent.String(), string(id))) {
		if err := t.apply(state.DropCredential{Hash: c.Hash, Base: c.Rev}); err != nil {
			return err
		}
	}
	return nil
}

// another refuses the agent of another computer, or of this one before its
// agent's lease of an earlier boot is over: a data directory that was copied
// makes a second machine out of one.
func (t *Turn) another(h Hello) error {
	a := t.loop.agents[h.Machine.ID]
	if a == nil || a.boot == "" || a.boot == h.Machine.Boot || a.until <= t.steady {
		return nil
	}
	return fault.Conflict.Errorf("machine %s is in reach on another computer, or was until a moment ago (boot id %s, not %s). If it has restarted, it is let in %v after it was heard last. If its data directory was copied, give this machine a name and an empty data directory of its own, and a join token", h.Machine.ID, a.boot, h.Machine.Boot, t.loop.cfg.AgentLease.Duration().Round(time.Second))
}
