package control

import (
	"fmt"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// A Command is what a user asks for. It is refused or it becomes changes; when
// its turn is committed, it is accepted for good.
type Command interface {
	do(*Turn) (Answer, error)
}

// An Answer is what became of a command.
type Answer struct {
	Tasks   int        // tasks that it touched
	Missing job.Ranges // instances that it was asked for and that the job does not have
	Job     *state.Job // the job that it wrote
	Text    string     // for people
}

// CreateJob asks for a new job. One of the same name makes way if it is [Over].
type CreateJob struct {
	Job job.Job
	By  string
}

// KillJob ends instances of a job, or the whole job when Instances is empty. It
// is refused when the job has none of them; those that it does not have are in
// the answer.
type KillJob struct {
	Key       job.Key
	Instances job.Ranges
	By        string
	Message   string
}

// RestartJob replaces the running tasks of a job, or of some of its instances.
type RestartJob struct {
	Key       job.Key
	Instances job.Ranges
	By        string
	Message   string
}

// AddCredential stores a credential, by the hash of its secret.
type AddCredential struct{ Credential state.Credential }

// UseJoin trades a join token for an agent's credential. The token is used up.
// While the agent of a machine of that name is alive, it is refused, and the
// token stays good; afterwards, the credentials that the machine had are void.
type UseJoin struct {
	Hash  string // of the token
	Agent state.Credential
}

// RevokeCredential forgets a credential.
type RevokeCredential struct{ Hash string }

// EndRecovery ends the recovery of a restored cluster: tasks that are still
// held are stopped from then on. Given again, it stops those that are held
// since, of machines that returned later.
type EndRecovery struct{ By string }

// DropUnused forgets configs that an earlier version left behind, at most so
// many; this one forgets each with the last task that runs it.
type DropUnused struct{ Limit int }

// Resume ends the pause of rescheduling after many machines vanished, and stops
// the surplus tasks at once that are held because they are many.
type Resume struct{ By string }

// Birth gives a new cluster its name and UID.
type Birth struct{ Cluster state.Cluster }

func (c CreateJob) do(t *Turn) (Answer, error) {
	if err := c.Job.Validate(); err != nil {
		return Answer{}, fault.Of(err).Errorf("job %s: %w", t.full(c.Job.Key), err)
	}
	s := t.draft.Snapshot()
	old, again := s.Job(c.Job.Key)
	if again && !Over(s, old) {
		return Answer{}, fault.Conflict.Errorf("job %s exists: %s; kill it first, or choose another name", t.full(c.Job.Key), Describe(s, old))
	}
	if err := s.Admit(c.Job); err != nil {
		return Answer{}, err
	}
	if again {
		if err := t.apply(state.DropJob{Key: old.Key, Base: old.Rev, By: c.By, Reason: "it had ended, and is created anew"}); err != nil {
			return Answer{}, err
		}
	}
	if err := t.apply(state.PutJob{Job: c.Job, By: c.By}); err != nil {
		return Answer{}, err
	}
	for _, in := range slices.Collect(s.Instances(c.Job.Key)) {
		if c.Job.Instances.Has(in.N) { // also one that is open: what an earlier job failed at is over
			if err := t.apply(state.OpenSlot{Slot: in.Slot, Base: in.Rev}); err != nil {
				return Answer{}, err
			}
		}
	}
	row, _ := t.draft.Snapshot().Job(c.Job.Key)
	return Answer{Tasks: c.Job.Instances.Len(), Job: &row}, nil
}

// Over reports whether a job has ended for good: no task of it lives, and none
// will start. Only an ad hoc job ends so.
func Over(s *state.Snapshot, j state.Job) bool {
	for range s.TasksOf(j.Key) {
		return false
	}
	ended := 0
	for in := range s.Instances(j.Key) {
		if in.Live || in.Open {
			return false
		}
		if j.Instances.Has(in.N) {
			ended++
		}
	}
	return ended == j.Instances.Len()
}

// Describe says what runs of a job, for people.
func Describe(s *state.Snapshot, j state.Job) string {
	running, live := 0, 0
	for x := range s.TasksOf(j.Key) {
		live++
		if x.State == task.Running {
			running++
		}
	}
	return fmt.Sprintf("%d of its %d instances live, %d running", live, j.Instances.Len(), running)
}

func (c KillJob) do(t *Turn) (Answer, error) {
	j, err := t.job(c.Key)
	if err != nil {
		return Answer{}, err
	}
	rest := j.Instances.Without(c.Instances)
	if len(c.Instances) > 0 && rest.Len() == j.Instances.Len() {
		return Answer{}, fault.NotFound.Errorf("job %s has no instance %v; it has %v", t.full(c.Key), c.Instances, j.Instances)
	}
	cfg, ok := t.draft.Snapshot().Config(j.Config)
	if !ok {
		return Answer{}, fault.Internal.Errorf("job %s: its config is not stored", t.full(c.Key))
	}
	ans := Answer{Missing: c.Instances.Without(j.Instances)}
	for _, x := range slices.Collect(t.draft.Snapshot().TasksOf(c.Key)) {
		if x.State == task.Killing || fault.Planted("kill-forgotten") || len(c.Instances) > 0 && !c.Instances.Has(x.ID.Instance) {
			continue
		}
		e := task.Event{To: task.Killing, Reason: message(c.Message, "killed", c.By)}
		if err := t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: e, By: c.By}); err != nil {
			return ans, err
		}
		ans.Tasks++
	}
	if len(c.Instances) == 0 || len(rest) == 0 {
		return ans, t.apply(state.DropJob{Key: c.Key, Base: j.Rev, By: c.By, Reason: message(c.Message, "killed", c.By)})
	}
	return ans, t.apply(state.PutJob{Job: job.Job{Key: c.Key, Instances: rest, Config: *cfg}, Base: j.Rev, By: c.By})
}

func (c DropUnused) do(t *Turn) (Answer, error) {
	unused := t.draft.Snapshot().Unused()
	unused = unused[:min(len(unused), c.Limit)]
	for _, h := range unused {
		if err := t.apply(state.DropConfig{Hash: h}); err != nil {
			return Answer{}, err
		}
	}
	return Answer{Text: fmt.Sprintf("%d configs were forgotten", len(unused))}, nil
}

func (c RestartJob) do(t *Turn) (Answer, error) {
	j, err := t.job(c.Key)
	if err != nil {
		return Answer{}, err
	}
	if over := c.Instances.Without(j.Instances); len(over) > 0 {
		return Answer{}, fault.NotFound.Errorf("job %s has no instance %v; it has %v", t.full(c.Key), over, j.Instances)
	}
	var ans Answer
	for _, x := range slices.Collect(t.draft.Snapshot().TasksOf(c.Key)) {
		if !x.State.Placed() || x.State.Stopping() || x.State == task.Partitioned {
			continue
		}
		if len(c.Instances) > 0 && !c.Instances.Has(x.ID.Instance) {
			continue
		}
		e := task.Event{To: task.Restarting, Reason: message(c.Message, "restarted", c.By)}
		if err := t.apply(state.StepTask{ID: x.ID, Base: x.Rev, Event: e, By: c.By}); err != nil {
			return ans, err
		}
		ans.Tasks++
	}
	return ans, nil
}

func (t *Turn) job(k job.Key) (state.Job, error) {
	j, ok := t.draft.Snapshot().Job(k)
	if !ok {
		return j, NoJob(t.draft.Snapshot(), k)
	}
	return j, nil
}

// full is a key with its cluster, as users write it.
func (t *Turn) full(k job.Key) string { return t.draft.Snapshot().Cluster.Name + "/" + string(k) }

// NoJob says that there is no such job, and what still ends of it.
func NoJob(s *state.Snapshot, k job.Key) error {
	full, ending := s.Cluster.Name+"/"+string(k), 0
	for range s.TasksOf(k) {
		ending++
	}
	if ending > 0 {
		return fault.NotFound.Errorf("job %s is killed, and its last tasks (%d) are still being ended; covey job killall %s --wait waits for that", full, ending, full)
	}
	return fault.NotFound.Errorf("there is no job %s; covey job list shows those there are", full)
}

func message(given, verb, by string) string {
	switch {
	case given != "":
		return given
	case by != "":
		return verb + " by " + by
	default:
		return verb
	}
}

func (c AddCredential) do(t *Turn) (Answer, error) {
	return Answer{Text: "the token lets " + c.Credential.Subject + " in"}, t.apply(state.PutCredential{Credential: c.Credential})
}

func (c UseJoin) do(t *Turn) (Answer, error) {
	s := t.draft.Snapshot()
	tok, ok := s.Credential(c.Hash)
	switch {
	case !ok || tok.Kind != "join":
		return Answer{}, fault.Unauthenticated.Errorf("the join token is not known here; make one with covey token create --kind join")
	case tok.Used:
		return Answer{}, fault.Unauthenticated.Errorf("the join token was used before; a token lets one agent in, make another with covey token create --kind join")
	case tok.Expires != 0 && tok.Expires < s.At:
		return Answer{}, fault.Unauthenticated.Errorf("the join token has expired; make another with covey token create --kind join")
	case tok.Subject != "" && tok.Subject != c.Agent.Subject:
		return Answer{}, fault.Denied.Errorf("the join token is for machine %s, not for %s", tok.Subject, c.Agent.Subject)
	}
	if err := t.newcomer(machine.ID(c.Agent.Subject)); err != nil {
		return Answer{}, err
	}
	if err := t.apply(state.PutCredential{Credential: c.Agent}); err != nil {
		return Answer{}, err
	}
	tok.Used = true
	return Answer{Text: "machine " + c.Agent.Subject + " has joined"}, t.apply(state.PutCredential{Credential: tok, Base: tok.Rev})
}

func (c RevokeCredential) do(t *Turn) (Answer, error) {
	old, ok := t.draft.Snapshot().Credential(c.Hash)
	if !ok {
		return Answer{}, fault.NotFound.Errorf("there is no such token; covey token list shows those there are")
	}
	return Answer{Text: "the token of " + old.Subject + " is void"}, t.apply(state.DropCredential{Hash: c.Hash, Base: old.Rev})
}

func (c EndRecovery) do(t *Turn) (Answer, error) {
	cl := t.draft.Snapshot().Cluster
	if !cl.Recovery && len(t.loop.held) == 0 {
		return Answer{}, fault.Conflict.Errorf("cluster %s is not in recovery, and no task is held", cl.Name)
	}
	cl.Recovery = false
	t.releaseHeld = true
	t.loop.hold.until = min(t.loop.hold.until, t.steady)
	return Answer{Tasks: len(t.loop.held)}, t.apply(state.PutCluster{Cluster: cl, By: c.By})
}

func (c Resume) do(t *Turn) (Answer, error) {
	v := &t.loop.vanish
	waiting := t.loop.heldSurplus()
	if v.since == 0 && waiting == 0 {
		return Answer{}, fault.Conflict.Errorf("rescheduling is not paused, and no surplus task waits for its stop")
	}
	text := ""
	if v.since != 0 {
		v.resume(t.steady, t.loop.cfg)
		text = "rescheduling goes on, at a bounded rate"
	}
	if waiting > 0 {
		t.hurry = true
		text = strings.TrimPrefix(fmt.Sprintf("%s; surplus tasks that are stopped now: %d", text, waiting), "; ")
	}
	return Answer{Tasks: waiting, Text: text}, t.apply(state.PutCluster{Cluster: t.draft.Snapshot().Cluster, By: c.By})
}

func (c Birth) do(t *Turn) (Answer, error) {
	if have := t.draft.Snapshot().Cluster; have.UID != "" {
		return Answer{}, fault.Conflict.Errorf("this is cluster %s already", have.Name)
	}
	return Answer{Text: "cluster " + c.Cluster.Name + " is born"}, t.apply(state.PutCluster{Cluster: c.Cluster})
}
