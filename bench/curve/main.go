// Command curve makes a page and a plot of what `make bench-scale` measured:
// how the control plane's costs grow with the number of machines.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// figures are those of one measurement, as `-json` writes them.
type figures struct {
	Agents          int     `json:"agents"`
	Tasks           int     `json:"tasks"`
	Shared          bool    `json:"shared_connections"`
	TLS             bool    `json:"tls"`
	Cores           int     `json:"cores"`
	Load            string  `json:"load_average"`
	JoinSeconds     float64 `json:"join_seconds"`
	HeapPerMachine  float64 `json:"bytes_per_machine"`
	IdleCores       float64 `json:"idle_cores"`
	IdleCommits     float64 `json:"idle_commits_per_second"`
	RunSeconds      float64 `json:"run_seconds"`
	RunCPU          float64 `json:"run_cpu_seconds"`
	RSS             int64   `json:"rss_bytes"`
	HeapPerTask     float64 `json:"bytes_per_task"`
	DiskPerTask     float64 `json:"disk_bytes_per_task"`
	FullCores       float64 `json:"full_cores"`
	ChurnCores      float64 `json:"churn_cores"`
	Replaced        float64 `json:"replaced_per_second"`
	DiskPerReplaced float64 `json:"disk_bytes_per_replaced_task"`
	ReadySeconds    float64 `json:"ready_seconds"`
	PlacedSeconds   float64 `json:"placed_seconds"`
	BackSeconds     float64 `json:"back_seconds"`
	Anew            int64   `json:"begun_anew"`
	Postgres        bool    `json:"postgres"`
	Servers         int     `json:"servers"`
	FollowerRSS     int64   `json:"follower_rss_bytes"`
}

// apart reports whether a measurement is not of one server on SQLite.
func (f figures) apart() bool { return f.Postgres || f.Servers > 1 }

// alike reports whether two measurements differ by nothing but their size.
func (f figures) alike(g figures) bool {
	return f.Shared == g.Shared && f.TLS == g.TLS && f.Tasks/f.Agents == g.Tasks/g.Agents
}

func main() {
	dir := flag.String("dir", ".", "directory for scale.md and scale.svg")
	command := flag.String("command", "", "how the figures were measured, for the page")
	flag.Parse()
	if err := run(*dir, *command, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "curve:", err)
		os.Exit(1)
	}
}

func run(dir, command string, files []string) error {
	var all []figures
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var some []figures
		if err := json.Unmarshal(data, &some); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, some...)
	}
	for _, f := range all {
		if f.Agents < 1 || f.Tasks < 1 {
			return fmt.Errorf("a measurement of %d agents and %d tasks; want some of each", f.Agents, f.Tasks)
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("no measurement; want the files that `go run ./scripts/scale -json FILE` wrote")
	}
	slices.SortStableFunc(all, func(a, b figures) int { return cmp.Or(a.Agents-b.Agents, a.Tasks-b.Tasks) })
	one, _ := split(all)
	if len(one) == 0 {
		return fmt.Errorf("no measurement of one server on SQLite; want some for the plot")
	}
	if err := os.WriteFile(filepath.Join(dir, "scale.md"), page(command, all), 0o644); err != nil {
		return err
	}
	image, err := plots(one)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "scale.svg"), image, 0o644)
}

// column is one measure of the table and, if it has a title, of the plot.
type column struct {
	head  string
	title string
	value func(figures) float64
	shown string
	// optional measures were taken only where they are not 0.
	optional bool
}

var columns = []column{
	{"tasks", "", func(f figures) float64 { return float64(f.Tasks) }, "%.0f", false},
	{"tasks/s", "", func(f figures) float64 { return float64(f.Tasks) / f.RunSeconds }, "%.0f", false},
	{"server's CPU, s for 1,000 tasks", "server's CPU, s for 1,000 tasks", func(f figures) float64 { return f.RunCPU * 1000 / float64(f.Tasks) }, "%.3f", false},
	{"KiB a machine", "memory, KiB a machine", func(f figures) float64 { return f.HeapPerMachine / 1024 }, "%.1f", false},
	{"B a task", "memory, B a task", func(f figures) float64 { return f.HeapPerTask }, "%.0f", false},
	{"RSS, MiB", "", func(f figures) float64 { return float64(f.RSS) / (1 << 20) }, "%.0f", false},
	{"cores at rest, empty", "", func(f figures) float64 { return f.IdleCores }, "%.3f", false},
	{"commits/s at rest", "", func(f figures) float64 { return f.IdleCommits }, "%.1f", false},
	{"cores at rest, full", "cores at rest, all tasks running", func(f figures) float64 { return f.FullCores }, "%.3f", false},
	{"replaced tasks/s", "", func(f figures) float64 { return f.Replaced }, "%.1f", true},
	{"cores then", "", func(f figures) float64 { return f.ChurnCores }, "%.3f", true},
	{"disk, B a new task", "", func(f figures) float64 { return f.DiskPerTask }, "%.0f", false},
	{"kill -9 to next placement, s", "", func(f figures) float64 { return f.PlacedSeconds }, "%.1f", true},
}

// show is the value for people; what was not measured is no nought.
func (c column) show(f figures) string {
	if c.optional && c.value(f) == 0 {
		return "–"
	}
	return fmt.Sprintf(c.shown, c.value(f))
}

func page(command string, all []figures) []byte {
	var b bytes.Buffer
	b.WriteString("# How the control plane grows\n\n")
	b.WriteString("A real `covey server` on SQLite with synchronous=FULL; agents simulated in a process of their own on the same machine, over the real protocol. They\n")
	b.WriteString("run nothing: a task runs as soon as an agent is told to run it. So these are figures of the control plane only. Rates by the wall are a lower bound where\n")
	b.WriteString("other work shares the cores: the load average stands beside them, and CPU time is steadier.\n\n")
	if command != "" {
		fmt.Fprintf(&b, "    %s\n\n", command)
	}
	b.WriteString("![costs by number of machines](scale.svg)\n\n")
	one, several := split(all)
	table(&b, columns, one)
	if len(several) > 0 {
		b.WriteString("\n## Several servers\n\nThe same on PostgreSQL, with all servers, the database and the agents on this one machine. The one that leads is killed with -9; another takes the\n")
		b.WriteString("lead when the lease of 3 s has run out. Then every agent is waited for, until as many tasks run as before, by their count and by the server's: none lost, none doubled.\n\n")
		table(&b, slices.Concat(columns[:len(columns)-1], []column{
			{"RSS of one that follows, MiB", "", func(f figures) float64 { return float64(f.FollowerRSS) / (1 << 20) }, "%.0f", true},
			columns[len(columns)-1],
			{"from then until all agents are back, s", "", func(f figures) float64 { return f.BackSeconds }, "%.1f", true},
			{"tasks begun anew", "", func(f figures) float64 { return float64(f.Anew) }, "%.0f", false},
		}), several)
	}
	return b.Bytes()
}

// split parts measurements of one server on SQLite from all others.
func split(all []figures) (one, several []figures) {
	for _, f := range all {
		if f.apart() {
			several = append(several, f)
		} else {
			one = append(one, f)
		}
	}
	return one, several
}

func table(b *bytes.Buffer, columns []column, all []figures) {
	b.WriteString("| |")
	for _, f := range all {
		way := ""
		if f.Servers > 1 {
			way = fmt.Sprintf(", %d servers", f.Servers)
		}
		if f.Shared {
			way += ", shared connections"
		}
		if f.TLS {
			way += ", TLS"
		}
		fmt.Fprintf(b, " %d machines%s |", f.Agents, way)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(all)) + "\n")
	for _, c := range columns {
		fmt.Fprintf(b, "| %s |", c.head)
		for _, f := range all {
			b.WriteString(" " + c.show(f) + " |")
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "| load average on %d cores |", all[0].Cores)
	for _, f := range all {
		fmt.Fprintf(b, " %s |", f.Load)
	}
	b.WriteString("\n")
}

// plots draws every column that has a title, beside each other.
func plots(all []figures) ([]byte, error) {
	var row []*plot.Plot
	for _, c := range columns {
		if c.title == "" {
			continue
		}
		p := plot.New()
		p.Title.Text, p.X.Label.Text = c.title, "machines"
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, machines(all)
		p.Y.Min = 0
		var points plotter.XYs
		for _, f := range all {
			if f.alike(all[0]) {
				points = append(points, plotter.XY{X: float64(f.Agents), Y: c.value(f)})
			}
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color = color.RGBA{R: 0x1f, G: 0x4e, B: 0x9e, A: 0xff}
		line.Width = vg.Points(1.5)
		dots.Shape, dots.Color = draw.CircleGlyph{}, line.Color
		p.Add(plotter.NewGrid(), line, dots)
		p.Y.Max = max(p.Y.Max*1.1, 0.001)
		row = append(row, p)
	}
	grid := [][]*plot.Plot{row[:2], row[2:]}
	canvas := vgsvg.New(24*vg.Centimeter, 15*vg.Centimeter)
	tiles := draw.Tiles{Rows: len(grid), Cols: 2, PadX: vg.Millimeter * 6, PadY: vg.Millimeter * 6, PadRight: vg.Millimeter * 4, PadTop: vg.Millimeter * 2}
	for i, cells := range plot.Align(grid, tiles, draw.New(canvas)) {
		for j, cell := range cells {
			grid[i][j].Draw(cell)
		}
	}
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return b.Bytes(), err
}

// machines marks the numbers of machines that were measured.
type machines []figures

// Ticks implements [plot.Ticker].
func (m machines) Ticks(_, _ float64) []plot.Tick {
	var out []plot.Tick
	for _, f := range m {
		out = append(out, plot.Tick{Value: float64(f.Agents), Label: fmt.Sprint(f.Agents)})
	}
	return out
}
