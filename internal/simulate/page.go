package simulate

import (
	"cmp"
	_ "embed" // the page's frame
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/whatif"
)

// page is the frame of a report. It loads nothing from anywhere.
//
//go:embed page.html
var page string

// A plot is one chart over a common axis.
type plot struct {
	Title  string
	Labels []tick // of the axis to the right
	Rules  []tick // of the axis upwards
	Lines  []line
}

type tick struct {
	At    float64 // in the picture
	Label string
}

type line struct {
	Name, Class string
	Points      string  // of a polyline
	LabelY      float64 // beside its end
}

// The picture's measures, in its own units.
const (
	left, right, top, bottom = 56.0, 640.0, 10.0, 190.0
)

// series is one line of a plot.
type series struct {
	name, class string
	x, y        []float64
}

// newPlot draws lines from x 0 to most. log tells that x is drawn by its
// logarithm, from 1 on.
func newPlot(title, unit string, most float64, log bool, labels []tick, all []series) plot {
	p := plot{Title: title, Labels: labels}
	high := 0.0
	for _, s := range all {
		for _, y := range s.y {
			high = max(high, y)
		}
	}
	step := nice(high / 4)
	high = max(math.Ceil(high/step)*step, step)
	across := func(x float64) float64 {
		if log {
			return left + (right-left)*math.Log10(max(x, 1))/math.Log10(max(most, 10))
		}
		return left + (right-left)*x/max(most, 1)
	}
	up := func(y float64) float64 { return bottom - (bottom-top)*y/high }
	for y := 0.0; y <= high+step/2; y += step {
		p.Rules = append(p.Rules, tick{up(y), fmt.Sprintf("%g%s", math.Round(y*100)/100, unit)})
	}
	for i := range p.Labels {
		p.Labels[i].At = across(p.Labels[i].At)
	}
	for _, s := range all {
		var b strings.Builder
		l := line{Name: s.name, Class: s.class}
		for i := range s.x {
			l.LabelY = up(s.y[i])
			_, _ = fmt.Fprintf(&b, "%.1f,%.1f ", across(s.x[i]), l.LabelY)
		}
		l.Points = strings.TrimSpace(b.String())
		p.Lines = append(p.Lines, l)
	}
	apart(p.Lines)
	return p
}

// apart moves the names of lines that end close to each other, downwards and,
// at the bottom, upwards.
func apart(lines []line) {
	const least = 14
	order := make([]*line, 0, len(lines))
	for i := range lines {
		order = append(order, &lines[i])
	}
	slices.SortStableFunc(order, func(a, b *line) int { return cmp.Compare(a.LabelY, b.LabelY) })
	for i := 1; i < len(order); i++ {
		order[i].LabelY = max(order[i].LabelY, order[i-1].LabelY+least)
	}
	low := bottom + least/2
	for _, l := range slices.Backward(order) {
		l.LabelY = min(l.LabelY, low)
		low = l.LabelY - least
	}
}

// nice returns 1, 2, 2.5 or 5 times a power of ten, at least x.
func nice(x float64) float64 {
	if x <= 0 {
		return 1
	}
	pow := math.Pow(10, math.Floor(math.Log10(x)))
	for _, f := range []float64{1, 2, 2.5, 5, 10} {
		if f*pow >= x {
			return f * pow
		}
	}
	return 10 * pow
}

// writePage writes the report as a page.
func writePage(w io.Writer, v playJSON, h whatif.History) error {
	t, err := template.New("page").Funcs(template.FuncMap{"span": span}).Parse(page)
	if err != nil {
		return fault.Internal.Errorf("the page's frame: %w", err)
	}
	data := struct {
		playJSON
		Span     string
		Measures []measureRow
		Tiers    []tierRow
		Reasons  []reasonRow
		Plots    []plot
		Classes  []string
	}{playJSON: v, Classes: []string{"cpu", "ram", "gpu", "net", "disk"}, Span: span(float64(v.Until)), Plots: plots(v, h)}
	for _, m := range measuresOf(h) {
		data.Measures = append(data.Measures, measureRow{m.String(), v.Allocated[m.String()]})
	}
	for _, tier := range sortedKeys(v.Waits) {
		data.Tiers = append(data.Tiers, tierRow{tier, v.Waits[tier]})
	}
	for _, k := range sortedKeys(v.Waiting) {
		data.Reasons = append(data.Reasons, reasonRow{k, v.Waiting[k]})
	}
	return unwritten(t.Execute(w, data))
}

type measureRow struct {
	Name string
	levels
}

type tierRow struct {
	Name string
	latencies
}

type reasonRow struct {
	Reason string
	Tasks  int
}

func plots(v playJSON, h whatif.History) []plot {
	var at, running, waiting, machines []float64
	for _, s := range h.Samples {
		at = append(at, float64(s.At))
		running, waiting, machines = append(running, float64(s.Running)), append(waiting, float64(s.Waiting)), append(machines, float64(s.Machines))
	}
	var held []series
	for _, m := range measuresOf(h) {
		var y []float64
		for _, s := range h.Samples {
			y = append(y, share(s, m))
		}
		held = append(held, series{m.String(), m.String(), at, y})
	}
	until := float64(v.Until)
	out := []plot{
		newPlot("Held, of the machines that are up", " %", until, false, times(until), held),
		newPlot("Tasks that run", "", until, false, times(until), []series{{"running", "cpu", at, running}}),
		newPlot("Tasks that wait", "", until, false, times(until), []series{{"waiting", "ram", at, waiting}}),
		newPlot("Machines that are up", "", until, false, times(until), []series{{"machines", "gpu", at, machines}}),
	}
	longest := 0.0
	var waits []series
	classes := map[string]string{"preferred": "cpu", "preemptible": "ram", "revocable": "gpu"}
	for _, tier := range sortedKeys(h.Waits) {
		s := series{name: tier, class: classes[tier]}
		all := h.Waits[tier].Values()
		for i := range 101 {
			s.x, s.y = append(s.x, all[min(len(all)*i/100, len(all)-1)]), append(s.y, float64(i))
		}
		longest = max(longest, all[len(all)-1])
		waits = append(waits, s)
	}
	if longest > 1 {
		out = append(out, newPlot("Tasks placed after waiting for at most so long", " %", longest, true, decades(longest), waits))
	}
	return out
}

// times labels an axis of time.
func times(until float64) []tick {
	var out []tick
	for i := range 5 {
		x := until * float64(i) / 4
		out = append(out, tick{x, span(x)})
	}
	return out
}

// decades labels an axis of durations by their logarithm.
func decades(longest float64) []tick {
	out := []tick{{1, "1s or less"}}
	for x := 10.0; x <= max(longest, 10); x *= 10 {
		out = append(out, tick{x, span(x)})
	}
	return out
}
