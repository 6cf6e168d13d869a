package storetest

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

// fill commits blocks of 1, 2, 3 ... records and returns all of them.
func (f *fixture) fill(blocks int) []state.Record {
	var all []state.Record
	for i := range blocks {
		var block []state.Record
		for range i + 1 {
			block = append(block, record(len(all)+len(block)))
		}
		f.commit(f.batch(nil, block...))
		all = append(all, block...)
		if i%2 == 0 {
			f.commit(f.batch([]state.Row{row(state.JobTable, "a", fmt.Sprint(i))})) // a commit without records
		}
	}
	return all
}

func testRecords(t *testing.T, f *fixture) {
	f.lead()
	all := f.fill(6)
	f.reopen()
	for _, limit := range []int{1, 2, 5, len(all), 1000} {
		var got []state.Record
		for pages := 0; ; pages++ {
			if pages > len(all) {
				t.Fatalf("limit %d: more pages than records", limit)
			}
			page, err := f.Records(f.ctx(), state.Seq(len(got)), limit)
			if err != nil {
				t.Fatalf("limit %d: Records: %v", limit, err)
			}
			if len(page) > limit {
				t.Fatalf("limit %d: %d records", limit, len(page))
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
		}
		if d := cmp.Diff(all, got); d != "" {
			t.Errorf("limit %d: records (-want +got):\n%s", limit, d)
		}
	}
	_, err := f.Records(f.ctx(), 0, 0)
	f.refused(fault.Invalid, "a limit of 0", err)
	_, err = f.Records(f.ctx(), state.Seq(len(all)+1), 10)
	f.refused(fault.Compacted, "records after one that does not exist yet", err)
}

func testCompacted(t *testing.T, f *fixture) {
	f.lead()
	all := f.fill(5) // blocks end with records 1, 3, 6, 10, 15
	trim := func(q state.TrimQuery) {
		t.Helper()
		q.Limit = 100
		if more, err := f.Trim(f.ctx(), q); err != nil || more {
			t.Fatalf("Trim = %v, %v, want no more", more, err)
		}
	}
	after := func(seq state.Seq, want []state.Record) {
		t.Helper()
		got, err := f.Records(f.ctx(), seq, 100)
		if err != nil {
			t.Errorf("Records after %d: %v", seq, err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("records after %d (-want +got):\n%s", seq, d)
		}
	}
	trim(state.TrimQuery{RecordsBefore: f.head.At + 1, UpTo: 0})
	after(0, all)
	trim(state.TrimQuery{RecordsBefore: all[3].At, UpTo: 100}) // all[3] begins the third block
	after(3, all[3:])
	trim(state.TrimQuery{RecordsBefore: f.head.At + 1, UpTo: 9}) // the fourth block ends with 10
	after(6, all[6:])
	_, err := f.Records(f.ctx(), 5, 100)
	f.refused(fault.Compacted, "records after 5", err)
	f.reopen()
	_, err = f.Records(f.ctx(), 0, 100)
	f.refused(fault.Compacted, "records after 0", err)
	after(15, nil)
	trim(state.TrimQuery{RecordsBefore: f.head.At + 1, UpTo: 15})
	after(15, nil)
	_, err = f.Records(f.ctx(), 14, 100)
	f.refused(fault.Compacted, "records after 14", err)
	f.now += TTL
	f.lead()
	next := record(16)
	b := f.batch(nil, next)
	f.commit(b)
	after(15, b.Records)
}

// endings commits ended tasks.
func (f *fixture) endings(tasks ...task.Task) {
	f.Helper()
	b := f.batch(nil)
	b.Ended = tasks
	f.commit(b)
}

// past returns the history of a job as instance.attempt@end.
func (f *fixture) past(k job.Key, instance int32, limit int) []string {
	f.Helper()
	got, err := f.History(f.ctx(), state.HistoryQuery{Job: k, Instance: instance, Limit: limit})
	if err != nil {
		f.Fatalf("History: %v", err)
	}
	var out []string
	for _, t := range got {
		if want := ended(t.ID.Job, t.ID.Instance, t.ID.Attempt, t.Since); !cmp.Equal(want, t) {
			f.Errorf("task %v (-want +got):\n%s", t.ID, cmp.Diff(want, t))
		}
		out = append(out, fmt.Sprintf("%d.%d@%d", t.ID.Instance, t.ID.Attempt, t.Since))
	}
	return out
}

func (f *fixture) expect(what string, got []string, want ...string) {
	f.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		f.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func testHistory(t *testing.T, f *fixture) {
	const web, db = job.Key("www/prod/web"), job.Key("www/prod/db")
	f.lead()
	f.endings(ended(web, 0, 1, 100), ended(web, 1, 1, 90), ended(db, 0, 1, 95))
	f.endings(ended(web, 0, 2, 120), ended(web, 1, 2, 120), ended(web, 1, 3, 80))
	f.reopen()
	f.expect("all", f.past(web, -1, 1000), "1.2@120", "0.2@120", "0.1@100", "1.1@90", "1.3@80")
	f.expect("the newest", f.past(web, -1, 2), "1.2@120", "0.2@120")
	f.expect("one slot", f.past(web, 1, 10), "1.2@120", "1.1@90", "1.3@80")
	f.expect("the newest of a slot", f.past(web, 1, 1), "1.2@120")
	f.expect("another job", f.past(db, -1, 10), "0.1@95")
	f.expect("no job", f.past("www/prod/we", -1, 10))
	for _, limit := range []int{-1, 0, state.MaxHistory + 1} {
		_, err := f.History(f.ctx(), state.HistoryQuery{Job: web, Instance: -1, Limit: limit})
		f.refused(fault.Invalid, fmt.Sprintf("a limit of %d", limit), err)
	}
}

func testTrim(t *testing.T, f *fixture) {
	f.lead()
	f.fill(5)
	var tasks []task.Task
	for i := range 20 {
		tasks = append(tasks, ended(job.Key(fmt.Sprintf("www/prod/job%d", i)), 0, 1, unit.Tick(100+i)))
	}
	f.endings(tasks...)
	_, err := f.Trim(f.ctx(), state.TrimQuery{})
	f.refused(fault.Invalid, "a limit of 0", err)
	q := state.TrimQuery{RecordsBefore: f.head.At + 1, UpTo: 100, EndedBefore: 115, Limit: 4}
	calls := 0
	for more := true; more; calls++ {
		if calls > 10 {
			t.Fatal("Trim does not come to an end")
		}
		if more, err = f.Trim(f.ctx(), q); err != nil {
			t.Fatalf("Trim: %v", err)
		}
	}
	if calls < 5 { // 5 blocks and 15 tasks in steps of 4
		t.Errorf("%d calls, want at least 5: each removes at most %d", calls, q.Limit)
	}
	for i := range 20 {
		want := []string{fmt.Sprintf("0.1@%d", 100+i)}
		if i < 15 {
			want = nil
		}
		f.expect(fmt.Sprintf("job%d", i), f.past(job.Key(fmt.Sprintf("www/prod/job%d", i)), -1, 10), want...)
	}
}

func testTrimPerJob(t *testing.T, f *fixture) {
	const web, db = job.Key("www/prod/web"), job.Key("www/prod/db")
	f.lead()
	for i := range 10 {
		at := unit.Tick(100 + i)
		f.endings(ended(web, int32(i%2), uint32(1+i/2), at))
		if i < 3 {
			f.endings(ended(db, 0, uint32(i+1), at))
		}
	}
	q := state.TrimQuery{PerJob: 3, KeepEnded: 105, Limit: 2}
	for more, calls := true, 0; more; calls++ {
		if calls > 10 {
			t.Fatal("Trim does not come to an end")
		}
		var err error
		if more, err = f.Trim(f.ctx(), q); err != nil {
			t.Fatalf("Trim: %v", err)
		}
	}
	// Ended before 105 and not among the newest three: 100 to 104.
	f.expect("web", f.past(web, -1, 10), "1.5@109", "0.5@108", "1.4@107", "0.4@106", "1.3@105")
	f.expect("db", f.past(db, -1, 10), "0.3@102", "0.2@101", "0.1@100")
}
