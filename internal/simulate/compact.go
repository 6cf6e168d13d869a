package simulate

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/covey-platform/covey/internal/cli"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/whatif"
)

// compact finds how few machines would hold the load.
func compact(ctx context.Context, f cli.SimulateFlags) (cli.Simulated, error) {
	machines, jobs, err := cellOf(f)
	if err != nil {
		return cli.Simulated{}, err
	}
	index, err := indexer(f)
	if err != nil {
		return cli.Simulated{}, err
	}
	trials := make([]whatif.Trial, f.Trials)
	next := make(chan int, f.Trials)
	for i := range trials {
		next <- i
	}
	close(next)
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), f.Trials) {
		g.Go(func() error { // each with a cell of its own, which one goroutine may use
			cell, failed := whatif.NewCell(machines, jobs, index)
			for i := range next {
				if failed == nil {
					failed = ctx.Err()
				}
				if failed != nil {
					return failed
				}
				trials[i], failed = cell.Try(f.Seed + uint64(i))
			}
			return failed
		})
	}
	if err = g.Wait(); err != nil {
		return cli.Simulated{}, err
	}
	v := compactionOf(len(machines), trials)
	if f.Kept != "" {
		mid := whatif.Middle(trials)
		if err = cli.WriteWhole(f.Kept, readable, func(w io.Writer) error { return unwritten(whatif.WriteMachines(w, mid.Kept)) }); err != nil {
			return cli.Simulated{}, err
		}
		f.Note(fmt.Sprintf("%s has the %d machines of the trial with seed %d", f.Kept, mid.Machines, mid.Seed))
	}
	return cli.Simulated{JSON: v, Table: func(w io.Writer) { compactTable(w, v) }}, nil
}

// cellOf returns the machines and jobs that were asked about.
func cellOf(f cli.SimulateFlags) ([]machine.Machine, []job.Job, error) {
	if f.State != "" {
		s, err := readState(f.State)
		if err != nil {
			return nil, nil, err
		}
		return whatif.CellOf(s)
	}
	machines, asks, err := load(f)
	jobs := make([]job.Job, 0, len(asks))
	for _, a := range asks {
		jobs = append(jobs, a.Job)
	}
	return machines, jobs, err
}

type trialJSON struct {
	Seed     uint64  `json:"seed"`
	Machines int     `json:"machines"`
	Bound    int     `json:"bound"`
	Over     float64 `json:"over_percent"`
	Lacks    string  `json:"lacks"` // what runs out with fewer
}

type compactJSON struct {
	Machines int         `json:"machines"` // of the cell
	P90      int         `json:"p90"`      // that nine of ten trials do not exceed
	Bound    int         `json:"bound"`    // of that trial
	Over     float64     `json:"over_percent"`
	Trials   []trialJSON `json:"trials"`
}

func compactionOf(machines int, trials []whatif.Trial) compactJSON {
	at := whatif.Percentile90(trials)
	v := compactJSON{Machines: machines, P90: at.Machines, Bound: at.Bound, Over: at.Over()}
	for _, t := range trials {
		v.Trials = append(v.Trials, trialJSON{t.Seed, t.Machines, t.Bound, t.Over(), t.Lacks})
	}
	return v
}

func compactTable(w io.Writer, v compactJSON) {
	_, _ = fmt.Fprintf(w, "%-6s  %8s  %8s  %8s  %s\n", "SEED", "MACHINES", "BOUND", "OVER", "WITH FEWER THERE IS TOO LITTLE")
	for _, t := range v.Trials {
		_, _ = fmt.Fprintf(w, "%-6d  %8d  %8d  %6.2f %%  %s\n", t.Seed, t.Machines, t.Bound, t.Over, t.Lacks)
	}
	_, _ = fmt.Fprintf(w, "of %d machines, %d hold the load in nine of ten trials: %.2f %% over the %d that have as much as it asks for\n",
		v.Machines, v.P90, v.Over, v.Bound)
}
