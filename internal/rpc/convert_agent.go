package rpc

import (
	"maps"
	"slices"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/task"
)

func helloToWire(h control.Hello) *pb.Hello {
	return &pb.Hello{
		ClusterUid: h.UID, Machine: machineToWire(h.Machine), SeenEpoch: epochToWire(h.Seen.Epoch),
		SeenRev: uint64(h.Seen.Rev), Session: h.Session, SinceEpoch: epochToWire(h.Since.Epoch), SinceRev: uint64(h.Since.Rev),
	}
}

func helloFromWire(p *pb.Hello) (control.Hello, error) {
	m, err := machineFromWire(p.GetMachine())
	return control.Hello{
		Session: p.GetSession(), UID: p.GetClusterUid(), Machine: m,
		Seen:  control.Seen{Epoch: epochFromWire(p.GetSeenEpoch()), Rev: state.Rev(p.GetSeenRev())},
		Since: control.Seen{Epoch: epochFromWire(p.GetSinceEpoch()), Rev: state.Rev(p.GetSinceRev())},
	}, err
}

func messageToWire(m control.Message) *pb.SessionRequest {
	p := &pb.SessionRequest{Session: m.Session, N: m.N, Full: m.Full, Bye: m.Bye, ObeyedRev: uint64(m.Obeyed)}
	if m.Machine != nil {
		p.Machine = machineToWire(*m.Machine)
	}
	for _, s := range m.Sightings {
		p.Sightings = append(p.Sightings, sightingToWire(s))
	}
	for _, f := range m.Facts {
		p.Facts = append(p.Facts, &pb.Fact{Source: text(f.Source), Seq: f.Seq, Payload: f.Payload})
	}
	return p
}

func messageFromWire(p *pb.SessionRequest) (control.Message, error) {
	m := control.Message{Session: p.GetSession(), N: p.GetN(), Full: p.GetFull(), Bye: p.GetBye(), Obeyed: state.Rev(p.GetObeyedRev())}
	if p.GetMachine() != nil {
		x, err := machineFromWire(p.GetMachine())
		if err != nil {
			return m, err
		}
		m.Machine = &x
	}
	for _, x := range p.GetSightings() {
		s, err := sightingFromWire(x)
		if err != nil {
			return m, err
		}
		m.Sightings = append(m.Sightings, s)
	}
	for _, f := range p.GetFacts() {
		if len(f.GetPayload()) > state.MaxFact || len(f.GetSource()) > maxText {
			return m, fault.Invalid.Errorf("a block of usage facts of %d bytes; want at most %d", len(f.GetPayload()), state.MaxFact)
		}
		m.Facts = append(m.Facts, state.Fact{Source: f.GetSource(), Seq: f.GetSeq(), Payload: f.GetPayload()})
	}
	return m, nil
}

func ordersToWire(o Orders) *pb.SessionResponse {
	p := &pb.SessionResponse{Epoch: epochToWire(o.Epoch), Rev: uint64(o.Rev), ClusterUid: o.UID, Leased: o.Leased, Bye: o.Bye}
	for _, x := range o.Orders {
		p.Orders = append(p.Orders, orderToWire(x))
	}
	for h, b := range o.Configs {
		if p.Configs == nil {
			p.Configs = map[string][]byte{}
		}
		p.Configs[h.String()] = b
	}
	for _, source := range slices.Sorted(maps.Keys(o.Acks)) {
		p.Acks = append(p.Acks, &pb.FactAck{Source: source, Seq: o.Acks[source]})
	}
	return p
}

func ordersFromWire(p *pb.SessionResponse) (Orders, error) {
	o := Orders{Epoch: epochFromWire(p.GetEpoch()), Rev: state.Rev(p.GetRev()), UID: p.GetClusterUid(), Leased: p.GetLeased(), Bye: p.GetBye()}
	for _, x := range p.GetOrders() {
		y, err := orderFromWire(x)
		if err != nil {
			return o, err
		}
		o.Orders = append(o.Orders, y)
	}
	for s, b := range p.GetConfigs() {
		h, err := hashFromWire(s)
		if err != nil {
			return o, err
		}
		if job.HashOf(b) != h {
			return o, fault.Internal.Errorf("the server sent a config under the hash %v that has another one; its tasks are not started", h)
		}
		if o.Configs == nil {
			o.Configs = map[job.Hash][]byte{}
		}
		o.Configs[h] = b
	}
	for _, a := range p.GetAcks() {
		if o.Acks == nil {
			o.Acks = map[string]uint64{}
		}
		o.Acks[a.GetSource()] = a.GetSeq()
	}
	return o, nil
}

func questionToWire(id uint64, q Question) *pb.LookResponse {
	return &pb.LookResponse{Id: id, TaskId: q.Task.String(), What: string(q.What), Path: text(q.Path), Offset: q.Offset, Max: q.Max}
}

func questionFromWire(p *pb.LookResponse) (q Question, err error) {
	if q.Task, err = task.ParseID(p.GetTaskId()); err != nil {
		return q, err
	}
	q.What, q.Path, q.Offset, q.Max = What(p.GetWhat()), p.GetPath(), p.GetOffset(), p.GetMax()
	switch q.What {
	case List, Read, Logs, Log:
		return q, nil
	}
	return q, fault.Invalid.Errorf("the server asks for %.40q; want list, read, logs or log: this agent is older than the server", p.GetWhat())
}

// answerToWire carries an answer, or the error instead of one.
func answerToWire(id uint64, a LookAnswer, err error) *pb.LookRequest {
	if err != nil {
		return &pb.LookRequest{Id: id, Error: text(err.Error()), ErrorKind: fault.Of(err).String()}
	}
	p := &pb.LookRequest{Id: id, Data: a.Data, Offset: a.Offset, Next: a.Next, Eof: a.EOF}
	for _, e := range a.Entries {
		p.Entries = append(p.Entries, &pb.LookEntry{
			Name: text(e.Name), Size: e.Size, Dir: e.Dir, Mode: text(e.Mode), ModifiedUnixNanos: e.Modified,
		})
	}
	return p
}

func answerFromWire(p *pb.LookRequest) (LookAnswer, error) {
	if p.GetError() != "" {
		return LookAnswer{}, kindByName(p.GetErrorKind()).Errorf("%s", p.GetError())
	}
	a := LookAnswer{Data: p.GetData(), Offset: p.GetOffset(), Next: p.GetNext(), EOF: p.GetEof()}
	for _, e := range p.GetEntries() {
		a.Entries = append(a.Entries, LookEntry{
			Name: e.GetName(), Size: e.GetSize(), Dir: e.GetDir(), Mode: e.GetMode(), Modified: e.GetModifiedUnixNanos(),
		})
	}
	return a, nil
}
