package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// output is standard output, which remembers the first error of writing: what
// prints line by line need not look at each.
type output struct {
	w io.Writer

	mu  sync.Mutex
	err error
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}

// lost says that output was lost, and why.
func (o *output) lost() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("the output is not complete: %w", o.err)
}

// print writes a result in the form that was asked for.
func (a *app) print(cmd *cobra.Command, v any, table func(io.Writer)) error {
	if a.output != "json" {
		table(cmd.OutOrStdout())
		return nil
	}
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table writes rows under their headings. Cells are made printable, so that
// what a task says cannot write to somebody's terminal.
func table(w io.Writer, head []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, r := range rows {
		for i := range r {
			r[i] = printable(strings.NewReplacer("\t", " ", "\n", " ").Replace(r[i]))
			if r[i] == "" {
				r[i] = "-"
			}
		}
		_, _ = fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	_ = t.Flush()
}

// printable replaces what a terminal would take as a command.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, s)
}

// moment writes a time of the wire; "" if there is none.
func moment(nanos int64) string {
	if nanos == 0 {
		return ""
	}
	return time.Unix(0, nanos).UTC().Format("2006-01-02T15:04:05.000Z")
}

// ago writes how long ago a time of the wire is, for people.
func ago(nanos int64) string {
	if nanos == 0 {
		return ""
	}
	d := max(time.Since(time.Unix(0, nanos)), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

// many writes a number of things.
func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// progress is a line on a terminal that is written again and again.
type progress struct {
	w    io.Writer // nil: there is no terminal
	last string
}

func (a *app) progress(cmd *cobra.Command) *progress {
	if !a.env.ErrTTY || a.output == "json" {
		return &progress{}
	}
	return &progress{w: cmd.ErrOrStderr()}
}

func (p *progress) show(s string) {
	if p.w == nil || s == p.last {
		return
	}
	p.last = s
	const width = 120
	s = printable(strings.ReplaceAll(s, "\n", " "))
	if r := []rune(s); len(r) > width {
		s = string(r[:width-1]) + "\u2026"
	}
	_, _ = fmt.Fprint(p.w, "\r\x1b[K"+s)
}

func (p *progress) end() {
	if p.w != nil && p.last != "" {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
		p.last = ""
	}
}
