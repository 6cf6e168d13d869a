package workload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"
)

// A Peer is a scheduler with a number of machines, and room for jobs on them.
type Peer interface {
	// Offer hands a job over as its user would: what it costs is not counted.
	Offer(Job) error
	// Place decides where the tasks of the job that was offered last go, as many
	// as fit, and returns how long each of them took, where that can be told.
	// When ctx ends it returns early, without an error.
	Place(ctx context.Context) ([]time.Duration, error)
	// Where writes down what was decided, and names the machine of every task
	// of that job that Place tried, or nothing where a task found none. Its cost
	// is not counted.
	Where() ([]string, error)
}

// A Report says what a run was and what it took. Only time inside of
// [Peer.Place] counts.
type Report struct {
	System    string  `json:"system"`
	Settings  string  `json:"settings"` // how the system was told to work
	Machines  int     `json:"machines"`
	Tasks     int     `json:"tasks"`
	Tried     int     `json:"tried"` // less than tasks when the time was up
	Placed    int     `json:"placed"`
	Seconds   float64 `json:"seconds"`
	Task      Latency `json:"task"`
	Job       Latency `json:"job"`
	HeapBytes uint64  `json:"heap_bytes"` // alive at the end, all of it still placed
}

// Latency summarises how long single calls took, in milliseconds. It is empty
// when the system does not tell.
type Latency struct {
	P50ms float64 `json:"p50_ms"`
	P99ms float64 `json:"p99_ms"`
	MaxMs float64 `json:"max_ms"`
}

// Summarise sorts its argument.
func Summarise(d []time.Duration) Latency {
	if len(d) == 0 {
		return Latency{}
	}
	slices.Sort(d)
	at := func(q float64) float64 {
		return float64(d[int(q*float64(len(d)-1)+0.5)].Microseconds()) / 1000
	}
	return Latency{P50ms: at(0.50), P99ms: at(0.99), MaxMs: at(1)}
}

// Drive gives a peer the jobs one after another, in their order, and writes
// where each task went. After limit of placing time it tries no further.
func Drive(peer Peer, jobs []Job, limit time.Duration, placements io.Writer) (Report, error) {
	out := bufio.NewWriter(placements)
	fmt.Fprintln(out, "task,machine")
	report := Report{Tasks: Tasks(jobs)}
	var spent time.Duration
	var tasks, perJob []time.Duration
	for _, j := range jobs {
		if spent >= limit {
			break
		}
		if err := peer.Offer(j); err != nil {
			return report, fmt.Errorf("job %s was not accepted: %w", j.ID, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit-spent)
		start := time.Now()
		each, err := peer.Place(ctx)
		took := time.Since(start)
		cancel()
		if err != nil {
			return report, fmt.Errorf("placing job %s: %w", j.ID, err)
		}
		spent += took
		tasks, perJob = append(tasks, each...), append(perJob, took)
		where, err := peer.Where()
		if err != nil {
			return report, fmt.Errorf("where is job %s: %w", j.ID, err)
		}
		for i, machine := range where {
			if machine != "" {
				fmt.Fprintf(out, "%s,%s\n", j.Task(i), machine)
				report.Placed++
			}
		}
		report.Tried += len(where)
	}
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	runtime.KeepAlive(peer)
	report.HeapBytes = mem.HeapAlloc
	report.Seconds = spent.Seconds()
	report.Task, report.Job = Summarise(tasks), Summarise(perJob)
	return report, out.Flush()
}

// Flags are those that every peer's program has.
type Flags struct {
	Machines, Jobs, Placements string
	Limit                      time.Duration
}

// AddTo declares the flags.
func (f *Flags) AddTo(set *flag.FlagSet) {
	set.StringVar(&f.Machines, "machines", "", "`file` of machines")
	set.StringVar(&f.Jobs, "jobs", "", "`file` of jobs")
	set.StringVar(&f.Placements, "placements", "", "`file` to write, one line task,machine for each placed task")
	set.DurationVar(&f.Limit, "limit", time.Hour, "placing time after which no further task is tried")
}

// Run does what the flags say with a peer that start makes, and writes its
// report as JSON.
func (f *Flags) Run(w io.Writer, system, settings string, start func([]Machine) (Peer, error)) error {
	if f.Machines == "" || f.Jobs == "" || f.Placements == "" {
		return errors.New("want -machines, -jobs and -placements, a file each")
	}
	machines, err := ReadMachines(f.Machines)
	if err != nil {
		return err
	}
	jobs, err := ReadJobs(f.Jobs)
	if err != nil {
		return err
	}
	out, err := os.Create(f.Placements)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // closed below where all went well
	peer, err := start(machines)
	if err != nil {
		return fmt.Errorf("starting %s: %w", system, err)
	}
	report, err := Drive(peer, jobs, f.Limit, out)
	if err != nil {
		return err
	}
	report.System, report.Settings, report.Machines = system, settings, len(machines)
	return errors.Join(json.NewEncoder(w).Encode(report), out.Close())
}
