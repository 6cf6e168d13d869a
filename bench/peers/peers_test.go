package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files again")

// programs writes stand-ins of the three programs: scripts that write the
// placements they are told to and answer what the real ones would.
func programs(t *testing.T, covey, kube, nomad string) string {
	t.Helper()
	bin := t.TempDir()
	const find = `#!/bin/sh
while [ $# -gt 0 ]; do case $1 in *-placements) out=$2 ;; *-check) check=$2 ;; *-kept) kept=$2 ;; *-at-once) once=1 ;; *-jobs) jobs=$2 ;; *-machines) machines=$2 ;; esac; shift; done
`
	for name, script := range map[string]string{"covey": covey, "bench-kube": kube, "bench-nomad": nomad} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(find+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// set writes a set of two machines and two jobs of three tasks together.
func set(t *testing.T) string {
	t.Helper()
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "tiny"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nodes.csv.gz": "id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen\nn0,4000,1,0,1,r,z,g\nn1,4000,1,0,1,r,z,g\n",
		"jobs.csv.gz":  "id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host\na,1,1,2,1,1,0,0,-,0\nb,1,1,1,1,1,0,0,-,0\n",
	} {
		if err := os.WriteFile(filepath.Join(data, "tiny", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

const (
	answersCovey = `if [ -n "$check" ]; then echo '{"placed":3,"used":2,"wrong":{}}'; exit; fi
echo '{"tasks":3,"placed":3,"seconds":0.001,"task_ms":{"p50":0.1,"p99":0.2,"max":0.3},"job_ms":{"p50":1,"p99":2,"max":3},"heap_bytes":1048576}'`
	answersKube  = `echo '{"tasks":3,"tried":3,"placed":3,"seconds":1,"task":{"p50_ms":10,"p99_ms":20},"job":{"p50_ms":100,"p99_ms":2000},"heap_bytes":2097152}'`
	answersNomad = `echo '{"tasks":3,"tried":3,"placed":3,"seconds":0.1,"job":{"p50_ms":100,"p99_ms":2000},"heap_bytes":2097152}'`
)

// measured matches what no two runs have in common.
var measured = []struct{ what, with string }{
	{`(?m)^(` + "`make .*` on " + `).* UTC, in .*\.$`, "${1}WHEN."},
	{`(?m)^(\| [^|]+ \| \d+ \| [^|]+ \|)[^|]+\|`, "$1 … |"},
	{`([\d,.]+) / [\d,.]+ \| \d+ % \|`, "$1 / … | … |"},
}

func TestPage(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	args := []string{"-bin", programs(t, answersCovey, answersKube, answersNomad), "-data", set(t), "-sets", "tiny", "-page", page}
	var progress bytes.Buffer
	if err := run(t.Context(), args, &bytes.Buffer{}, &progress); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range measured {
		got = regexp.MustCompile(m.what).ReplaceAll(got, []byte(m.with))
	}
	const golden = "testdata/page.md"
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the page differs from %s; -update writes it again. Got:\n%s", golden, got)
	}
	if n := strings.Count(progress.String(), "\n"); n != len(systems)-1 {
		t.Errorf("got %d lines of progress; want one for each of the %d systems that are not for tight sets alone:\n%s", n, len(systems)-1, &progress)
	}
}

// TestTight holds that a set without a machine to spare has those that covey
// keeps, its jobs in the order of priority, and Covey in it twice; and that the
// page keeps what it said of other sets.
func TestTight(t *testing.T) {
	const keeps = `if [ -n "$kept" ]; then printf 'id,cpu_milli,mem_mib,gpu,net_mbps,rack,zone,gen\nn1,4000,1,0,1,r,z,g\n' >"$kept"; echo '{}'; exit; fi
if [ -n "$check" ]; then echo '{"placed":3,"used":1,"wrong":{}}'; exit; fi
echo "$once:$(grep -c n0 "$machines"):$(tail -n 2 "$jobs" | cut -d, -f1 | tr -d '\n')" >>"$0.saw"
`
	data := set(t)
	jobs := "id,prio,prod,count,cpu_milli,mem_mib,gpu,net_mbps,gen,max_per_host\na,1,0,2,1,1,0,0,-,0\nb,0,1,1,1,1,0,0,-,0\n"
	if err := os.WriteFile(filepath.Join(data, "tiny", "jobs.csv.gz"), []byte(jobs), 0o600); err != nil {
		t.Fatal(err)
	}
	bin, page := programs(t, keeps+answersCovey, answersKube, answersNomad), filepath.Join(t.TempDir(), "page.md")
	old := "# Old\n\n## tiny-tight\n\nit is measured anew\n\n## large, the first 2 tasks\n\nfrom long ago\n\n## Settings\n\nnone\n"
	if err := os.WriteFile(page, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-bin", bin, "-data", data, "-sets", "tiny-tight", "-page", page}
	if err := run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	saw, err := os.ReadFile(filepath.Join(bin, "covey.saw"))
	if want := ":0:ba\n1:0:ba\n"; err != nil || string(saw) != want {
		t.Errorf("covey was told (all at once, with n0, jobs) %q, %v; want %q", saw, err, want)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for what, times := range map[string]int{
		"## tiny-tight\n": 1, "measured anew": 0, "## large, the first 2 tasks\n\nfrom long ago\n": 1, "## Settings\n": 1, "\nnone\n": 0,
		"1 machines of 2, as many as Covey's own compaction of tiny keeps": 1, "| Covey, all at once | 3 |": 1,
	} {
		if n := strings.Count(string(text), what); n != times {
			t.Errorf("%q stands there %d times; want %d, in\n%s", what, n, times, text)
		}
	}
}

// TestTightFails: without an answer of covey there is nothing to compare on.
func TestTightFails(t *testing.T) {
	args := []string{"-bin", programs(t, "echo no room >&2; exit 6", answersKube, answersNomad), "-data", set(t), "-sets", "tiny-tight"}
	err := run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "compacting tiny: covey: exit status 6: no room") {
		t.Errorf("got %v; want what covey said", err)
	}
}

// TestNotes holds what the page says when not all went well.
func TestNotes(t *testing.T) {
	for name, c := range map[string]struct{ covey, kube, row, note, err string }{
		"it dies": {
			answersCovey, "echo one >&2; echo the last word >&2; exit 3",
			"| kube-scheduler | failed |", "kube-scheduler failed: bench-kube: exit status 3: the last word.", "kube-scheduler on tiny: bench-kube: exit status 3",
		},
		"it says nonsense": {answersCovey, "echo moo", "| kube-scheduler | failed |", "its answer is not what was expected", "not what was expected"},
		"it took no time": {
			answersCovey, `echo '{"tried":3,"placed":3}'`,
			"| kube-scheduler | failed |", "3 of 3 tasks placed in 0 s", "not what was expected",
		},
		"its file is short": {
			answersCovey, strings.ReplaceAll(answersKube, `"placed":3`, `"placed":2`),
			"| kube-scheduler | failed |", "it says 2 tasks were placed, and its file has 3", "could not be checked",
		},
		"it breaks rules": {
			strings.Replace(answersCovey, `"wrong":{}}'; exit`, `"wrong":{"capacity":2}}'; exit 8`, 1), answersKube,
			"**broken:** capacity, 2 times |", "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			args := []string{"-bin", programs(t, c.covey, c.kube, answersNomad), "-data", set(t), "-sets", "tiny"}
			err := run(t.Context(), args, &out, &bytes.Buffer{})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got the error %v; want %q in it", err, c.err)
			}
			if !strings.Contains(out.String(), c.row) || !strings.Contains(out.String(), c.note) {
				t.Errorf("want %q and %q in the page:\n%s", c.row, c.note, out.String())
			}
		})
	}
}

// TestCutSet holds that a large set is tried twice: its beginning by all, and
// all of it by those who are quick.
func TestCutSet(t *testing.T) {
	c := config{data: set(t), sets: []string{"tiny"}, tasks: 2}
	trials, err := plan(t.Context(), c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range trials {
		got = append(got, r.title())
	}
	if want := "tiny, the first 2 tasks|tiny, all tasks"; strings.Join(got, "|") != want {
		t.Errorf("got trials %q; want %q", got, want)
	}
	jobs, err := os.ReadFile(trials[0].Jobs)
	if err != nil || strings.Contains(string(jobs), "\nb,") {
		t.Errorf("got the jobs %q, %v; want a alone", jobs, err)
	}
	stopped := trial{Set: "s", Tasks: 9, Results: []result{{System: "X", Tried: 5, Placed: 4}}}
	var page bytes.Buffer
	stopped.write(&page, "", time.Minute)
	for _, want := range []string{"X was stopped after 1m0s of placing, when it had tried 5 tasks.", "X found no machine for 1 tasks."} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("want %q in\n%s", want, &page)
		}
	}
}

func TestBadFlags(t *testing.T) {
	data := set(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "-data is missing"},
		{[]string{"-data", data, "-tasks", "-1"}, "-tasks is -1"},
		{[]string{"-data", data, "-limit", "0s"}, "-limit is 0s"},
		{[]string{"-data", data, "-sets", "huge"}, "huge/nodes.csv.gz: no such file"},
	} {
		err := run(t.Context(), c.args, &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v; want %q", c.args, err, c.want)
		}
	}
}

func TestFigures(t *testing.T) {
	for x, want := range map[float64]string{0.01234: "0.012", 1.26: "1.3", 99.4: "99", 188.4: "188", 123456.7: "123,457"} {
		if got := figure(x); got != want {
			t.Errorf("figure(%v) is %s; want %s", x, got, want)
		}
	}
}
