package task

import (
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/unit"
)

// A Verb is what an [Order] asks for.
type Verb uint8

// The verbs. There is no verb for "anything else must go": absence is not an
// order.
const (
	Run    Verb = iota + 1 // be running; starting it twice is starting it once
	Stop                   // be gone, in the config's order of stopping
	Forget                 // its end is known; the machine may forget it
)

var verbNames = [...]string{"", "RUN", "STOP", "FORGET"}

// String returns the verb in capitals.
func (v Verb) String() string {
	if int(v) < len(verbNames) {
		return verbNames[v]
	}
	return "UNKNOWN"
}

// An Order tells a machine what to do about one task, named by its ID.
type Order struct {
	ID        ID
	Verb      Verb
	Config    job.Hash       // Run: what to run; its text travels beside the orders
	Resources unit.Resources // Run: what it may use
	Ports     []uint16       // Run: one for each of the config's ports
	GPUs      []uint16       // Run: the numbers of the GPUs that it has, if it asks for any
	Reason    string         // Stop: why, for people
}

// A Sighting is what a machine says about one task. It says so again until the
// leader has it: sightings come twice, late and out of order.
type Sighting struct {
	ID        ID
	Config    job.Hash
	Resources unit.Resources
	Ports     []uint16
	GPUs      []uint16
	State     State // Starting, Running, Finished, Failed, Killed; Lost: the machine would not have it
	Reason    string
	Orphan    bool // it lives, and its agent has no directory of it: nothing but its cgroup tells of it
}
