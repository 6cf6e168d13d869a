package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
)

// stats is what the server counts of itself.
type stats struct {
	registry *prometheus.Registry
	commits  *prometheus.CounterVec
	seconds  prometheus.Histogram
	records  prometheus.Counter
	steps    *prometheus.CounterVec
	orders   prometheus.Counter
	looked   prometheus.Counter
	audits   *prometheus.CounterVec
}

func newStats() *stats {
	s := &stats{
		registry: prometheus.NewRegistry(),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "covey_commits_total", Help: "Commits to the cluster's store, by result.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "covey_turn_seconds", Help: "Time of a turn that committed, from its first input until it was durable.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		records: prometheus.NewCounter(prometheus.CounterOpts{Name: "covey_records_total", Help: "Records committed."}),
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "covey_task_steps_total", Help: "Steps of tasks, by the state they led to.",
		}, []string{"state"}),
		orders: prometheus.NewCounter(prometheus.CounterOpts{Name: "covey_orders_total", Help: "Orders sent to machines."}),
		audits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "covey_audits_total", Help: "Comparisons of the engines' indexes with fresh ones, by result. One that differs is a bug; the index was made anew.",
		}, []string{"result"}),
		looked: prometheus.NewCounter(prometheus.CounterOpts{Name: "covey_looked_total", Help: "Rows and machines that the engines looked at. It grows with what changes, not with the cluster."}),
	}
	s.registry.MustRegister(s.commits, s.seconds, s.records, s.steps, s.orders, s.looked, s.audits)
	return s
}

func (s *stats) committed(b *state.Batch, d time.Duration, err error) {
	if err != nil {
		s.commits.WithLabelValues("failed").Inc()
		return
	}
	s.commits.WithLabelValues("ok").Inc()
	s.seconds.Observe(d.Seconds())
	s.records.Add(float64(len(b.Records)))
	for i := range b.Records {
		if r := &b.Records[i]; r.Kind == state.TaskRecord {
			s.steps.WithLabelValues(r.Task.After.State.String()).Inc()
		}
	}
}

func (s *stats) audited(wrong error) {
	if wrong != nil {
		s.audits.WithLabelValues("different").Inc()
		return
	}
	s.audits.WithLabelValues("same").Inc()
}

func (s *stats) turn(r control.Result) {
	n := 0
	for _, x := range r.Sends {
		n += len(x.Orders)
	}
	s.orders.Add(float64(n))
	s.looked.Add(float64(r.Looked))
}

// watch adds gauges of the cluster as it is at the time of asking.
func (s *stats) watch(view func() rpc.View) {
	for _, g := range []struct {
		name, help string
		value      func(jobs, tasks, machines int) int
	}{
		{"covey_jobs", "Jobs.", func(n, _, _ int) int { return n }},
		{"covey_tasks", "Tasks that have not ended.", func(_, n, _ int) int { return n }},
		{"covey_machines", "Machines, up or down.", func(_, _, n int) int { return n }},
	} {
		s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, func() float64 {
			return float64(g.value(view().Snapshot.Len()))
		}))
	}
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "covey_machines_up", Help: "Machines whose agent's lease holds."}, func() float64 {
		return float64(machinesUp(view().Snapshot))
	}))
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "covey_machines_avoided", Help: "Machines on which tasks are put only when no other takes them: tasks did not start there, and did elsewhere."}, func() float64 {
		return float64(machinesAvoided(view().Snapshot))
	}))
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "covey_strays", Help: "Tasks that machines run without a row, and whose room the platform keeps."}, func() float64 {
		return float64(strays(view().Snapshot))
	}))
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "covey_recovery", Help: "1 while the cluster is in recovery: its database is older than what machines run, until an operator ends it.",
	}, func() float64 {
		if view().Snapshot.Cluster.Recovery {
			return 1
		}
		return 0
	}))
	for _, cause := range []string{heldSurplus, heldOrphan, heldUnknown} {
		s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "covey_held_tasks", Help: "Tasks that run and are left alone until they may be stopped or an operator decides, at most 1000 in all: surplus ones, " +
				"orphans whose directory was lost, and those that the cluster does not know.",
			ConstLabels: prometheus.Labels{"cause": cause},
		}, func() float64 { return float64(heldBy(view().Held, cause)) }))
	}
}

// Why a task is held, in words for a metric.
const (
	heldSurplus = "surplus"
	heldOrphan  = "orphan"
	heldUnknown = "unknown"
)

func heldBy(held []control.Held, cause string) int {
	n := 0
	for i := range held {
		is := heldUnknown
		switch {
		case held[i].Sighting.Orphan:
			is = heldOrphan
		case held[i].Surplus:
			is = heldSurplus
		}
		if is == cause {
			n++
		}
	}
	return n
}

func strays(s *state.Snapshot) int {
	n := 0
	for m := range s.Machines() {
		n += len(m.Strays)
	}
	return n
}

func machinesAvoided(s *state.Snapshot) int {
	avoided := 0
	for m := range s.Machines() {
		if m.Avoid != "" {
			avoided++
		}
	}
	return avoided
}

func machinesUp(s *state.Snapshot) int {
	up := 0
	for m := range s.Machines() {
		if m.Up {
			up++
		}
	}
	return up
}
