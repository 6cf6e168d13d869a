// Package simulate is covey simulate: the shell around package whatif that
// reads and writes files and looks at the clock.
package simulate

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/simulate/check"
	"github.com/covey-platform/covey/internal/whatif"
)

// Run answers one question. When ctx ends it returns at once, and leaves its
// work to the end of the program: what is worked on is in memory alone.
func Run(ctx context.Context, f cli.SimulateFlags) (cli.Simulated, error) {
	type answer struct {
		found cli.Simulated
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		found, err := run(ctx, f)
		done <- answer{found, err}
	}()
	select {
	case a := <-done:
		return a.found, a.err
	case <-ctx.Done():
		return cli.Simulated{}, ctx.Err()
	}
}

func run(ctx context.Context, f cli.SimulateFlags) (cli.Simulated, error) {
	switch {
	case f.Check != "":
		return verify(f)
	case f.OpenbTasks != "":
		return openb(f)
	case f.Until != 0:
		return play(f)
	case f.Compact:
		return compact(ctx, f)
	case f.State != "" || f.Changes():
		return change(f)
	default:
		return batch(f)
	}
}

// stopwatch tells how much time has passed since it was made.
func stopwatch() func() time.Duration {
	begun := time.Now()
	return func() time.Duration { return time.Since(begun) }
}

// verify checks a file of placements.
func verify(f cli.SimulateFlags) (cli.Simulated, error) {
	r, err := check.Files(f.Check, f.Machines, f.Jobs)
	if err != nil {
		return cli.Simulated{}, err
	}
	out := cli.Simulated{JSON: r, Table: func(w io.Writer) { checkTable(w, r) }}
	if !r.OK() {
		n := 0
		for _, k := range r.Wrong {
			n += k
		}
		out.Failed = fmt.Sprintf("%s: %d placements break a rule", f.Check, n)
	}
	return out, nil
}

func checkTable(w io.Writer, r *check.Report) {
	lines(w, [][2]string{
		{"tasks", fmt.Sprint(r.Tasks)},
		{"placed", fmt.Sprintf("%d on %d of %d machines, which have %.1f %% of the cpu", r.Placed, r.Used, r.Machines, 100*r.UsedCPU)},
		{"missing", fmt.Sprint(r.Missing)},
	})
	if r.OK() {
		_, _ = fmt.Fprintln(w, "every placement keeps the rules")
	}
	for _, x := range r.Findings {
		at := ""
		if x.Line > 0 {
			at = fmt.Sprintf("line %d: ", x.Line)
		}
		_, _ = fmt.Fprintf(w, "%s%s: %s\n", at, x.Kind, x.Text)
	}
	for _, k := range sortedKeys(r.Wrong) {
		_, _ = fmt.Fprintf(w, "%d times: %s\n", r.Wrong[k], k)
	}
}

// load reads the files of machines and jobs.
func load(f cli.SimulateFlags) (machines []machine.Machine, asks []whatif.Ask, err error) {
	if machines, err = readMachines(f.Machines, f.Note); err != nil {
		return nil, nil, err
	}
	file, err := open(f.Jobs)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close() //nolint:errcheck // it was read
	asks, notes, err := whatif.ReadJobs(f.Jobs, file)
	tell(f.Note, notes)
	return machines, asks, err
}

func readMachines(name string, note func(string)) ([]machine.Machine, error) {
	file, err := open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was read
	machines, notes, err := whatif.ReadMachines(name, file)
	tell(note, notes)
	return machines, err
}

func tell(note func(string), notes []string) {
	for _, n := range notes {
		note(n)
	}
}

func open(name string) (*os.File, error) {
	file, err := os.Open(name) //nolint:gosec // the user's own file
	if err != nil {
		return nil, fault.Invalid.Errorf("%w", err)
	}
	return file, nil
}

// batch places the jobs of a file on the machines of another.
func batch(f cli.SimulateFlags) (cli.Simulated, error) {
	machines, asks, err := load(f)
	if err != nil {
		return cli.Simulated{}, err
	}
	index, err := indexer(f)
	if err != nil {
		return cli.Simulated{}, err
	}
	w := whatif.New(stopwatch(), index)
	if err = w.AddMachines(machines); err != nil {
		return cli.Simulated{}, err
	}
	b, err := w.Run(asks, f.AtOnce)
	if err != nil {
		return cli.Simulated{}, err
	}
	tooLarge(f, asks, b.Waits)
	if f.Placements != "" {
		if err = writePlacements(f.Placements, b.Placements); err != nil {
			return cli.Simulated{}, err
		}
	}
	v := batchJSON{
		Machines: b.Machines, Tasks: b.Tasks, Placed: b.Placed, Waiting: whatif.Waiting(b.Waits), Preempted: len(w.Stopped()),
		Seconds: b.Placing.Seconds(), Task: spread(b.Single), Job: spread(b.Jobs), Heap: heap(),
	}
	if v.Seconds > 0 {
		v.Rate = float64(v.Placed) / v.Seconds
	}
	runtime.KeepAlive(w)
	return cli.Simulated{JSON: v, Table: func(out io.Writer) { batchTable(out, v, b.Waits) }}, nil
}

// tooLarge names the lines of the jobs that fit on no machine even if it is empty.
func tooLarge(f cli.SimulateFlags, asks []whatif.Ask, waits sched.Waits) {
	const most = 10
	at := make(map[string]int, len(asks))
	for _, a := range asks {
		at[string(a.Job.Key)] = a.Line
	}
	n := 0
	for _, g := range waits.Groups {
		if !whatif.TooLarge(g) {
			continue
		}
		if n++; n <= most {
			f.Note(fmt.Sprintf("%s:%d: job %s: %s", f.Jobs, at[string(g.Job)], g.Job.Name(), g.Text))
		}
	}
	if n > most {
		f.Note(fmt.Sprintf("%s: %d more jobs are too large", f.Jobs, n-most))
	}
}

// batchJSON is what a batch came to. Times of tasks and jobs are milliseconds.
type batchJSON struct {
	Machines  int            `json:"machines"`
	Tasks     int            `json:"tasks"`
	Placed    int            `json:"placed"`
	Waiting   map[string]int `json:"waiting"`
	Preempted int            `json:"preempted,omitempty"`
	Seconds   float64        `json:"seconds"`
	Rate      float64        `json:"rate"`
	Task      spreadJSON     `json:"task_ms"`
	Job       spreadJSON     `json:"job_ms"`
	Heap      uint64         `json:"heap_bytes"`
}

type spreadJSON struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func spread(s whatif.Spread) spreadJSON {
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
	return spreadJSON{ms(s.P50), ms(s.P99), ms(s.Max)}
}

// heap is how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func batchTable(w io.Writer, v batchJSON, waits sched.Waits) {
	rows := [][2]string{
		{"machines", fmt.Sprint(v.Machines)},
		{"tasks", fmt.Sprint(v.Tasks)},
		{"placed", fmt.Sprintf("%d in %.3f s: %.0f a second", v.Placed, v.Seconds, v.Rate)},
	}
	if v.Preempted > 0 {
		rows = append(rows, [2]string{"pre-empted", fmt.Sprint(v.Preempted)})
	}
	rows = append(rows,
		[2]string{"one task", v.Task.String()},
		[2]string{"one job", v.Job.String()},
		[2]string{"heap", fmt.Sprintf("%d MiB", v.Heap>>20)},
	)
	lines(w, rows)
	waitTable(w, v.Waiting, waits)
}

func (s spreadJSON) String() string {
	return fmt.Sprintf("%.3f ms in the middle, %.3f ms for 99 of 100, %.3f ms at most", s.P50, s.P99, s.Max)
}

// waitTable says what waits and why.
func waitTable(w io.Writer, waiting map[string]int, waits sched.Waits) {
	const most = 20
	for _, k := range sortedKeys(waiting) {
		_, _ = fmt.Fprintf(w, "%d wait: %s\n", waiting[k], k)
	}
	for i, g := range waits.Groups {
		if i == most {
			_, _ = fmt.Fprintf(w, "  ... and %d more jobs\n", len(waits.Groups)-most)
			return
		}
		_, _ = fmt.Fprintf(w, "  %s: %d: %s\n", g.Job, g.Tasks, g.Text)
	}
}

func lines(w io.Writer, rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	for _, r := range rows {
		_, _ = fmt.Fprintf(w, "%-*s  %s\n", width, r[0], r[1])
	}
}

// writePlacements writes where tasks are, whole or not at all.
func writePlacements(name string, all []whatif.Placement) error {
	return cli.WriteWhole(name, readable, func(w io.Writer) error {
		_, err := io.WriteString(w, "task,machine\n")
		for _, p := range all {
			if err != nil {
				break
			}
			_, err = fmt.Fprintf(w, "%s/%d,%s\n", whatif.IDOf(p.Task.Job), p.Task.Instance, p.Machine)
		}
		return unwritten(err)
	})
}

// readable is the mode of what is written.
const readable = 0o644

// unwritten gives an error of writing its kind.
func unwritten(err error) error {
	if err == nil {
		return nil
	}
	return fault.Exhausted.Errorf("%w", err)
}
