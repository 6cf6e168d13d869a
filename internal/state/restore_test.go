package state_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

func restore(rows ...state.Row) (*state.Snapshot, error) {
	return state.Restore(func(yield func(state.Row) error) (state.Head, error) {
		for _, r := range rows {
			if err := yield(r); err != nil {
				return state.Head{}, err
			}
		}
		return state.Head{Rev: 9, Seq: 8, At: 7}, nil
	})
}

func TestRestoreBadRows(t *testing.T) {
	x := typical()
	good := state.EncodeTask(x)
	for name, r := range map[string]state.Row{
		"no value":                {Table: state.TaskTable, Key: state.TaskKey(x.ID), Value: []byte{}},
		"a value cut short":       {Table: state.TaskTable, Key: state.TaskKey(x.ID), Value: good[:len(good)-1]},
		"a key cut short":         {Table: state.TaskTable, Key: state.TaskKey(x.ID)[1:][:4], Value: good},
		"a key without its zero":  {Table: state.TaskTable, Key: "www-data/prod/web12345678", Value: good},
		"an unknown state":        {Table: state.TaskTable, Key: state.TaskKey(x.ID), Value: []byte{state.Format, 7 << 3, 99}},
		"a slot without number":   {Table: state.InstanceTable, Key: "a/b", Value: state.EncodeInstance(state.Instance{})},
		"a config of other hash":  {Table: state.ConfigTable, Key: state.ConfigKey(job.HashOf([]byte("x"))), Value: []byte("{}")},
		"a config that is none":   {Table: state.ConfigTable, Key: state.ConfigKey(job.HashOf([]byte("x"))), Value: []byte("x")},
		"a wrong wire type":       {Table: state.MachineTable, Key: "m-1", Value: []byte{state.Format, 1 << 3, 1}},
		"a port too high":         {Table: state.MachineTable, Key: "m-1", Value: []byte{state.Format, 6 << 3, 0xff, 0xff, 0x7f}},
		"no quota":                {Table: state.QuotaTable, Key: "www", Value: []byte{state.Format, 1 << 3, 1}},
		"no flag":                 {Table: state.CredentialTable, Key: "h", Value: []byte{state.Format, 4 << 3, 2}},
		"another format":          {Table: state.ClusterTable, Key: "cluster", Value: []byte{state.Format + 2}},
		"an empty source":         {Table: state.SourceTable, Key: "m-1/1"},
		"a range without its end": {Table: state.JobTable, Key: "a/prod/b", Value: []byte{state.Format, 1<<3 | 2, 1, 0}},
	} {
		s, err := restore(r)
		if s != nil || err == nil || fault.Of(err) != fault.Internal {
			t.Errorf("%s: restored %v with error %v of kind %v, want kind internal", name, s != nil, err, fault.Of(err))
			continue
		}
		if want := fmt.Sprintf("%v row %.100q", r.Table, r.Key); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %q, want it to name the row: %s", name, err, want)
		}
	}
}

func TestRestoreTwice(t *testing.T) {
	x := typical()
	row := state.Row{Table: state.TaskTable, Key: state.TaskKey(x.ID), Value: state.EncodeTask(x)}
	if _, err := restore(row, row); err == nil || fault.Of(err) != fault.Internal || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a task that comes twice: error %v of kind %v, want kind internal", err, fault.Of(err))
	}
}

func TestRestore(t *testing.T) {
	placed, waiting := typical(), typical()
	waiting.ID.Instance++
	waiting.State, waiting.Machine = task.Pending, ""
	row := func(x state.Task) state.Row {
		return state.Row{Table: state.TaskTable, Key: state.TaskKey(x.ID), Value: state.EncodeTask(x)}
	}
	s, err := restore(row(waiting), row(placed),
		state.Row{Table: 99, Key: "of a newer format", Value: []byte{1, 2}},
		state.Row{Table: state.SourceTable, Key: state.SourceKey("m-1/1"), Value: state.EncodeSource(42)})
	if err != nil {
		t.Fatal(err)
	}
	if s.Rev != 9 || s.Seq != 8 || s.At != 7 || s.Source("m-1/1") != 42 {
		t.Errorf("restored at %d, %d, %d, source %d; want 9, 8, 7, 42", s.Rev, s.Seq, s.At, s.Source("m-1/1"))
	}
	var got, want []state.Task
	for x := range s.Tasks() {
		got = append(got, x)
	}
	want = append(want, placed, waiting)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("tasks (-want +got):\n%s", d)
	}
	var on []task.ID
	for x := range s.TasksOn(placed.Machine) {
		on = append(on, x.ID)
	}
	for x := range s.TasksOn("") {
		t.Errorf("task %v has no machine, and a place", x.ID)
	}
	if d := cmp.Diff([]task.ID{placed.ID}, on); d != "" {
		t.Errorf("tasks on %s (-want +got):\n%s", placed.Machine, d)
	}
}
