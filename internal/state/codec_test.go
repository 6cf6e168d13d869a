package state_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
)

// The generators fill every field with anything that its type can hold, as far
// as it makes sense: states and modes are those that exist.
var (
	anyTick  = rapid.Custom(func(t *rapid.T) unit.Tick { return unit.Tick(rapid.Int64().Draw(t, "tick")) })
	anyRev   = rapid.Custom(func(t *rapid.T) state.Rev { return state.Rev(rapid.Uint64().Draw(t, "rev")) })
	anyState = rapid.Custom(func(t *rapid.T) task.State {
		return task.State(rapid.IntRange(0, task.States-1).Draw(t, "state"))
	})
	anyKey = rapid.Custom(func(t *rapid.T) job.Key {
		return job.Key(rapid.StringMatching(`[a-z.]{0,5}/[a-z]{0,3}/[a-z_-]{0,9}`).Draw(t, "job"))
	})
	anyMachineID = rapid.Custom(func(t *rapid.T) machine.ID { return machine.ID(rapid.String().Draw(t, "machine id")) })
	anyHash      = rapid.Custom(func(t *rapid.T) job.Hash {
		return job.Hash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
	})
	anyResources = rapid.Custom(func(t *rapid.T) unit.Resources {
		n := rapid.Int64()
		return unit.Resources{
			CPU: n.Draw(t, "cpu"), RAM: n.Draw(t, "ram"), Disk: n.Draw(t, "disk"), GPU: n.Draw(t, "gpu"), Net: n.Draw(t, "net"),
		}
	})
	anyID = rapid.Custom(func(t *rapid.T) task.ID {
		return task.ID{Job: anyKey.Draw(t, "job"), Instance: rapid.Int32().Draw(t, "instance"), Attempt: rapid.Uint32().Draw(t, "attempt")}
	})
	anyTask = rapid.Custom(func(t *rapid.T) task.Task {
		return task.Task{
			ID: anyID.Draw(t, "id"), Config: anyHash.Draw(t, "config"), Resources: anyResources.Draw(t, "resources"),
			State: anyState.Draw(t, "state"), Machine: anyMachineID.Draw(t, "machine"),
			Ports: rapid.SliceOfN(rapid.Uint16(), 0, 5).Draw(t, "ports"),
			Room:  machine.ID(rapid.String().Draw(t, "room")), RoomUntil: unit.Tick(rapid.Int64().Draw(t, "room until")),
			GPUs:    rapid.SliceOfN(rapid.Uint16(), 0, 9).Draw(t, "gpus"),
			Created: anyTick.Draw(t, "created"), Since: anyTick.Draw(t, "since"), Ran: anyTick.Draw(t, "ran"),
			Failures: rapid.Int32().Draw(t, "failures"), Wanted: rapid.Bool().Draw(t, "wanted"), Reason: rapid.String().Draw(t, "reason"),
		}
	})
	anyStrays = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) state.Stray {
		return state.Stray{
			ID: anyID.Draw(t, "stray"), Resources: anyResources.Draw(t, "holds"), Since: anyTick.Draw(t, "since"),
			Ports: rapid.SliceOfN(rapid.Uint16(), 0, 3).Draw(t, "ports"), GPUs: rapid.SliceOfN(rapid.Uint16(), 0, 3).Draw(t, "gpus"),
		}
	}), 0, 3)
	anyMachine = rapid.Custom(func(t *rapid.T) machine.Machine {
		return machine.Machine{
			ID: anyMachineID.Draw(t, "id"), Host: rapid.String().Draw(t, "host"),
			Attributes: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) machine.Attribute {
				return machine.Attribute{Name: rapid.String().Draw(t, "name"), Value: rapid.String().Draw(t, "value")}
			}), 0, 3).Draw(t, "attributes"),
			Capacity: anyResources.Draw(t, "capacity"), Overhead: anyResources.Draw(t, "overhead"), Foreign: anyResources.Draw(t, "foreign"), Owed: anyResources.Draw(t, "owed"),
			Ports: machine.PortRange{From: rapid.Uint16().Draw(t, "from"), To: rapid.Uint16().Draw(t, "to")},
			Mode:  machine.Mode(rapid.IntRange(0, int(machine.Drained)).Draw(t, "mode")),
			Up:    rapid.Bool().Draw(t, "up"), Leaving: rapid.Bool().Draw(t, "leaving"), Avoid: rapid.String().Draw(t, "avoid"), Boot: rapid.String().Draw(t, "boot"),
			Limits: rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "limits"), AvoidUntil: anyTick.Draw(t, "avoid until"), Avoided: rapid.Int32().Draw(t, "avoided"),
		}
	})
	anyJob = rapid.Custom(func(t *rapid.T) state.Job {
		return state.Job{
			Key: anyKey.Draw(t, "key"),
			Instances: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) job.Range {
				return job.Range{From: rapid.Int32().Draw(t, "from"), To: rapid.Int32().Draw(t, "to")}
			}), 0, 3).Draw(t, "instances"),
			Config: anyHash.Draw(t, "config"), Created: anyTick.Draw(t, "created"), Updated: anyTick.Draw(t, "updated"),
			By: rapid.String().Draw(t, "by"), Rev: anyRev.Draw(t, "rev"), Unknown: unknown(t),
		}
	})
	anyQuota = rapid.Custom(func(t *rapid.T) state.Quota {
		return state.Quota{
			Role: rapid.String().Draw(t, "role"), Quota: tenant.Quota{Resources: anyResources.Draw(t, "quota")},
			Updated: anyTick.Draw(t, "updated"), By: rapid.String().Draw(t, "by"), Rev: anyRev.Draw(t, "rev"), Unknown: unknown(t),
		}
	})
	anyCluster = rapid.Custom(func(t *rapid.T) state.Cluster {
		return state.Cluster{
			Name: rapid.String().Draw(t, "name"), UID: rapid.String().Draw(t, "uid"), Incarnation: rapid.Uint64().Draw(t, "incarnation"),
			Recovery: rapid.Bool().Draw(t, "recovery"), Unknown: unknown(t),
		}
	})
)

// unknown returns fields that only a newer format has.
func unknown(t *rapid.T) string {
	if !rapid.Bool().Draw(t, "newer") {
		return ""
	}
	b := protowire.AppendTag(nil, 900, protowire.VarintType)
	b = protowire.AppendVarint(b, rapid.Uint64().Draw(t, "unknown number"))
	b = protowire.AppendTag(b, 901, protowire.BytesType)
	b = protowire.AppendString(b, rapid.String().Draw(t, "unknown string"))
	b = protowire.AppendTag(b, 902, protowire.Fixed64Type)
	return string(protowire.AppendFixed64(b, 1))
}

func same[T any](t *rapid.T, want, got T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("decode %+v: %v", want, err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("decoded (-want +got):\n%s", d)
	}
}

func TestRowsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCluster.Draw(t, "cluster")
		gotC, err := state.DecodeCluster(state.EncodeCluster(c))
		same(t, c, gotC, err)

		j := anyJob.Draw(t, "job")
		gotJ, err := state.DecodeJob(state.JobKey(j.Key), state.EncodeJob(j))
		same(t, j, gotJ, err)

		i := state.Instance{
			Slot:    state.Slot{Job: anyKey.Draw(t, "job"), N: rapid.Int32().Draw(t, "n")},
			Attempt: rapid.Uint32().Draw(t, "attempt"), Live: rapid.Bool().Draw(t, "live"), Open: rapid.Bool().Draw(t, "open"),
			Due: anyTick.Draw(t, "due"), Streak: rapid.Int32().Draw(t, "streak"), Failures: rapid.Int32().Draw(t, "failures"),
			Last: state.Outcome{
				Attempt: rapid.Uint32().Draw(t, "last"), State: anyState.Draw(t, "state"), At: anyTick.Draw(t, "at"),
				Machine: anyMachineID.Draw(t, "machine"), Reason: rapid.String().Draw(t, "reason"),
			},
			Rev: anyRev.Draw(t, "rev"), Unknown: unknown(t),
		}
		gotI, err := state.DecodeInstance(state.SlotKey(i.Slot), state.EncodeInstance(i))
		same(t, i, gotI, err)

		x := state.Task{Task: anyTask.Draw(t, "task"), Rev: anyRev.Draw(t, "rev"), Unknown: unknown(t)}
		gotX, err := state.DecodeTask(state.TaskKey(x.ID), state.EncodeTask(x))
		same(t, x, gotX, err)

		m := state.Machine{
			Machine: anyMachine.Draw(t, "machine"), Since: anyTick.Draw(t, "since"), Strays: anyStrays.Draw(t, "strays"),
			Rev: anyRev.Draw(t, "rev"), Unknown: unknown(t),
		}
		gotM, err := state.DecodeMachine(state.MachineKey(m.ID), state.EncodeMachine(m))
		same(t, m, gotM, err)

		a := state.Credential{
			Hash: rapid.String().Draw(t, "hash"), Kind: rapid.String().Draw(t, "kind"), Subject: rapid.String().Draw(t, "subject"),
			Expires: anyTick.Draw(t, "expires"), Used: rapid.Bool().Draw(t, "used"), Rev: anyRev.Draw(t, "rev"), Unknown: unknown(t),
		}
		gotA, err := state.DecodeCredential(state.CredentialKey(a.Hash), state.EncodeCredential(a))
		same(t, a, gotA, err)

		q := anyQuota.Draw(t, "quota")
		gotQ, err := state.DecodeQuota(state.QuotaKey(q.Role), state.EncodeQuota(q))
		same(t, q, gotQ, err)

		n := rapid.Uint64().Draw(t, "source")
		gotN, err := state.DecodeSource(state.EncodeSource(n))
		same(t, n, gotN, err)
	})
}

// TestRowsHoldEveryField fails when a row type gets a field that the round
// trip above does not fill: then the codec has to learn it too.
func TestRowsHoldEveryField(t *testing.T) {
	for what, want := range map[string]struct {
		value  any
		fields int
	}{
		"Cluster":    {state.Cluster{}, 5},
		"Job":        {state.Job{}, 8},
		"Instance":   {state.Instance{}, 10},
		"Outcome":    {state.Outcome{}, 5},
		"Task":       {state.Task{}, 3},
		"task.Task":  {task.Task{}, 15},
		"Machine":    {state.Machine{}, 5},
		"Stray":      {state.Stray{}, 5},
		"m.Machine":  {machine.Machine{}, 16},
		"Resources":  {unit.Resources{}, 5},
		"Credential": {state.Credential{}, 7},
		"Quota":      {state.Quota{}, 6},
		"QuotaCh.":   {state.QuotaChange{}, 2},
		"Record":     {state.Record{}, 10},
		"TaskChange": {state.TaskChange{}, 3},
		"JobChange":  {state.JobChange{}, 3},
		"MachineCh.": {state.MachineChange{}, 5},
		"Fact":       {state.Fact{}, 3},
	} {
		if got := reflect.TypeOf(want.value).NumField(); got != want.fields {
			t.Errorf("%s has %d fields, want %d: add the new one to the codec, its generator and here", what, got, want.fields)
		}
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	anyRecord := rapid.Custom(func(t *rapid.T) state.Record {
		r := state.Record{
			Seq: state.Seq(rapid.Uint64().Draw(t, "seq")), At: anyTick.Draw(t, "at"), By: rapid.String().Draw(t, "by"),
			Kind: state.Kind(rapid.IntRange(1, 7).Draw(t, "kind")),
		}
		switch r.Kind {
		case state.TaskRecord:
			r.Task = &state.TaskChange{Before: anyState.Draw(t, "before"), After: anyTask.Draw(t, "after"), Free: anyResources.Draw(t, "free")}
		case state.JobRecord:
			r.Job = &state.JobChange{Job: anyJob.Draw(t, "job"), Dropped: rapid.Bool().Draw(t, "dropped"), Reason: rapid.String().Draw(t, "reason")}
		case state.MachineRecord:
			r.Machine = &state.MachineChange{
				Before: anyMachine.Draw(t, "before"), After: anyMachine.Draw(t, "after"),
				Left: rapid.Bool().Draw(t, "left"), Free: anyResources.Draw(t, "free"), Strays: anyStrays.Draw(t, "strays"),
			}
		case state.ClusterRecord:
			c := anyCluster.Draw(t, "cluster")
			r.Cluster = &c
		case state.FactRecord:
			r.Fact = &state.Fact{
				Source: rapid.String().Draw(t, "source"), Seq: rapid.Uint64().Draw(t, "fact seq"),
				Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"),
			}
		case state.QuotaRecord:
			r.Quota = &state.QuotaChange{Quota: anyQuota.Draw(t, "quota"), Dropped: rapid.Bool().Draw(t, "dropped")}
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOfN(anyRecord, 0, 6).Draw(t, "records")
		if rapid.Bool().Draw(t, "numbered") { // as in a real batch
			for i := range records {
				records[i].Seq, records[i].At = records[0].Seq+state.Seq(i), records[0].At
			}
		}
		got, err := state.DecodeRecords(state.EncodeRecords(records))
		same(t, records, got, err)
	})
}

func TestEmptyRecords(t *testing.T) {
	var want []state.Record
	for k := range state.Kind(8) {
		want = append(want, state.Record{Kind: k, Seq: state.Seq(k) + 5})
	}
	got, err := state.DecodeRecords(state.EncodeRecords(want))
	if err != nil {
		t.Fatal(err)
	}
	want[1].Task, want[2].Job, want[3].Machine = &state.TaskChange{}, &state.JobChange{}, &state.MachineChange{}
	want[4].Cluster, want[5].Fact, want[6].Quota = &state.Cluster{}, &state.Fact{}, &state.QuotaChange{}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records without their fields (-want +got):\n%s", d)
	}
}

func TestKeysAreOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfN(anyID, 2, 8).Draw(t, "ids")
		for i := range ids[1:] { // near ones are the hard ones
			if rapid.Bool().Draw(t, "near") {
				ids[i+1].Job = ids[i].Job + job.Key(rapid.StringMatching(`[a.]{0,1}`).Draw(t, "more"))
			}
		}
		for _, a := range ids {
			for _, b := range ids {
				if got, want := strings.Compare(state.TaskKey(a), state.TaskKey(b)), a.Compare(b); got != want {
					t.Fatalf("keys of %v and %v compare as %d, want %d", a, b, got, want)
				}
				x, y := state.Slot{Job: a.Job, N: a.Instance}, state.Slot{Job: b.Job, N: b.Instance}
				if got, want := strings.Compare(state.SlotKey(x), state.SlotKey(y)), x.Compare(y); got != want {
					t.Fatalf("keys of %v and %v compare as %d, want %d", x, y, got, want)
				}
			}
		}
	})
}

// typical is a task as most are: it runs, on a machine, with a port.
func typical() state.Task {
	return state.Task{Rev: 12_345_678, Task: task.Task{
		ID:     task.ID{Job: "www-data/prod/frontend-service", Instance: 1234, Attempt: 17},
		Config: job.HashOf([]byte("x")), Resources: unit.Resources{CPU: 2500, RAM: 2048 * unit.MiB, Disk: 4096 * unit.MiB},
		State: task.Running, Machine: "machine-04711.rack17", Ports: []uint16{31234, 31235},
		Created: 490_000_000_000_000, Since: 490_000_100_000_000, Ran: 490_000_100_000_000, Failures: 3,
	}}
}

func TestTaskRowIsSmall(t *testing.T) {
	x := typical()
	if got, most := len(state.EncodeTask(x)), 120; got > most {
		t.Errorf("a running task's value has %d bytes, want at most %d", got, most)
	}
	if got, most := len(state.TaskKey(x.ID))+len(state.EncodeTask(x)), 200; got > most {
		t.Errorf("a running task's row has %d bytes, want at most %d", got, most)
	}
	x.Reason = strings.Repeat("r", task.MaxReason)
	if got, most := len(state.EncodeTask(x)), 120+task.MaxReason+2; got > most {
		t.Errorf("the value of a task with the longest reason has %d bytes, want at most %d", got, most)
	}
	if bytes.Contains(state.EncodeTask(x), []byte(x.ID.Job)) {
		t.Error("the value repeats the key")
	}
}

func TestRecordsAreSmall(t *testing.T) {
	var records []state.Record
	for i := range 1000 {
		x := typical().Task
		x.ID.Instance = int32(i)
		records = append(records, state.Record{Seq: state.Seq(i + 1_000_000), At: x.Since, Kind: state.TaskRecord, Task: &state.TaskChange{
			Before: task.Starting, After: x, Free: unit.Resources{CPU: int64(i), RAM: 100 << 30, Disk: 900 << 30},
		}})
	}
	if got, most := len(state.EncodeRecords(records))/len(records), 80; got > most {
		t.Errorf("a record takes %d bytes, want at most %d", got, most)
	}
}

// newer is fields that the next format might add.
func newer() []byte {
	b := protowire.AppendTag(nil, 100, protowire.BytesType)
	b = protowire.AppendString(b, "new")
	b = protowire.AppendTag(b, 101, protowire.VarintType)
	b = protowire.AppendVarint(b, 7)
	b = protowire.AppendTag(b, 102, protowire.StartGroupType)
	return protowire.AppendTag(b, 102, protowire.EndGroupType)
}

// TestNewerRows reads rows of the next format and writes them again.
func TestNewerRows(t *testing.T) {
	key := state.TaskKey(typical().ID)
	slot := state.SlotKey(state.Slot{Job: "a/prod/b", N: 1})
	for name, row := range map[string]struct {
		old  []byte
		copy func(b []byte) ([]byte, error)
	}{
		"cluster": {state.EncodeCluster(state.Cluster{Name: "n"}), func(b []byte) ([]byte, error) {
			x, err := state.DecodeCluster(b)
			return state.EncodeCluster(x), err
		}},
		"job": {state.EncodeJob(state.Job{By: "ann"}), func(b []byte) ([]byte, error) {
			x, err := state.DecodeJob("a/prod/b", b)
			return state.EncodeJob(x), err
		}},
		"instance": {state.EncodeInstance(state.Instance{Attempt: 2}), func(b []byte) ([]byte, error) {
			x, err := state.DecodeInstance(slot, b)
			return state.EncodeInstance(x), err
		}},
		"task": {state.EncodeTask(typical()), func(b []byte) ([]byte, error) {
			x, err := state.DecodeTask(key, b)
			return state.EncodeTask(x), err
		}},
		"machine": {state.EncodeMachine(state.Machine{Rev: 3}), func(b []byte) ([]byte, error) {
			x, err := state.DecodeMachine("m", b)
			return state.EncodeMachine(x), err
		}},
		"quota": {state.EncodeQuota(state.Quota{By: "ann"}), func(b []byte) ([]byte, error) {
			x, err := state.DecodeQuota("www", b)
			return state.EncodeQuota(x), err
		}},
		"credential": {state.EncodeCredential(state.Credential{Kind: "join"}), func(b []byte) ([]byte, error) {
			x, err := state.DecodeCredential("h", b)
			return state.EncodeCredential(x), err
		}},
	} {
		// New fields may stand anywhere among the old ones.
		for where, b := range map[string][]byte{
			"after":  append(slices.Clone(row.old), newer()...),
			"before": slices.Concat(row.old[:1], newer(), row.old[1:]),
		} {
			b[0] = state.Format + 1
			got, err := row.copy(b)
			want := append(slices.Clone(row.old), newer()...)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, new fields %s: got %x, %v, want %x", name, where, got, err, want)
			}
		}
		for _, format := range []byte{0, state.Format + 2, 255} {
			b := slices.Clone(row.old)
			b[0] = format
			if _, err := row.copy(b); err == nil || fault.Of(err) != fault.Internal || !strings.Contains(err.Error(), fmt.Sprintf("format %d", format)) {
				t.Errorf("%s of format %d: error %v, want one of kind internal that says so", name, format, err)
			}
		}
	}
}

// TestNewerRecords reads a block in which there is something new at each level.
func TestNewerRecords(t *testing.T) {
	b := []byte{state.Format + 1}
	b = append(b, newer()...)
	inner := protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.VarintType), 9) // attempt
	inner = append(inner, newer()...)
	rec := protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), uint64(state.TaskRecord))
	rec = protowire.AppendBytes(protowire.AppendTag(rec, 5, protowire.BytesType), inner)
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), append(rec, newer()...))
	rec = protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 200) // a new kind
	rec = protowire.AppendBytes(protowire.AppendTag(rec, 70, protowire.BytesType), []byte("what is new"))
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), rec)
	got, err := state.DecodeRecords(b)
	if err != nil {
		t.Fatal(err)
	}
	want := []state.Record{
		{Seq: 1, Kind: state.TaskRecord, Task: &state.TaskChange{After: task.Task{ID: task.ID{Attempt: 9}}}},
		{Seq: 2, Kind: 200},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
}
