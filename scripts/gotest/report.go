package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

const (
	maxLine = 16 << 20 // bytes of one line of go test -json
	maxSaid = 1 << 20  // bytes kept of what one test says; the end is kept
)

// event is one line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

type key struct{ pkg, test string }

// report folds events into lines for people, those of one package together.
type report struct {
	out     io.Writer
	pages   map[string]*strings.Builder // lines of each package that has not ended
	said    map[key]string              // what each unfinished test has said
	skipped []string
	counts  map[string]int // by action: pass, fail, skip; subtests included
}

func newReport(out io.Writer) *report {
	return &report{out: out, pages: map[string]*strings.Builder{}, said: map[key]string{}, counts: map[string]int{}}
}

// read folds events until their end. A line that is no event is passed on.
func (r *report) read(events io.Reader) error {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(r.out, lines.Text())
			continue
		}
		r.fold(e)
	}
	return lines.Err()
}

func (r *report) fold(e event) {
	if e.Action == "build-output" { // belongs to no package's tests
		fmt.Fprint(r.out, e.Output)
		return
	}
	page := r.pages[e.Package]
	if page == nil {
		page = &strings.Builder{}
		r.pages[e.Package] = page
	}
	if e.Test == "" {
		r.foldPackage(e, page)
		return
	}
	k := key{e.Package, e.Test}
	said := r.said[k]
	switch e.Action {
	case "output":
		r.said[k] = tail(said + e.Output)
		return
	case "pass":
		if !strings.Contains(e.Test, "/") {
			fmt.Fprintf(page, "--- PASS: %s (%.2fs)\n", e.Test, e.Elapsed)
		}
	case "fail":
		page.WriteString(speech(said, ""))
	case "skip":
		why := strings.Join(strings.Fields(speech(said, "--- SKIP")), " ")
		fmt.Fprintf(page, "--- SKIP: %s: %s\n", e.Test, why)
		r.skipped = append(r.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, why))
	default:
		return
	}
	r.counts[e.Action]++
	delete(r.said, k)
}

// foldPackage folds what go test says of a package as a whole.
func (r *report) foldPackage(e event, page *strings.Builder) {
	switch e.Action {
	case "output":
		if e.Output != "PASS\n" {
			page.WriteString(e.Output)
		}
	case "pass", "skip", "fail":
		r.close(e.Package)
	}
}

// close prints the page of a package, and what those of its tests said that
// never ended: a panic or a timeout took them.
func (r *report) close(pkg string) {
	var keys []key
	for k := range r.said {
		if k.pkg == pkg {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int { return strings.Compare(a.test, b.test) })
	for _, k := range keys {
		r.counts["fail"]++
		fmt.Fprintf(r.out, "--- FAIL: %s (did not end)\n%s", k.test, speech(r.said[k], ""))
		delete(r.said, k)
	}
	fmt.Fprint(r.out, r.pages[pkg].String())
	delete(r.pages, pkg)
}

// finish prints what is left, the skipped tests and the totals. It fails when no test ran:
// a pattern that matches nothing is not a success.
func (r *report) finish() error {
	for _, pkg := range slices.Sorted(maps.Keys(r.pages)) {
		r.close(pkg)
	}
	if len(r.skipped) > 0 {
		fmt.Fprintf(r.out, "\nskipped, so not tested here:\n")
		for _, s := range r.skipped {
			fmt.Fprintln(r.out, "  "+s)
		}
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.counts["pass"], r.counts["fail"], r.counts["skip"])
	if r.counts["pass"]+r.counts["fail"]+r.counts["skip"] == 0 {
		return errors.New("no test ran; check the packages and the -run pattern")
	}
	return nil
}

// speech is what a test said without the marks that go test puts between, nor
// lines that start with also.
func speech(said, also string) string {
	var b strings.Builder
	for line := range strings.Lines(said) {
		bare := strings.TrimSpace(line)
		if strings.HasPrefix(bare, "=== ") || also != "" && strings.HasPrefix(bare, also) {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

func tail(s string) string {
	if len(s) <= maxSaid {
		return s
	}
	return s[len(s)-maxSaid:]
}
