// Package workload reads sets of machines and jobs, and measures schedulers
// that place them. It knows nothing of Covey: what Covey's rivals are given,
// and how they are timed, shares no code with Covey itself.
package workload

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A Machine is one row of a file of machines.
type Machine struct {
	ID       string
	CPUMilli int64
	MemMiB   int64
	GPU      int64 // whole GPUs
	NetMbps  int64
	Rack     string
	Zone     string
	Gen      string
}

// A Job is one row of a file of jobs. Its tasks are alike, and what it says of
// resources is for each of them.
type Job struct {
	ID         string
	Prio       int64
	Prod       bool // tier preferred; else preemptible
	Count      int
	CPUMilli   int64
	MemMiB     int64
	GPU        int64
	NetMbps    int64
	Gen        string // the attribute that its machines must have; empty when any will do
	MaxPerHost int    // tasks of this job on one machine; 0 without a limit
}

// Task is the name of one task of the job in a file of placements.
func (j Job) Task(instance int) string {
	return j.ID + "/" + strconv.Itoa(instance)
}

var (
	machineColumns = []string{"id", "cpu_milli", "mem_mib", "gpu", "net_mbps", "rack", "zone", "gen"}
	jobColumns     = []string{"id", "prio", "prod", "count", "cpu_milli", "mem_mib", "gpu", "net_mbps", "gen", "max_per_host"}
)

// most bounds every number in a file, so that sums of them stay in an int64.
const most = 1 << 40

// ReadMachines reads a file of machines, plain or compressed with gzip. Errors
// name the file and the line.
func ReadMachines(name string) ([]Machine, error) {
	var machines []Machine
	err := readRows(name, machineColumns, func(r *row) {
		machines = append(machines, Machine{
			ID: r.name("id"), CPUMilli: r.number("cpu_milli"), MemMiB: r.number("mem_mib"),
			GPU: r.number("gpu"), NetMbps: r.number("net_mbps"),
			Rack: r.text("rack"), Zone: r.text("zone"), Gen: r.text("gen"),
		})
	})
	return machines, err
}

// ReadJobs reads a file of jobs, plain or compressed with gzip, in its order.
// Errors name the file and the line.
func ReadJobs(name string) ([]Job, error) {
	var jobs []Job
	err := readRows(name, jobColumns, func(r *row) {
		j := Job{
			ID: r.name("id"), Prio: r.number("prio"), Prod: r.number("prod") == 1, Count: int(r.number("count")),
			CPUMilli: r.number("cpu_milli"), MemMiB: r.number("mem_mib"), GPU: r.number("gpu"),
			NetMbps: r.number("net_mbps"), Gen: r.text("gen"), MaxPerHost: int(r.number("max_per_host")),
		}
		if j.Gen == "-" {
			j.Gen = ""
		}
		jobs = append(jobs, j)
	})
	return jobs, err
}

// Tasks counts the tasks of all jobs.
func Tasks(jobs []Job) int {
	n := 0
	for _, j := range jobs {
		n += j.Count
	}
	return n
}

// Cut returns the jobs that hold the first n tasks; the last of them may have
// lost some of its own.
func Cut(jobs []Job, n int) []Job {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		if jobs[i].Count >= n {
			jobs[i].Count = n
			return jobs[:i+1]
		}
		n -= jobs[i].Count
	}
	return jobs
}

// WriteJobs writes what ReadJobs reads, uncompressed.
func WriteJobs(w io.Writer, jobs []Job) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, strings.Join(jobColumns, ","))
	for _, j := range jobs {
		prod, gen := 0, "-"
		if j.Prod {
			prod = 1
		}
		if j.Gen != "" {
			gen = j.Gen
		}
		fmt.Fprintf(out, "%s,%d,%d,%d,%d,%d,%d,%d,%s,%d\n",
			j.ID, j.Prio, prod, j.Count, j.CPUMilli, j.MemMiB, j.GPU, j.NetMbps, gen, j.MaxPerHost)
	}
	return out.Flush()
}

// A row is one line under a header. The first thing that is wrong with it is
// kept in err, so that a reader of many columns asks once.
type row struct {
	columns []string
	fields  []string
	err     error
}

func (r *row) text(column string) string {
	return r.fields[slices.Index(r.columns, column)]
}

func (r *row) name(column string) string {
	s := r.text(column)
	if s == "" && r.err == nil {
		r.err = fmt.Errorf("%s is empty; want a name", column)
	}
	return s
}

func (r *row) number(column string) int64 {
	s := r.text(column)
	n, err := strconv.ParseInt(s, 10, 64)
	if (err != nil || n < 0 || n > most) && r.err == nil {
		r.err = fmt.Errorf("%s is %q; want a whole number from 0 to %d", column, s, int64(most))
	}
	return n
}

// readRows calls each for every row, and refuses a header that differs from
// columns and an id, the first column, that comes twice.
func readRows(name string, columns []string, each func(*row)) error {
	f, err := os.Open(name) //nolint:gosec // the user's own file
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was read
	plain, err := decompress(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	in := csv.NewReader(plain)
	in.ReuseRecord = true
	in.FieldsPerRecord = len(columns)
	switch header, err := in.Read(); {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s is empty; want the header %s", name, strings.Join(columns, ","))
	case err != nil && !errors.Is(err, csv.ErrFieldCount):
		return fmt.Errorf("%s: %w", name, err)
	case !slices.Equal(header, columns):
		return fmt.Errorf("%s:1: the header is %s; want %s", name, strings.Join(header, ","), strings.Join(columns, ","))
	}
	seen := map[string]int{}
	for {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		line, _ := in.FieldPos(0)
		r := &row{columns: columns, fields: slices.Clone(fields)}
		if each(r); r.err != nil {
			return fmt.Errorf("%s:%d: %w", name, line, r.err)
		}
		if first, ok := seen[r.fields[0]]; ok {
			return fmt.Errorf("%s:%d: %s stands in line %d already", name, line, r.fields[0], first)
		}
		seen[r.fields[0]] = line
	}
}

// decompress looks at the first bytes rather than at the name.
func decompress(r io.Reader) (io.Reader, error) {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		return gzip.NewReader(in)
	}
	return in, nil
}
