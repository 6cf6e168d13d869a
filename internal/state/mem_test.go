package state_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
)

// What every store must do, Mem does too: package store tests it with its suite.

// TestMemFail commits with an outcome that nobody knows.
func TestMemFail(t *testing.T) {
	ctx := t.Context()
	for _, apply := range []bool{false, true} {
		m := &state.Mem{Fail: func(*state.Batch) (bool, error) { return apply, fault.Timeout.Errorf("who knows") }}
		e, err := m.Acquire(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		b := &state.Batch{Epoch: e, Rev: 1, At: 5, Rows: []state.Row{{Table: state.JobTable, Key: "k", Value: []byte("v")}}}
		if err = m.Commit(ctx, b); fault.Of(err) != fault.Timeout {
			t.Errorf("Commit = %v, want a timeout", err)
		}
		var got []state.Row
		head, err := m.Load(ctx, func(r state.Row) error { got = append(got, r); return nil })
		if err != nil {
			t.Fatal(err)
		}
		want, wantHead := []state.Row(nil), state.Head{}
		if apply {
			want, wantHead = b.Rows, state.Head{Rev: 1, At: 5}
		}
		if d := cmp.Diff(want, got); d != "" || head != wantHead {
			t.Errorf("apply %v: head %+v, want %+v; rows (-want +got):\n%s", apply, head, wantHead, d)
		}
	}
}
