package whatif

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/name"
	"github.com/covey-platform/covey/internal/unit"
)

// Bounds of what is read. They keep a wrong file from taking all memory.
const (
	maxLine     = 64 << 10  // bytes of a line
	maxMachines = 200_000   // of one file
	maxTasks    = 5_000_000 // of one file
	maxCount    = 1_000_000 // tasks of one job: a line of a trace may stand for more than one job of a cluster
	maxAmount   = 1 << 40   // of any measure, in the unit of its column
	maxTotal    = 1 << 60   // of any measure, of all lines together, so that no sum passes what can be counted
	maxGPUs     = 1024      // of one machine, each of which is kept apart
)

// add adds what n of something have, or ask for, to what the lines before said.
func (t *Table) add(sum *unit.Resources, n int64, each unit.Resources) error {
	for _, m := range unit.Measures() {
		if each.Of(m) > (maxTotal-sum.Of(m))/n {
			return t.Errorf("with this line the file has more %v than can be counted, all lines together; want less", m)
		}
	}
	*sum = sum.Add(each.Times(n))
	return nil
}

// countable reports the measure of which n of something have too much together.
func countable(n int64, each unit.Resources) error {
	for _, m := range unit.Measures() {
		if each.Of(m) > maxTotal/n {
			return fmt.Errorf("more %v together than can be counted", m)
		}
	}
	return nil
}

// role owns the jobs of files: they have an id and no key.
const role = "trace"

// KeyOf returns the key under which the job of a file is known.
func KeyOf(id string) job.Key { return job.NewKey(role, "prod", id) }

// IDOf returns the id that a job has in a file, or the key of any other job.
func IDOf(k job.Key) string {
	if k == KeyOf(k.Name()) {
		return k.Name()
	}
	return string(k)
}

// A Table is a CSV file whose first line names its columns. Its errors name
// file and line.
type Table struct {
	file    string
	lines   *bufio.Scanner
	line    int
	columns []string
	at      map[string]int // column -> field
	fields  []string
}

// Unpack returns the text of a file that may be packed by gzip, which its
// first bytes tell; one whose name ends in .gz must be.
func Unpack(file string, r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(2)
	packed := bytes.Equal(magic, []byte{0x1f, 0x8b})
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fault.Invalid.Errorf("%s: %w", file, err)
	case !packed && strings.HasSuffix(file, ".gz"):
		return nil, fault.Invalid.Errorf("%s: it is not packed by gzip, as its name says; give it another name, or pack it", file)
	case !packed:
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, fault.Invalid.Errorf("%s: it begins like gzip and is not: %w", file, err)
	}
	return z, nil
}

// ReadTable reads the first line of a file, which must name the columns in
// want. Others may follow; see [Table.Ignored].
func ReadTable(file string, r io.Reader, want ...string) (*Table, error) {
	r, err := Unpack(file, r)
	if err != nil {
		return nil, err
	}
	text := bufio.NewReader(r)
	if mark, _ := text.Peek(3); string(mark) == "\ufeff" { // as some spreadsheets begin a file
		_, _ = text.Discard(3)
	}
	t := &Table{file: file, lines: bufio.NewScanner(text), at: map[string]int{}}
	t.lines.Buffer(make([]byte, 0, 4096), maxLine)
	if ok, err := t.Next(); !ok {
		if err == nil {
			err = fault.Invalid.Errorf("%s: it is empty; want a first line that names the columns %s", file, strings.Join(want, ","))
		}
		return nil, err
	}
	t.columns = t.fields
	for i, c := range t.columns {
		c = strings.TrimSpace(c)
		if _, twice := t.at[c]; twice {
			return nil, t.Errorf("column %.40q stands there twice", c)
		}
		t.columns[i], t.at[c] = c, i
	}
	for _, c := range want {
		if _, ok := t.at[c]; !ok {
			return nil, t.Errorf("column %s is missing; want %s, and it names %.200s", c, strings.Join(want, ","), strings.Join(t.columns, ","))
		}
	}
	return t, nil
}

// Next reads one line. It is false at the end of the file.
func (t *Table) Next() (bool, error) {
	for t.lines.Scan() {
		t.line++
		if err := t.lines.Err(); err != nil { // this is what came before it
			return false, t.broken(err)
		}
		text := t.lines.Text()
		if strings.TrimSpace(text) == "" {
			continue
		}
		t.fields = strings.Split(text, ",")
		if strings.Contains(text, `"`) {
			var err error
			if t.fields, err = csv.NewReader(strings.NewReader(text)).Read(); err != nil {
				return false, t.Errorf("it is no line of a CSV file: %w", err)
			}
		}
		if t.columns != nil && len(t.fields) != len(t.columns) {
			return false, t.Errorf("it has %d fields; want %d, as the first line has", len(t.fields), len(t.columns))
		}
		return true, nil
	}
	t.line++
	if err := t.lines.Err(); err != nil {
		return false, t.broken(err)
	}
	return false, nil
}

// broken says why a file cannot be read on.
func (t *Table) broken(err error) error {
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return t.Errorf("the line is longer than %d bytes", maxLine)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return t.Errorf("the file is cut short: %w", err)
	default:
		return t.Errorf("it cannot be read: %w", err)
	}
}

// Ignored returns the columns that are none of known.
func (t *Table) Ignored(known ...string) []string {
	var out []string
	for _, c := range t.columns {
		if !slices.Contains(known, c) {
			out = append(out, c)
		}
	}
	return out
}

// Errorf returns an error that names file and line.
func (t *Table) Errorf(format string, args ...any) error {
	return fault.Invalid.Errorf("%s:%d: "+format, append([]any{t.file, t.line}, args...)...)
}

// Text returns a field, "" if there is no such column.
func (t *Table) Text(column string) string {
	i, ok := t.at[column]
	if !ok {
		return ""
	}
	return strings.TrimSpace(t.fields[i])
}

// Line returns the number of the line that was read last, from 1.
func (t *Table) Line() int { return t.line }

// Number reads a field as a whole number from least to most; 0 if there is no
// such column.
func (t *Table) Number(column string, least, most int64) (int64, error) {
	if _, ok := t.at[column]; !ok {
		return 0, nil
	}
	n, err := strconv.ParseInt(t.Text(column), 10, 64)
	if err != nil || n < least || n > most {
		return 0, t.Errorf("%s is %.40q; want a whole number from %d to %d", column, t.Text(column), least, most)
	}
	return n, nil
}

// Milli reads a field as a number with up to three decimals, in thousandths.
func (t *Table) Milli(column string, most int64) (int64, error) {
	s := t.Text(column)
	whole, part, dotted := strings.Cut(s, ".")
	if dotted {
		digits := part != "" && len(part) <= 3 && strings.Trim(part, "0123456789") == ""
		if !digits {
			return 0, t.Errorf("%s is %.40q; want a number from 0 to %d with at most three decimals", column, s, most)
		}
		part += strings.Repeat("0", 3-len(part))
	}
	n, err := strconv.ParseUint(whole, 10, 62)
	if err != nil || int64(n) > most {
		return 0, t.Errorf("%s is %.40q; want a number from 0 to %d", column, s, most)
	}
	rest, _ := strconv.ParseInt(part, 10, 64)
	return int64(n)*1000 + rest, nil
}

var (
	machineColumns = []string{"id", "cpu_milli", "mem_mib", "gpu", "net_mbps", "rack", "zone", "gen"}
	jobColumns     = []string{"id", "prio", "prod", "count", "cpu_milli", "mem_mib", "gpu", "net_mbps", "gen", "max_per_host"}
	timeColumns    = []string{"arrive_s", "run_s"}
)

// Columns that a file may have beside the others: both files, that of jobs, and
// that of machines.
const (
	disk      = "disk_mib"
	placement = "placement"
	mode      = "mode"
	avoid     = "avoid"
)

// ReadMachines reads a file of machines. Notes say what of it is ignored.
func ReadMachines(file string, r io.Reader) (all []machine.Machine, notes []string, err error) {
	t, err := ReadTable(file, r, machineColumns...)
	if err != nil {
		return nil, nil, err
	}
	notes = t.note(append([]string{disk, mode, avoid}, machineColumns...)...)
	seen, sum := map[machine.ID]int{}, unit.Resources{}
	for {
		ok, err := t.Next()
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			break
		}
		m, err := t.machine()
		if err != nil {
			return nil, nil, err
		}
		if first, twice := seen[m.ID]; twice {
			return nil, nil, t.Errorf("machine %s stands there twice, first in line %d", m.ID, first)
		}
		if len(all) == maxMachines {
			return nil, nil, t.Errorf("it has more than %d machines", maxMachines)
		}
		if err = t.add(&sum, 1, m.Capacity); err != nil {
			return nil, nil, err
		}
		seen[m.ID] = t.line
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, nil, fault.Invalid.Errorf("%s: it has no machine", file)
	}
	return all, notes, nil
}

func (t *Table) note(known ...string) []string {
	ignored := t.Ignored(known...)
	if len(ignored) == 0 {
		return nil
	}
	return []string{t.file + ": columns that are not known are not used: " + strings.Join(ignored, ",")}
}

func (t *Table) machine() (machine.Machine, error) {
	id := t.Text("id")
	if err := name.Valid("machine id", id); err != nil {
		return machine.Machine{}, t.Errorf("%w", err)
	}
	gpu, err := t.Number("gpu", 0, maxGPUs)
	if err != nil {
		return machine.Machine{}, err
	}
	r, err := t.amounts()
	if err != nil {
		return machine.Machine{}, err
	}
	r.GPU = gpu * 1000
	m := machine.Machine{ID: machine.ID(id), Host: id, Up: true, Capacity: r, Ports: machine.PortRange{From: 31000, To: 31999}}
	if m.Mode, err = t.mode(); err != nil {
		return machine.Machine{}, err
	}
	shunned, err := t.Number(avoid, 0, 1)
	if err != nil {
		return machine.Machine{}, err
	}
	if shunned == 1 {
		m.Avoid = "the file says so"
	}
	for _, a := range []machine.Attribute{{Name: "gen", Value: t.Text("gen")}, {Name: "host", Value: id}, {Name: "rack", Value: t.Text("rack")}, {Name: "zone", Value: t.Text("zone")}} {
		if a.Value != "" && a.Value != "-" {
			m.Attributes = append(m.Attributes, a)
		}
	}
	return m, nil
}

// mode reads what an operator wants of a machine.
func (t *Table) mode() (machine.Mode, error) {
	text := t.Text(mode)
	if text == "" || text == "-" {
		return machine.None, nil
	}
	modes := []machine.Mode{machine.None, machine.Scheduled, machine.Draining, machine.Drained}
	names := make([]string, 0, len(modes))
	for _, m := range modes {
		if names = append(names, m.String()); m.String() == strings.ToUpper(text) {
			return m, nil
		}
	}
	return machine.None, t.Errorf("%s is %.40q; want NONE, SCHEDULED, DRAINING or DRAINED%s", mode, text, meant(strings.ToUpper(text), names))
}

// amounts reads the measures that machines and tasks share.
func (t *Table) amounts() (r unit.Resources, err error) {
	var ram, space, net int64
	for _, f := range []struct {
		column string
		most   int64
		into   *int64
	}{{"cpu_milli", maxAmount, &r.CPU}, {"mem_mib", maxAmount, &ram}, {disk, maxAmount, &space}, {"net_mbps", maxAmount, &net}} {
		if *f.into, err = t.Number(f.column, 0, f.most); err != nil {
			return r, err
		}
	}
	r.RAM, r.Disk, r.Net = ram*unit.MiB, space*unit.MiB, net*1_000_000
	return r, nil
}

// An Ask is one job of a file: when it comes, and for how long its tasks run.
type Ask struct {
	Job    job.Job
	Line   int
	Arrive int64 // seconds after the beginning
	Run    int64 // seconds; 0: for ever
}

// ReadJobs reads a file of jobs, in order of arrival. Notes say what of it is
// ignored.
func ReadJobs(file string, r io.Reader) (all []Ask, notes []string, err error) {
	t, err := ReadTable(file, r, jobColumns...)
	if err != nil {
		return nil, nil, err
	}
	notes = t.note(slices.Concat([]string{disk, placement}, jobColumns, timeColumns)...)
	seen, tasks, sum := map[job.Key]int{}, 0, unit.Resources{}
	for {
		ok, err := t.Next()
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			break
		}
		a, err := t.ask()
		if err != nil {
			return nil, nil, err
		}
		if first, twice := seen[a.Job.Key]; twice {
			return nil, nil, t.Errorf("job %s stands there twice, first in line %d", a.Job.Key.Name(), first)
		}
		if tasks += a.Job.Instances.Len(); tasks > maxTasks {
			return nil, nil, t.Errorf("with this job the file has %d tasks; want at most %d", tasks, maxTasks)
		}
		if err = t.add(&sum, int64(a.Job.Instances.Len()), a.Job.Config.Task.Resources); err != nil {
			return nil, nil, err
		}
		seen[a.Job.Key] = t.line
		all = append(all, a)
	}
	if len(all) == 0 {
		return nil, nil, fault.Invalid.Errorf("%s: it has no job", file)
	}
	return all, notes, nil
}

func (t *Table) ask() (Ask, error) {
	id := t.Text("id")
	if err := name.Valid("job id", id); err != nil {
		return Ask{}, t.Errorf("%w", err)
	}
	a := Ask{Line: t.line}
	var prio, prod, count, each int64
	for _, f := range []struct {
		column      string
		least, most int64
		into        *int64
	}{
		{"prio", 0, 1 << 30, &prio},
		{"prod", 0, 1, &prod},
		{"count", 1, maxCount, &count},
		{"max_per_host", 0, maxCount, &each},
		{"arrive_s", 0, 1 << 32, &a.Arrive},
		{"run_s", 0, 1 << 32, &a.Run},
	} {
		var err error
		if *f.into, err = t.Number(f.column, f.least, f.most); err != nil {
			return Ask{}, err
		}
	}
	need, err := t.amounts()
	if err != nil {
		return Ask{}, err
	}
	if need.GPU, err = t.Milli("gpu", 1000); err != nil {
		return Ask{}, err
	}
	if need.GPU > 1000 && need.GPU%1000 != 0 {
		return Ask{}, t.Errorf("gpu is %s; want a share below 1, or whole GPUs", t.Text("gpu"))
	}
	c := job.Config{Service: a.Run == 0, Tier: job.Preemptible, Priority: int32(prio), MaxTaskFailures: 1}
	if prod == 1 {
		c.Tier = job.Preferred
	}
	switch at := t.Text(placement); at {
	case "", "-", job.BestFit:
	case job.Spread:
		c.Placement = at
	default:
		return Ask{}, t.Errorf("%s is %.40q; want %s or %s%s", placement, at, job.BestFit, job.Spread, meant(at, []string{job.BestFit, job.Spread}))
	}
	if gen := t.Text("gen"); gen != "" && gen != "-" {
		c.Constraints = append(c.Constraints, job.Constraint{Attribute: "gen", Values: []string{gen}})
	}
	if each > 0 {
		c.Constraints = append(c.Constraints, job.Constraint{Attribute: "host", Limit: int32(each)})
	}
	c.Task = job.Task{Name: id, Resources: need, MaxFailures: 1, Processes: []job.Process{{Name: id, Cmdline: "true"}}}
	a.Job = job.Job{Key: KeyOf(id), Instances: job.FirstN(int32(count)), Config: c}
	return a, nil
}

// meant returns what a misspelt word stands for, as a question.
func meant(wrong string, words []string) string {
	if near := name.Nearest(wrong, words); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}
