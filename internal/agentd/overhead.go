package agentd

import (
	"context"
	"math/bits"
	"time"

	"github.com/covey-platform/covey/internal/runtime"
	"github.com/covey-platform/covey/internal/unit"
)

// What a machine keeps back for its agent and the supervisors is the larger of
// its reserve and of what they take. That is told in steps, so that the cluster
// need not write it down all the time: more at once, less when it has been less
// for a while.

const (
	fallAfter = 10 * time.Minute // less is kept back when it was enough for so long
	cpuOver   = time.Minute      // cpu time is an average over so long

	// The finest steps, each a power of two.
	cpuStep = 16            // thousandths of a core
	ramStep = 16 * unit.MiB // bytes
)

// stepped rounds n up to a whole step: an eighth of the power of two below n,
// and finest at least. So it is at most an eighth too much, and from any amount
// to twice as much there are eight steps.
func stepped(n, finest int64) int64 {
	if n <= 0 {
		return 0
	}
	step := max(finest, int64(1)<<(bits.Len64(uint64(n))-1)/8)
	return (n + step - 1) / step * step
}

// A gauge says how much of one measure is kept back.
type gauge struct {
	reserve, most, finest int64

	kept  int64
	low   time.Duration // since when less would have done
	peak  int64         // the most that would have done since then
	lower bool          // less would do
}

func newGauge(reserve, most, finest, kept int64) gauge {
	return gauge{reserve: reserve, most: most, finest: finest, kept: max(reserve, min(kept, most))}
}

// see takes in what is used at a time, by any clock that goes on, and returns
// what is kept back from then on.
func (g *gauge) see(now time.Duration, used int64) int64 {
	want := g.reserve
	if used > g.reserve {
		want = max(want, min(stepped(used, g.finest), g.most))
	}
	switch {
	case want >= g.kept:
		g.kept, g.lower = want, false
	case !g.lower:
		g.lower, g.low, g.peak = true, now, want
	default:
		g.peak = max(g.peak, want)
		if now-g.low >= fallAfter {
			g.kept, g.lower = g.peak, false
		}
	}
	return g.kept
}

// A mean is the average use of cpu over the last minute.
type mean struct{ seen []cpuSeen }

type cpuSeen struct {
	at    time.Duration
	nanos int64
}

// add takes in a counter and returns thousandths of a core; 0 until it has
// looked on for long enough.
func (m *mean) add(now time.Duration, nanos int64) int64 {
	if n := len(m.seen); n > 0 && nanos < m.seen[n-1].nanos {
		m.seen = m.seen[:0] // the counter began anew
	}
	m.seen = append(m.seen, cpuSeen{now, nanos})
	for len(m.seen) > 1 && now-m.seen[1].at >= cpuOver {
		m.seen = m.seen[1:]
	}
	first := m.seen[0]
	d := now - first.at
	if d < cpuOver {
		return 0
	}
	return (nanos - first.nanos) * 1000 / int64(d)
}

// kept is what was kept back, as DataDir/agent.json has it: an agent that
// starts anew goes on with it, since it cannot know what was used before. It is
// of one boot: another one begins with no tasks.
type kept struct {
	Boot string `json:"boot"`
	CPU  int64  `json:"cpu_milli"`
	RAM  int64  `json:"ram_bytes"`
}

// An overhead is what this machine keeps back.
type overhead struct {
	reserve  unit.Resources
	cpu, ram gauge
	mean     mean
}

func newOverhead(c Config, before kept, boot string) *overhead {
	if before.Boot != boot {
		before = kept{}
	}
	r := c.Overhead
	return &overhead{
		reserve: r,
		cpu:     newGauge(r.CPU, c.Capacity.CPU, cpuStep, before.CPU),
		ram:     newGauge(r.RAM, c.Capacity.RAM, ramStep, before.RAM),
	}
}

// see takes in a measurement.
func (o *overhead) see(now time.Duration, m runtime.Overhead) {
	o.cpu.see(now, o.mean.add(now, m.CPUNanos))
	o.ram.see(now, m.RAM)
}

func (o *overhead) resources() unit.Resources {
	r := o.reserve
	r.CPU, r.RAM = o.cpu.kept, o.ram.kept
	return r.Whole()
}

// weigh measures what the agent and the supervisors take. When that is another
// step, the leader is told with the next message.
func (d *daemon) weigh(ctx context.Context, now time.Time) {
	m, err := d.measure()
	if err != nil {
		d.log.DebugContext(ctx, "the agent and the supervisors could not be measured", "error", err)
		return // the next time
	}
	d.over.see(now.Sub(d.began), m)
	to, was := d.over.resources(), *d.keeps.Load()
	if to == was {
		return
	}
	d.log.InfoContext(ctx, "the machine keeps back another amount for its agent and the supervisors", "now", to.String(), "before", was.String(), "ram_used", unit.RAM.Format(m.RAM))
	d.keeps.Store(&to)
	d.retell = true
	d.id.Kept = kept{Boot: d.self.Boot, CPU: to.CPU, RAM: to.RAM}
	if err := d.id.write(d.cfg.DataDir, false); err != nil {
		d.log.ErrorContext(ctx, "what the machine keeps back could not be written down", "error", err)
	}
}
