package simulate

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
	"github.com/covey-platform/covey/internal/whatif"
)

// readState reads an export of a cluster's state.
func readState(name string) (*state.Snapshot, error) {
	file, err := os.Open(name) //nolint:gosec // the user's own file
	if err != nil {
		return nil, fault.Invalid.Errorf("%w", err)
	}
	defer file.Close() //nolint:errcheck // it was read
	r, err := whatif.Unpack(name, file)
	if err != nil {
		return nil, err
	}
	s, err := state.ReadExport(r)
	if err != nil {
		return nil, fault.Of(err).Errorf("%s: %w", name, err)
	}
	return s, nil
}

// world makes the cluster that was asked for: of a copy, or of files.
func world(f cli.SimulateFlags) (*whatif.World, error) {
	index, err := indexer(f)
	if err != nil {
		return nil, err
	}
	if f.State != "" {
		s, failed := readState(f.State)
		if failed != nil {
			return nil, failed
		}
		return whatif.From(s, stopwatch(), index), nil
	}
	machines, asks, err := load(f)
	if err != nil {
		return nil, err
	}
	w := whatif.New(stopwatch(), index)
	if err = w.AddMachines(machines); err != nil {
		return nil, err
	}
	for _, a := range asks {
		if err = w.Submit(a.Job); err != nil {
			return nil, err
		}
		if _, err = w.Place(1); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// change says what would be if a cluster changed.
func change(f cli.SimulateFlags) (cli.Simulated, error) {
	w, err := world(f)
	if err != nil {
		return cli.Simulated{}, err
	}
	before, err := w.Level()
	if err != nil {
		return cli.Simulated{}, err
	}
	known := len(w.Stopped())
	moved, refused, err := apply(w, f)
	if err != nil {
		return cli.Simulated{}, err
	}
	after, err := w.Level()
	if err != nil {
		return cli.Simulated{}, err
	}
	if f.Placements != "" {
		if err = writePlacements(f.Placements, w.Placements()); err != nil {
			return cli.Simulated{}, err
		}
	}
	v := changeJSON{
		Before: levelOf(before), After: levelOf(after), Displaced: len(moved), Moved: w.PlacedIn(moved),
		Waits: waitsOf(after.Waits), Stopped: []stopJSON{}, Refused: refused,
	}
	for _, s := range w.Stopped()[known:] {
		v.Stopped = append(v.Stopped, stopJSON{s.Task.String(), s.Tier, s.Reason})
	}
	return cli.Simulated{JSON: v, Table: func(out io.Writer) { changeTable(out, v, after.Waits) }}, nil
}

// apply makes the changes that were asked for, and returns the slots whose
// tasks lost their machine by it, and the changes that a quota forbids.
func apply(w *whatif.World, f cli.SimulateFlags) (moved []state.Slot, refused []refusedJSON, err error) {
	for _, a := range f.Add {
		if err := add(w, a, f.Note); err != nil {
			return nil, nil, err
		}
	}
	for _, x := range []struct {
		selectors []string
		take      func(string) ([]state.Slot, error)
	}{{f.Kill, taker(w, w.Kill)}, {f.Remove, taker(w, w.Remove)}} {
		for _, s := range x.selectors {
			some, err := x.take(s)
			if err != nil {
				return nil, nil, err
			}
			moved = append(moved, some...)
		}
	}
	for _, g := range f.Grow {
		switch err := grow(w, g); {
		case fault.Of(err) == fault.Exhausted:
			refused = append(refused, refusedJSON{g, err.Error()})
		case err != nil:
			return nil, nil, err
		}
	}
	return moved, refused, nil
}

// taker turns a selector into machines and takes them away.
func taker(w *whatif.World, take func(...machine.ID) ([]task.ID, error)) func(string) ([]state.Slot, error) {
	return func(selector string) ([]state.Slot, error) {
		ids, err := w.Machines(selector)
		if err != nil {
			return nil, err
		}
		gone, err := take(ids...)
		return whatif.Slots(gone), err
	}
}

// maxAdd bounds the machines that are added by number.
const maxAdd = 200_000

func add(w *whatif.World, what string, note func(string)) error {
	if n, err := strconv.Atoi(what); err == nil {
		if n < 1 || n > maxAdd {
			return fault.Invalid.Errorf("--add %d; want 1 to %d machines, or a file of machines", n, maxAdd)
		}
		return w.Add(n)
	}
	machines, err := readMachines(what, note)
	if err != nil {
		return err
	}
	if err = w.AddMachines(machines); err != nil {
		return fault.Invalid.Errorf("%s: %w", what, err)
	}
	return nil
}

func grow(w *whatif.World, what string) error {
	i := strings.LastIndexByte(what, '=')
	if i < 0 {
		return fault.Invalid.Errorf("--grow %.100q; want JOB=INSTANCES, such as www-data/prod/hello=500", what)
	}
	n, err := strconv.ParseInt(what[i+1:], 10, 32)
	if err != nil || n < 1 || n > job.MaxInstances {
		return fault.Invalid.Errorf("--grow %.100q: instances are %.20q; want 1 to %d", what, what[i+1:], job.MaxInstances)
	}
	key := job.Key(what[:i])
	switch name, rest, _ := strings.Cut(string(key), "/"); strings.Count(string(key), "/") {
	case 0:
		key = whatif.KeyOf(string(key))
	case 3: // with the cluster before it
		if c := w.Snapshot().Cluster.Name; name != c {
			return fault.Invalid.Errorf("--grow %.100q is of cluster %.60s; the state is of cluster %s", what, name, c)
		}
		key = job.Key(rest)
	}
	return w.Grow(key, int32(n))
}

type levelJSON struct {
	Machines  int                `json:"machines"`
	Tasks     int                `json:"tasks"`
	Placed    int                `json:"placed"`
	Waiting   map[string]int     `json:"waiting"`
	Allocated map[string]float64 `json:"allocated"` // percent of the machines that may take tasks
}

func levelOf(l whatif.Level) levelJSON {
	v := levelJSON{l.Machines, l.Tasks, l.Placed, whatif.Waiting(l.Waits), map[string]float64{}}
	for _, m := range unit.Measures() {
		if l.Has.Of(m) > 0 {
			v.Allocated[m.String()] = float64(int64(l.Share(m)*100+0.5)) / 100
		}
	}
	return v
}

type changeJSON struct {
	Before    levelJSON  `json:"before"`
	After     levelJSON  `json:"after"`
	Displaced int        `json:"displaced"` // tasks that lost their machine
	Moved     int        `json:"moved"`     // of them, those that found another
	Waits     []waitJSON `json:"waits"`     // after
	Stopped   []stopJSON `json:"stopped"`   // to make room

	Refused []refusedJSON `json:"refused,omitempty"` // growth that a quota forbids; it is not made
}

type refusedJSON struct {
	Grow   string `json:"grow"`
	Reason string `json:"reason"`
}

type waitJSON struct {
	Job    string `json:"job"`
	Tasks  int    `json:"tasks"`
	Reason string `json:"reason"`
	Text   string `json:"text"`
}

type stopJSON struct {
	Task   string `json:"id"`
	Tier   string `json:"tier"`
	Reason string `json:"reason"`
}

// maxWaits bounds the waiting jobs that are told one by one.
const maxWaits = 1000

func waitsOf(w sched.Waits) []waitJSON {
	out := []waitJSON{}
	for _, g := range w.Groups[:min(len(w.Groups), maxWaits)] {
		out = append(out, waitJSON{string(g.Job), g.Tasks, whatif.ReasonOf(g), g.Text})
	}
	return out
}

func changeTable(w io.Writer, v changeJSON, waits sched.Waits) {
	const most = 20
	for _, r := range v.Refused {
		_, _ = fmt.Fprintf(w, "--grow %s is refused: %s\n", r.Grow, r.Reason)
	}
	row := func(name string, f func(levelJSON) string) {
		_, _ = fmt.Fprintf(w, "%-10s  %10s  %10s\n", name, f(v.Before), f(v.After))
	}
	_, _ = fmt.Fprintf(w, "%-10s  %10s  %10s\n", "", "BEFORE", "AFTER")
	row("machines", func(l levelJSON) string { return fmt.Sprint(l.Machines) })
	row("tasks", func(l levelJSON) string { return fmt.Sprint(l.Tasks) })
	row("placed", func(l levelJSON) string { return fmt.Sprint(l.Placed) })
	row("waiting", func(l levelJSON) string { return fmt.Sprint(l.Tasks - l.Placed) })
	for _, m := range unit.Measures() {
		if _, before := v.Before.Allocated[m.String()]; before {
			row(m.String(), func(l levelJSON) string { return fmt.Sprintf("%.1f %%", l.Allocated[m.String()]) })
		}
	}
	if v.Displaced > 0 {
		_, _ = fmt.Fprintf(w, "%d tasks lose their machine, %d of them find another\n", v.Displaced, v.Moved)
	}
	for i, s := range v.Stopped {
		if i == most {
			_, _ = fmt.Fprintf(w, "  ... and %d more\n", len(v.Stopped)-most)
			break
		}
		_, _ = fmt.Fprintf(w, "stopped to make room: %s (%s): %s\n", s.Task, s.Tier, s.Reason)
	}
	waitTable(w, v.After.Waiting, waits)
}
