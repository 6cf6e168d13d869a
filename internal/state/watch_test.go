package state_test

import (
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

// TestWatchHasNoUnmarkedGap reads records in pages of any size while others
// are committed and old ones are forgotten: each record comes once, in order,
// unless the reader is told that some are gone.
func TestWatchHasNoUnmarkedGap(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		m := &state.Mem{}
		e, err := m.Acquire(ctx, "leader")
		if err != nil {
			t.Fatal(err)
		}
		var head state.Head
		var at state.Seq // the reader has seen everything up to here
		marked := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				b := &state.Batch{Epoch: e, Base: head.Rev, Rev: head.Rev + 1, At: head.At + unit.Hour}
				for range rapid.IntRange(0, 5).Draw(t, "records") {
					head.Seq++
					b.Records = append(b.Records, state.Record{Seq: head.Seq, At: b.At, Kind: state.MachineRecord, Machine: &state.MachineChange{After: machine.Machine{ID: "m1"}}})
				}
				head.Rev, head.At = b.Rev, b.At
				if err := m.Commit(ctx, b); err != nil {
					t.Fatal(err)
				}
			case 2:
				q := state.TrimQuery{
					RecordsBefore: head.At - unit.Tick(rapid.IntRange(-1, 5).Draw(t, "hours kept"))*unit.Hour,
					UpTo:          state.Seq(rapid.Uint64Range(0, uint64(head.Seq)).Draw(t, "passed")), Limit: 1000,
				}
				if _, err := m.Trim(ctx, q); err != nil {
					t.Fatal(err)
				}
			default:
				limit := rapid.IntRange(1, 7).Draw(t, "page")
				page, err := m.Records(ctx, at, limit)
				if fault.Of(err) == fault.Compacted && err != nil {
					at = head.Seq // a fresh list
					marked++
					continue
				}
				if err != nil || len(page) > limit || len(page) == 0 && at < head.Seq {
					t.Fatalf("%d records after %d of %d, at most %d: error %v", len(page), at, head.Seq, limit, err)
				}
				for _, r := range page {
					if at++; r.Seq != at {
						t.Fatalf("record %d comes where %d should; %d gaps were marked", r.Seq, at, marked)
					}
				}
			}
		}
		if _, err := m.Records(ctx, head.Seq+1, 1); fault.Of(err) != fault.Compacted {
			t.Fatalf("a reader from the future: %v, want kind compacted", err)
		}
	})
}
