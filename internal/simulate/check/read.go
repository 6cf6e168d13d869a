package check

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

	"github.com/covey-platform/covey/internal/fault"
)

// nodeOf reads a machine.
func nodeOf(f map[string]string) (n *node, err error) {
	n = &node{gen: f["gen"], mode: strings.ToUpper(f["mode"]), shares: map[int64]int{}, tasks: map[string]int{}}
	if !slices.Contains([]string{"", "-", "NONE", "SCHEDULED", "DRAINING", "DRAINED"}, n.mode) {
		return nil, fmt.Errorf("mode is %.40q; want NONE, SCHEDULED, DRAINING or DRAINED", f["mode"])
	}
	if n.left, err = amountsOf(f); err != nil {
		return nil, err
	}
	if n.left[2]%1000 != 0 {
		return nil, fmt.Errorf("gpu is %.40q; want whole GPUs", f["gpu"])
	}
	n.cpu, n.gpus = n.left[0], n.left[2]/1000
	if avoid := f["avoid"]; avoid != "" {
		at, err := number(f, "avoid", 1)
		if err != nil {
			return nil, err
		}
		n.avoid = at == 1
	}
	return n, nil
}

// workOf reads a job.
func workOf(f map[string]string) (w *work, err error) {
	w = &work{gen: f["gen"], urgency: f["prod"] + " " + f["prio"], placed: map[int64]bool{}}
	if w.need, err = amountsOf(f); err != nil {
		return nil, err
	}
	if w.need[2] > 1000 && w.need[2]%1000 != 0 {
		return nil, fmt.Errorf("gpu is %.40q; want a share below 1, or whole GPUs", f["gpu"])
	}
	if w.spread, err = placement(f["placement"]); err != nil {
		return nil, err
	}
	if w.count, err = number(f, "count", 1<<40); err != nil {
		return nil, err
	}
	w.perHost, err = number(f, "max_per_host", 1<<40)
	return w, err
}

func number(f map[string]string, column string, most int64) (int64, error) {
	n, err := strconv.ParseInt(f[column], 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%s is %.40q; want a whole number from 0 to %d", column, f[column], most)
	}
	return n, nil
}

func amountsOf(f map[string]string) (a amounts, err error) {
	for i, m := range measures {
		s := f[m]
		if s == "" && m == "disk_mib" {
			continue
		}
		scale := 1.0
		if m == "gpu" {
			scale = 1000
		}
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !(v >= 0 && v <= 1<<40) {
			return a, fmt.Errorf("%s is %.40q; want a number of 0 or more", m, s)
		}
		a[i] = int64(v*scale + 0.5)
	}
	return a, nil
}

// read calls f for each line of a CSV file, plain or packed, that has the
// columns in want.
func read(name string, want []string, f func(line int, fields map[string]string) error) (err error) {
	file, err := os.Open(name) //nolint:gosec // the user's own file
	if err != nil {
		return fault.Invalid.Errorf("%w", err)
	}
	defer file.Close() //nolint:errcheck // it was read
	var in io.Reader = bufio.NewReader(file)
	if magic, _ := in.(*bufio.Reader).Peek(2); string(magic) == "\x1f\x8b" {
		if in, err = gzip.NewReader(in); err != nil {
			return fault.Invalid.Errorf("%s: it begins like gzip and is not: %w", name, err)
		}
	}
	text := bufio.NewReader(in)
	if mark, _ := text.Peek(3); string(mark) == "\ufeff" { // as some spreadsheets begin a file
		_, _ = text.Discard(3)
	}
	rows := csv.NewReader(text)
	rows.ReuseRecord, rows.TrimLeadingSpace = true, true
	head, err := rows.Read()
	switch {
	case errors.Is(err, io.EOF):
		return fault.Invalid.Errorf("%s: it is empty; want a first line that names the columns %s", name, strings.Join(want, ","))
	case err != nil:
		return fault.Invalid.Errorf("%s: %w", name, err)
	}
	head = slices.Clone(head)
	for i, c := range head {
		head[i] = strings.TrimSpace(c)
	}
	for _, c := range want {
		if !slices.Contains(head, c) {
			return fault.Invalid.Errorf("%s:1: column %s is missing; want %s, and it names %.200s", name, c, strings.Join(want, ","), strings.Join(head, ","))
		}
	}
	fields := make(map[string]string, len(head))
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Invalid.Errorf("%s: %w", name, err)
		}
		for i, c := range head {
			fields[c] = strings.TrimSpace(row[i])
		}
		line, _ := rows.FieldPos(0)
		if err := f(line, fields); err != nil {
			return fault.Invalid.Errorf("%s:%d: %w", name, line, err)
		}
	}
}
