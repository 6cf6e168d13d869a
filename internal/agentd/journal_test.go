package agentd

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const minute = unit.Hour / 60

// metered is a journal with tasks that use things, agents that crash, a disk
// that is full at times, and a server that takes facts in once.
type metered struct {
	t     *rapid.T
	dir   string
	j     *journal
	now   unit.Tick
	tasks []*used
	taken map[string]uint64 // by the server, of each source
	facts map[task.ID][]ledger.Used
}

// used is a task's truth.
type used struct {
	id      task.ID
	started unit.Tick
	ended   unit.Tick // 0: it lives
	nanos   int64
}

func (m *metered) open() {
	j, err := openJournal(m.dir, "m1")
	if err != nil {
		m.t.Fatal(err)
	}
	m.j = j
	shown := map[task.ID]bool{}
	for _, x := range m.tasks {
		shown[x.id] = true
	}
	j.keepOnly(shown)
	for _, x := range m.tasks { // what the machine shows, also what has ended
		if x.ended != 0 {
			m.end(x)
		}
	}
}

func (m *metered) sample(x *used) {
	m.j.sample(x.id, m.now, x.started, x.nanos, 64*unit.MiB, 8*unit.MiB)
}

func (m *metered) end(x *used) {
	m.j.sample(x.id, x.ended, x.started, x.nanos, 64*unit.MiB, 8*unit.MiB)
	_ = m.j.end(x.id) // a full disk: it is written later
}

// serve sends what waits; the server takes each block in once. Its answer may be lost.
func (m *metered) serve(answer bool) {
	acks := map[string]uint64{}
	for _, f := range m.j.waiting(20) {
		acks[f.Source] = f.Seq
		if f.Seq <= m.taken[f.Source] {
			continue
		}
		if f.Seq != m.taken[f.Source]+1 {
			m.t.Fatalf("block %d came after %d", f.Seq, m.taken[f.Source])
		}
		m.taken[f.Source] = f.Seq
		facts, err := ledger.DecodeUsed(f.Payload)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, u := range facts {
			m.facts[u.Task] = append(m.facts[u.Task], u)
		}
	}
	if answer {
		_ = m.j.acked(acks) // a full disk: it is sent again, and taken in once
	}
}

// TestJournalTiles holds random histories to what bills need: the facts of a
// task tile its life, each within an hour, and their cpu time is all that its
// counter showed, whatever crashed, was lost or came twice.
func TestJournalTiles(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		m := &metered{t: rt, dir: filepath.Join(dir, fmt.Sprint(n)), now: 525_960*unit.Hour + 17*minute, taken: map[string]uint64{}, facts: map[task.ID][]ledger.Used{}}
		if err := os.Mkdir(m.dir, 0o700); err != nil {
			rt.Fatal(err)
		}
		m.open()
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			m.happen()
		}
		m.j.path = filepath.Join(m.dir, "journal.json")
		m.now += minute
		for _, x := range m.tasks {
			if x.ended == 0 {
				x.ended = m.now
				m.end(x)
			}
		}
		for range 100 {
			m.serve(true)
		}
		if left := len(m.j.kept.Blocks); left > 0 {
			rt.Fatalf("%d blocks were never taken in", left)
		}
		for _, x := range m.tasks {
			m.check(x)
		}
	})
}

func (m *metered) happen() {
	m.now += unit.Tick(rapid.Int64Range(1, int64(25*minute)).Draw(m.t, "time"))
	for _, x := range m.tasks {
		if x.ended == 0 {
			x.nanos += rapid.Int64Range(0, 5e12).Draw(m.t, "cpu")
		}
	}
	switch rapid.IntRange(0, 9).Draw(m.t, "what") {
	case 0, 1:
		m.tasks = append(m.tasks, &used{id: task.ID{Job: "a/prod/x", Instance: 1, Attempt: uint32(len(m.tasks) + 1)}, started: m.now})
	case 2:
		m.open() // the agent crashed: what was not in the file is gone
	case 3:
		for _, x := range m.tasks {
			if x.ended == 0 {
				x.ended = m.now
				m.end(x)
				break
			}
		}
	case 4:
		m.serve(rapid.Bool().Draw(m.t, "answer arrives"))
	case 5:
		m.j.path = filepath.Join(m.dir, "full", "journal.json") // there is no such directory
	case 6:
		m.j.path = filepath.Join(m.dir, "journal.json")
	default:
		for _, x := range m.tasks {
			if x.ended == 0 {
				m.sample(x)
			}
		}
		_ = m.j.cutAll(m.now.FloorHour())
	}
}

func (m *metered) check(x *used) {
	at, cpu := x.started, int64(0)
	for _, u := range m.facts[x.id] {
		switch {
		case u.From != at:
			m.t.Fatalf("task %v: a fact from %d follows one to %d", x.id, u.From, at)
		case u.To <= u.From || u.From.FloorHour() != (u.To-1).FloorHour():
			m.t.Fatalf("task %v: a fact from %d to %d; want it within an hour", x.id, u.From, u.To)
		case u.CPU < 0 || u.RAM < 0 || u.Disk < 0:
			m.t.Fatalf("task %v: negative use %+v", x.id, u)
		}
		at, cpu = u.To, cpu+u.CPU
	}
	if at != x.ended {
		m.t.Fatalf("task %v: its facts end at %d, it did at %d", x.id, at, x.ended)
	}
	if want := milliCoreTicks(x.nanos); cpu != want {
		m.t.Fatalf("task %v: its facts have %d milli-core-ticks, its counter %d", x.id, cpu, want)
	}
}

// TestShare divides without losing a unit, also what does not fit into 64 bits
// when multiplied.
func TestShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<62).Draw(t, "n")
		whole := rapid.Int64Range(1, 1<<50).Draw(t, "whole")
		part := rapid.Int64Range(0, whole-1).Draw(t, "part")
		want := new(big.Int).Div(new(big.Int).Mul(big.NewInt(n), big.NewInt(part)), big.NewInt(whole)).Int64()
		if got := share(n, unit.Tick(part), unit.Tick(whole)); got != want {
			t.Fatalf("share(%d, %d, %d) = %d, want %d", n, part, whole, got, want)
		}
	})
}

func TestMilliCoreTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<62).Draw(t, "nanos")
		want := new(big.Int).Div(new(big.Int).Mul(big.NewInt(n), big.NewInt(5)), big.NewInt(18)).Int64()
		if got := milliCoreTicks(n); got != want {
			t.Fatalf("%d ns are %d milli-core-ticks, want %d", n, got, want)
		}
	})
}

// TestJournalFull makes no more facts by the hour when the server is away for
// too long, and loses nothing.
func TestJournalFull(t *testing.T) {
	j, err := openJournal(t.TempDir(), "m1")
	if err != nil {
		t.Fatal(err)
	}
	id, start := task.ID{Job: "a/prod/x", Attempt: 1}, 1000*unit.Hour
	for range maxBlocks { // all of them without facts: only their number counts
		j.kept.Blocks = append(j.kept.Blocks, block{Seq: j.kept.Next, Payload: ledger.EncodeUsed(nil)})
		j.kept.Next++
	}
	j.sample(id, start+2*unit.Hour, start, 7200e9, unit.MiB, 0)
	if err := j.cutAll(start + 2*unit.Hour); fault.Of(err) != fault.Exhausted {
		t.Fatalf("cut with a full journal: %v, want kind exhausted", err)
	}
	if err := j.end(id); err != nil {
		t.Fatal(err)
	}
	last := j.kept.Blocks[len(j.kept.Blocks)-1]
	facts, err := ledger.DecodeUsed(last.Payload)
	if err != nil || len(facts) != 2 || facts[0].CPU+facts[1].CPU != milliCoreTicks(7200e9) {
		t.Errorf("facts %+v, error %v; want two hours with all of its cpu time", facts, err)
	}
}

// TestReplaceFile leaves the old file or the new one, whatever a crash left beside it.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := replaceFile(path, []byte("old"), true); err != nil {
		t.Fatal(err)
	}
	// The crash of an earlier one: it wrote a part, and did not come to the end.
	if err := os.WriteFile(path+".new", []byte("ne, and much more than there will be"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Fatalf("after a crash: %q, %v; want the old one", got, err)
	}
	if err := replaceFile(path, []byte("new"), true); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("got %q, %v; want the new one", got, err)
	}
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("something was left beside it")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v; want 0600", st.Mode(), err)
	}
	if err := replaceFile(filepath.Join(dir, "no", "f"), nil, false); fault.Of(err) != fault.Exhausted {
		t.Errorf("into no directory: %v, want kind exhausted", err)
	}
}

func TestOpenJournalBad(t *testing.T) {
	for text, want := range map[string]string{
		`{"version":1,"sour`:                       "is damaged",
		`{"version":1}`:                            "is damaged",
		`{"version":9,"source":"m1/x","next":1}`:   "start a newer agent",
		`{"version":1,"source":"m1/x","next":"1"}`: "is damaged",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := openJournal(dir, "m1")
		if fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v; want kind invalid, the file's name and %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: the error is not written well: %v", text, err)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "journal.json")); string(got) != text {
			t.Errorf("%s: the file has changed", text)
		}
	}
}

// A task whose account is not known goes on from now: what came before was told
// by another journal. One that is known goes on where it was cut.
func TestJournalResumes(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, "m1")
	if err != nil {
		t.Fatal(err)
	}
	known, unknown := task.ID{Job: job.NewKey("www", "prod", "a"), Attempt: 1}, task.ID{Job: job.NewKey("www", "prod", "b"), Attempt: 1}
	hour := 1000 * unit.Hour
	j.sample(known, hour, hour, 0, 0, 0)
	j.sample(known, hour+100, hour, 18*100, 0, 0)
	if err := j.end(known); err != nil { // its cut stays until it is put away
		t.Fatal(err)
	}
	for _, id := range []task.ID{known, unknown} {
		j.resume(id, hour+150, 18*1000)
		j.sample(id, hour+200, hour, 18*1100, 0, 0)
		j.resume(id, hour+250, 18*5000) // once only
	}
	if err := j.cutAll(hour + 300); err != nil {
		t.Fatal(err)
	}
	got := map[string][]int64{}
	for _, b := range j.kept.Blocks[1:] {
		facts, err := ledger.DecodeUsed(b.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range facts {
			got[f.Task.Job.Name()] = []int64{int64(f.From - hour), int64(f.To - hour), f.CPU}
		}
	}
	want := map[string][]int64{"a": {100, 300, 5 * 1000}, "b": {150, 300, 5 * 100}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}
