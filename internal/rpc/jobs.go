package rpc

import (
	"context"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// Bounds of lists and of texts that people type.
const (
	defaultPage = 100
	maxPage     = 1000
	maxNote     = 1024 // bytes of a message for people
	maxBinds    = 1000
	maxPath     = 4096 // bytes of a file's path
)

// CreateJob accepts a job.
func (s *services) CreateJob(ctx context.Context, req *connect.Request[pb.CreateJobRequest]) (*connect.Response[pb.CreateJobResponse], error) {
	m := req.Msg
	snap := s.b.View().Snapshot
	key, err := keyOf(snap, m.GetKey())
	if err != nil {
		return nil, err
	}
	if old, ok := snap.Job(key); ok && !control.Over(snap, old) { // before any work is spent; Do checks again
		return nil, fault.Conflict.Errorf("job %s exists: %s; kill it first, or choose another name", fullKey(snap, key), control.Describe(snap, old))
	}
	j, err := s.evaluate(ctx, snap, key, m)
	if err != nil {
		return nil, err
	}
	ans, seq, err := s.b.Do(ctx, control.CreateJob{Job: j, By: callerOf(ctx).String()})
	if err != nil {
		return nil, err
	}
	resp := &pb.CreateJobResponse{Seq: uint64(seq)}
	if ans.Job != nil {
		if resp.Job, err = jobToWire(s.b.View().Snapshot, *ans.Job); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(resp), nil
}

func checkBundle(m *pb.CreateJobRequest) error {
	switch {
	case len(m.GetFiles()) == 0:
		return fault.Invalid.Errorf("files is empty; want the configuration file and all that it includes, by path")
	case m.GetFiles()[m.GetMain()] == nil:
		return fault.Invalid.Errorf("main is %.200q, which is not one of the %d files", m.GetMain(), len(m.GetFiles()))
	case len(m.GetBinds()) > maxBinds:
		return fault.Invalid.Errorf("%d binds; want at most %d", len(m.GetBinds()), maxBinds)
	}
	for p := range m.GetFiles() {
		if err := cleanText("path of a file", p, maxPath); err != nil {
			return err
		}
	}
	for _, b := range m.GetBinds() {
		if !strings.Contains(b, "=") {
			return fault.Invalid.Errorf("bind %.80q; want NAME=VALUE", b)
		}
	}
	return cleanText("user", m.GetUser(), maxNote)
}

// cleanText holds what people type to a length, and to what can be printed.
func cleanText(what, s string, most int) error {
	if len(s) > most {
		return fault.Invalid.Errorf("%s has %d bytes; want at most %d", what, len(s), most)
	}
	for _, r := range s {
		if r == 0 || unicode.IsControl(r) && r != '\t' && r != '\n' {
			return fault.Invalid.Errorf("%s %.80q holds the control character %U; leave it out", what, s, r)
		}
	}
	return nil
}

// GetJob shows a job, or what is still ending of one that was killed.
func (s *services) GetJob(ctx context.Context, req *connect.Request[pb.GetJobRequest]) (*connect.Response[pb.GetJobResponse], error) {
	v := s.b.View()
	key, err := keyOf(v.Snapshot, req.Msg.GetKey())
	if err != nil {
		return nil, err
	}
	resp := &pb.GetJobResponse{Seq: uint64(v.Snapshot.Seq)}
	j, ok := v.Snapshot.Job(key)
	if !ok {
		for t := range v.Snapshot.TasksOf(key) {
			resp.Tasks = append(resp.Tasks, taskToWire(v, t.Task))
		}
		if len(resp.Tasks) == 0 {
			return nil, control.NoJob(v.Snapshot, key)
		}
		resp.Job = &pb.Job{Key: fullKey(v.Snapshot, key)}
		return connect.NewResponse(resp), nil
	}
	if resp.Job, err = jobToWire(v.Snapshot, j); err != nil {
		return nil, err
	}
	var past map[task.ID]task.Task
	for n := range j.Instances.All() {
		at := state.Slot{Job: key, N: n}
		if t, ok := current(v.Snapshot, at); ok {
			resp.Tasks = append(resp.Tasks, taskToWire(v, t))
			continue
		}
		if past == nil {
			if past, err = s.ended(ctx, key, -1); err != nil {
				return nil, err
			}
		}
		in, _ := v.Snapshot.Instance(at)
		if t, ok := lastOf(in, past); ok {
			resp.Tasks = append(resp.Tasks, taskToWire(v, v.delayed(at, t)))
			continue
		}
		none := v.delayed(at, task.Task{Reason: noTask})
		resp.Tasks = append(resp.Tasks, &pb.Task{Instance: n, Status: task.Init.String(), Reason: text(none.Reason)})
	}
	for t := range v.Snapshot.TasksOf(key) {
		if !j.Instances.Has(t.ID.Instance) { // its instance was killed, and it is still ending
			resp.Tasks = append(resp.Tasks, taskToWire(v, t.Task))
		}
	}
	slices.SortStableFunc(resp.Tasks, func(a, b *pb.Task) int { return int(a.GetInstance() - b.GetInstance()) })
	return connect.NewResponse(resp), nil
}

// ListJobs shows a page of jobs.
func (s *services) ListJobs(_ context.Context, req *connect.Request[pb.ListJobsRequest]) (*connect.Response[pb.ListJobsResponse], error) {
	snap := s.b.View().Snapshot
	limit, err := pageLimit(req.Msg.GetLimit())
	if err != nil {
		return nil, err
	}
	match, err := filterOf(req.Msg.GetFilter())
	if err != nil {
		return nil, err
	}
	from := job.Key(req.Msg.GetPage())
	if from != "" {
		if err := from.Validate(); err != nil {
			return nil, fault.Invalid.Errorf("page %.80q is from no answer before: %w", req.Msg.GetPage(), err)
		}
	}
	resp := &pb.ListJobsResponse{}
	for j := range snap.Jobs(from) {
		if !match(snap.Cluster.Name, j.Key) {
			continue
		}
		if len(resp.Jobs) == limit {
			resp.NextPage = string(j.Key)
			break
		}
		resp.Jobs = append(resp.Jobs, summary(snap, j))
	}
	return connect.NewResponse(resp), nil
}

func summary(s *state.Snapshot, j state.Job) *pb.JobSummary {
	p := &pb.JobSummary{Key: fullKey(s, j.Key), Instances: count(j.Instances.Len())}
	for t := range s.TasksOf(j.Key) {
		if p.Tasks == nil {
			p.Tasks = map[string]int32{}
		}
		p.Tasks[t.State.String()]++
	}
	if c, ok := s.Config(j.Config); ok {
		p.Service, p.Tier = c.Service, c.Tier
	}
	return p
}

func pageLimit(n int32) (int, error) {
	switch {
	case n == 0:
		return defaultPage, nil
	case n < 0 || n > maxPage:
		return 0, fault.Invalid.Errorf("limit is %d; want 1 to %d", n, maxPage)
	}
	return int(n), nil
}

// filterOf reads a filter: up to four parts of a key, each a pattern of
// [path.Match]; an empty one is any.
func filterOf(filter string) (func(cluster string, k job.Key) bool, error) {
	parts := strings.Split(filter, "/")
	if len(parts) > 4 || len(filter) > maxNote {
		return nil, fault.Invalid.Errorf("filter %.200q has %d parts; want cluster, cluster/role, cluster/role/env or a whole key", filter, len(parts))
	}
	if err := cleanText("filter", filter, maxNote); err != nil {
		return nil, err
	}
	for _, p := range parts {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fault.Invalid.Errorf("filter %.200q: %q is no pattern; want names in which * stands for any characters, ? for one and [a-c] for one of some", filter, p)
		}
	}
	return func(cluster string, k job.Key) bool {
		for i, have := range [...]string{cluster, k.Role(), k.Env(), k.Name()} {
			if i >= len(parts) {
				break
			}
			if ok, _ := path.Match(parts[i], have); !ok && parts[i] != "" {
				return false
			}
		}
		return true
	}, nil
}

// KillJob ends instances of a job, or the whole of it.
func (s *services) KillJob(ctx context.Context, req *connect.Request[pb.KillJobRequest]) (*connect.Response[pb.KillJobResponse], error) {
	key, some, err := s.instances(req.Msg)
	if err != nil {
		return nil, err
	}
	c := control.KillJob{Key: key, Instances: some, By: callerOf(ctx).String(), Message: req.Msg.GetMessage()}
	ans, seq, err := s.b.Do(ctx, c)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.KillJobResponse{Tasks: count(ans.Tasks), Seq: uint64(seq), Missing: ans.Missing.String()}), nil
}

// RestartJob replaces running tasks.
func (s *services) RestartJob(ctx context.Context, req *connect.Request[pb.RestartJobRequest]) (*connect.Response[pb.RestartJobResponse], error) {
	key, some, err := s.instances(req.Msg)
	if err != nil {
		return nil, err
	}
	c := control.RestartJob{Key: key, Instances: some, By: callerOf(ctx).String(), Message: req.Msg.GetMessage()}
	ans, seq, err := s.b.Do(ctx, c)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RestartJobResponse{Tasks: count(ans.Tasks), Seq: uint64(seq)}), nil
}

// instances reads what a kill or a restart is about; no instances means all.
func (s *services) instances(m interface {
	GetKey() string
	GetInstances() string
	GetMessage() string
},
) (job.Key, job.Ranges, error) {
	key, err := keyOf(s.b.View().Snapshot, m.GetKey())
	if err != nil {
		return "", nil, err
	}
	if err = cleanText("message", m.GetMessage(), maxNote); err != nil {
		return "", nil, err
	}
	some, err := rangesOf(m.GetInstances())
	return key, some, err
}

// rangesOf reads instances such as "0,3-5"; nil when none are named.
func rangesOf(s string) (job.Ranges, error) {
	switch {
	case s == "":
		return nil, nil
	case len(s) > maxText*8:
		return nil, fault.Invalid.Errorf("instances has %d bytes; want at most %d", len(s), maxText*8)
	}
	return job.ParseRanges(s)
}

// Bounds of the machines that an explanation names, and compares.
const (
	maxVerdicts = 100
	maxScores   = 5
)

// ExplainJob says of each instance why it waits, or where it is, with those
// that are still ending of a job that was killed. The machines
// are asked once for all tasks that wait for the same.
func (s *services) ExplainJob(ctx context.Context, req *connect.Request[pb.ExplainJobRequest]) (*connect.Response[pb.ExplainJobResponse], error) {
	v := s.b.View()
	key, err := keyOf(v.Snapshot, req.Msg.GetKey())
	if err != nil {
		return nil, err
	}
	resp := &pb.ExplainJobResponse{}
	j, ok := v.Snapshot.Job(key)
	for t := range v.Snapshot.TasksOf(key) {
		if !j.Instances.Has(t.ID.Instance) { // the job, or its instance, was killed
			resp.Instances = append(resp.Instances, &pb.InstanceExplanation{
				TaskId: t.ID.String(), Instance: t.ID.Instance, Status: t.State.String(), Text: text(explainPlaced(t.Task)),
			})
		}
	}
	if !ok && len(resp.Instances) == 0 {
		return s.explainGone(ctx, v.Snapshot, key)
	}
	asked := map[job.Hash]sched.Wait{}
	for n := range j.Instances.All() {
		if err = ctx.Err(); err != nil {
			return nil, err
		}
		at := state.Slot{Job: key, N: n}
		t, ok := current(v.Snapshot, at)
		if !ok {
			resp.Instances = append(resp.Instances, explainEnded(v, at))
			continue
		}
		x := &pb.InstanceExplanation{TaskId: t.ID.String(), Instance: n, Status: t.State.String()}
		resp.Instances = append(resp.Instances, x)
		if t.State != task.Pending {
			x.Text = text(explainPlaced(v.shunned(v.partitioned(throttled(v.Snapshot, t)))))
			continue
		}
		w, again := asked[t.Config]
		if !again {
			if w, err = sched.Explain(v.Snapshot, t.ID, maxVerdicts); err != nil {
				return nil, err
			}
			asked[t.Config] = w
		}
		fillExplanation(x, w, !again)
		if why := v.heldBack(at, t.Config); why != "" {
			x.Text = text(why)
		}
	}
	slices.SortStableFunc(resp.Instances, func(a, b *pb.InstanceExplanation) int { return int(a.GetInstance() - b.GetInstance()) })
	return connect.NewResponse(resp), nil
}

// explainGone says what became of the last tasks of a job that was killed, as
// far as its slots and the history remember.
func (s *services) explainGone(ctx context.Context, snap *state.Snapshot, key job.Key) (*connect.Response[pb.ExplainJobResponse], error) {
	if !known(snap, key) {
		return nil, control.NoJob(snap, key)
	}
	past, err := s.ended(ctx, key, -1)
	if err != nil {
		return nil, err
	}
	resp := &pb.ExplainJobResponse{}
	for in := range snap.Instances(key) {
		if t, ok := lastOf(in, past); ok {
			resp.Instances = append(resp.Instances, &pb.InstanceExplanation{
				TaskId: t.ID.String(), Instance: in.N, Status: t.State.String(), Text: text("its last task is " + explainPlaced(t)),
			})
		}
	}
	if len(resp.Instances) == 0 {
		return nil, control.NoJob(snap, key)
	}
	return connect.NewResponse(resp), nil
}

// fillExplanation says why a task waits. The machines are named once: others
// that wait for the same are told the sums.
func fillExplanation(x *pb.InstanceExplanation, w sched.Wait, machines bool) {
	x.Text, x.Verdicts = text(w.Text), verdicts(w)
	if w.Nearest != nil {
		x.NearestMachine, x.NearestLacks = string(w.Nearest.Machine), lacksText(*w.Nearest)
	}
	if !machines {
		return
	}
	for _, m := range w.Machines {
		x.Machines = append(x.Machines, &pb.MachineVerdict{Machine: string(m.Machine), Lacks: lacksText(m)})
	}
}

func lacksText(v sched.Verdict) []string {
	var out []string
	for _, l := range v.Lacks {
		out = append(out, text(lackText(l, true)))
	}
	return out
}

func explainPlaced(t task.Task) string {
	where := t.State.String()
	if t.Machine != "" {
		where += " on " + string(t.Machine)
	}
	if t.Reason != "" {
		where += ": " + t.Reason
	}
	return where
}

const noTask = "it has had no task yet"

func explainEnded(v View, at state.Slot) *pb.InstanceExplanation {
	in, _ := v.Snapshot.Instance(at)
	t, ok := lastOf(in, nil)
	if !ok {
		return &pb.InstanceExplanation{Instance: at.N, Status: task.Init.String(), Text: text(v.delayed(at, task.Task{Reason: noTask}).Reason)}
	}
	t = v.delayed(at, t)
	return &pb.InstanceExplanation{
		TaskId: t.ID.String(), Instance: at.N, Status: t.State.String(), Text: text("its last task is " + explainPlaced(t)),
	}
}

// amount writes how much of a rule's measure there is.
func amount(r sched.Rule, n int64) string {
	i := slices.IndexFunc(unit.Measures(), func(m unit.Measure) bool { return m.String() == string(r) })
	if i < 0 {
		return strconv.FormatInt(n, 10)
	}
	return unit.Measures()[i].Format(n)
}
