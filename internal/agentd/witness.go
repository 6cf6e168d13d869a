package agentd

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/fault"
)

// witness keeps what the machine has obeyed last also outside its data
// directory, in a place that lives as long as tasks can: until the next boot.
// When an old copy of the data directory is put back, the witness knows better,
// and so does the leader after the next hello, if its database went the same way.
type witness struct {
	path string // empty: there is none
	lock *os.File
}

// runDir is where the witnesses of this user's agents are; empty: nowhere.
func runDir() string {
	if os.Geteuid() == 0 {
		return "/run/covey"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) { //nolint:forbidigo // the user's, as the runtime directory of the system is root's
		return filepath.Join(dir, "covey")
	}
	return ""
}

// noWitness is what a machine lacks that has none.
const noWitness = "an old copy of the agent's whole data directory is not noticed when it is put back: "

// openWitness reads what a machine has obeyed last, as far as it is known
// outside the data directory; missing says why it is not. Kind Conflict: an
// agent of this machine runs already, from another data directory.
func openWitness(run, uid, machineID string) (w *witness, seen agent.Seen, missing string, err error) {
	w = &witness{}
	if run == "" {
		return w, seen, noWitness + "XDG_RUNTIME_DIR is not set", nil
	}
	dir := filepath.Join(run, uid, machineID)
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return w, seen, noWitness + err.Error(), nil //nolint:nilerr // the agent runs without, and says so
	}
	if w.lock, err = lock(dir); fault.Of(err) == fault.Conflict {
		return nil, seen, "", fault.Conflict.Errorf("another agent of machine %s of this cluster runs on this computer, from another data directory; stop it, or give this one another --machine and join anew", machineID)
	} else if err != nil {
		return w, seen, noWitness + err.Error(), nil //nolint:nilerr // the same
	}
	w.path = filepath.Join(dir, "seen.json")
	if data, err := os.ReadFile(w.path); err == nil && json.Unmarshal(data, &seen) != nil {
		seen = agent.Seen{} // torn: it knows nothing
	}
	return w, seen, "", nil
}

// note writes down what the machine obeys.
func (w *witness) note(s agent.Seen) error {
	if w.path == "" {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fault.Internal.Errorf("%w", err)
	}
	return replaceFile(w.path, data, false)
}

func (w *witness) close() {
	if w.lock != nil {
		_ = w.lock.Close() // the lock ends with the file
	}
}

// later returns the one that was seen last.
func later(a, b agent.Seen) agent.Seen {
	if c := a.Epoch.Compare(b.Epoch); c < 0 || c == 0 && a.Rev < b.Rev {
		return b
	}
	return a
}
