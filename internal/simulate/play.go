package simulate

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/unit"
	"github.com/covey-platform/covey/internal/whatif"
)

// play lets time pass: jobs come and go, machines fail.
func play(f cli.SimulateFlags) (cli.Simulated, error) {
	machines, asks, err := load(f)
	if err != nil {
		return cli.Simulated{}, err
	}
	index, err := indexer(f)
	if err != nil {
		return cli.Simulated{}, err
	}
	w := whatif.New(nil, index)
	if err = w.AddMachines(machines); err != nil {
		return cli.Simulated{}, err
	}
	events, err := readEvents(f, w, asks)
	if err != nil {
		return cli.Simulated{}, err
	}
	if err = failures(f, len(machines)); err != nil {
		return cli.Simulated{}, err
	}
	sky := whatif.Weather{Seed: f.Seed, MTBF: int64(f.MTBF / time.Second), Repair: int64(f.Repair / time.Second)}
	h, err := w.Play(asks, events, sky, int64(f.Until/time.Second))
	if err != nil {
		return cli.Simulated{}, err
	}
	v := playOf(f, h)
	if f.Samples != "" {
		if err = cli.WriteWhole(f.Samples, readable, func(w io.Writer) error { return writeSamples(w, h) }); err != nil {
			return cli.Simulated{}, err
		}
	}
	if f.HTML != "" {
		if err = cli.WriteWhole(f.HTML, readable, func(w io.Writer) error { return writePage(w, v, h) }); err != nil {
			return cli.Simulated{}, err
		}
	}
	return cli.Simulated{JSON: v, Table: func(out io.Writer) { playTable(out, v, h) }}, nil
}

// maxFailures bounds the failures by chance.
const maxFailures = 5_000_000

// failures refuses weather in which nothing else would happen for hours.
func failures(f cli.SimulateFlags, machines int) error {
	if f.MTBF == 0 {
		return nil
	}
	if n := f.Until.Seconds() / (f.MTBF.Seconds() + f.Repair.Seconds()) * float64(machines); n > maxFailures {
		return fault.Invalid.Errorf("with --mtbf %v and --repair %v these %d machines fail about %.0f times in %v; want at most %d: let them fail more rarely, or less time pass",
			f.MTBF, f.Repair, machines, n, f.Until, maxFailures)
	}
	return nil
}

func readEvents(f cli.SimulateFlags, w *whatif.World, asks []whatif.Ask) ([]whatif.Event, error) {
	if f.Events == "" {
		return nil, nil
	}
	file, err := open(f.Events)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was read
	events, notes, err := whatif.ReadEvents(f.Events, file)
	if err != nil {
		return nil, err
	}
	tell(f.Note, notes)
	return events, w.CheckEvents(f.Events, events, asks)
}

// playJSON is what happened in a span of time. Times are seconds.
type playJSON struct {
	Until     int64                `json:"until_s"`
	Seed      uint64               `json:"seed"`
	Machines  int                  `json:"machines"`
	Arrived   int                  `json:"arrived"`
	Finished  int                  `json:"finished"`
	Running   int                  `json:"running"`
	Waiting   map[string]int       `json:"waiting"` // at the end
	Lost      int                  `json:"lost"`
	Killed    int                  `json:"killed"`
	Preempted int                  `json:"preempted"`
	Failures  int                  `json:"failures"`
	Allocated map[string]levels    `json:"allocated"` // percent of the machines that were up
	Waits     map[string]latencies `json:"waits_s"`   // by tier, of the tasks that were placed
}

type levels struct {
	Mean float64 `json:"mean"`
	Max  float64 `json:"max"`
}

type latencies struct {
	Placed int     `json:"placed"`
	Mean   float64 `json:"mean"`
	P50    float64 `json:"p50"`
	P90    float64 `json:"p90"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

func playOf(f cli.SimulateFlags, h whatif.History) playJSON {
	last := h.Samples[len(h.Samples)-1]
	v := playJSON{
		Until: int64(f.Until / time.Second), Seed: f.Seed, Machines: h.Samples[0].Machines, Arrived: h.Arrived, Finished: h.Finished,
		Running: last.Running, Waiting: whatif.Waiting(h.Left), Lost: h.Lost, Killed: h.Killed, Preempted: h.Preempted,
		Failures: h.Failures, Allocated: map[string]levels{}, Waits: map[string]latencies{},
	}
	for _, m := range measuresOf(h) {
		var l levels
		for _, s := range h.Samples {
			x := share(s, m)
			l.Mean += x / float64(len(h.Samples))
			l.Max = max(l.Max, x)
		}
		v.Allocated[m.String()] = levels{round(l.Mean), round(l.Max)}
	}
	for tier, l := range h.Waits {
		v.Waits[tier] = latencies{l.Placed, round(l.Mean), round(l.P50), round(l.P90), round(l.P99), round(l.Max)}
	}
	return v
}

func round(x float64) float64 { return float64(int64(x*100+0.5)) / 100 }

// measuresOf returns the measures of which machines have any.
func measuresOf(h whatif.History) []unit.Measure {
	var out []unit.Measure
	for _, m := range unit.Measures() {
		for _, s := range h.Samples {
			if s.Has.Of(m) > 0 {
				out = append(out, m)
				break
			}
		}
	}
	return out
}

// share is how much of a measure is held, in percent.
func share(s whatif.Sample, m unit.Measure) float64 {
	if s.Has.Of(m) <= 0 {
		return 0
	}
	return 100 * float64(s.Held.Of(m)) / float64(s.Has.Of(m))
}

func writeSamples(w io.Writer, h whatif.History) error {
	all := measuresOf(h)
	line := "at_s,machines,running,waiting"
	for _, m := range all {
		line += fmt.Sprintf(",%v_percent", m)
	}
	_, err := fmt.Fprintln(w, line)
	for _, s := range h.Samples {
		if err != nil {
			break
		}
		line = fmt.Sprintf("%d,%d,%d,%d", s.At, s.Machines, s.Running, s.Waiting)
		for _, m := range all {
			line += fmt.Sprintf(",%.2f", share(s, m))
		}
		_, err = fmt.Fprintln(w, line)
	}
	return unwritten(err)
}

func playTable(w io.Writer, v playJSON, h whatif.History) {
	ended := fmt.Sprintf("%d finished, %d were lost with their machine, %d killed with their job", v.Finished, v.Lost, v.Killed)
	if v.Preempted > 0 {
		ended += fmt.Sprintf(", %d stopped for others", v.Preempted)
	}
	lines(w, [][2]string{
		{"time", span(float64(v.Until))},
		{"machines", fmt.Sprintf("%d, which failed %d times", v.Machines, v.Failures)},
		{"tasks", fmt.Sprintf("%d came, %s", v.Arrived, ended)},
		{"at the end", fmt.Sprintf("%d run, %d wait", v.Running, h.Samples[len(h.Samples)-1].Waiting)},
	})
	for _, m := range measuresOf(h) {
		l := v.Allocated[m.String()]
		_, _ = fmt.Fprintf(w, "%-10s  %.1f %% held on average, %.1f %% at most\n", m, l.Mean, l.Max)
	}
	if len(v.Waits) > 0 {
		_, _ = fmt.Fprintf(w, "%-12s  %8s  %10s  %10s  %10s  %10s\n", "WAITED", "PLACED", "HALF", "9 OF 10", "99 OF 100", "LONGEST")
	}
	for _, tier := range sortedKeys(v.Waits) {
		l := v.Waits[tier]
		_, _ = fmt.Fprintf(w, "%-12s  %8d  %10s  %10s  %10s  %10s\n", tier, l.Placed, span(l.P50), span(l.P90), span(l.P99), span(l.Max))
	}
	waitTable(w, v.Waiting, h.Left)
}

// span writes seconds for people: 90s, 1m30s, 6h.
func span(s float64) string {
	text := time.Duration(s * float64(time.Second)).Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
