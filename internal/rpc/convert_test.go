package rpc

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

// filler gives every field of a value something that differs from zero and
// from the other fields.
type filler struct{ n int }

func (f *filler) next() int { f.n++; return f.n }

func (f *filler) fill(v reflect.Value) {
	switch v.Interface().(type) {
	case task.ID:
		v.Set(reflect.ValueOf(task.ID{Job: "role/prod/name", Instance: int32(f.next()), Attempt: uint32(f.next())}))
		return
	case machine.Mode:
		v.Set(reflect.ValueOf(machine.Draining))
		return
	case task.State:
		v.Set(reflect.ValueOf(task.Failed))
		return
	case task.Verb:
		v.Set(reflect.ValueOf(task.Stop))
		return
	case map[job.Hash][]byte:
		b := fmt.Appendf(nil, "{%d}", f.next())
		v.Set(reflect.ValueOf(map[job.Hash][]byte{job.HashOf(b): b}))
		return
	case What:
		v.Set(reflect.ValueOf(Log))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			f.fill(field)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(v.Index(0))
		f.fill(v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(k)
		f.fill(e)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(k, e)
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", f.next()))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.next()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.next()) % 200)
	default:
		panic("no filling for " + v.Type().String())
	}
}

// roundTrip fills a T, sends it over the wire as bytes, and wants it back.
func roundTrip[T any, P proto.Message](t *testing.T, to func(T) P, from func(P) (T, error)) {
	t.Helper()
	var want T
	(&filler{}).fill(reflect.ValueOf(&want).Elem())
	p := to(want)
	b, err := proto.Marshal(p)
	if err != nil {
		t.Fatalf("%T: %v", want, err)
	}
	back := p.ProtoReflect().New().Interface().(P)
	if err = proto.Unmarshal(b, back); err != nil {
		t.Fatalf("%T: %v", want, err)
	}
	got, err := from(back)
	if err != nil {
		t.Fatalf("%T: %v", want, err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%T (-want +got):\n%s", want, diff)
	}
}

func sure[A, B any](f func(A) B) func(A) (B, error) {
	return func(a A) (B, error) { return f(a), nil }
}

// TestRoundTrip holds that no field of the domain is lost on the wire. A field
// that is added to one of these types fails here until it is carried.
func TestRoundTrip(t *testing.T) {
	roundTrip(t, resourcesToWire, sure(resourcesFromWire))
	roundTrip(t, epochToWire, sure(epochFromWire))
	roundTrip(t, machineToWire, machineFromWire)
	roundTrip(t, sightingToWire, sightingFromWire)
	roundTrip(t, orderToWire, orderFromWire)
	roundTrip(t, helloToWire, helloFromWire)
	roundTrip(t, messageToWire, messageFromWire)
	roundTrip(t, ordersToWire, ordersFromWire)
	roundTrip(t, func(q Question) *pb.LookResponse { return questionToWire(7, q) }, questionFromWire)
	roundTrip(t, func(a LookAnswer) *pb.LookRequest { return answerToWire(7, a, nil) }, answerFromWire)
}

// complete wants every field of a message set.
func complete(t *testing.T, m proto.Message, except ...protoreflect.Name) {
	t.Helper()
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		skip := false
		for _, e := range except {
			skip = skip || e == f.Name()
		}
		if r.Has(f) == skip {
			t.Errorf("%s.%s: set is %v; want %v", r.Descriptor().Name(), f.Name(), r.Has(f), !skip)
		}
	}
}

// TestComplete holds that what users are shown has every field.
func TestComplete(t *testing.T) {
	b := newBackend(t)
	m := aMachine("m1")
	m.Overhead, m.Foreign, m.Limits = m.Capacity.Sub(m.Capacity), m.Capacity.Sub(m.Capacity), []string{"no cgroups"}
	err := b.turn(func(t *control.Turn) error { return t.Hello(control.Hello{UID: "uid-1", Session: "s", Machine: m}) })
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = b.Do(t.Context(), control.CreateJob{Job: aJob(1), By: "ann"}); err != nil {
		t.Fatal(err)
	}
	v := b.View()
	row, _ := v.Snapshot.Job("www-data/prod/hello")
	p, err := jobToWire(v.Snapshot, row)
	if err != nil {
		t.Fatal(err)
	}
	complete(t, p)
	x, _ := current(v.Snapshot, state.Slot{Job: row.Key})
	x.Ran, x.Failures, x.ID.Instance = x.Since, 3, 1
	complete(t, taskToWire(v, x))
	mrow, _ := v.Snapshot.Machine("m1")
	mrow.Leaving, mrow.Avoid, mrow.AvoidUntil, mrow.Avoided = true, "it is old", 1, 1
	complete(t, rowToWire(v.Snapshot, mrow))
	complete(t, strayToWire(state.Stray{ID: x.ID, Resources: x.Resources, Ports: x.Ports, Since: 1}))
	var rec state.Record
	rec.Seq, rec.At, rec.By, rec.Task = 1, 1, "ann", &state.TaskChange{Before: task.Pending, After: x}
	complete(t, eventToWire(rec))
	complete(t, summary(v.Snapshot, row))
}

// TestErrors holds that an error keeps its kind and its text on the way.
func TestErrors(t *testing.T) {
	for k := fault.Internal; k <= fault.Compacted; k++ {
		err := FromWire(toWire(k.Errorf("what was wrong: %w", errors.New("why"))))
		if fault.Of(err) != k || err.Error() != "what was wrong: why" {
			t.Errorf("%v arrives as %v: %v", k, fault.Of(err), err)
		}
		if got := kindByName(k.String()); got != k {
			t.Errorf("kindByName(%q) is %v", k, got)
		}
	}
	if got := fault.Compacted.String(); got != "compacted" {
		t.Errorf("the last kind is %q: this test must reach further", got)
	}
	for c := connect.CodeCanceled; c <= connect.CodeUnauthenticated; c++ {
		if back := codeOf(kindOf(c)); kindOf(back) != kindOf(c) {
			t.Errorf("code %v is kind %v, which is code %v", c, kindOf(c), back)
		}
	}
	if toWire(nil) != nil || FromWire(nil) != nil {
		t.Error("no error became one")
	}
}

func TestFromWireRefuses(t *testing.T) {
	id := "www-data/prod/hello/0.1"
	for what, p := range map[string]*pb.SessionRequest{
		"a bad id":       {Sightings: []*pb.Sighting{{Id: "../etc", State: "RUNNING"}}},
		"a bad state":    {Sightings: []*pb.Sighting{{Id: id, State: "PENDING"}}},
		"a bad hash":     {Sightings: []*pb.Sighting{{Id: id, State: "RUNNING", ConfigHash: "xy"}}},
		"a bad port":     {Sightings: []*pb.Sighting{{Id: id, State: "RUNNING", Ports: []uint32{70000}}}},
		"too many ports": {Sightings: []*pb.Sighting{{Id: id, State: "RUNNING", Ports: make([]uint32, maxPorts+1)}}},
		"less than none": {Sightings: []*pb.Sighting{{Id: id, State: "RUNNING", Resources: &pb.Resources{CpuMilli: -1}}}},
		"a large fact":   {Facts: []*pb.Fact{{Source: "m1", Payload: make([]byte, state.MaxFact+1)}}},
	} {
		if _, err := messageFromWire(p); fault.Of(err) != fault.Invalid {
			t.Errorf("%s: %v; want invalid", what, err)
		}
	}
	if _, err := ordersFromWire(&pb.SessionResponse{Configs: map[string][]byte{job.HashOf([]byte("a")).String(): []byte("b")}}); err == nil {
		t.Error("a config under another one's hash was taken")
	}
}
