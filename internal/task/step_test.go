package task

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestStep prints every state against every event, for each policy that
// matters. The golden file is the diagram of the machine.
func TestStep(t *testing.T) {
	var b bytes.Buffer
	for _, c := range []struct {
		name string
		p    Policy
		task Task
	}{
		{"ad hoc job, no failure allowed", Policy{}, Task{}},
		{"ad hoc job, failures left", Policy{MaxFailures: 2}, Task{}},
		{"service", Policy{Service: true}, Task{}},
		{"service, its end was asked for", Policy{Service: true}, Task{Wanted: true}},
	} {
		fmt.Fprintf(&b, "# %s\n", c.name)
		matrix(&b, c.task, c.p)
		fmt.Fprintln(&b)
	}
	golden(t, "testdata/step.golden", b.Bytes())
}

func matrix(b *bytes.Buffer, base Task, p Policy) {
	w := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
	for from := range States {
		for to := range States {
			base.State = State(from)
			_, effects, res := Step(base, Event{To: State(to)}, p)
			if res == Noop || res == Illegal && len(effects) == 0 {
				continue
			}
			word := ""
			if res == Illegal {
				word = "illegal"
			}
			fmt.Fprintf(w, "%v\t-> %v\t%s\t%s\n", State(from), State(to), word, join(effects))
		}
	}
	w.Flush()
}

func join(es []Effect) string {
	var s []string
	for _, e := range es {
		s = append(s, e.String())
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

// TestStepAsAurora holds every step to the cases of Aurora's own test.
func TestStepAsAurora(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(sharedData(), "aurora/task_transitions.json"))
	if err != nil {
		t.Skipf("no facts to compare with: %v; set COVEY_SHARED_DATA", err)
	}
	var facts struct {
		Cases []struct {
			Present          bool `json:"task_present"`
			From, To, Result string
			Effects          []string `json:"side_effects"`
		}
	}
	if err := json.Unmarshal(raw, &facts); err != nil {
		t.Fatal(err)
	}
	if len(facts.Cases) == 0 {
		t.Fatal("no cases")
	}
	results := map[string]Result{"SUCCESS": Done, "NOOP": Noop, "ILLEGAL": Illegal, "ILLEGAL_WITH_SIDE_EFFECTS": Illegal}
	for _, c := range facts.Cases {
		from, ok1 := ParseState(c.From)
		to, ok2 := ParseState(c.To)
		wantRes, ok3 := results[c.Result]
		if !ok1 || !ok2 || !ok3 || c.Present == (from == Deleted) {
			t.Fatalf("case %+v is not understood", c)
		}
		_, effects, res := Step(Task{State: from}, Event{To: to}, Policy{})
		want := slices.DeleteFunc(slices.Clone(c.Effects), func(s string) bool { return s == "SAVE_STATE" })
		slices.Sort(want)
		if got := join(effects); res != wantRes || got != strings.Join(want, " ") {
			t.Errorf("%s -> %s: got %d %q; want %d %q", c.From, c.To, res, got, wantRes, want)
		}
	}
}

// TestEndedStaysEnded holds for every pair: only forgetting moves a task that has ended.
func TestEndedStaysEnded(t *testing.T) {
	for s := range States {
		for to := range States {
			got, _, _ := Step(Task{State: State(s)}, Event{To: State(to)}, Policy{Service: true})
			if State(s).Terminal() && got.State != State(s) && got.State != Deleted {
				t.Errorf("%v on %v: became %v; want no change", State(s), State(to), got.State)
			}
		}
	}
}

func TestStepKeeps(t *testing.T) {
	in := Task{State: Pending, Failures: 1}
	got, _, _ := Step(in, Event{To: Assigned, At: 7, Machine: "m", Ports: []uint16{31000}, Reason: strings.Repeat("é", MaxReason)}, Policy{})
	want := Task{State: Assigned, Failures: 1, Machine: "m", Ports: []uint16{31000}, Since: 7, Reason: strings.Repeat("é", 58) + "..."}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	got, _, _ = Step(got, Event{To: Failed, At: 9}, Policy{})
	if got.Failures != 2 || got.Machine != "m" {
		t.Errorf("after a failure: %d failures on %q; want 2 on m", got.Failures, got.Machine)
	}
}

func TestParseID(t *testing.T) {
	for _, s := range []string{"www/prod/hello/0.1", "a/staging3/b.c/3999.4294967295"} {
		id, err := ParseID(s)
		if err != nil || id.String() != s {
			t.Errorf("ParseID(%q) = %v, %v", s, id, err)
		}
	}
	for _, s := range []string{"", "a", "a/prod/b/0", "a/prod/b/0.0", "a/prod/b/00.1", "a/prod/b/-1.1", "a/prod/b/c/0.1", "../prod/b/0.1", "a/prod/b/0.4294967296", "a/prod/./0.1"} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %v; want an error", s, id)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("www/prod/hello/0.1")
	f.Add("a/prod/b/0.0")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Errorf("ParseID(%q).String() = %q", s, id)
		}
	})
}

func sharedData() string {
	if d := os.Getenv("COVEY_SHARED_DATA"); d != "" {
		return d
	}
	return "../../../shared/data"
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run go test -update and read the diff\n%s", name, got)
	}
}
