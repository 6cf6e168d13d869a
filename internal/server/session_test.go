package server

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

func order(n int32, v task.Verb) task.Order {
	return task.Order{ID: task.ID{Job: "r/prod/j", Instance: n, Attempt: 1}, Verb: v}
}

// TestOrdersWait: a slow agent gets everything that was said meanwhile in one
// message, in order.
func TestOrdersWait(t *testing.T) {
	s := &session{news: func() {}}
	for i, o := range []rpc.Orders{
		{Rev: 1, Orders: []task.Order{order(1, task.Run)}, Configs: map[job.Hash][]byte{{1}: []byte("a")}},
		{Rev: 2, Acks: map[string]uint64{"m/1": 4, "m/2": 1}, Leased: 7},
		{Rev: 3, Orders: []task.Order{order(2, task.Run), order(1, task.Stop)}, Configs: map[job.Hash][]byte{{2}: []byte("b")}, Acks: map[string]uint64{"m/1": 5}},
	} {
		if !s.put(o) {
			t.Fatalf("orders %d were not taken", i)
		}
	}
	got, _, _ := s.Take()
	want := rpc.Orders{
		Rev: 3, Orders: []task.Order{order(1, task.Run), order(2, task.Run), order(1, task.Stop)},
		Configs: map[job.Hash][]byte{{1}: []byte("a"), {2}: []byte("b")}, Acks: map[string]uint64{"m/1": 5, "m/2": 1}, Leased: 7,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	s.put(rpc.Orders{Rev: 4})
	if got, _, _ := s.Take(); got.Rev != 4 || got.Orders != nil {
		t.Errorf("got %+v; want what was said since", got)
	}
}

// TestOrdersBounded: an agent that takes nothing costs no memory without end.
func TestOrdersBounded(t *testing.T) {
	s := &session{news: func() {}}
	many := make([]task.Order, maxOrders/4)
	for i := range 4 {
		if !s.put(rpc.Orders{Orders: many}) {
			t.Fatalf("message %d of %d orders was refused", i, len(many))
		}
	}
	if s.put(rpc.Orders{Orders: many}) {
		t.Errorf("more than %d orders wait; want the session to end", maxOrders)
	}
	s.end()
	if _, some, over := s.Take(); !some || !over {
		t.Errorf("some %v, over %v; want what was said before the end, and the end", some, over)
	}
	if !s.put(rpc.Orders{Orders: many}) {
		t.Error("a session that has ended refuses orders; it should not care")
	}
}

// TestTail holds the records in memory to a plain list of all of them.
func TestTail(t *testing.T) {
	var x tail
	x.reset(100)
	all := []state.Record{}
	for n := range 150 {
		var commit []state.Record
		for range n * 37 % 1200 {
			commit = append(commit, state.Record{Seq: 101 + state.Seq(len(all)+len(commit))})
		}
		x.add(commit)
		all = append(all, commit...)
		last := 100 + state.Seq(len(all))
		for _, back := range []int{0, 1, 2, 500, 1201, maxTail - 1, maxTail, maxTail + 1200, len(all)} {
			for _, limit := range []int{1, 3, 1000, 5000} {
				if back > len(all) {
					continue
				}
				got, ok := x.after(last-state.Seq(back), limit)
				if !ok && back <= maxTail {
					t.Fatalf("%d records back: not here; want the last %d at least", back, maxTail)
				}
				want := all[len(all)-back:]
				want = want[:min(limit, len(want))]
				if ok && !slices.EqualFunc(want, got, func(a, b state.Record) bool { return a.Seq == b.Seq }) {
					t.Fatalf("%d records back, %d at most: got %d records, want %d", back, limit, len(got), len(want))
				}
			}
		}
		if x.kept > maxTail+1200 {
			t.Fatalf("%d records are kept; want about %d", x.kept, maxTail)
		}
	}
	if _, ok := x.after(101+state.Seq(len(all)), 1); ok {
		t.Error("a record that does not exist yet; want the store to say so")
	}
	if _, ok := x.after(0, 1); ok {
		t.Error("records before the first commit; want the store to be asked")
	}
}
