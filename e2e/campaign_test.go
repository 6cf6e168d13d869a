package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	campaign     = flag.Int("campaign", 10, "rounds of faults of the campaign")
	campaignSeed = flag.Uint64("campaign.seed", 0, "seed of the campaign; 0 takes one from the clock")
)

// TestCampaign lets faults of every kind happen in an order by chance, several
// at a time. After each round the cluster comes back to what was asked for,
// and no task that was not meant has noticed.
func TestCampaign(t *testing.T) {
	needRoot(t)
	t.Parallel()
	seed := *campaignSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again: go test ./e2e -run TestCampaign -campaign %d -campaign.seed %d", *campaign, seed)
	c := &faults{world: newDev(t, 2), chance: rand.New(rand.NewPCG(seed, 1)), tasks: map[int]ident{}}
	c.create("many", service(instances))
	for i := range instances {
		c.tasks[i] = c.process("many", i)
	}
	for round := range *campaign {
		c.round(round)
		if t.Failed() {
			return
		}
	}
	c.run("job", "killall", c.key("many"), "--wait")
	for i, p := range c.tasks {
		if p.lives() {
			t.Errorf("instance %d outlives killall --wait", i)
		}
	}
	money(c.world)
}

// instances of the service that the campaign is about.
const instances = 6

// faults is a campaign: a world, and the task that each instance has.
type faults struct {
	*world
	chance *rand.Rand
	tasks  map[int]ident
}

func (c *faults) round(n int) {
	t := c.t
	t.Helper()
	var done []string
	victims := map[int]ident{}
	for range 1 + c.chance.IntN(4) {
		done = append(done, c.one(victims))
		time.Sleep(time.Duration(c.chance.IntN(200)) * time.Millisecond)
	}
	for i, p := range victims {
		gone(t, p)
		c.tasks[i] = c.processWithin("many", i, p)
	}
	took := eventually(t, 60*time.Second, fmt.Sprintf("round %d, %v: the cluster is as it should be", n, done), func() string {
		r := c.try("job", "status", c.key("many"), "-o", "json")
		if r.code != 0 || strings.Count(r.out, `"RUNNING"`) != instances {
			return r.String()
		}
		return ""
	})
	for i, p := range c.tasks {
		if got := marked(c.mark("many", i)); !slices.Equal(got, []ident{p}) {
			t.Errorf("round %d, %v: instance %d is %v; want %v", n, done, i, got, p)
		}
	}
	t.Logf("round %d: %s; well after %v", n, strings.Join(done, ", "), took.Round(time.Millisecond))
}

// processWithin is process with the patience that the pause after early ends
// needs.
func (c *faults) processWithin(name string, i int, not ident) ident {
	c.t.Helper()
	eventually(c.t, 6*time.Minute, "another process of "+c.mark(name, i), func() string {
		if got := marked(c.mark(name, i)); len(got) != 1 || got[0] == not {
			return fmt.Sprint(got)
		}
		return ""
	})
	return c.process(name, i, not)
}

// one makes one fault happen and says which.
func (c *faults) one(victims map[int]ident) string {
	machine := fmt.Sprintf("m%d", 1+c.chance.IntN(2))
	part := func() ident {
		if c.chance.IntN(2) == 0 {
			return c.child("server", "")
		}
		return c.child("agent", machine)
	}
	i := c.chance.IntN(instances)
	_, hit := victims[i]
	switch k := c.chance.IntN(8); {
	case k < 1 && !hit:
		victims[i] = c.tasks[i]
		c.tasks[i].signal(c.t, syscall.SIGKILL)
		return fmt.Sprintf("task %d killed", i)
	case k < 2 && !hit:
		victims[i] = c.tasks[i]
		c.supervisorOf(c.tasks[i]).signal(c.t, syscall.SIGKILL)
		return fmt.Sprintf("supervisor %d killed", i)
	case k < 4:
		p := c.child("server", "")
		p.end()
		return "server killed"
	case k < 5:
		p := c.child("agent", machine)
		p.end()
		return "agent killed"
	case k < 6:
		p := part()
		name := argsOf(p.pid)
		if syscall.Kill(p.pid, syscall.SIGSTOP) == nil {
			time.Sleep(time.Duration(100+c.chance.IntN(2500)) * time.Millisecond)
			_ = syscall.Kill(p.pid, syscall.SIGCONT)
		}
		return fmt.Sprintf("%s stood still", strings.Join(name[min(1, len(name)):min(2, len(name))], ""))
	case k < 7:
		p := part()
		if p.lives() {
			_ = syscall.Kill(p.pid, syscall.SIGTERM)
		}
		return "a part told to end"
	default:
		c.crashDev()
		c.startDev(2)
		return "dev killed with all its parts"
	}
}

// supervisorOf returns who looks after a task's process: the parent of its
// namespace's first process.
func (c *faults) supervisorOf(p ident) ident {
	c.t.Helper()
	for pid := p.pid; pid > 1; pid = parentOf(pid) {
		if args := argsOf(pid); len(args) > 2 && args[1] == "__supervise" && strings.HasPrefix(args[2], c.dir+"/") {
			s, _ := identify(pid)
			return s
		}
	}
	c.t.Fatalf("no supervisor of %v", p)
	return ident{}
}
