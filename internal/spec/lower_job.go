package spec

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/spec/pyx"
)

const maxInt32 = math.MaxInt32

// lower makes the domain's job of a job that passed every check.
func (l *lowering) lower(key job.Key) (job.Job, error) {
	j := l.j
	out := job.Job{Key: key}
	var err error
	if out.Instances, err = l.instances(); err != nil {
		return out, err
	}
	c := &out.Config
	c.Service, c.Exclusive, c.Contact = l.flag(j, "service"), l.flag(j, "exclusive"), l.portText(l.str(j, "contact"))
	if c.Tier, err = l.tier(); err != nil {
		return out, err
	}
	if c.Placement, err = l.placement(); err != nil {
		return out, err
	}
	if c.Priority, err = l.within(j, "", "priority", math.MinInt32, maxInt32); err != nil {
		return out, err
	}
	if c.MaxTaskFailures, err = l.within(j, "", "max_task_failures", -1, maxInt32); err != nil {
		return out, err
	}
	if c.MaxTaskFailures == 0 {
		c.MaxTaskFailures = 1 // the first failure is one too many either way
	}
	c.Metadata = l.metadata()
	if c.Constraints, err = l.constraints(); err != nil {
		return out, err
	}
	if c.Task, err = l.task(); err != nil {
		return out, err
	}
	if c.Health, err = l.health(); err != nil {
		return out, err
	}
	if c.Lifecycle, err = l.lifecycle(); err != nil {
		return out, err
	}
	if c.Partition, err = l.partition(); err != nil {
		return out, err
	}
	c.Update, err = l.update()
	return out, err
}

func (l *lowering) instances() (job.Ranges, error) {
	n, err := l.within(l.j, "", "instances", 1, job.MaxInstances)
	return job.FirstN(n), err
}

// tier is the job's own, or follows from Aurora's older flag production.
func (l *lowering) tier() (string, error) {
	t, prod := l.str(l.j, "tier"), l.flag(l.j, "production")
	switch t {
	case "":
		if prod {
			return job.Preferred, nil
		}
		return job.Preemptible, nil
	case job.Preferred, job.Preemptible, job.Revocable:
		if prod && t != job.Preferred {
			return "", fail("tier", l.j.where("tier"), "is %s but production is True, which means preferred; leave production out", t)
		}
		return t, nil
	}
	return "", fail("tier", l.j.where("tier"), "is %s; want preferred, preemptible or revocable%s", show(t),
		pyx.Suggest(t, []string{job.Preferred, job.Preemptible, job.Revocable}))
}

// placement is which of the machines that fit the job's tasks go to; best fit,
// which is what a job has that does not say, is left out.
func (l *lowering) placement() (string, error) {
	if l.j.get("placement") == nil {
		return "", nil
	}
	switch p := l.str(l.j, "placement"); p {
	case job.BestFit:
		return "", nil
	case job.Spread:
		return p, nil
	default:
		return "", fail("placement", l.j.where("placement"), "is %s; want best-fit or spread%s", show(p), pyx.Suggest(p, []string{job.BestFit, job.Spread}))
	}
}

// metadata is a set in Aurora: sorted here, each pair once.
func (l *lowering) metadata() []job.Metadata {
	var out []job.Metadata
	if m := l.j.get("metadata"); m != nil {
		for _, x := range m.items {
			out = append(out, job.Metadata{Key: l.str(x, "key"), Value: l.portText(l.str(x, "value"))})
		}
	}
	slices.SortFunc(out, func(a, b job.Metadata) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	})
	return slices.Compact(out)
}

// constraints reads 'limit:N', 'spread:N', 'with:KEY', 'without:KEY', 'a,b' and
// '!a,b', sorted by attribute.
func (l *lowering) constraints() ([]job.Constraint, error) {
	m := l.j.get("constraints")
	if m == nil {
		return nil, nil
	}
	var out []job.Constraint
	for _, p := range m.pairs {
		attr, _ := p.key.val.(string)
		text, _ := p.val.val.(string)
		c := job.Constraint{Attribute: attr}
		if attr == "" {
			return nil, fail("constraints", p.key.at, "names no attribute; want an attribute such as host or rack")
		}
		if err := name.ValidLabel("attribute", attr); err != nil {
			return nil, fail("constraints", p.key.at, "is wrong: %s", err)
		}
		if lim, ok := strings.CutPrefix(text, "limit:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(lim), 10, 32)
			if err != nil || n < 1 {
				return nil, fail("constraints['"+attr+"']", p.val.at, "is %s; want a whole number of 1 or more after 'limit:', such as 'limit:1'", show(text))
			}
			c.Limit = int32(n)
			out = append(out, c)
			continue
		}
		if wide, ok := strings.CutPrefix(text, "spread:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(wide), 10, 32)
			if err != nil || n < 1 {
				return nil, fail("constraints['"+attr+"']", p.val.at, "is %s; want a whole number of 1 or more after 'spread:', such as 'spread:1'", show(text))
			}
			c.Spread = int32(n)
			out = append(out, c)
			continue
		}
		with, near := strings.CutPrefix(text, "with:")
		without, far := strings.CutPrefix(text, "without:")
		if near || far {
			c.Negated, c.With = far, job.Key(strings.TrimSpace(with))
			if far {
				c.With = job.Key(strings.TrimSpace(without))
			}
			if err := c.With.Validate(); err != nil {
				return nil, fail("constraints['"+attr+"']", p.val.at, "is %s; want role/env/name of a job after 'with:' or 'without:'", show(text))
			}
			out = append(out, c)
			continue
		}
		if text, c.Negated = strings.CutPrefix(text, "!"); text == "" {
			return nil, fail("constraints['"+attr+"']", p.val.at, "has no value; want 'a', 'a,b', '!a', 'limit:N', 'spread:N', 'with:KEY' or 'without:KEY'")
		}
		c.Values = strings.Split(text, ",")
		slices.Sort(c.Values)
		c.Values = slices.Compact(c.Values)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b job.Constraint) int { return strings.Compare(a.Attribute, b.Attribute) })
	return out, nil
}

func (l *lowering) partition() (job.Partition, error) {
	p := l.j.get("partition_policy")
	if p == nil {
		return job.Partition{Reschedule: true}, nil
	}
	delay, err := l.within(p, "partition_policy", "delay_secs", 0, maxInt32)
	return job.Partition{Reschedule: l.flag(p, "reschedule"), DelayS: int64(delay)}, err
}

// millis returns a field in seconds as whole milliseconds.
func (l *lowering) millis(o *object, path, f string, least float64) (int64, error) {
	v := o.get(f)
	if v == nil {
		return 0, nil
	}
	s, _ := v.val.(float64)
	if !(s >= least) || s > maxInt32 {
		return 0, fail(path+"."+f, o.where(f), "is %s; want %s to %d seconds", show(v.val), show(least), maxInt32)
	}
	return int64(math.Round(s * 1000)), nil
}

// health returns how tasks are checked; nil when an http check has no port
// named health to ask, as in Aurora.
func (l *lowering) health() (*job.Health, error) {
	c := l.j.get("health_check_config")
	if c == nil {
		return nil, nil
	}
	h := &job.Health{}
	var err error
	const path = "health_check_config"
	if h.InitialMilli, err = l.millis(c, path, "initial_interval_secs", 0); err != nil {
		return nil, err
	}
	if h.EveryMilli, err = l.millis(c, path, "interval_secs", 0.001); err != nil {
		return nil, err
	}
	if h.TimeoutMilli, err = l.millis(c, path, "timeout_secs", 0.001); err != nil {
		return nil, err
	}
	if h.MaxFailures, err = l.within(c, path, "max_consecutive_failures", 0, maxInt32); err != nil {
		return nil, err
	}
	if h.MinSuccesses, err = l.within(c, path, "min_consecutive_successes", 1, maxInt32); err != nil {
		return nil, err
	}
	checker := c.get("health_checker")
	if checker == nil {
		return nil, nil
	}
	if sh := checker.get("shell"); sh != nil { // wins over http, as in Aurora's executor
		h.Shell = &job.ShellCheck{Command: l.portText(l.str(sh, "shell_command"))}
		return h, nil
	}
	return l.httpHealth(h, checker.get("http"))
}

func (l *lowering) httpHealth(h *job.Health, http *object) (*job.Health, error) {
	if http == nil {
		return nil, nil
	}
	port, ok := l.port("health")
	if !ok {
		explicit := l.job.get("health_check_config") != l.job.typ.fields[l.job.typ.index["health_check_config"]].def
		if near := name.Nearest("health", l.ports.dynamic); explicit && near != "" {
			return nil, fail("health_check_config", l.j.where("health_check_config"), "asks the port health, but the task names the port %s; did you mean {{thermos.ports[health]}} there?", near)
		}
		return nil, nil
	}
	if err := l.serves("health"); err != nil {
		return nil, err
	}
	code, err := l.within(http, "health_check_config.health_checker.http", "expected_response_code", 0, 599)
	if err != nil {
		return nil, err
	}
	h.HTTP = &job.HTTPCheck{Port: port, Endpoint: l.str(http, "endpoint"), Response: l.str(http, "expected_response"), ResponseCode: code}
	if !strings.HasPrefix(h.HTTP.Endpoint, "/") {
		return nil, fail("health_check_config.health_checker.http.endpoint", http.where("endpoint"), "is %s; want a path that begins with '/'", show(h.HTTP.Endpoint))
	}
	return h, nil
}

// port returns what a port's name stands for, and whether the job has it.
func (l *lowering) port(n string) (string, bool) {
	to, static := l.ports.meaning(n)
	return to, static || slices.Contains(l.ports.dynamic, to)
}

// lifecycle returns how tasks are asked to stop; nil when the port to ask is
// none of the job's.
func (l *lowering) lifecycle() (*job.HTTPLifecycle, error) {
	c := l.j.get("lifecycle")
	if c == nil || c.get("http") == nil {
		return nil, nil
	}
	h := c.get("http")
	port, ok := l.port(l.str(h, "port"))
	if !ok {
		return nil, nil
	}
	out := &job.HTTPLifecycle{Port: port, Graceful: l.str(h, "graceful_shutdown_endpoint"), Shutdown: l.str(h, "shutdown_endpoint")}
	var err error
	if out.GracefulWaitS, err = l.within(h, "lifecycle.http", "graceful_shutdown_wait_secs", 0, 3600); err != nil {
		return nil, err
	}
	out.ShutdownWaitS, err = l.within(h, "lifecycle.http", "shutdown_wait_secs", 0, 3600)
	return out, err
}

// checkUpdate holds the update's settings to what makes sense together.
func (l *lowering) checkUpdate() error {
	_, err := l.update()
	return err
}

func (l *lowering) update() (job.Update, error) {
	c := l.j.get("update_config")
	out := job.Update{}
	if c == nil {
		return job.Update{BatchSizes: []int32{1}, Strategy: "queue", WatchS: 45, Rollback: true}, nil
	}
	var err error
	if out.WatchS, err = l.within(c, "update_config", "watch_secs", 0, maxInt32); err != nil {
		return out, err
	}
	if out.MaxPerInstance, err = l.within(c, "update_config", "max_per_shard_failures", 0, maxInt32); err != nil {
		return out, err
	}
	if out.MaxTotal, err = l.within(c, "update_config", "max_total_failures", 0, maxInt32); err != nil {
		return out, err
	}
	if n := l.num(l.j, "instances"); int64(out.MaxTotal) >= n && n > 0 {
		return out, fail("update_config.max_total_failures", c.where("max_total_failures"), "is %d, but the job has %d instances; want at most %d, or an update can never fail", out.MaxTotal, n, n-1)
	}
	if c.get("pulse_interval_secs") != nil {
		if out.PulseIntervalS, err = l.within(c, "update_config", "pulse_interval_secs", 60, maxInt32); err != nil {
			return out, err
		}
	}
	out.Rollback, out.SLAAware = l.flag(c, "rollback_on_failure"), l.flag(c, "sla_aware")
	return out, l.strategy(c, &out)
}

func (l *lowering) strategy(c *object, out *job.Update) error {
	out.Strategy = "queue"
	if l.flag(c, "wait_for_batch_completion") {
		out.Strategy = "batch"
	}
	path, src := "update_config", c
	if s := c.get("update_strategy"); s != nil {
		path, src = "update_config.update_strategy", s
		out.AutoPause = l.flag(s, "autopause_after_batch")
		out.Strategy = strings.ToLower(strings.TrimSuffix(s.typ.name, "UpdateStrategy"))
		if out.Strategy == "variablebatch" {
			out.Strategy = "variable"
			sizes := s.get("batch_sizes")
			for i, x := range sizes.items {
				n, _ := x.val.(int64)
				if n < 1 || n > job.MaxInstances {
					return fail(path+".batch_sizes["+itoa(i)+"]", s.where("batch_sizes"), "is %s; want 1 to %d", x.shownValue(), job.MaxInstances)
				}
				out.BatchSizes = append(out.BatchSizes, int32(n))
			}
			if len(out.BatchSizes) == 0 {
				return fail(path+".batch_sizes", s.where("batch_sizes"), "is empty; want the size of each batch, such as [1, 5, 10]")
			}
			return nil
		}
	}
	n, err := l.within(src, path, "batch_size", 1, maxInt32)
	out.BatchSizes = []int32{n}
	return err
}
