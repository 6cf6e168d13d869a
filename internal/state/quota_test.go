package state_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
)

// consumption works out anew what each role reserves: by every slot and every
// task there is, one at a time.
func (w *drafting) consumption(s *state.Snapshot) {
	type claim struct {
		class     tenant.Class
		resources unit.Resources
	}
	view := func(h job.Hash, r unit.Resources) claim {
		cfg, _ := s.Config(h)
		c := tenant.NonProdShared
		switch {
		case cfg.Tier == job.Preferred && len(cfg.Constraints) > 0:
			c = tenant.ProdDedicated
		case cfg.Tier == job.Preferred:
			c = tenant.ProdShared
		case len(cfg.Constraints) > 0:
			c = tenant.NonProdDedicated
		}
		return claim{c, r}
	}
	slots := map[state.Slot][]claim{}
	for j := range s.Jobs("") {
		for n := range j.Instances.All() {
			at := state.Slot{Job: j.Key, N: n}
			if in, exists := s.Instance(at); !exists || in.Open || in.Live {
				cfg, _ := s.Config(j.Config)
				slots[at] = append(slots[at], view(j.Config, cfg.Task.Resources))
			}
		}
	}
	for t := range s.Tasks() {
		at := state.Slot{Job: t.ID.Job, N: t.ID.Instance}
		slots[at] = append(slots[at], view(t.Config, t.Resources))
	}
	want := map[string]tenant.Consumption{}
	for at, claims := range slots {
		most := map[tenant.Class]unit.Resources{}
		for _, c := range claims {
			r := most[c.class]
			most[c.class] = unit.Resources{CPU: max(r.CPU, c.resources.CPU), RAM: max(r.RAM, c.resources.RAM)}
		}
		sum := want[at.Job.Role()]
		for class, r := range most {
			sum[class] = sum[class].Add(r)
		}
		want[at.Job.Role()] = sum
	}
	for role, sum := range want {
		if sum == (tenant.Consumption{}) {
			delete(want, role)
		}
	}
	if diff := differ(want, maps.Collect(s.Consumers(""))); diff != "" {
		w.t.Fatalf("what roles reserve (-by every slot +by the account):\n%s", diff)
	}
}

// TestAdmitWhatCannotBeCounted: jobs that ask for absurd amounts do not bring a
// role's account around to nothing, with or without a quota.
func TestAdmitWhatCannotBeCounted(t *testing.T) {
	d := state.NewDraft(state.New(), unit.Hour)
	var err error
	taken := 0
	for ; taken < 100 && err == nil; taken++ {
		j := job.Job{Key: job.NewKey("www", "prod", fmt.Sprint("j", taken)), Instances: job.FirstN(8), Config: job.Config{
			Tier: job.Preemptible, MaxTaskFailures: 1, Task: job.Task{Name: "x", Resources: unit.Resources{CPU: 1, RAM: 1 << 55, Disk: 1 << 20}, MaxFailures: 1, Processes: []job.Process{{Name: "p", Cmdline: "true"}}},
		}}
		if err = j.Validate(); err != nil {
			t.Fatal(err)
		}
		if err = d.Snapshot().Admit(j); err == nil {
			err = d.Apply(state.PutJob{Job: j})
		}
	}
	if fault.Of(err) != fault.Exhausted || taken != 9 { // 2^61 bytes are eight such jobs
		t.Errorf("job %d: %v; want the ninth refused", taken, err)
	}
}
