// Package docs_test runs what the README and the guide tell a reader to run.
//
// A block of shell is marked in the line above it:
//
//	<!-- run -->                 it is run, with bash -e, in the order of the page
//	<!-- run: root exit=10 -->   so, under conditions; see [block]
//	<!-- not run: REASON -->     it is not, and the page's author says why
//
// A block of kind output below it is what it prints: … stands for any text in
// a line, a line of … alone for any lines, and /EXPRESSION/ for a line that
// matches. Spaces count as one. A block of shell without a mark is an error.
//
// One covey dev runs for all pages, with its own home, its own processes and
// its own network where the test is run by root.
package docs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A block is a piece of a page that is run.
type block struct {
	at    string // FILE:LINE
	sh    string
	want  string // what it prints; meaningful if check
	check bool

	root   bool     // needs root and cgroups: tasks are isolated, the network is the test's own
	retry  bool     // run again until it prints what it should: something takes a moment
	follow bool     // it goes on for ever: interrupted once it has printed what it should
	exit   int      // its exit code
	needs  []string // programs that not every machine has
}

// TestDocs runs the pages, README first.
func TestDocs(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a whole cluster")
	}
	pages, err := filepath.Glob("guide/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatalf("the guide has pages %v (%v); want at least 5", pages, err)
	}
	w := newWorld(t)
	w.dev(t)
	for _, page := range append([]string{"../README.md"}, pages...) {
		blocks := parse(t, page)
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			for _, b := range blocks {
				if why := w.lacks(b); why != "" {
					t.Run("line"+b.at[strings.LastIndexByte(b.at, ':')+1:], func(t *testing.T) { t.Skipf("%s: %s", b.at, why) })
					continue
				}
				if err := w.try(t.Context(), b); err != nil {
					t.Fatalf("%s: %v", b.at, err)
				}
			}
		})
	}
	w.end(t)
}

// lacks says why a block cannot be run here.
func (w *world) lacks(b block) string {
	if b.root && w.alone != "" {
		return w.alone
	}
	for _, p := range b.needs {
		if _, err := exec.LookPath(p); err != nil {
			return "this machine has no " + p
		}
	}
	return ""
}

// try runs a block and compares what it prints.
func (w *world) try(ctx context.Context, b block) error {
	ctx, cancel := context.WithTimeout(ctx, blockLimit)
	defer cancel()
	want, err := pattern(w.here(b.want))
	if err != nil {
		return err
	}
	for {
		got, code, err := w.run(ctx, b, want)
		matches := !b.check || want.MatchString(squeeze(got))
		switch {
		case err == nil && matches && code == b.exit:
			return nil
		case b.retry && ctx.Err() == nil:
			continue
		case err != nil:
			return fmt.Errorf("%w\n%s\nprinted:\n%s", err, b.sh, got)
		case code != b.exit:
			return fmt.Errorf("exit code %d; want %d\n%s\nprinted:\n%s", code, b.exit, b.sh, got)
		default:
			return fmt.Errorf("it printed\n%s\nwant\n%s\nof\n%s", got, w.here(b.want), b.sh)
		}
	}
}

var mark = regexp.MustCompile(`^<!-- (run|not run)(?:: (.*))? -->$`)

// parse returns the blocks of a page that are to be run.
func parse(t *testing.T, page string) []block {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	lines := strings.Split(string(text), "\n")
	var marked []string // the mark that the next block has
	var last *block     // what an output block belongs to
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if m := mark.FindStringSubmatch(line); m != nil {
			marked = m
			continue
		}
		kind, fence := strings.CutPrefix(line, "```")
		if !fence {
			if line != "" {
				marked, last = nil, nil
			}
			continue
		}
		at := fmt.Sprintf("%s:%d", filepath.Base(page), i+1)
		body, next := until(t, at, lines, i+1)
		i = next
		switch {
		case kind == "sh" && marked == nil:
			t.Fatalf("%s: a block of shell has no mark; want <!-- run --> or <!-- not run: REASON --> above it", at)
		case kind == "sh" && marked[1] == "run":
			out = append(out, options(t, block{at: at, sh: body}, marked[2]))
			last = &out[len(out)-1]
		case kind == "output" && last != nil:
			last.want, last.check, last = body, true, nil
		case kind == "sh" && marked[2] == "":
			t.Fatalf("%s: not run, and nobody says why", at)
		default:
			last = nil
		}
		marked = nil
	}
	return out
}

// until returns what stands before the end of a block, and where that is.
func until(t *testing.T, at string, lines []string, from int) (string, int) {
	t.Helper()
	for i := from; i < len(lines); i++ {
		if strings.TrimSpace(lines[i]) == "```" {
			return strings.Join(lines[from:i], "\n") + "\n", i
		}
	}
	t.Fatalf("%s: the block has no end", at)
	return "", 0
}

func options(t *testing.T, b block, words string) block {
	t.Helper()
	for word := range strings.FieldsSeq(words) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "root":
			b.root = true
		case "retry":
			b.retry = true
		case "follow":
			b.follow, b.exit = true, 130
		case "exit":
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatalf("%s: exit=%s; want a number", b.at, value)
			}
			b.exit = n
		case "needs":
			b.needs = append(b.needs, value)
		default:
			t.Fatalf("%s: mark %q; want root, retry, follow, exit=N or needs=PROGRAM", b.at, word)
		}
	}
	return b
}

var spaces = regexp.MustCompile(`[ \t]+`)

// squeeze makes every space one, and drops those at the ends of lines and after
// the commas of JSON on one line, of which protocol buffers have some or none.
func squeeze(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(spaces.ReplaceAllString(line, " "))
		if strings.HasPrefix(line, `{"`) {
			line = strings.ReplaceAll(line, `, "`, `,"`)
		}
		out = append(out, line)
	}
	return strings.Trim(strings.Join(out, "\n"), "\n")
}

// pattern makes an expression of what a block should print.
func pattern(want string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`\A`)
	sep := ""
	for line := range strings.Lines(squeeze(want)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "…":
			b.WriteString(`(?:` + sep + `[^\n]*)*`)
			if sep == "" {
				b.WriteString(`\n?`) // sets apart what follows, if anything came before it
				continue
			}
		case len(line) > 2 && line[0] == '/' && line[len(line)-1] == '/':
			b.WriteString(sep + `(?:` + line[1:len(line)-1] + `)`)
		default:
			b.WriteString(sep + strings.ReplaceAll(regexp.QuoteMeta(line), "…", `[^\n]*`))
		}
		sep = `\n`
	}
	b.WriteString(`\z`)
	return regexp.Compile(b.String())
}

// TestPattern holds the comparison itself: one that accepts everything would
// make every page true.
func TestPattern(t *testing.T) {
	for _, x := range []struct {
		want, got string
		match     bool
	}{
		{"one", "one", true},
		{"one", "one\n", true},
		{"one", "one\ntwo", false},
		{"one", "", false},
		{"A   B\n1   …", "A B\n1      2  ", true},
		{"A   B\n1   …", "A B\n2 2", false},
		{"one\n…", "one", true},
		{"one\n…", "one\ntwo\nthree", true},
		{"one\n…\nfour", "one\ntwo\nthree\nfour", true},
		{"one\n…\nfour", "one\ntwo\nthree\nfive", false},
		{"…\nfour", "one\nfour", true},
		{"/[0-9]+ tasks?/", "12 tasks", true},
		{"/[0-9]+ tasks?/", "no tasks", false},
		{"a.b", "axb", false},
		{`{"a":1,"b":2}`, `{"a":1, "b":2}`, true},
		{`{"a":1,"b":2}`, `{"a":1, "b":3}`, false},
	} {
		re, err := pattern(x.want)
		if err != nil {
			t.Fatal(err)
		}
		if got := re.MatchString(squeeze(x.got)); got != x.match {
			t.Errorf("pattern %q on %q: %v; want %v (%s)", x.want, x.got, got, x.match, re)
		}
	}
}
